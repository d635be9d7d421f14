"""The limit that an answer states in its headers."""

import attrs


@attrs.frozen(kw_only=True)
class RateHint:
    """The limit as a server, or a proxy in front of it, states it in one answer.

    Of several limits the tightest counts: `limit` and `per` are those of the one that allows the fewest requests a
    second, `remaining` and `reset` those of the one with the fewest requests left.

    Attributes:
        limit: Requests in a period, 1 or more; None if the answer does not say.
        per: The period in seconds, more than 0; None if the answer does not say.
        remaining: Requests that are left, 0 or more; None if the answer does not say.
        reset: Seconds from now until the remaining ones are renewed, more than 0; None if the answer does not say.
    """

    limit: int | None = None
    per: float | None = None
    remaining: int | None = None
    reset: float | None = None
