"""An asynchronous input in a task of its own, as the workers of a batch ask for its items."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from respan_async._calls.async_input import AsyncInput
from respan_async.errors import ClientStateError

pytestmark = pytest.mark.virtual


async def numbers(pause: float = 1.0) -> AsyncIterator[int]:
    """Count, a number a second."""
    for number in range(5):
        await asyncio.sleep(pause)
        yield number


def opened(items: Any) -> AsyncInput[Any]:
    """Give an input whose task is the loop's own."""
    return AsyncInput(items, lambda work: asyncio.get_running_loop().create_task(work))


def wanted() -> bool:
    """Tell that more items are wanted."""
    return False


def unwanted() -> bool:
    """Tell that no more items are wanted."""
    return True


async def everything(source: AsyncInput[Any]) -> list[Any]:
    """Take what is left."""
    taken = []
    while True:
        try:
            taken.append(await source.pull(wanted))
        except StopAsyncIteration:
            return taken


async def test_an_item_that_nobody_waits_for_any_more_is_the_next_ones() -> None:
    """Whether its worker was cancelled long before it came, or in the same turn."""
    source = opened(numbers())
    early = asyncio.create_task(source.pull(wanted))
    await asyncio.sleep(0.5)
    early.cancel()
    await asyncio.sleep(1)
    late = asyncio.create_task(source.pull(wanted))
    late_too = asyncio.create_task(source.pull(wanted))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(1.0, late_too.cancel)
    await asyncio.sleep(3)

    given = [await task for task in (late, late_too) if not task.cancelled()]

    assert sorted(given + await everything(source)) == [0, 1, 2, 3, 4]


async def test_a_worker_that_is_cancelled_in_the_turn_of_its_item_leaves_it_to_others() -> None:
    """The item has come, and its worker does not take it."""
    go_on = asyncio.Event()

    async def source_() -> AsyncIterator[int]:
        await go_on.wait()
        yield 1
        yield 2

    source = opened(source_())
    worker = asyncio.create_task(source.pull(wanted))
    await asyncio.sleep(1)
    go_on.set()
    while source._requests:  # noqa: ASYNC110  the turn in which the item is handed over is what is tested
        await asyncio.sleep(0)
    worker.cancel()
    await asyncio.wait({worker})

    assert worker.cancelled()
    assert await everything(source) == [1, 2]


async def test_a_worker_that_wants_nothing_more_is_told_so_and_the_input_is_not_asked() -> None:
    """When its turn comes; those after it have theirs."""
    source = opened(numbers())
    first, over, last = (asyncio.create_task(source.pull(each)) for each in (wanted, unwanted, wanted))

    assert await first == 0
    with pytest.raises(StopAsyncIteration):
        await _stopped(over)
    assert await last == 1


async def _stopped(task: "asyncio.Task[Any]") -> Any:
    """Await a task that ends with a `StopAsyncIteration`, which asyncio shows as a RuntimeError otherwise."""
    await asyncio.wait({task})
    error = task.exception()
    assert error is not None
    raise error


@pytest.mark.parametrize("end", [GeneratorExit, OSError])
async def test_all_who_wait_hear_of_the_end(end: type[BaseException]) -> None:
    """One of them of its cause, the others that nothing will come; so do those who ask later."""

    async def source_() -> AsyncIterator[int]:
        await asyncio.sleep(1)
        raise end
        yield 1

    source = opened(source_())
    waiting = [asyncio.create_task(_caught(source)) for _ in range(3)]
    gone = asyncio.create_task(source.pull(wanted))
    await asyncio.sleep(0.5)
    gone.cancel()

    told = [await task for task in waiting]

    assert [type(error) for error in told] == [end, StopAsyncIteration, StopAsyncIteration]
    assert isinstance(await _caught(source), StopAsyncIteration)


async def _caught(source: AsyncInput[Any]) -> BaseException:
    try:
        await source.pull(wanted)
    except BaseException as error:  # noqa: BLE001  it is what is asked for
        return error
    raise AssertionError


class Plain:
    """An iterator that is no generator, and so cannot hear of a cancellation."""

    def __aiter__(self) -> "Plain":
        return self

    async def __anext__(self) -> int:
        return 1


async def test_a_cancellation_from_outside_ends_an_iterator_that_cannot_hear_of_it() -> None:
    """It is told as what it is."""
    tasks: list[asyncio.Task[None]] = []

    def spawn(work: Any) -> "asyncio.Task[None]":
        tasks.append(asyncio.get_running_loop().create_task(work))
        return tasks[0]

    source: AsyncInput[int] = AsyncInput(Plain(), spawn)
    assert await source.pull(wanted) == 1
    await asyncio.sleep(1)
    tasks[0].cancel()
    await asyncio.sleep(1)

    error = await _caught(source)
    assert isinstance(error, ClientStateError)


def kept(tasks: "list[asyncio.Task[None]]", items: Any) -> AsyncInput[Any]:
    """Give an input, and keep its task."""

    def spawn(work: Any) -> "asyncio.Task[None]":
        tasks.append(asyncio.get_running_loop().create_task(work))
        return tasks[-1]

    return AsyncInput(items, spawn)


async def test_an_item_that_is_yielded_in_answer_to_a_cancellation_is_kept() -> None:
    """As by an input whose own time is up: the next who asks has it."""
    tasks = list["asyncio.Task[None]"]()

    async def source_() -> AsyncIterator[int]:
        try:
            yield 1
        except asyncio.CancelledError:
            yield 2

    source = kept(tasks, source_())
    assert await source.pull(wanted) == 1
    await asyncio.sleep(1)
    tasks[0].cancel()
    await asyncio.sleep(1)

    assert await everything(source) == [2]


async def test_a_worker_that_is_cancelled_before_the_input_is_asked_takes_no_item() -> None:
    """Its request is passed over."""
    source = opened(numbers())
    gone = asyncio.create_task(source.pull(wanted))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0.1)

    assert await everything(source) == [0, 1, 2, 3, 4]


async def test_a_closing_that_is_cut_short_ends_the_input_all_the_same() -> None:
    """As the end of the client's grace does."""
    tasks = list["asyncio.Task[None]"]()

    async def source_() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1000)

    source = kept(tasks, source_())
    assert await source.pull(wanted) == 1
    (closing,) = source.finish()
    await asyncio.sleep(1)
    closing.cancel()
    await asyncio.wait({closing})

    assert closing.cancelled()
    assert isinstance(await _caught(source), StopAsyncIteration)
