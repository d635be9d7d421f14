"""A FastAPI service that gives each tenant a key: `pip install fastapi uvicorn`, then `uvicorn fastapi_service:app`.

Each process has one client, made when it starts and closed when it ends, so that all requests share one pace. Who may
ask for a key is the service's to check, and left out here.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.responses import JSONResponse

from respan_async import DOCUMENTED_LIMIT, AsyncRespan, CreatedKey, DeadlineExceededError, RateLimitError, RespanError


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, AsyncRespan]]:
    # With the limit given, no request is refused while nobody else uses the account, and a call that cannot meet its
    # deadline fails at once. "auto" has to be refused first, because it learns the limit from refusals.
    async with AsyncRespan(pace=DOCUMENTED_LIMIT, tag_names=True) as respan:  # RESPAN_API_KEY, RESPAN_BASE_URL
        yield {"respan": respan}
        with contextlib.suppress(RespanError, TimeoutError):  # keys that lost answers have left
            async with asyncio.timeout(10):
                await respan.temporary_keys.sweep(grace=0)


def client(request: Request) -> AsyncRespan:
    respan: AsyncRespan = request.state.respan
    return respan.with_options(deadline=5.0)  # a view: the same connections, the same pace


app = FastAPI(lifespan=lifespan)


@app.post("/tenants/{tenant}/key", status_code=201)
async def create_key(
    tenant: Annotated[str, Path(max_length=36, pattern=r"^\P{Cc}+$")],
    request: Request,
    respan: Annotated[AsyncRespan, Depends(client)],
) -> dict[str, str]:
    key = await while_connected(request, respan.temporary_keys.create(name=tenant, expires_in=timedelta(hours=1)))
    return {"id": key.id, "api_key": key.api_key.reveal()}


async def while_connected(request: Request, work: Awaitable[CreatedKey]) -> CreatedKey:
    """Cancel the work when the browser hangs up, because uvicorn does not."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(499, "the browser hung up")
        return working.result()
    finally:
        working.cancel()
        watching.cancel()


@app.exception_handler(DeadlineExceededError)
@app.exception_handler(RateLimitError)
async def busy(request: Request, error: DeadlineExceededError | RateLimitError) -> JSONResponse:
    if isinstance(error, RateLimitError):
        wait = error.retry_after or 1.0
    else:
        wait = (error.retry_at - datetime.now(UTC)).total_seconds() if error.retry_at else 1.0
    return JSONResponse({"detail": "come again later"}, 503, {"Retry-After": str(max(1, math.ceil(wait)))})
