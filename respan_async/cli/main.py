"""Runs one command of `respan-keys` and returns its exit code.

Data goes to standard output or `--out`, everything else to standard error. The exit codes: 0 all done, 1 some of it
failed, 2 wrong use, 3 the API key was refused, 130 interrupted, 141 the reader of standard output went away.
"""

import os
import sys
from collections.abc import Sequence

from respan_async.cli.arguments import read_arguments
from respan_async.cli.closed_streams import keep_places
from respan_async.cli.console import ConsoleLogHandler, say
from respan_async.cli.exit_codes import BROKEN_PIPE, INTERRUPTED, exit_code, sentence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: The arguments are wrong (2), or asked for help or the version (0).
    """
    keep_places()
    arguments = read_arguments(sys.argv[1:] if argv is None else argv)
    try:
        with ConsoleLogHandler(say, verbose=arguments.verbose) as log:
            code: int = arguments.run(arguments, log)
    except BrokenPipeError:
        return BROKEN_PIPE
    except KeyboardInterrupt:
        say("respan-keys: interrupted")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("RESPAN_KEYS_DEBUG"):
            raise
        say(f"respan-keys: {sentence(error)}")
        return exit_code(error)
    return code
