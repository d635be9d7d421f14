"""The rate limit of an account: a number of requests in a period."""

from typing import Any, Final

import attrs

from respan_async._arguments import is_number, is_whole, shown
from respan_async.errors import ConfigurationError

LONGEST_PERIOD: Final = 31_536_000_000.0
"""Seconds: a thousand years, of which a calendar can still say when they are over."""


def _check_limit(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not is_whole(value) or value < 1:
        raise ConfigurationError(
            f"{attribute.name}: expected a whole number of requests, 1 or more, got {shown(value)}"
        )


def _check_per(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not is_number(value) or not 0 < value <= LONGEST_PERIOD:
        raise ConfigurationError(
            f"{attribute.name}: expected a number of seconds above 0 and up to a thousand years, got {shown(value)}"
        )


@attrs.frozen
class RateLimit:
    """At most `limit` requests in any `per` seconds, as `RateLimit(60, per=60)`.

    Args:
        limit: Requests, 1 or more.
        per: The period in seconds, more than 0, and a thousand years at most.

    Raises:
        ConfigurationError: `limit` or `per` is invalid.
    """

    limit: int = attrs.field(validator=_check_limit)
    per: float = attrs.field(kw_only=True, validator=_check_per)

    @property
    def interval(self) -> float:
        """Seconds between two evenly spread requests."""
        return self.per / self.limit

    def __str__(self) -> str:
        return f"{self.limit}/{self.per:g}s"


DOCUMENTED_LIMIT: Final = RateLimit(60, per=60)
"""The limit that Respan documents for these endpoints: 60 requests a minute for the organisation, on every plan."""
