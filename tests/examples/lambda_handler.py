"""A function as AWS Lambda runs it: called now and then in one process, which is frozen in between.

The client is made when the process starts, and is never closed. `handler` keeps its event loop, and with it the
connection, from call to call; after a freeze the client drops what the server has closed meanwhile.
`handler_of_its_own` runs each call on a new loop, which is simpler, and costs a connection each time.
"""

import asyncio
from datetime import timedelta
from typing import Any

from respan_async import DOCUMENTED_LIMIT, AsyncRespan

respan = AsyncRespan(pace=DOCUMENTED_LIMIT, tag_names=True)  # RESPAN_API_KEY, RESPAN_BASE_URL
runner = asyncio.Runner()

_LAST_MOMENT = 1.0
"""Seconds that are left for the answer when the call gives up."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return runner.run(create_key(event, context))


def handler_of_its_own(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return asyncio.run(create_key(event, context))


async def create_key(event: dict[str, Any], context: Any) -> dict[str, Any]:
    seconds = context.get_remaining_time_in_millis() / 1000 - _LAST_MOMENT
    keys = respan.with_options(deadline=max(seconds, 0.1)).temporary_keys
    key = await keys.create(name=event["tenant"][:36], expires_in=timedelta(hours=1))
    return {"id": key.id, "api_key": key.api_key.reveal()}
