"""A fleet: any number of workers on one queue and one ledger (Postgres), with one pace (Redis).

    pip install procrastinate                                                        # a queue in the same Postgres
    python -c "import asyncio, fleet; asyncio.run(fleet.set_up())"                   # once
    python -c "import asyncio, fleet; asyncio.run(fleet.enqueue('2026-11', ['tenant-42']))"
    python -c "import asyncio, fleet; asyncio.run(fleet.work())"                     # on each machine

DATABASE_URL, REDIS_URL, RESPAN_API_KEY and RESPAN_LEDGER_KEY are in the environment. The queue may give a job to two
workers; the ledger makes its key once.
"""

import asyncio
import os
import signal
from datetime import timedelta

from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.jobs import Job
from procrastinate.types import JSONDict

from respan_async import (
    DOCUMENTED_LIMIT,
    AsyncRespan,
    AuthenticationError,
    CreatedKey,
    CreateKeyRequest,
    PermissionDeniedError,
    RespanError,
)
from respan_async.issuing import AESGCMCipher, Issuer, PostgresLedger, Ticket
from respan_async.redis import RedisWindow

DATABASE = os.environ["DATABASE_URL"]
REFUSED = (AuthenticationError, PermissionDeniedError)
queue = App(connector=PsycopgConnector(conninfo=DATABASE))


class IfRetryable(BaseRetryStrategy):
    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        again = isinstance(exception, REFUSED) or (isinstance(exception, RespanError) and exception.retryable)
        return RetryDecision(retry_in={"seconds": 15}) if again else None


@queue.task(name="issue", queue="keys", retry=IfRetryable(), pass_context=True)
async def issue(context: JobContext, ticket_id: str, tenant: str) -> None:
    issuer: Issuer = context.additional_context["issuer"]
    try:
        await issuer.issue(Ticket(ticket_id, CreateKeyRequest(name=tenant, expires_in=timedelta(days=31))))
    except REFUSED:  # it is this worker's API key; a worker with another one can do the jobs
        context.additional_context["stop"].set()
        raise


@queue.periodic(cron="* * * * *")
@queue.task(name="rescue", queue="keys", queueing_lock="rescue")
async def rescue(timestamp: int) -> None:
    """Give the jobs of workers that have died to others."""
    for job in await queue.job_manager.get_stalled_jobs():
        await queue.job_manager.retry_job(job)


async def deliver(ticket_id: str, key: CreatedKey) -> None:
    """Put the secret where it belongs; the same ticket may come twice."""
    print(ticket_id, key.id, flush=True)


async def set_up() -> None:  # before anything else; again does no harm
    await PostgresLedger(DATABASE).create_schema()
    async with queue.open_async():
        if not await queue.check_connection_async():
            await queue.schema_manager.apply_schema_async()


async def enqueue(month: str, tenants: list[str]) -> None:
    jobs: list[JSONDict] = [{"ticket_id": f"{tenant}/{month}", "tenant": tenant} for tenant in tenants]
    async with queue.open_async():
        await issue.batch_defer_async(*jobs)


async def work() -> None:  # on as many machines as you like
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    stopping = asyncio.create_task(stop.wait())
    # The limit is the organisation's, so every worker is given the same one. A shared pace cannot learn it.
    window = RedisWindow(os.environ["REDIS_URL"], DOCUMENTED_LIMIT)
    ledger = PostgresLedger(DATABASE, AESGCMCipher())  # its key is in RESPAN_LEDGER_KEY
    async with (
        queue.open_async(),
        AsyncRespan(pace=window) as respan,
        Issuer(respan.with_options(priority="batch"), ledger, deliver=deliver) as issuer,
    ):
        context = {"issuer": issuer, "stop": stop}
        while not stop.is_set():  # a worker of procrastinate's also ends when its database restarts
            running = queue.run_worker_async(concurrency=32, additional_context=context, install_signal_handlers=False)
            worker = asyncio.create_task(running)
            await asyncio.wait({worker, stopping}, return_when=asyncio.FIRST_COMPLETED)
            worker.cancel()  # it finishes the jobs it has
            await asyncio.gather(worker, return_exceptions=True)
            await asyncio.wait({stopping}, timeout=1)
