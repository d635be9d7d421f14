"""A process that makes one key, and imports nothing that its client does not: `python -m benchmarks.first WHO URL`."""

import asyncio
import sys

from benchmarks import tenants
from benchmarks.peers import PEERS

OURS = "ours"


async def _ours(url: str) -> None:
    from respan_async import AsyncRespan

    async with AsyncRespan(tenants.API_KEY, base_url=url) as respan:
        await respan.temporary_keys.create(
            name=tenants.name(0), expires_in=tenants.LIFETIME, max_usage=tenants.MAX_USAGE
        )


async def _peer(who: str, url: str) -> None:
    async with PEERS[who].open(url, None) as create:
        await create(0)


if __name__ == "__main__":
    asyncio.run(_ours(sys.argv[2]) if sys.argv[1] == OURS else _peer(sys.argv[1], sys.argv[2]))
