"""A server and the lives of processes on one ledger, and what the two must say after them."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import attrs

from respan_async import AsyncRespan, CreatedKey, CreateKeyRequest, Issued, RetryPolicy, Suspect
from respan_async._calls.key_origin import ARRIVES_WITHIN
from respan_async.issuing import AESGCMCipher, AttemptState, Issuer, Ledger, Ticket, TicketState
from respan_async.keys import TemporaryKeys
from respan_async.testing import FakeRespan
from tests.hostile.clocked_ledger import Clock, ClockedLedger, SteppedLedger

QUICK: Final = RetryPolicy(initial=0.001, maximum=0.002)
HUNG: Final = 10.0
"""Seconds after which whatever was asked for hangs."""


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
            context = attrs.evolve(respan._service.context, clock=self.clock.wall)
            respan._service = attrs.evolve(respan._service, context=context)
            respan.temporary_keys = TemporaryKeys(respan._service)
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
            suspects = {suspect.tag for suspect in await after.issuer._suspects.pending()}
            held = await self._held(after, tickets)
            for record in self.fake.unheld(held.values()):
                assert record.name.rpartition("~")[2] in suspects, "a key lives that nobody holds and nobody looks for"

            outcomes = await after.issuer.issue_many(tickets)
            assert all(isinstance(outcome, Issued) for outcome in outcomes), f"a ticket is stuck: {outcomes}"
            after.take(outcomes)
            assert await self._held(after, tickets) | held == await self._held(after, tickets), "a key was replaced"
            await after.issuer.sweep(grace=0, taken_over=True)
            await self._delivered(after, len(numbers))
            held = await self._held(after, tickets)
            counts = await after.issuer.counts()
            late = self._late(await after.issuer._suspects.pending())

        given = {(ticket, key.id) for ticket, key in life.handed_out + after.handed_out}
        assert given == set(held.items()), "somebody was given a key that is not the ticket's"
        alive = {record.id for record in self.fake.alive()}
        assert alive - late == set(held.values()), "a key lives that nobody holds"
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

    def _late(self, suspects: Sequence[Suspect]) -> set[str]:
        """Give the keys that are in doubt: a clock that was slow at the attempt makes its key late. They are known."""
        sent = {suspect.tag: suspect.sent_at for suspect in suspects}
        unheld = {record.id: (record.created, record.name.rpartition("~")[2]) for record in self.fake.alive()}
        within = timedelta(seconds=ARRIVES_WITHIN)
        return {key_id for key_id, (made, tag) in unheld.items() if tag in sent and made - sent[tag] > within}

    async def _held(self, life: Life, tickets: Sequence[Ticket]) -> dict[str, str]:
        found = {ticket.id: await life.ledger.find(ticket.id) for ticket in tickets}
        return {ticket: record.key.id for ticket, record in found.items() if record and record.key}

    async def _delivered(self, life: Life, tickets: int) -> None:
        async with asyncio.timeout(HUNG):
            while self.scenario.deliver:
                if (await life.issuer.counts()).tickets[TicketState.DELIVERED] == tickets:
                    return
                await asyncio.sleep(0.001)
