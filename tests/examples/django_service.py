"""A Django service that gives each tenant a key, in one file, with an asynchronous and a synchronous view.

ASGI: `pip install django uvicorn`, then `uvicorn django_service:asgi`.
WSGI: `pip install django gunicorn`, then
`gunicorn --preload --workers 2 --config python:django_service django_service:wsgi`.
Where a worker has several threads, as `manage.py runserver` has, see `django_threads.py`. Who may ask for a key is the
service's to check, and left out here.
"""

import asyncio
import contextlib
import functools
import math
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from respan_async import DOCUMENTED_LIMIT, AsyncRespan, DeadlineExceededError, RateLimitError, RespanError

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "not for production"),
)


@functools.cache
def respan() -> AsyncRespan:
    """Return the one client of the process, made at the first request: `manage.py migrate` needs no API key.

    Under ASGI it stays on the one event loop. Under WSGI Django runs each request on a loop of its own, and the client
    goes on from loop to loop, with its pace.
    """
    return AsyncRespan(pace=DOCUMENTED_LIMIT, tag_names=True, deadline=5.0)  # RESPAN_API_KEY, RESPAN_BASE_URL


async def create_key(request: HttpRequest, tenant: str) -> JsonResponse:
    if request.method != "POST":
        return JsonResponse({"detail": "POST, to create a key"}, status=405)
    try:
        key = await respan().temporary_keys.create(name=tenant[:36], expires_in=timedelta(hours=1))
    except (DeadlineExceededError, RateLimitError) as error:
        return busy(error)
    return JsonResponse({"id": key.id, "api_key": key.api_key.reveal()}, status=201)


def create_key_in_a_synchronous_view(request: HttpRequest, tenant: str) -> JsonResponse:
    answer: JsonResponse = async_to_sync(create_key)(request, tenant)
    return answer


def busy(error: DeadlineExceededError | RateLimitError) -> JsonResponse:
    wait = 1.0
    if isinstance(error, RateLimitError):
        wait = error.retry_after or wait
    elif error.retry_at is not None:
        wait = (error.retry_at - datetime.now(UTC)).total_seconds()
    headers = {"Retry-After": str(max(1, math.ceil(wait)))}
    return JsonResponse({"detail": "come again later"}, status=503, headers=headers)


async def finish() -> None:
    """Revoke what lost answers have left, and close the client, when the process ends."""
    with contextlib.suppress(RespanError, TimeoutError):
        async with asyncio.timeout(10):
            await respan().temporary_keys.sweep(grace=0)  # sends nothing where no answer was lost
    await respan().aclose()


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve, and finish when uvicorn says that it shuts down, which Django does not listen for."""
    if scope["type"] != "lifespan":
        await django(scope, receive, send)
        return
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await finish()
    await send({"type": "lifespan.shutdown.complete"})


def worker_exit(server: object, worker: object) -> None:
    """Finish: gunicorn calls this by its name when a worker ends."""
    asyncio.run(finish())


urlpatterns = [
    path("tenants/<str:tenant>/key", create_key),
    path("synchronous/tenants/<str:tenant>/key", create_key_in_a_synchronous_view),
]
django = get_asgi_application()
wsgi = get_wsgi_application()
