"""The account a command works on."""

import argparse
import os
from typing import Any

from respan_async.cli.exits import WrongUse
from respan_async.client import AsyncRespan


def connect(arguments: argparse.Namespace, **settings: Any) -> AsyncRespan:
    """Make a client of the account whose key is in the environment.

    Args:
        arguments: With `base_url`.
        **settings: Of the client; an `api_key` among them is used instead.

    Raises:
        WrongUse: There is no key.
        ConfigurationError: A setting is wrong.
    """
    if "api_key" not in settings and not os.environ.get("RESPAN_API_KEY"):
        raise WrongUse("RESPAN_API_KEY: expected the API key in this environment variable, got none")
    return AsyncRespan(**{"base_url": arguments.base_url, **settings})
