"""The limiters that are measured."""

from typing import Final

from benchmarks.limiters import apps, optimum, proxies
from benchmarks.limiters.limiter import Limiter
from respan_async import RateLimit

_PER_SECOND: Final = RateLimit(20, per=1)  # nginx knows no other periods but a second and a minute
_SHORT: Final = RateLimit(50, per=2)

LIMITERS: Final = (
    Limiter(
        name="nginx, burst 20",
        limit=_PER_SECOND,
        optimum=optimum.bucket(20),
        software=proxies.nginx_software,
        start=proxies.nginx("burst=20 nodelay"),
    ),
    Limiter(
        name="nginx, burst 20, refusing by 503",
        limit=_PER_SECOND,
        optimum=optimum.bucket(20),
        software=proxies.nginx_software,
        start=proxies.nginx("burst=20 nodelay", refusal=503),
        refusal=503,
    ),
    Limiter(
        name="nginx, burst 20, delaying",
        limit=_PER_SECOND,
        optimum=optimum.bucket(0),
        software=proxies.nginx_software,
        start=proxies.nginx("burst=20"),
    ),
    Limiter(
        name="nginx, no burst",
        limit=_PER_SECOND,
        optimum=optimum.bucket(0),
        software=proxies.nginx_software,
        start=proxies.nginx(""),
    ),
    Limiter(
        name="HAProxy, http_req_rate",
        limit=_SHORT,
        optimum=optimum.sliding_counter,
        software=proxies.haproxy_software,
        start=proxies.haproxy,
    ),
    Limiter(
        name="slowapi, fixed window",
        limit=_SHORT,
        optimum=optimum.sliding_log,
        software=apps.slowapi_software,
        start=apps.slowapi("fixed-window"),
    ),
    Limiter(
        name="slowapi, moving window",
        limit=_SHORT,
        optimum=optimum.sliding_log,
        software=apps.slowapi_software,
        start=apps.slowapi("moving-window"),
    ),
    Limiter(
        name="Django REST Framework",
        limit=_SHORT,
        optimum=optimum.sliding_log,
        software=apps.drf_software,
        start=apps.drf,
    ),
    Limiter(
        name="express-rate-limit",
        limit=_SHORT,
        optimum=optimum.sliding_log,
        software=apps.express_software,
        start=apps.express,
    ),
)
