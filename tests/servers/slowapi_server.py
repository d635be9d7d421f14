"""Keys behind slowapi: `python -m tests.servers.slowapi_server STRATEGY LIMIT SECONDS`, with a strategy of `limits`."""

import itertools
import sys

from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.servers.asgi import created, serve


def _account(request: Request) -> str:
    return request.headers["Authorization"]


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RateLimitExceeded)
    return _rate_limit_exceeded_handler(request, error)


def slowapi_app(strategy: str, limit: int, seconds: int) -> Starlette:
    """Return an app that lets each account create so many keys in so many seconds."""
    limiter = Limiter(key_func=_account, strategy=strategy, headers_enabled=True)
    numbers = itertools.count()

    @limiter.limit(f"{limit} per {seconds} seconds")
    async def create(request: Request) -> Response:
        return JSONResponse(created(next(numbers)), 201)

    app = Starlette(
        routes=[Route("/api/temporary-keys/", create, methods=["POST"])],
        exception_handlers={RateLimitExceeded: _refuse},
    )
    app.state.limiter = limiter
    return app


if __name__ == "__main__":
    serve(slowapi_app(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
