"""Makes the client of a command, for the account whose key is in the environment."""

import argparse
import os
from typing import Any, Final

from respan_async.cli.exit_codes import WrongUse
from respan_async.client import AsyncRespan
from respan_async.errors import ConfigurationError
from respan_async.secret import as_secret

_API_KEY: Final = ("RESPAN_API_KEY", "RESPAN_API_KEY_FILE")
_ITS_FILE: Final = "its file in RESPAN_API_KEY_FILE"
_NO_HTTP: Final = "give --base-url or RESPAN_BASE_URL an https:// URL, or a tunnel's end on this machine"


def make_client(arguments: argparse.Namespace, **settings: Any) -> AsyncRespan:
    """Make a client of the account whose key is in the environment.

    Args:
        arguments: With `base_url`, `proxy` and `ca_file`.
        **settings: Settings of the client; an `api_key` among them takes precedence.

    Raises:
        WrongUse: There is no key, or a setting is wrong.
    """
    if "api_key" not in settings and not any(os.environ.get(name) for name in _API_KEY):
        raise WrongUse(f"RESPAN_API_KEY: expected the API key in this environment variable, or {_ITS_FILE}, got none")
    if arguments.proxy and "@" in arguments.proxy:
        raise WrongUse(
            "--proxy: expected a URL without a user and a password, which others could see among the arguments; put it "
            "into RESPAN_PROXY"
        )
    try:
        proxy = as_secret(arguments.proxy or os.environ.get("RESPAN_PROXY") or None)
        given = {"base_url": arguments.base_url, "proxy": proxy, "ssl": arguments.ca_file}
        return AsyncRespan(**{**given, **settings})
    except ConfigurationError as error:
        raise WrongUse(str(error).replace("allow_http=True allows that", _NO_HTTP)) from None
