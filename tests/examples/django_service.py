"""A Django service that gives each tenant a key, in one file.

ASGI: `pip install django uvicorn`, then `uvicorn django_service:asgi`.
WSGI: `pip install django gunicorn`, then `gunicorn --preload --workers 2 django_service:wsgi`. Where a worker has
several threads, see `django_threads.py`. Who may ask for a key is the service's to check, and left out here.
"""

import math
import os
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from respan_async import DOCUMENTED_LIMIT, AsyncRespan, DeadlineExceededError, RateLimitError

settings.configure(
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "not for production"),
)

# One client for each process, made when the module is imported. Under ASGI it stays on the one event loop. Under WSGI
# Django runs each request on a loop of its own, and the client goes on from loop to loop, with its pace. It is made
# before gunicorn forks, and used after that.
respan = AsyncRespan(pace=DOCUMENTED_LIMIT, tag_names=True, deadline=5.0)  # RESPAN_API_KEY, RESPAN_BASE_URL


async def create_key(request: HttpRequest, tenant: str) -> JsonResponse:
    if request.method != "POST":
        return JsonResponse({"detail": "POST, to create a key"}, status=405)
    try:
        key = await respan.temporary_keys.create(name=tenant[:36], expires_in=timedelta(hours=1))
    except (DeadlineExceededError, RateLimitError) as error:
        return busy(error)
    return JsonResponse({"id": key.id, "api_key": key.api_key.reveal()}, status=201)


def busy(error: DeadlineExceededError | RateLimitError) -> JsonResponse:
    wait = 1.0
    if isinstance(error, RateLimitError):
        wait = error.retry_after or wait
    elif error.retry_at is not None:
        wait = (error.retry_at - datetime.now(UTC)).total_seconds()
    headers = {"Retry-After": str(max(1, math.ceil(wait)))}
    return JsonResponse({"detail": "come again later"}, status=503, headers=headers)


urlpatterns = [path("tenants/<str:tenant>/key", create_key)]
asgi = get_asgi_application()
wsgi = get_wsgi_application()
