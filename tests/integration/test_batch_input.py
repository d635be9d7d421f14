"""What a batch's input may hold open around its yields: it runs in one task, or in one context."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from respan_async import AsyncRespan, ClientStateError, CreateKeyRequest, Failed, Issued
from respan_async.testing import FakeRespan

pytestmark = [pytest.mark.virtual, pytest.mark.filterwarnings("ignore:delta is less than resolution")]

Outcome = Issued[CreateKeyRequest] | Failed[CreateKeyRequest]
Input = Callable[[], Any]

TENANTS = [CreateKeyRequest(name=f"tenant-{number}") for number in range(13)]
SEEN = contextvars.ContextVar[int]("SEEN")


async def within_a_cancel_scope() -> AsyncIterator[CreateKeyRequest]:
    """Read within a cancel scope of anyio."""
    with anyio.move_on_after(60):
        for request in TENANTS:
            await asyncio.sleep(0.002)
            yield request


async def within_a_task_group() -> AsyncIterator[CreateKeyRequest]:
    """Read ahead, in a task of one's own."""
    ahead = asyncio.Queue[CreateKeyRequest | None](4)

    async def read() -> None:
        for request in [*TENANTS, None]:
            await asyncio.sleep(0.002)
            await ahead.put(request)

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        while (request := await ahead.get()) is not None:
            yield request


async def within_a_variables_value() -> AsyncIterator[CreateKeyRequest]:
    """Set a context variable, and reset it at the end."""
    token = SEEN.set(1)
    try:
        for request in TENANTS:
            await asyncio.sleep(0.002)
            yield request
    finally:
        SEEN.reset(token)


def plainly_within_a_variables_value() -> Iterator[CreateKeyRequest]:
    """Do that without awaiting anything."""
    token = SEEN.set(1)
    try:
        yield from TENANTS
    finally:
        SEEN.reset(token)


async def outcomes_of(respan: AsyncRespan, items: Any, *, awaited: bool, width: int = 4) -> list[Outcome]:
    """Run a batch in one of the two ways."""
    if awaited:
        return await respan.temporary_keys.create_many(items, max_in_flight=width)
    async with respan.temporary_keys.create_many(items, max_in_flight=width) as batch:
        return [outcome async for outcome in batch]


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(
    "source",
    [within_a_cancel_scope, within_a_task_group, within_a_variables_value, plainly_within_a_variables_value],
)
async def test_what_stands_around_the_yields_is_left_where_it_was_entered(source: Input, awaited: bool) -> None:
    """Whichever worker takes an item: the input sees one task and one context, as in a loop of its own."""
    async with FakeRespan(latency=(0.1, 0.3)) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        outcomes = await outcomes_of(respan, source(), awaited=awaited, width=64)  # each item has a worker of its own

        assert [type(outcome) for outcome in outcomes] == [Issued] * len(TENANTS)
        assert len(fake.alive()) == len(TENANTS)


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("width", [1, 2, 64])
@pytest.mark.parametrize("scope", [lambda: asyncio.timeout(0.5), lambda: anyio.fail_after(0.5)])
async def test_an_input_whose_time_is_up_ends_and_no_request_is_cut(
    scope: Callable[[], Any], width: int, awaited: bool
) -> None:
    """Its timeout cancels the task that reads: not a request in the air, wherever the input stands then."""

    async def read_for_a_while() -> AsyncIterator[CreateKeyRequest]:
        try:
            timeout = scope()
            if hasattr(timeout, "__aenter__"):
                async with timeout:
                    for number in range(1_000):
                        await asyncio.sleep(0.02)
                        yield CreateKeyRequest(name=f"{number}")
            else:
                with timeout:
                    for number in range(1_000):
                        await asyncio.sleep(0.02)
                        yield CreateKeyRequest(name=f"{number}")
        except TimeoutError:
            return

    async with FakeRespan(latency=0.3) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        outcomes = await outcomes_of(respan, read_for_a_while(), awaited=awaited, width=width)

        assert [type(outcome) for outcome in outcomes] == [Issued] * len(outcomes)
        assert 0 < len(outcomes) == fake.counts.requests < 30
        assert not respan.suspects


async def test_an_input_whose_task_group_fails_tells_its_own_error_after_the_last_outcome() -> None:
    """The failure comes while nobody asks the input; it is raised at the yield, and out of the batch."""

    async def read() -> AsyncIterator[CreateKeyRequest]:
        async def fail() -> None:
            await asyncio.sleep(0.1)
            raise OSError("the database went away")

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            for request in TENANTS:
                yield request

    outcomes = list[Outcome]()

    async def take() -> None:
        async with respan.temporary_keys.create_many(read(), max_in_flight=3) as batch:
            async for outcome in batch:
                outcomes.append(outcome)

    async with FakeRespan(latency=0.3) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        with pytest.raises(ExceptionGroup) as caught:
            await take()

        assert caught.group_contains(OSError)
        assert [type(outcome) for outcome in outcomes] == [Issued] * 3
        assert len(fake.alive()) == 3
        assert not respan.suspects


async def test_the_input_runs_in_one_task_to_its_closing() -> None:
    """From its first step to what it does when it is closed."""
    tasks = list[asyncio.Task[Any] | None]()

    async def source() -> AsyncIterator[CreateKeyRequest]:
        try:
            for request in TENANTS:
                tasks.append(asyncio.current_task())
                yield request
        finally:
            tasks.append(asyncio.current_task())

    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        async with respan.temporary_keys.create_many(source(), max_in_flight=2) as batch:
            await anext(batch)

        assert len(tasks) > 2
        assert len(set(tasks)) == 1
        assert asyncio.current_task() not in tasks
        assert tasks[0] not in asyncio.all_tasks()


async def cancel_the_reader(reader: list[asyncio.Task[Any] | None], running: asyncio.Task[Any]) -> None:
    """Cancel the task in which an input runs, as its own time limit does, or anybody else."""
    await asyncio.sleep(0.5)
    (task,) = reader
    assert task is not None
    task.cancel()
    with pytest.raises(ClientStateError, match="cancelled from outside"):
        await running


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_task_of_the_input_that_is_cancelled_from_outside_is_told(awaited: bool) -> None:
    """What the input would still have given is not lost unsaid; what it holds open is closed."""
    reader: list[asyncio.Task[Any] | None] = []
    events = list[str]()

    async def source() -> AsyncIterator[CreateKeyRequest]:
        try:
            for request in TENANTS:
                reader[:] = [asyncio.current_task()]
                yield request
        finally:
            events.append("closed")

    async with FakeRespan(latency=1.0) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        running = asyncio.create_task(outcomes_of(respan, source(), awaited=awaited, width=2))
        await cancel_the_reader(reader, running)

        assert events == ["closed"]
        assert fake.counts.requests >= 2


async def test_an_iterator_without_a_way_to_hear_of_its_cancellation_ends() -> None:
    """Only a generator can be told at its yield."""
    reader: list[asyncio.Task[Any] | None] = []

    class Source:
        def __aiter__(self) -> "Source":
            return self

        async def __anext__(self) -> CreateKeyRequest:
            reader[:] = [asyncio.current_task()]
            return CreateKeyRequest()

    async with FakeRespan(latency=1.0) as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        running = asyncio.create_task(outcomes_of(respan, Source(), awaited=False, width=2))
        await cancel_the_reader(reader, running)


async def test_an_item_that_comes_when_its_worker_is_cancelled_is_another_s() -> None:
    """The input has given it, and will not give it again: an awaited batch has an outcome for it."""
    asked = asyncio.Event()

    async def source() -> AsyncIterator[CreateKeyRequest]:
        yield TENANTS[0]
        asked.set()
        await asyncio.sleep(5)
        for request in TENANTS[1:]:
            yield request

    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        before = asyncio.all_tasks()
        running = asyncio.create_task(outcomes_of(respan, source(), awaited=True, width=1))
        await asked.wait()
        await asyncio.sleep(1)
        (worker,) = [task for task in asyncio.all_tasks() - before if "_work" in repr(task.get_coro())]
        worker.cancel()
        outcomes = await running

        assert [outcome.item for outcome in outcomes] == TENANTS
        assert [type(outcome) for outcome in outcomes] == [Issued] + [Failed] * (len(TENANTS) - 1)


async def test_awaiting_a_batch_that_runs_already_does_not_end_its_input() -> None:
    """The second is refused; the first goes on."""

    async def source() -> AsyncIterator[CreateKeyRequest]:
        for request in TENANTS:
            await asyncio.sleep(0.01)
            yield request

    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        async with respan.temporary_keys.create_many(source()) as batch:
            with pytest.raises(ClientStateError, match="runs once"):
                await batch
            outcomes = [outcome async for outcome in batch]

        assert len(outcomes) == len(TENANTS)


async def test_closing_the_client_does_not_wait_for_an_input_that_nobody_asks() -> None:
    """The batch is over when its workers are, and its input is closed then, whether or not the batch is left."""
    events = list[str]()

    async def source() -> AsyncIterator[CreateKeyRequest]:
        try:
            for request in TENANTS:
                yield request
        finally:
            events.append("closed")

    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        respan.temporary_keys.create_many(source(), max_in_flight=2) as batch,
    ):
        await anext(batch)
        began = asyncio.get_running_loop().time()
        await respan.aclose()

        assert asyncio.get_running_loop().time() - began < 1
        assert events == ["closed"]


async def test_a_batch_on_a_loop_whose_tasks_begin_at_once() -> None:
    """As `asyncio.eager_task_factory` has it."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("Python has no eager tasks before 3.12")
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        try:
            outcomes = await outcomes_of(respan, within_a_task_group(), awaited=True)
        finally:
            loop.set_task_factory(None)

        assert [type(outcome) for outcome in outcomes] == [Issued] * len(TENANTS)


async def test_an_awaited_batch_says_that_it_revokes_keys_for_its_inputs_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no list to hand them out in, because the list would look whole."""

    async def source() -> AsyncIterator[CreateKeyRequest]:
        for request in TENANTS:
            yield request
        raise OSError

    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        with pytest.raises(OSError):
            await outcomes_of(respan, source(), awaited=True)
        await respan.aclose()

        assert (fake.counts.created, len(fake.alive())) == (len(TENANTS), 0)
    assert f"an awaited batch ended with OSError: {len(TENANTS)} keys that it had made are revoked" in caplog.messages


class Sized:
    """An iterable with a length that may be wrong."""

    def __init__(self, length: Any) -> None:
        self._length = length

    def __len__(self) -> int:
        if isinstance(self._length, Exception):
            raise self._length
        return self._length  # type: ignore[no-any-return]  # it may be none

    def __iter__(self) -> Iterator[CreateKeyRequest]:
        return iter(TENANTS)


@pytest.mark.parametrize(
    ("length", "total"),
    [(None, None), (-1, None), (2**70, None), (RuntimeError(), None), (0, 0), (3, 3), (100, 100)],
)
async def test_an_iterable_that_is_wrong_about_its_length_loses_no_item(length: Any, total: int | None) -> None:
    """`tqdm(generator)` has no length to tell, and what grows meanwhile tells too little."""
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        batch = respan.temporary_keys.create_many(Sized(length))
        assert batch.progress.total == total
        outcomes = await batch

        assert [outcome.item for outcome in outcomes] == TENANTS
        assert len(fake.alive()) == len(TENANTS)


class Rows:
    """Items whose `__anext__` is a plain method: it returns a future, or raises when it is called."""

    def __init__(self, error: type[BaseException]) -> None:
        self.left = TENANTS[:3]
        self.error = error

    def __aiter__(self) -> "Rows":
        return self

    def __anext__(self) -> "asyncio.Future[CreateKeyRequest]":
        if not self.left:
            raise self.error
        item: asyncio.Future[CreateKeyRequest] = asyncio.get_running_loop().create_future()
        item.set_result(self.left.pop())
        return item


async def rows_that_end_their_task() -> AsyncIterator[CreateKeyRequest]:
    """Raise what ends a task as well."""
    for request in TENANTS[:3]:
        yield request
    raise GeneratorExit


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Rows(StopAsyncIteration), None),
        (lambda: Rows(OSError), OSError),
        (rows_that_end_their_task, GeneratorExit),
    ],
    ids=["ends", "fails", "ends its task"],
)
async def test_however_an_input_ends_its_batch_ends(make: Input, error: Any, awaited: bool) -> None:
    """No worker waits for an item that will never come, and the input's own error is raised."""
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        batch = respan.temporary_keys.create_many(make(), max_in_flight=2)
        taken = list[Outcome]()

        async def take() -> None:
            if awaited:
                taken.extend(await batch)
                return
            async with batch:
                async for outcome in batch:
                    taken.append(outcome)

        async with asyncio.timeout(60):
            if error is None:
                await take()
            else:
                with pytest.raises(error):
                    await take()

        assert len(taken) == (0 if awaited and error else 3)
        assert fake.counts.created == 3


def plainly_cancelled() -> Iterator[CreateKeyRequest]:
    """Give some items, and then raise what a cancellation would."""
    yield from TENANTS[:3]
    raise asyncio.CancelledError


async def test_a_plain_input_that_is_cancelled_from_within_is_told() -> None:
    """Nobody has cancelled the batch; what came before that was made."""
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        with pytest.raises(ClientStateError, match="the input was cancelled from within"):
            await outcomes_of(respan, plainly_cancelled(), awaited=False, width=1)

        assert fake.counts.created == 3


async def test_the_rest_of_an_input_that_is_cancelled_from_within_is_let_go() -> None:
    """An awaited batch that has ended otherwise has its outcomes all the same."""
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        fake.script("ok", "unauthorized_401")

        outcomes = await respan.temporary_keys.create_many(plainly_cancelled(), max_in_flight=1)

        assert [type(outcome) for outcome in outcomes] == [Issued, Failed, Failed]


class ClosesSlowly:
    """An iterator that takes a while to close."""

    closed = False

    def __init__(self) -> None:
        self.left = TENANTS[:3]

    def __aiter__(self) -> "ClosesSlowly":
        return self

    async def __anext__(self) -> CreateKeyRequest:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop()

    async def aclose(self) -> None:
        """Take a while."""
        await asyncio.sleep(1)
        self.closed = True


async def test_an_awaited_batch_waits_until_its_input_is_closed() -> None:
    """What the input holds open is closed when the list is there."""
    source = ClosesSlowly()
    async with FakeRespan() as fake, AsyncRespan(fake.api_key, base_url=fake.url) as respan:
        outcomes = await respan.temporary_keys.create_many(source)

        assert source.closed
        assert len(outcomes) == 3
