"""Tasks of a worker that knows no event loop, such as Celery's: each of them runs one of its own.

The client and the issuer are made once, before the worker forks its processes. Each process goes on with them from task
to task, and so from loop to loop: the pace, the ledger and the suspects stay. With Celery, put `@app.task` before
`issue_key`, and call `shut_down` at its signal `worker_process_shutdown`. Processes can share one pace through Redis.
"""

import asyncio
from datetime import UTC, datetime, timedelta

from respan_async import DOCUMENTED_LIMIT, AsyncRespan, CreateKeyRequest
from respan_async.issuing import Issuer, SQLiteLedger, Ticket

respan = AsyncRespan(pace=DOCUMENTED_LIMIT)  # RESPAN_API_KEY, RESPAN_BASE_URL; an issuer always tags names
issuer = Issuer(respan, SQLiteLedger("keys.db"))  # opened by each process, at its first task


def issue_key(tenant: str) -> str:
    """Give a tenant its key of this month, and return the key's id. A task that is run again sends nothing."""
    return asyncio.run(_issue(tenant))


async def _issue(tenant: str) -> str:
    request = CreateKeyRequest(name=tenant[:36], expires_in=timedelta(days=31))
    issued = await issuer.issue(Ticket(f"{tenant}/{datetime.now(UTC):%Y-%m}", request), deadline=300.0)
    return issued.key.id


def shut_down() -> None:
    """Close the client, and with it the issuer and its ledger, when the process ends. Others go on with the ledger."""
    asyncio.run(respan.aclose())
