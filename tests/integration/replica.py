"""One replica of a service: makes keys by a shared pace until it is told to stop, and says how many.

With a database it issues them for tickets of its own, by a ledger that it shares with the others.

It says "ready" when it begins to wait for a line on its standard input; another line, or its end, stops it.
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from respan_async import AsyncRespan, CreateKeyRequest, Failed, Issued, RateLimit
from respan_async.issuing import Issuer, PostgresLedger, Ticket
from respan_async.redis import RedisWindow

Outcomes = AsyncIterator[Issued[CreateKeyRequest] | Failed[CreateKeyRequest] | Issued[Ticket] | Failed[Ticket]]


async def main() -> None:
    """Make keys with so many coroutines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--redis")
    parser.add_argument("--url")
    parser.add_argument("--api-key")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--per", type=float)
    parser.add_argument("--coroutines", type=int)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--database")
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    limit = RateLimit(options.limit, per=options.per)
    window = RedisWindow(options.redis, limit, fallback_share=options.share, timeout=0.3)
    made = 0
    async with AsyncExitStack() as stack:
        respan = await stack.enter_async_context(AsyncRespan(options.api_key, base_url=options.url, pace=window))
        issuer = None
        if options.database:
            issuer = await stack.enter_async_context(Issuer(respan, PostgresLedger(options.database)))
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        stopped = loop.run_in_executor(None, sys.stdin.readline)
        until_stopped = itertools.takewhile(lambda _: not stopped.done(), itertools.count())
        outcomes: Outcomes
        if issuer is None:
            requests = (CreateKeyRequest() for _ in until_stopped)
            batch = respan.temporary_keys.create_many(requests, max_in_flight=options.coroutines)
            outcomes = await stack.enter_async_context(batch)
        else:
            tickets = (Ticket(f"{os.getpid()}-{number}", CreateKeyRequest()) for number in until_stopped)
            issuing = issuer.issue_many(tickets, max_in_flight=options.coroutines)
            outcomes = await stack.enter_async_context(issuing)
        async for outcome in outcomes:
            made += isinstance(outcome, Issued)
    print(json.dumps({"made": made}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
