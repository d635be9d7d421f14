"""The least time that n keys take at each kind of limiter, for a client that knows the limiter's state at all times.

The first request is sent at 0, to a limiter that nobody has used before; round trips take no time. N is the limit and P
its period.
"""

import math
from collections.abc import Callable

from respan_async import RateLimit

Optimum = Callable[[RateLimit, int], float]
"""Returns the seconds, of a limit and of a number of keys."""


def bucket(burst: int) -> Optimum:
    """Return that of nginx's `limit_req` with so much `burst`: (n - 1 - burst)·P/N.

    The bucket is empty at first. The first request is free, `burst` more fill the bucket, and each of the others waits
    until P/N more has leaked out of it. With `nodelay`, the answers come at once; without, nginx sends one request in
    each P/N on to its upstream, so that the last of n keys is made at (n - 1)·P/N whatever the burst: `bucket(0)`.
    """
    return lambda limit, keys: max(keys - 1 - burst, 0) * limit.interval


def sliding_log(limit: RateLimit, keys: int) -> float:
    """Return that of a limiter that lets N requests in during any P seconds: (⌈n/N⌉ - 1)·P.

    N keys are made at 0, at P, at 2·P and so on, and what is left of n at the beginning of the last period. The same
    holds for a window that is fixed but begins with the first request after the end of the one before, as those of
    `limits` and express-rate-limit in memory do; it would not hold for one that begins on the clock's own multiples.
    """
    return (math.ceil(keys / limit.limit) - 1) * limit.per


def sliding_counter(limit: RateLimit, keys: int) -> float:
    """Return that of HAProxy's `http_req_rate`: (n - 1)·P/N, but 0 for N keys or fewer.

    HAProxy counts the requests of the present period and of the one before, and takes of the latter the share that the
    last P seconds still cover, rounded down. So N requests are let in at 0, and thereafter the k-th one of each period
    (k - 1)·P/N after its beginning. To use less of one period, for the sake of the next one, gains nothing.
    """
    return (keys - 1) * limit.interval if keys > limit.limit else 0.0
