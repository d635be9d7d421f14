"""An aiohttp.web service that gives each tenant one key a month, whoever asks first and however often: run it as it is.

Requests and batches ask one issuer for the same tickets, and share one pace. Who may ask for a key is the service's to
check, and left out here.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from aiohttp import web

from respan_async import (
    DOCUMENTED_LIMIT,
    AsyncRespan,
    CreateKeyRequest,
    DeadlineExceededError,
    Failed,
    RateLimitError,
    RespanError,
)
from respan_async.issuing import Issuer, SQLiteLedger, Ticket

logger = logging.getLogger("service")
ISSUER = web.AppKey("ISSUER", Issuer)
BATCHES = web.AppKey("BATCHES", set[asyncio.Task[None]])
routes = web.RouteTableDef()


async def issuing(app: web.Application) -> AsyncIterator[None]:
    # With the limit given, no request is refused while nobody else uses the account. "auto" has to be refused first,
    # because it learns the limit from refusals. Names need no setting: an issuer always tags them.
    async with AsyncRespan(pace=DOCUMENTED_LIMIT) as respan, Issuer(respan, SQLiteLedger("keys.db")) as issuer:
        app[ISSUER], app[BATCHES] = issuer, set()
        yield
        for batch in app[BATCHES]:  # takes no more tickets; the client finishes what is in flight and records it
            batch.cancel()
        await asyncio.gather(*app[BATCHES], return_exceptions=True)


def ticket_of(tenant: str) -> Ticket:
    if not isinstance(tenant, str) or not 0 < len(tenant) <= 36 or not tenant.isprintable():
        raise web.HTTPBadRequest(text="a tenant has a name of 1 to 36 printable characters")
    return Ticket(f"{tenant}/{datetime.now(UTC):%Y-%m}", CreateKeyRequest(name=tenant, expires_in=timedelta(days=31)))


@routes.put("/tenants/{tenant}/key")
async def give_key(request: web.Request) -> web.Response:
    try:
        issued = await request.app[ISSUER].issue(ticket_of(request.match_info["tenant"]), deadline=5.0)
    except (DeadlineExceededError, RateLimitError):
        raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"}) from None
    return web.json_response({"id": issued.key.id, "api_key": issued.key.api_key.reveal()})


@routes.post("/batches")
async def start_batch(request: web.Request) -> web.Response:
    try:
        tenants = json.loads(await request.read())
    except (ValueError, RecursionError):  # no JSON, or lists in lists without end
        tenants = None
    if not isinstance(tenants, list):
        raise web.HTTPBadRequest(text="a batch is a JSON list of tenants")
    tickets = [ticket_of(tenant) for tenant in tenants]
    batch = asyncio.create_task(issue_all(request.app[ISSUER], tickets))
    request.app[BATCHES].add(batch)
    batch.add_done_callback(request.app[BATCHES].discard)
    return web.json_response({"tenants": len(tickets)}, status=202)


async def issue_all(issuer: Issuer, tickets: list[Ticket]) -> None:
    try:
        async with issuer.issue_many(tickets) as batch:
            async for outcome in batch:
                if isinstance(outcome, Failed):
                    logger.warning("%s: %s", outcome.item.id, outcome.error)
    except RespanError as error:  # such as a refused API key; the same batch, asked for again, goes on from here
        logger.warning("the batch has ended: %s", error)


app = web.Application()
app.cleanup_ctx.append(issuing)
app.add_routes(routes)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), handler_cancellation=True)
