"""A run of an issuer in which something happens at one certain step, and what the server and the ledger must say then.

There are two kinds of steps: every turn of the event loop, and every operation of the ledger, right before and right
after it. The ledger writes in a thread, so the loop's turns differ from run to run; its operations do not.
"""

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import attrs

from respan_async import AsyncRespan, CreatedKey, CreateKeyRequest, Failed, Issued, RetryPolicy
from respan_async.issuing import (
    AESGCMCipher,
    AttemptState,
    Issuer,
    Ledger,
    LedgerError,
    SQLiteLedger,
    Ticket,
    TicketState,
)
from respan_async.keys import TemporaryKeys
from respan_async.testing import FakeRespan
from tests.integration.test_issuing_cancellation import SteppedLoop

QUICK: Final = RetryPolicy(initial=0.001, maximum=0.002)
_HUNG: Final = 10.0
"""Seconds after which whatever was asked for hangs."""

Act = Callable[["Life"], Awaitable[None] | None]


class Clock:
    """A wall clock that can be set; the server's is another, and right."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def wall(self) -> datetime:
        """Tell the time as Python has it."""
        return datetime.now(UTC) + self.offset

    def julian(self, _: str) -> float:
        """Tell the time as SQLite has it."""
        return (time.time() + self.offset.total_seconds()) / 86_400 + 2_440_587.5


class ClockedLedger(SQLiteLedger):
    """A ledger in a file, on a machine whose clock can be set."""

    def __init__(self, path: str | Path, clock: Clock, cipher: AESGCMCipher | None = None) -> None:
        super().__init__(path, cipher)
        self._clock = clock

    def _check_account(self, connection: Any, account: str, force: bool) -> None:
        connection.create_function("julianday", 1, self._clock.julian)
        super()._check_account(connection, account, force)

    async def _read(self, work: Any) -> Any:
        return await self._write(work)  # a connection beside it would ask the machine's clock


class SteppedLedger:
    """A ledger with something that happens before or after one of its operations.

    Args:
        ledger: The real one.

    Attributes:
        steps: How many there were.
        reached: The name of the step at which it happened.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.steps = 0
        self.reached = ""
        self._at = -1
        self._act: Callable[[str], Awaitable[None] | None] = lambda _: None

    def interrupt(self, at: int, act: Callable[[str], Awaitable[None] | None]) -> None:
        """Let something happen so many steps from now."""
        self._at = self.steps + at
        self._act = act

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        return method if name == "leased" else partial(self._operate, name, method)

    async def _operate(self, name: str, method: Callable[..., Awaitable[Any]], *values: Any, **named: Any) -> Any:
        await self._step(f"before {name}")
        result = await method(*values, **named)
        try:
            await self._step(f"after {name}")
        except LedgerError:
            if name == "open":
                await self._ledger.aclose()  # as one that could not be opened is not open
            raise
        return result

    async def _step(self, name: str) -> None:
        self.steps += 1
        if self.steps == self._at + 1:
            self.reached = name
            if (waiting := self._act(name)) is not None:
                await waiting


@attrs.frozen(kw_only=True)
class Scenario:
    """What is done while something happens.

    Attributes:
        does: What is done.
        tickets: The numbers of the tickets it is about.
        script: The faults that creates meet.
        deliver: What `deliver` does; nothing to have none.
        before: The faults of a run before, whose one ticket was not delivered; None for no run before.
        client: Settings of the client.
        server: Settings of the server.
        cipher: Whether secrets are encrypted.
        lives: How long a key lives, by the server's clock.
        closes: Whether it closes the issuer itself.
    """

    does: Callable[["Life"], Awaitable[object]]
    tickets: Sequence[int] = (1,)
    script: Sequence[str] = ()
    deliver: str = ""
    before: Sequence[str] | None = None
    client: Mapping[str, Any] = {}
    server: Mapping[str, Any] = {}
    cipher: bool = False
    lives: timedelta = timedelta(days=1)
    closes: bool = False


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Give a folder, in memory where that can be had: nothing loses its power here, and syncing takes its time."""
    memory = Path("/dev/shm")  # a folder of a random name is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


class MakesLedger(Protocol):
    """Makes a ledger, the same one each time."""

    def __call__(self, clock: Clock, cipher: AESGCMCipher | None) -> Ledger:
        """Make it."""
        ...


def in_file(path: Path) -> MakesLedger:
    """Keep the ledger in a file."""
    return lambda clock, cipher: ClockedLedger(path, clock, cipher)


@attrs.define(kw_only=True)
class Life:
    """One process: a client, an issuer, and a call to which something happens.

    Attributes:
        world: Where it lives.
        respan: Its client.
        issuer: Its issuer.
        ledger: Its ledger.
        call: What it does.
        cancelled: Whether the call was cancelled before it was over.
        timeout: The one around the call.
        others: What else was begun.
        handed_out: The keys that somebody was given, with their tickets.
    """

    world: "World"
    respan: AsyncRespan
    issuer: Issuer
    ledger: SteppedLedger
    call: asyncio.Task[object] | None = None
    cancelled: bool = False
    timeout: asyncio.Timeout | None = None
    others: list[asyncio.Task[Any]] = attrs.field(factory=list)
    handed_out: list[tuple[str, CreatedKey]] = attrs.field(factory=list)

    def beside(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Begin something else."""
        task = asyncio.ensure_future(work)
        self.others.append(task)
        return task

    def take(self, outcome: Any) -> Any:
        """Note what somebody was given."""
        for one in outcome if isinstance(outcome, list) else [outcome]:
            if isinstance(one, Issued):
                self.handed_out.append((one.item.id, one.key))
        return outcome

    async def issue(self, number: int = 1) -> object:
        """Issue a ticket."""
        return self.take(await self.issuer.issue(self.world.ticket(number)))

    def tickets(self) -> list[Ticket]:
        """Give the scenario's tickets."""
        return [self.world.ticket(number) for number in self.world.scenario.tickets]

    async def run(self) -> object:
        """Do what the scenario does, within a timeout that somebody may set."""
        async with asyncio.timeout(None) as self.timeout:
            return await self.world.scenario.does(self)


@attrs.define
class World:
    """A server, a ledger, and the lives of processes one after the other.

    Attributes:
        scenario: What is done.
        fake: The server.
        make: Makes the ledger.
        clock: The machine's clock.
        delivered: What was delivered: tickets, ids and secrets.
    """

    scenario: Scenario
    fake: FakeRespan
    make: MakesLedger
    clock: Clock = attrs.field(factory=Clock)
    delivered: list[tuple[str, str, str]] = attrs.field(factory=list)
    cipher: AESGCMCipher | None = None
    _dies: datetime = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dies = datetime.now(UTC).replace(microsecond=0) + self.scenario.lives
        if self.scenario.cipher:
            self.cipher = AESGCMCipher(bytes(32))

    def ticket(self, number: int) -> Ticket:
        """Give a ticket."""
        return Ticket(f"tenant-{number}", CreateKeyRequest(name=f"tenant {number}", expiry_date=self._dies))

    @contextlib.asynccontextmanager
    async def life(self, deliver: str, *, auto_sweep: bool = True, grace: float = 5.0) -> AsyncIterator[Life]:
        """Run a client and an issuer, which is opened by whoever uses it first."""
        settings: dict[str, Any] = {"retry": QUICK, **self.scenario.client}
        async with AsyncRespan(self.fake.api_key, base_url=self.fake.url, **settings) as respan:
            respan._core = attrs.evolve(respan._core, desk=attrs.evolve(respan._core.desk, wall=self.clock.wall))
            respan.temporary_keys = TemporaryKeys(respan._core, respan._options)
            ledger = SteppedLedger(self.make(self.clock, self.cipher))
            does = partial(self._deliver, deliver) if deliver else None
            issuer = Issuer(respan, cast("Ledger", ledger), deliver=does, auto_sweep=auto_sweep)
            try:
                yield Life(world=self, respan=respan, issuer=issuer, ledger=ledger)
            finally:
                await issuer.aclose(grace)

    async def _deliver(self, how: str, ticket_id: str, key: CreatedKey) -> None:
        match how:
            case "slow":
                await asyncio.sleep(0)
                await asyncio.sleep(0.001)
            case "fails":
                raise OSError
            case "late":
                await asyncio.sleep(0.02)
                raise OSError
            case "cancels itself":
                raise asyncio.CancelledError
        self.delivered.append((ticket_id, key.id, key.api_key.reveal()))

    # ---------------------------------------------------------------- the end

    async def check(self, life: Life) -> None:
        """Look at the server and the ledger after a life; then issue everything, sweep, and look again."""
        await self.fake.settle()
        while self.fake._plan.draw("create"):
            pass
        async with self.life("at once" if self.scenario.deliver else "", auto_sweep=False) as after:
            tickets = life.tickets()
            numbers = {ticket.id for ticket in tickets}
            await after.issuer.counts()  # which opens it
            suspects = {suspect.tag for suspect in await after.issuer.pending()}
            held = await self._held(after, tickets)
            for record in self.fake.unheld(held.values()):
                assert record.name.rpartition("~")[2] in suspects, "a key lives that nobody holds and nobody looks for"

            outcomes = await after.issuer.issue_many(tickets)
            assert all(isinstance(outcome, Issued) for outcome in outcomes), f"a ticket is stuck: {outcomes}"
            after.take(outcomes)
            assert await self._held(after, tickets) | held == await self._held(after, tickets), "a key was replaced"
            await after.issuer.sweep(grace=0)
            await self._delivered(after, len(numbers))
            held = await self._held(after, tickets)
            counts = await after.issuer.counts()

        given = {(ticket, key.id) for ticket, key in life.handed_out + after.handed_out}
        assert given == set(held.items()), "somebody was given a key that is not the ticket's"
        assert {record.id for record in self.fake.alive()} == set(held.values()), "a key lives that nobody holds"
        assert counts.tickets[TicketState.DELIVERED if self.scenario.deliver else TicketState.ISSUED] == len(numbers)
        assert sum(counts.tickets.values()) == len(numbers)
        assert counts.attempts[AttemptState.INTENT] == 0
        assert counts.attempts[AttemptState.RECORDED] == len(numbers)
        # A sweep that was cut off right after its DELETE leaves the suspect: that its key is gone proves nothing.
        assert counts.attempts[AttemptState.REVOKED] <= self.fake.counts.revoked
        secrets = {(ticket, key_id, self.fake.keys[key_id].api_key) for ticket, key_id in held.items()}
        if self.scenario.deliver:
            assert set(self.delivered) == secrets
        else:
            assert {(ticket, key.id, key.api_key.reveal()) for ticket, key in after.handed_out} == secrets

    async def _held(self, life: Life, tickets: Sequence[Ticket]) -> dict[str, str]:
        found = {ticket.id: await life.ledger.find(ticket.id) for ticket in tickets}
        return {ticket: record.key.id for ticket, record in found.items() if record and record.key}

    async def _delivered(self, life: Life, tickets: int) -> None:
        async with asyncio.timeout(_HUNG):
            while self.scenario.deliver:
                if (await life.issuer.counts()).tickets[TicketState.DELIVERED] == tickets:
                    return
                await asyncio.sleep(0.001)


@attrs.frozen(kw_only=True)
class Happening:
    """What happens at a step.

    Attributes:
        act: Does it.
        raises: What the call may then raise, and its tickets may fail with.
        goes_on: Whether the issuer can be used after it.
    """

    act: Act
    raises: tuple[type[BaseException], ...] = ()
    goes_on: bool = True


def all_survived(
    scenario: Scenario,
    happening: Happening,
    *,
    turns: bool = False,
    fresh: Callable[[], MakesLedger] | None = None,
) -> list[str]:
    """Let something happen at each step, in a world of its own each time; give the steps.

    Args:
        scenario: What is done.
        happening: What happens.
        turns: Whether steps are turns of the event loop instead of operations of the ledger.
        fresh: Prepares a ledger that is empty; None for one in a file.
    """
    steps: list[str] = []
    while True:
        with memory_folder() as folder, asyncio.Runner(loop_factory=SteppedLoop) as runner:
            make = fresh() if fresh is not None else in_file(folder / "keys.db")
            step = runner.run(survives(scenario, make, happening, len(steps), turns=turns))
        if step is None:
            return steps
        steps.append(step)


async def survives(
    scenario: Scenario, make: MakesLedger, happening: Happening, at: int, *, turns: bool = False
) -> str | None:
    """Run a life in which something happens at a step, and check what is left; tell where that was, or None if nowhere.

    Args:
        scenario: What is done.
        make: Makes the ledger.
        happening: What happens.
        at: At which step from the first.
        turns: Whether steps are turns of the event loop instead of operations of the ledger.
    """
    loop = asyncio.get_running_loop()
    trouble: list[Any] = []
    loop.set_exception_handler(lambda _, context: trouble.append(context))
    async with FakeRespan(**scenario.server) as fake:
        world = World(scenario, fake, make)
        if scenario.before is not None:
            fake.script(*scenario.before)
            async with world.life("fails" if scenario.deliver else "") as earlier:
                await earlier.issue(0)
        fake.script(*scenario.script)
        async with world.life(scenario.deliver) as life:
            if turns:
                assert isinstance(loop, SteppedLoop)
                loop.interrupt(at, lambda: _begun(life, happening.act(life)))
            else:
                life.ledger.interrupt(at, lambda _: happening.act(life))
            life.call = asyncio.create_task(life.run())
            await asyncio.wait({life.call}, timeout=_HUNG)
            assert life.call.done(), f"it hangs after {life.ledger.reached}"
            reached = f"turn {at}" if isinstance(loop, SteppedLoop) and turns and loop.leave_alone() else ""
            async with asyncio.timeout(_HUNG):
                await _ended(life, happening)
                if happening.goes_on and not scenario.closes:
                    await _issue_again(life, happening)
        await _ended(life, happening)
        reached = reached or life.ledger.reached
        _judge(life, happening)
        await _nothing_is_left(fake)
        await world.check(life)
        await _nothing_is_left(fake)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert trouble == []
    return reached or None


async def _ended(life: Life, happening: Happening) -> None:
    """Wait for what was begun besides, and see that it ended as it may."""
    for outcome in await asyncio.gather(*life.others, return_exceptions=True):
        assert not isinstance(outcome, BaseException) or isinstance(outcome, happening.raises), repr(outcome)


async def _issue_again(life: Life, happening: Happening) -> None:
    """See that the same issuer gives every ticket its key, the third time at last: step and fault may be to come."""
    stuck: list[Any] = []
    for _ in range(3):
        try:
            outcomes = life.take(await life.issuer.issue_many(life.tickets()))
            stuck = [outcome.error for outcome in outcomes if not isinstance(outcome, Issued)]
        except happening.raises as error:
            stuck = [error]
        if not stuck:
            return
        await _ended(life, happening)
    raise AssertionError(f"tickets are stuck: {stuck}")


def _begun(life: Life, waiting: Awaitable[None] | None) -> None:
    if waiting is not None:
        life.beside(waiting)


def _judge(life: Life, happening: Happening) -> None:
    """See that a call ended as it may: a cancelled one is cancelled, and no error is a foreign one."""
    call = life.call
    assert call is not None
    if life.cancelled:
        assert call.cancelled(), f"the cancelling was swallowed: {call}"
    elif not call.cancelled() and (error := call.exception()) is not None:
        assert isinstance(error, happening.raises), f"{error!r}"
    else:
        outcomes = call.result()
        for outcome in outcomes if isinstance(outcomes, list) else []:
            assert not isinstance(outcome, Failed) or isinstance(outcome.error, happening.raises), outcome


async def _nothing_is_left(fake: FakeRespan) -> None:
    """See that a life has left no task, no thread, no open file and no connection."""
    async with asyncio.timeout(_HUNG):
        while fake._running.server.connections or _threads():  # noqa: ASYNC110  both end a moment after they are told to
            await asyncio.sleep(0.0005)
    assert [task for task in asyncio.all_tasks() if "respan_async/issuing" in str(task.get_coro())] == []
    assert _open_ledgers() == []


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "respan-ledger"]


def _open_ledgers() -> list[str]:
    return [target for file in Path("/proc/self/fd").glob("*") if "keys.db" in (target := _target(file))]


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:  # it was the listing's own
        return ""


# ------------------------------------------------------------------------------------------------------ happenings


def cancel(life: Life) -> None:
    """Cancel the call."""
    if life.call is not None:
        life.cancelled = life.call.cancel() or life.cancelled


def cancel_twice(life: Life) -> None:
    """Cancel the call, and again while it is being cancelled."""
    cancel(life)
    asyncio.get_running_loop().call_soon(cancel, life)


def time_out(life: Life) -> None:
    """Let the timeout around the call be over."""
    if life.timeout is not None and life.call is not None and not life.call.done():
        life.timeout.reschedule(asyncio.get_running_loop().time())


def close_issuer(life: Life) -> None:
    """Close the issuer."""
    life.beside(life.issuer.aclose())


def close_client(life: Life) -> None:
    """Close the client."""
    life.beside(life.respan.aclose())


def close_at_once(life: Life) -> None:
    """Close the client without any grace."""
    life.beside(life.respan.aclose(grace=0.0))


def close_and_let_go(life: Life) -> None:
    """Close the issuer, and cancel that after a moment."""

    async def close() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await life.issuer.aclose()

    life.beside(close())


def fail(life: Life) -> None:
    """Fail as a store does on a full disk: before the step nothing was written, after it everything was."""
    if "aclose" not in life.ledger.reached:  # which has nobody to tell
        raise LedgerError("the disk is full")


def set_clock(by: timedelta) -> Act:
    """Set the machine's clock forward or back."""

    def act(life: Life) -> None:
        life.world.clock.offset += by

    return act


def set_clock_for_a_moment(by: timedelta) -> Act:
    """Set the machine's clock forward or back, and right again."""

    async def correct(life: Life) -> None:
        await asyncio.sleep(0.002)
        life.world.clock.offset -= by

    def act(life: Life) -> None:
        life.world.clock.offset += by
        life.beside(correct(life))

    return act


async def take_over(life: Life) -> None:
    """Stop this process until its lease is over, while another on the same ledger issues the same tickets and ends."""
    world = life.world

    async def live() -> None:
        async with world.life("at once" if world.scenario.deliver else "") as other:
            other.take(await other.issuer.issue_many(life.tickets()))
            await other.issuer.sweep(grace=0)
        life.handed_out += other.handed_out

    world.clock.offset += timedelta(minutes=1)
    await asyncio.shield(life.beside(live()))
