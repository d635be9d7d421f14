"""Measures how far this machine's clock is from the server's, and detects keys that are dead because of it.

A key lives until its expiry by the *server's* clock. On a machine whose clock is two hours slow, a key with a lifetime
of one hour is dead when it is made. Every answer carries the server's time in its `Date` header, and the answer to a
create says when the key was made. So from the first answer on, lifetimes are counted from the server's time. Rules:

1. The difference is known only up to the time that the request took, and one second. If the difference may be 5 seconds
   or less, it counts as zero.
2. If one of the two times fits this machine's clock, the difference counts as zero, because a machine between here and
   the API may write a `Date` from a wrong clock. Once the key's time has shown that the `Date` is wrong, a `Date` alone
   is not believed until it fits again.
3. A time that is a hundred years away is ignored. One of the two times alone does not prove that this machine's clock
   is fast, because the answer may be an old one, from a cache or a test. If both times agree, they prove it. It is safe
   to require both, because a fast clock makes no key die early.
4. The `Date` of a GET may be older than it says, because a cache may have answered. So it never reduces a difference
   that is already known. The `Date` of a POST or a DELETE may reduce it, because no cache answers them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from respan_async._http.header_parsing import date
from respan_async.errors import InvalidResponseError
from respan_async.events import logger
from respan_async.models import CreatedKey, CreateKeyRequest

_TOLERATED: Final = timedelta(seconds=5)
_RESOLUTION: Final = timedelta(seconds=1)
_NONE: Final = timedelta(0)
_FARTHEST: Final = timedelta(days=36_525)


class ClockSkew:
    """Measure the difference between the clocks.

    Attributes:
        ahead: How far the server's clock is ahead of this machine's; negative if it is behind.
        last_ahead: The same by the last answer alone, which may have come from a cache. Who waits for the later of two
            times takes both.
    """

    def __init__(self) -> None:
        self.ahead = self.last_ahead = _NONE
        self._is_told = self._is_date_wrong = False

    def measure(
        self,
        headers: Mapping[str, str],
        made: datetime | None,
        sent: datetime,
        received: datetime,
        *,
        cacheable: bool,
    ) -> datetime | None:
        """Compare this machine's clock with the times in an answer; return the believed server time, if there is one.

        Args:
            headers: The headers of the answer; a `Date` from a cache (`Age`) is an old time.
            made: When the key was made, according to the answer; None if it has no such time.
            sent: When the request was sent, by this machine's clock.
            received: When the answer came.
            cacheable: Whether the answer may be an old one from a cache, even without an `Age` header.
        """
        there = date(headers.get("Date")) if headers.get("Age", "0").strip() == "0" else None
        times = [time for time in (there, made) if time is not None and abs(time - sent) < _FARTHEST]
        fitting = [time for time in times if abs(_nearest(time, sent, received)) <= _TOLERATED]
        if there is not None and there in times:
            self._is_date_wrong = there not in fitting and (bool(fitting) or (self._is_date_wrong and made is None))
            if self._is_date_wrong:
                times.remove(there)
        if not times:
            return None
        believed = fitting[0] if fitting else times[0]
        if there is not None or believed > sent:
            self._note(believed, sent, received, self._least(there, made, received - sent, cacheable=cacheable))
        return believed

    def _least(self, there: datetime | None, made: datetime | None, took: timedelta, *, cacheable: bool) -> timedelta:
        """Return the least value that these two times allow for `ahead` (rules 3 and 4)."""
        if made is None:
            return self.ahead if cacheable else min(self.ahead, _NONE)
        agree = there is not None and abs(there - made) <= _TOLERATED + took
        return -_FARTHEST if agree else min(self.ahead, _NONE)

    def dead_on_arrival(
        self,
        key: CreatedKey,
        request: CreateKeyRequest,
        fields: Mapping[str, Any],
        sent: datetime,
        received: datetime,
        believed: datetime | None,
    ) -> InvalidResponseError | None:
        """Return the error for a key that had expired when it arrived; None if the key is alive.

        If the caller asked for an expiry in the past, a dead key is the correct result, not an error.

        The key is dead if all times in the answer say so: the time when it was made, its expiry, and the `Date`. Then
        the call has left no living key.

        Args:
            key: The key.
            request: The fields that the caller asked for.
            fields: The fields that were sent, in JSON types.
            sent: When the request was sent, by this machine's clock.
            received: When the answer came.
            believed: The time that `measure` has returned.
        """
        made, expiry_date = key.created_at, fields.get("expiry_date")
        if (
            made is None
            or believed is None
            or expiry_date is None
            or (request.expiry_date and request.expiry_date <= sent)
        ):
            return None
        ends = datetime.fromisoformat(expiry_date)
        if min(made, believed + _RESOLUTION) < max(ends, key.expiry_date or ends):
            return None
        # Another attempt helps if its key would live longer, now that the server's clock is known.
        mended = bool(request.expires_in) and received + self.ahead + (request.expires_in or _NONE) > made
        behind = f"; this machine's clock is {self.ahead.total_seconds():.0f} s behind" if self.ahead > _NONE else ""
        return InvalidResponseError(
            f"create: the key arrived dead: it was made at {_shown(made)} by the server's clock, "
            f"and expired at {_shown(ends)}{behind}",
            retryable=mended,
        )

    def _note(self, there: datetime, sent: datetime, received: datetime, least: timedelta) -> None:
        nearest = _nearest(there, sent, received)
        middle = ((there - received) + (there - sent) + _RESOLUTION) / 2
        self.last_ahead = _NONE if abs(nearest) <= _TOLERATED else middle
        self.ahead = max(self.last_ahead, least)
        if self.ahead and not self._is_told:
            self._is_told = True
            logger.warning(
                "this machine's clock is %.0f s %s the server's; expires_in is counted from the server's",
                abs(self.ahead.total_seconds()),
                "behind" if self.ahead > _NONE else "ahead of",
            )


def _shown(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _nearest(there: datetime, sent: datetime, received: datetime) -> timedelta:
    """The smallest skew consistent with the server having written its time between `sent` and `received`, ±1 s."""
    return max(there - received, min(there - sent + _RESOLUTION, _NONE))
