"""One replica of a service: makes keys by a shared pace until it is told to stop, and says how many.

It says "ready" when it begins to wait for a line on its standard input; another line, or its end, stops it.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator

from respan_async import AsyncRespan, CreateKeyRequest, Issued, RateLimit
from respan_async.redis import RedisWindow


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
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    window = RedisWindow(
        options.redis, RateLimit(options.limit, per=options.per), fallback_share=options.share, timeout=0.3
    )
    made = 0
    async with AsyncRespan(options.api_key, base_url=options.url, pace=window) as respan:
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        stopped = loop.run_in_executor(None, sys.stdin.readline)

        def until_stopped() -> Iterator[CreateKeyRequest]:
            while not stopped.done():
                yield CreateKeyRequest()

        async with respan.temporary_keys.create_many(until_stopped(), max_in_flight=options.coroutines) as batch:
            async for outcome in batch:
                made += isinstance(outcome, Issued)
    print(json.dumps({"made": made}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
