"""Decides whether and when a failed attempt is made again: a policy over tenacity that reads what failures mean."""

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal

import attrs
import tenacity as _t

from respan_async._arguments import is_number, is_whole, shown
from respan_async.errors import APIStatusError, ConfigurationError, Effect, RespanError

_DAY: Final = 86400.0


def _check_whole(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not is_whole(value):
        raise ConfigurationError(f"{attribute.name}: expected a whole number, got {shown(value)}")


def _check_seconds(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not is_number(value):
        raise ConfigurationError(f"{attribute.name}: expected a number of seconds, got {shown(value)}")


_TAKEN: Final = frozenset({401, 403, 404, 408, 409, 422})
"""Statuses with a fixed meaning, which no setting may change."""


def _as_statuses(value: Iterable[int]) -> frozenset[int]:
    try:
        statuses = frozenset(value)
    except TypeError:  # not an iterable, or one of unhashable values
        statuses = frozenset({-1})
    # By exact type, because True is an int to Python.
    if not all(type(status) is int and 400 <= status <= 599 and status not in _TAKEN for status in statuses):
        raise ConfigurationError(
            "refusal_statuses: expected whole numbers from 400 to 599, but for "
            f"{', '.join(map(str, sorted(_TAKEN)))}, got {shown(value)}"
        )
    return statuses


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """The number and the timing of a call's attempts.

    Before the n-th retry it waits a random time between 0 and `min(maximum, initial * 2**(n - 1))` seconds (full
    jitter). If the server asked to wait, it waits that long, and a little more: at most a twentieth of that, or
    `initial` seconds. It never waits less, except for an item of a batch, which asks again after `max_retry_after`.
    Cancellation is never retried.

    Args:
        max_attempts: The most requests that count, 1 or more; refusals do not count, nor connections that an outage
            prevented.
        initial: Seconds, more than 0.
        maximum: Seconds, `initial` or more.
        max_retry_after: Seconds; a single call fails at once if the server asks for a longer wait.
        max_refusals: Refusals do not count as attempts. A call fails once it was refused more often than this, and no
            request of the client for the same operation was let in since its first refusal: then the quota is
            exhausted, and a batch ends with it. An outage may also keep the request of one item from being served this
            often; if the token's function hangs, the batch waits as long as it does.
        refusal_statuses: Statuses by which a proxy in front of the API refuses for the limit, besides 429, which always
            counts: `{503}` for nginx's `limit_req`, whose `limit_req_status` is 503 by default. Any iterable of
            integers from 400 to 599, except 401, 403, 404, 408, 409 and 422. An answer whose body is the API's own JSON
            came from behind the proxy, and keeps its meaning.
        on_unknown: If an attempt may have made a key that cannot be known: `"replace"` makes another key and remembers
            the first as a suspect; `"raise"` stops and raises.

    Raises:
        ConfigurationError: A value is invalid.
    """

    max_attempts: int = attrs.field(default=5, validator=_check_whole)
    initial: float = attrs.field(default=0.5, validator=_check_seconds)
    maximum: float = attrs.field(default=30.0, validator=_check_seconds)
    max_retry_after: float = attrs.field(default=120.0, validator=_check_seconds)
    max_refusals: int = attrs.field(default=20, validator=_check_whole)
    refusal_statuses: frozenset[int] = attrs.field(default=frozenset(), converter=_as_statuses)
    on_unknown: Literal["replace", "raise"] = attrs.field(default="replace")

    def __attrs_post_init__(self) -> None:
        for name, fits, expected in (
            ("max_attempts", self.max_attempts >= 1, "1 or more"),
            ("max_refusals", self.max_refusals >= 0, "0 or more"),
            ("initial", 0 < self.initial <= _DAY, "more than 0 seconds and at most a day"),
            ("maximum", self.initial <= self.maximum <= _DAY, "at least initial and at most a day"),
            ("max_retry_after", 0 <= self.max_retry_after <= _DAY, "from 0 seconds to a day"),
        ):
            if not fits:
                raise ConfigurationError(f"{name}: expected {expected}, got {shown(getattr(self, name))}")
        if not isinstance(self.on_unknown, str) or self.on_unknown not in ("replace", "raise"):
            raise ConfigurationError(f"on_unknown: expected 'replace' or 'raise', got {shown(self.on_unknown)}")

    def wants(self, error: RespanError, *, creates: bool, patient: bool = False) -> bool:
        """Whether to try again after this failure.

        Args:
            error: The failed attempt.
            creates: Whether the call makes a key, so that trying again may make a second one.
            patient: Whether the call waits longer than `max_retry_after`, as an item of a batch does.
        """
        if not error.retryable or (not patient and (retry_after_of(error) or 0.0) > self.max_retry_after):
            return False
        return not creates or error.effect is Effect.NONE or self.on_unknown == "replace"

    def exhausted(self, counts: "AttemptCounts") -> bool:
        """Whether the call has used up its attempts."""
        refused = counts.refused if counts.only_refused else 0
        return counts.counted >= self.max_attempts or refused + counts.held_back > self.max_refusals

    def quota_exhausted(self, counts: "AttemptCounts") -> bool:
        """Whether a call was refused so often, while nothing was let in, that waiting will not help."""
        return counts.only_refused and counts.refused > self.max_refusals

    def wait(self, error: RespanError, counts: "AttemptCounts") -> float:
        """Return the seconds to wait before trying again."""
        asked = retry_after_of(error)
        if asked is not None:
            jitter = random.uniform(0.0, min(self.initial, asked / 20))  # noqa: S311  jitter is not a secret
            return min(asked, self.max_retry_after) + jitter
        # A float power, because an integer power of a large exponent would be computed digit by digit.
        doublings = float(min(max(counts.counted + counts.refused - 1, 0), 60))
        return random.uniform(0.0, min(self.maximum, self.initial * 2.0**doublings))  # noqa: S311  as above

    def retrying(
        self,
        counts: "AttemptCounts",
        *,
        creates: bool,
        patient: bool = False,
        sleep: Callable[[float], Awaitable[None]],
        before_sleep: Callable[[RespanError, float], None],
    ) -> _t.AsyncRetrying:
        """Return the tenacity object that repeats one call, whose attempts *return* their errors.

        Args:
            counts: The counters that the attempts update.
            creates: Whether the call makes a key.
            patient: As for `wants`.
            sleep: Waits.
            before_sleep: Called with the failure and the seconds, before each wait.
        """

        def failure(state: _t.RetryCallState) -> RespanError:
            assert state.outcome is not None
            error: RespanError = state.outcome.result()
            return error

        return _t.AsyncRetrying(
            retry=_t.retry_if_result(
                lambda r: isinstance(r, RespanError) and self.wants(r, creates=creates, patient=patient)
            ),
            stop=lambda _: self.exhausted(counts),
            wait=lambda state: self.wait(failure(state), counts),
            sleep=sleep,
            before_sleep=lambda state: before_sleep(failure(state), state.upcoming_sleep),
            retry_error_callback=failure,
        )


@attrs.define
class AttemptCounts:
    """The counters of a call's attempts.

    Attributes:
        counted: Requests that count as attempts.
        refused: Requests that were turned away for now, by the limit or by a 425.
        only_refused: Whether no request of the client for this operation was let in since the first refusal.
        held_back: Connections that an outage prevented; the pace spaces these, and the back-off does not grow.
    """

    counted: int = 0
    refused: int = 0
    only_refused: bool = False
    held_back: int = 0


def retry_after_of(error: RespanError) -> float | None:
    """Return the seconds the server asked to wait, if it did."""
    return error.retry_after if isinstance(error, APIStatusError) else None
