"""A Django service whose workers have several threads, all of which use one client, on one event loop.

`pip install django gunicorn anyio`, then `gunicorn --preload --workers 2 --threads 8 django_threads:wsgi`. The loop
runs in a thread of its own, behind anyio's blocking portal. The same holds for Flask, and for any other program with
threads: a client belongs to one loop at a time, and two threads with a loop each would want it at the same time.
"""

import asyncio
import atexit
import contextlib
import os
import threading
from contextlib import ExitStack
from datetime import timedelta

from anyio.from_thread import BlockingPortal, start_blocking_portal
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from respan_async import DOCUMENTED_LIMIT, AsyncRespan, CreatedKey, DeadlineExceededError, RateLimitError, RespanError

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "not for production"),
)

respan = AsyncRespan(pace=DOCUMENTED_LIMIT, tag_names=True, deadline=5.0)  # RESPAN_API_KEY, RESPAN_BASE_URL
_open = ExitStack()
_starting = threading.Lock()
_portals: list[BlockingPortal] = []


def portal() -> BlockingPortal:
    """Return the portal, which the first request starts: after the fork, because a thread does not survive one."""
    with _starting:
        if not _portals:
            _portals.append(_open.enter_context(start_blocking_portal()))
            atexit.register(close)
        return _portals[0]


def close() -> None:
    """Finish what is in flight, and end the loop."""
    portal().call(finish)
    _open.close()


async def finish() -> None:
    """Revoke what lost answers have left, and close the client."""
    with contextlib.suppress(RespanError, TimeoutError):
        async with asyncio.timeout(10):
            await respan.temporary_keys.sweep(grace=0)
    await respan.aclose()


async def create(tenant: str) -> CreatedKey:
    return await respan.temporary_keys.create(name=tenant[:36], expires_in=timedelta(hours=1))


def create_key(request: HttpRequest, tenant: str) -> JsonResponse:
    if request.method != "POST":
        return JsonResponse({"detail": "POST, to create a key"}, status=405)
    try:
        key = portal().call(create, tenant)
    except (DeadlineExceededError, RateLimitError):
        return JsonResponse({"detail": "come again later"}, status=503, headers={"Retry-After": "60"})
    return JsonResponse({"id": key.id, "api_key": key.api_key.reveal()}, status=201)


urlpatterns = [path("tenants/<str:tenant>/key", create_key)]
wsgi = get_wsgi_application()
