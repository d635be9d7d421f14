"""Chooses the pace of a command: its own limit, or a window that processes share in Redis."""

import argparse
from typing import Final, Literal

from respan_async._pacing.rate_limit import DOCUMENTED_LIMIT, RateLimit
from respan_async._pacing.window import Window
from respan_async.cli.connection_urls import connection_url
from respan_async.cli.exit_codes import WrongUse
from respan_async.errors import ConfigurationError

ENVIRONMENT: Final = "RESPAN_REDIS"


def pace_of(
    arguments: argparse.Namespace, otherwise: RateLimit | Literal["auto"]
) -> RateLimit | Window | Literal["auto"]:
    """Return the pace, as a setting of the client.

    Args:
        arguments: With `rate`, a limit, "auto" or None; and `redis`, a URL or None.
        otherwise: The pace if neither is given.

    Raises:
        WrongUse: The URL is invalid, there is no limit to share, or the extra `redis` is not installed.
    """
    rate: RateLimit | Literal["auto"] | None = arguments.rate
    url = connection_url(arguments.redis, ENVIRONMENT)
    if not url:
        return rate or otherwise
    if rate == "auto":
        raise WrongUse("--rate: expected a limit such as 60/60s, which all processes share in Redis, got auto")
    try:
        from respan_async.redis import RedisWindow
    except ImportError as error:
        raise WrongUse(f"--redis: {error}") from None
    try:
        return RedisWindow(url, rate or DOCUMENTED_LIMIT)
    except (ConfigurationError, ValueError) as error:
        raise WrongUse(f"--redis: {str(error).removeprefix('redis: ')}") from None
