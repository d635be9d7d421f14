"""Keys behind Django REST Framework's throttle: `python -m tests.servers.drf_server LIMIT SECONDS`."""

import itertools
import sys
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application

from tests.servers.asgi import App, created, serve


def drf_app(limit: int, seconds: float) -> App:
    """Return an app that lets each account create so many keys in any so many seconds."""
    settings.configure(
        SECRET_KEY="none",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=_Routes,
        REST_FRAMEWORK={
            "DEFAULT_AUTHENTICATION_CLASSES": [],
            "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
            "UNAUTHENTICATED_USER": None,
        },
    )
    django.setup()
    # These read the settings as they are imported.
    from django.urls import path
    from rest_framework.request import Request
    from rest_framework.response import Response
    from rest_framework.throttling import SimpleRateThrottle
    from rest_framework.views import APIView

    class Throttle(SimpleRateThrottle):  # type: ignore[misc]  # the framework is untyped
        """The framework's own, whose notation knows no period but a second, a minute, an hour and a day."""

        rate = f"{limit} in {seconds} s"

        def parse_rate(self, rate: str) -> Any:
            return limit, seconds

        def get_cache_key(self, request: Request, view: APIView) -> str:
            return str(request.headers["Authorization"]).replace(" ", "-")

    numbers = itertools.count()

    class Keys(APIView):  # type: ignore[misc]  # as above
        throttle_classes = (Throttle,)

        def post(self, request: Request) -> Response:
            return Response(created(next(numbers)), status=201)

    _Routes.urlpatterns = [path("api/temporary-keys/", Keys.as_view())]
    app: App = get_asgi_application()
    return app


class _Routes:
    """What Django takes for a module of routes."""

    urlpatterns: list[Any]


if __name__ == "__main__":
    serve(drf_app(int(sys.argv[1]), float(sys.argv[2])))
