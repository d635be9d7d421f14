"""How far this machine's clock is from the server's, as answers tell it, and the keys that are dead because of it.

A key lives until its expiry by the *server's* clock. On a machine whose clock is two hours slow, a key that is to live
for one hour is dead when it is made. Every answer says in its `Date` what time it is for the server; so from the first
one on, lifetimes are counted from that. The difference is known to the time that the request took and one second: where
it may be a few seconds only, it counts as none.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from respan_async._http.headers import date
from respan_async.errors import InvalidResponseError
from respan_async.events import logger
from respan_async.models import CreatedKey, CreateKeyRequest

_TOLERATED: Final = timedelta(seconds=5)
_RESOLUTION: Final = timedelta(seconds=1)
_NONE: Final = timedelta(0)


class ClockSkew:
    """Measure the difference between the clocks.

    Attributes:
        ahead: By how much the server's clock is ahead of this machine's; negative, where it is behind.
    """

    def __init__(self) -> None:
        self.ahead = _NONE
        self._is_told = False

    def measure(self, headers: Mapping[str, str], sent: datetime, received: datetime) -> datetime | None:
        """Compare with the `Date` of an answer, and return that; one out of a cache (`Age`) tells an old time.

        Args:
            headers: Those of the answer.
            sent: When the request was sent, by this machine's clock.
            received: When the answer came.
        """
        there = date(headers.get("Date"))
        if there is None or headers.get("Age", "0").strip() != "0":
            return None
        self._note(there, sent, received)
        return there

    def dead_on_arrival(
        self,
        key: CreatedKey,
        request: CreateKeyRequest,
        fields: Mapping[str, Any],
        sent: datetime,
        received: datetime,
        there: datetime | None,
    ) -> InvalidResponseError | None:
        """Return the error of a key that was dead when it was made, though it was to live; None if that is not so.

        It is dead where everything in the answer says so: when the key was made, its expiry, and the `Date`. Nothing
        that lives is left then. A key for which a date in the past was asked for is what was asked for.

        Args:
            key: The key.
            request: What it should be.
            fields: What was sent, in JSON types.
            sent: When that was, by this machine's clock.
            received: When the answer came.
            there: What `measure` has returned.
        """
        made, expiry_date = key.created_at, fields.get("expiry_date")
        if made is None or expiry_date is None or (request.expiry_date and request.expiry_date <= sent):
            return None
        ends = datetime.fromisoformat(expiry_date)
        if min(made, made if there is None else there + _RESOLUTION) < max(ends, key.expiry_date or ends):
            return None
        if there is None:
            self._note(made, sent, received)
        # Another attempt is of use where it would end later, now that the server's clock is known.
        mended = bool(request.expires_in) and received + self.ahead + (request.expires_in or _NONE) > made
        behind = f"; this machine's clock is {self.ahead.total_seconds():.0f} s behind" if self.ahead > _NONE else ""
        return InvalidResponseError(
            f"create: the key arrived dead: it was made at {_shown(made)} by the server's clock, "
            f"and expired at {_shown(ends)}{behind}",
            retryable=mended,
        )

    def _note(self, there: datetime, sent: datetime, received: datetime) -> None:
        # The server said so between the two, within the second.
        least, most = there - received, there + _RESOLUTION - sent
        # Whatever lies between these fits; where that may be next to nothing, it counts as nothing.
        nearest = max(least, min(most, _NONE))
        self.ahead = _NONE if abs(nearest) <= _TOLERATED else (least + most) / 2
        if self.ahead and not self._is_told:
            self._is_told = True
            logger.warning(
                "this machine's clock is %.0f s %s the server's; expires_in is counted from the server's",
                abs(self.ahead.total_seconds()),
                "behind" if self.ahead > _NONE else "ahead of",
            )


def _shown(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
