"""Validates the settings that every shared window has."""

from respan_async._arguments import is_number, shown
from respan_async._pacing.rate_limit import RateLimit
from respan_async.errors import ConfigurationError


def check_settings(limit: object, key: object, fallback_share: object, timeout: object) -> None:
    """Check the user's settings; the messages quote nothing that may be a password.

    Raises:
        ConfigurationError: `limit` is not a `RateLimit`, `key` is not a valid name, `fallback_share` is not a number
            from 0 to 1, or `timeout` is not a number of seconds above 0.
    """
    if not isinstance(limit, RateLimit):
        raise ConfigurationError(f"limit: expected a RateLimit, got {type(limit).__name__}")
    if not isinstance(key, str) or not key:
        raise ConfigurationError(f"key: expected a name, got {type(key).__name__}")
    if not is_number(fallback_share) or not 0 <= fallback_share <= 1:
        raise ConfigurationError(f"fallback_share: expected a number from 0 to 1, got {shown(fallback_share)}")
    if not is_number(timeout) or not 0 < timeout < float("inf"):
        raise ConfigurationError(f"timeout: expected a number of seconds above 0, got {shown(timeout)}")
