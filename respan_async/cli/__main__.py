"""Runs the command line as `python -m respan_async.cli`."""

import sys

from respan_async.cli import main

sys.exit(main())
