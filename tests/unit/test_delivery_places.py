"""Places for calls of `deliver`: first calls go before repeated ones, which come to their turn all the same."""

import asyncio

from respan_async.issuing._deliver_calls import Places


async def taken(places: Places, count: int, *, first: bool) -> list[asyncio.Task[None]]:
    """Ask for places, one after the other."""
    tasks = [asyncio.create_task(places.take(first=first)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_first_calls_go_before_repeated_ones_but_for_one_in_eight() -> None:
    """Or a repeated call would wait for as long as new tickets come."""
    places = Places(1)
    await places.take(first=False)
    repeated = await taken(places, 3, first=False)
    first = await taken(places, 16, first=True)

    order = ""
    for _ in range(19):
        before = {task for task in (*first, *repeated) if task.done()}
        places.give_back()
        await asyncio.sleep(0)
        (next_one,) = {task for task in (*first, *repeated) if task.done()} - before
        order += "f" if next_one in first else "r"

    assert order == "fffffffrfffffffrffr"


async def test_who_waits_no_more_takes_no_place() -> None:
    """Neither one that is cancelled while it waits, nor one that is cancelled as it gets its place."""
    places = Places(1)
    await places.take(first=True)
    (gone,) = await taken(places, 1, first=True)
    gone.cancel()
    await asyncio.wait({gone})
    (late,) = await taken(places, 1, first=True)
    places.give_back()
    late.cancel()
    await asyncio.wait({late})

    assert late.cancelled()
    async with asyncio.timeout(1):
        await places.take(first=False)
