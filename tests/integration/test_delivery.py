"""Delivering: many at once, each within its time, and none that holds up the others."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import attrs
import pytest

from respan_async import AsyncRespan, ConfigurationError, CreatedKey, Issued
from respan_async.issuing import Issuer, Ledger, LedgerError, SQLiteLedger, Ticket, TicketState
from respan_async.issuing.ledger import Intent, TicketRecord
from respan_async.secret import Secret
from respan_async.testing import FakeRespan
from tests.integration.test_issuing import Deliver, Still, delivering, issuing, state_of, ticket
from tests.waiting import now


class Remembering(Still):
    """A ledger in memory, without a thread: it keeps what an issuer needs of the tickets' life."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, TicketRecord] = {}

    async def find(self, ticket_id: str) -> TicketRecord | None:
        return self.records.get(ticket_id)

    async def claim_attempt(self, ticket: Ticket, intent: Intent) -> int:
        self.records[ticket.id] = TicketRecord(fields=ticket.fields, state=TicketState.CLAIMED, key=None)
        return 1

    def lease_held_since(self, since: float) -> bool:
        return True

    async def record(self, ticket_id: str, epoch: int, tag: str, key: CreatedKey) -> bool:
        fields = self.records[ticket_id].fields
        self.records[ticket_id] = TicketRecord(fields=fields, state=TicketState.ISSUED, key=key)
        return True


def keys(count: int) -> list[CreatedKey]:
    """Give keys that an earlier run has left."""
    return [CreatedKey(id=f"key-{number}", api_key=Secret("secret")) for number in range(count)]


@contextlib.asynccontextmanager
async def virtual_issuer(
    ledger: Remembering, deliver: Deliver, **settings: Any
) -> AsyncIterator[tuple[FakeRespan, Issuer]]:
    """Run an issuer in virtual time, with a server."""
    async with (
        FakeRespan() as fake,
        AsyncRespan(fake.api_key, base_url=fake.url) as respan,
        Issuer(respan, cast("Ledger", ledger), deliver=deliver, auto_sweep=False, **settings) as issuer,
    ):
        yield fake, issuer


@pytest.mark.virtual
async def test_one_delivery_that_hangs_holds_none_of_the_others() -> None:
    """What a dead run left is delivered within a minute, all but that one."""
    at_work = most = 0

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        nonlocal at_work, most
        if ticket_id == "tenant-7":
            await asyncio.sleep(1e6)
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(5)
        at_work -= 1

    async with delivering(deliver, *keys(50)) as ledger:
        await asyncio.sleep(60)

        assert len(ledger.done) == 49
        assert [name for name, _ in ledger.kept] == ["tenant-7"]
    assert 10 < most <= 16


@pytest.mark.virtual
async def test_no_more_are_delivered_at_a_time_than_may_be() -> None:
    """Those that calls deliver and those that were left, together."""
    at_work = most = 0

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(1)
        at_work -= 1

    ledger = Remembering()
    ledger.kept = [(f"left-{number}", key) for number, key in enumerate(keys(20))]
    async with virtual_issuer(ledger, deliver, max_deliveries=3) as (_, issuer):
        outcomes = await issuer.issue_many([ticket(number) for number in range(20)])
        await asyncio.sleep(30)

    assert len(ledger.done) == 40
    assert all(isinstance(outcome, Issued) and outcome.delivered for outcome in outcomes)
    assert most == 3


@pytest.mark.virtual
async def test_a_delivery_that_takes_too_long_is_cancelled_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """After its time, and then after ever longer pauses."""
    tries: list[float] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        tries.append(now())
        await asyncio.sleep(1e6 if len(tries) < 3 else 1)

    async with delivering(deliver, *keys(1), deliver_timeout=20) as ledger:
        await asyncio.sleep(60)

    assert [round(at - tries[0]) for at in tries] == [0, 21, 43]
    assert ledger.done == [("tenant-1", "erased")]
    assert caplog.text.count("'tenant-1' could not be delivered: no end within 20 s") == 2


@pytest.mark.virtual
async def test_a_ticket_whose_delivery_does_not_heed_its_time_is_left_alone_until_it_ends() -> None:
    """It may still succeed, and then its secret is erased; never are there two at the same time."""
    at_work = 0
    most: list[int] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        nonlocal at_work
        at_work += 1
        most.append(at_work)
        for seconds in (1e6, 500, 500):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(seconds)
        at_work -= 1

    async with delivering(deliver, *keys(1)) as ledger:
        await asyncio.sleep(2_000)

    assert set(most) == {1}
    assert ledger.done[0] == ("tenant-1", "erased")


@pytest.mark.virtual
async def test_a_batch_waits_while_the_place_is_down(caplog: pytest.LogCaptureFixture) -> None:
    """No more keys are made than may be undelivered, and those in the air; then it goes on, and all are delivered."""
    is_down = True
    made_while_down = 0
    delivered: Counter[str] = Counter()

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        if is_down:
            raise ConnectionError
        delivered[ticket_id] += 1

    ledger = Remembering()
    async with virtual_issuer(ledger, deliver, max_undelivered=50) as (fake, issuer):
        outcomes: list[Issued[Ticket]] = []
        async with issuer.issue_many((ticket(number) for number in range(300)), max_in_flight=8) as batch:
            async for outcome in batch:
                assert isinstance(outcome, Issued)
                outcomes.append(outcome)
                if len(outcomes) == 50:
                    await asyncio.sleep(100)
                    made_while_down = len(fake.keys)
                    is_down = False
        one_by_one = await issuer.issue(ticket(1_000))
        await asyncio.sleep(100)

    assert 50 <= made_while_down <= 58
    assert len(outcomes) == len(fake.keys) - 1 == 300
    assert sum(outcome.delivered for outcome in outcomes) >= 242
    assert one_by_one.delivered
    assert [r.levelname for r in caplog.records if "batches wait until some are" in r.message] == ["WARNING"]
    assert set(delivered.values()) == {1}


@pytest.mark.virtual
async def test_a_call_does_not_wait_behind_all_that_could_not_be_delivered() -> None:
    """While some deliveries hang, again and again, a new ticket's is the next to have a place, and is delivered."""

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        if ticket_id != "tenant-1000":
            await asyncio.sleep(1e6)

    ledger = Remembering()
    ledger.kept = [(f"left-{number}", key) for number, key in enumerate(keys(100))]
    async with virtual_issuer(ledger, deliver, max_deliveries=4, deliver_timeout=30) as (_, issuer):
        await issuer.counts()
        await asyncio.sleep(2_000)
        began = now()

        issued = await issuer.issue(ticket(1_000))

        assert now() - began <= 31
        assert issued.delivered


@pytest.mark.virtual
async def test_a_call_waits_for_its_delivery_for_the_time_of_one_call_at_most() -> None:
    """Then it returns; its delivery goes on, in its place or in its line, and the secret is erased in the end."""
    calls = Counter[str]()

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        calls[ticket_id] += 1
        await asyncio.sleep(25)

    ledger = Remembering()
    async with virtual_issuer(ledger, deliver, max_deliveries=2, deliver_timeout=30) as (_, issuer):
        began = now()
        outcomes = await asyncio.gather(*(issuer.issue(ticket(number)) for number in range(6)))
        took = now() - began
        await asyncio.sleep(60)

    assert 29 < took < 35
    assert [outcome.delivered for outcome in outcomes].count(True) == 2
    assert calls == {f"tenant-{number}": 1 for number in range(6)}
    assert sorted(ledger.done) == [(f"tenant-{number}", "erased") for number in range(6)]


@pytest.mark.virtual
async def test_calls_for_keys_that_are_long_dead_keep_no_place() -> None:
    """Their first delivery hangs for longer than `issue` waits; whatever comes after them is delivered."""
    hanging = True

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        if hanging:
            await asyncio.sleep(1e6)

    ledger = Remembering()
    dead = attrs.evolve(keys(1)[0], expiry_date=datetime.now(UTC) - timedelta(hours=2))
    for number in range(4):
        fields = ticket(number).fields
        ledger.records[f"tenant-{number}"] = TicketRecord(fields=fields, state=TicketState.ISSUED, key=dead)
    async with virtual_issuer(ledger, deliver, max_deliveries=2, deliver_timeout=30) as (_, issuer):

        async def again(number: int) -> None:
            await asyncio.sleep(10 * number)
            await issuer.issue(ticket(number))

        await asyncio.gather(*(again(number) for number in range(4)))
        await asyncio.sleep(120)
        hanging = False

        assert [(await issuer.issue(ticket(number))).delivered for number in (10, 11, 12)] == [True] * 3


@pytest.mark.virtual
async def test_a_batch_waits_for_its_deliveries() -> None:
    """Nobody awaits one of its tickets alone, and its outcomes tell what became of them."""

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        await asyncio.sleep(25)

    async with virtual_issuer(Remembering(), deliver, max_deliveries=2, deliver_timeout=30) as (_, issuer):
        outcomes = await issuer.issue_many([ticket(number) for number in range(6)])

    assert [outcome.delivered for outcome in outcomes if isinstance(outcome, Issued)] == [True] * 6


@pytest.mark.virtual
@pytest.mark.parametrize("closing", ["issuer", "client"])
async def test_a_delivery_that_goes_on_may_close_what_it_belongs_to(closing: str) -> None:
    """From within `deliver`, when nobody waits for it any more: it is neither cancelled nor waited for."""
    ended: list[str] = []
    close: list[Any] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        await asyncio.sleep(25)
        if ticket_id == "tenant-1":
            began = now()
            await close[0](grace=5.0)
            ended.append("quickly" if now() - began < 8 else "late")

    async with FakeRespan() as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url)
        issuer = Issuer(respan, cast("Ledger", Remembering()), deliver=deliver, auto_sweep=False, max_deliveries=1)
        close.append(issuer.aclose if closing == "issuer" else respan.aclose)
        outcomes = [asyncio.create_task(issuer.issue(ticket(number))) for number in range(2)]
        await asyncio.sleep(40)
        assert [task.result().delivered for task in outcomes] == [True, False]
        await asyncio.sleep(60)
        await issuer.aclose()
        await respan.aclose()

    assert ended == ["quickly"]


async def test_an_outcome_says_whether_its_key_was_delivered(fake_respan: FakeRespan) -> None:
    """By now, or in an earlier call; without a place for it, it never is."""
    fails = [OSError()]

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        if ticket_id == "tenant-1" and fails:
            raise fails.pop()

    async with issuing(fake_respan, deliver=deliver) as issuer:
        failed, fine = await issuer.issue_many([ticket(1), ticket(2)])
        again = await issuer.issue(ticket(2))
        while await state_of(issuer, TicketState.DELIVERED) < 2:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        later = await issuer.issue(ticket(1))
    async with issuing(fake_respan) as issuer:
        kept = await issuer.issue(ticket(3))

    outcomes = [cast("Issued[Ticket]", outcome) for outcome in (failed, fine, again, later, kept)]
    assert [outcome.delivered for outcome in outcomes] == [False, True, True, True, False]


async def hold() -> None:
    """Wait for nothing."""
    await asyncio.sleep(1e6)


@pytest.mark.virtual
@pytest.mark.parametrize("first", ["client", "issuer"])
@pytest.mark.parametrize("how", ["awaited", "in the background"])
async def test_a_delivery_that_swallows_its_cancellation_holds_up_nobody(
    first: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing takes its grace and a moment, and says what goes on."""
    ended = asyncio.Event()

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1e6)
        for _ in range(5):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(19)
        ended.set()

    ledger = Remembering()
    if how == "in the background":
        ledger.kept = [("left", keys(1)[0])]
    async with FakeRespan() as fake:
        respan = AsyncRespan(fake.api_key, base_url=fake.url)
        issuer = Issuer(respan, cast("Ledger", ledger), deliver=deliver, auto_sweep=False)
        await issuer.counts()
        call = asyncio.ensure_future(issuer.issue(ticket()) if how == "awaited" else hold())
        await asyncio.sleep(5)
        began = now()

        for closing in (respan, issuer) if first == "client" else (issuer, respan):
            await closing.aclose(grace=0.5)

        assert now() - began < 4
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await ended.wait()
    assert "1 calls of `deliver` go on though they were cancelled" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_deliveries", 0),
        ("max_deliveries", None),
        ("max_deliveries", True),
        ("max_undelivered", 0),
        ("max_undelivered", 1.5),
        ("deliver_timeout", 0),
        ("deliver_timeout", float("inf")),
        ("deliver_timeout", "30"),
    ],
)
def test_settings_that_are_none_are_told_at_once(setting: str, value: Any) -> None:
    """By their names."""
    with pytest.raises(ConfigurationError, match=f"^{setting}: expected"):
        Issuer(AsyncRespan("key"), SQLiteLedger(":memory:"), **{setting: value})


# ------------------------------------------------------------ what a user may give


@pytest.mark.virtual
async def test_a_key_that_expires_at_the_end_of_time_is_delivered_and_holds_up_no_other() -> None:
    """There is no year 10,000 with which its expiry could be compared."""
    delivered: list[str] = []

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(ticket_id)

    far, near = keys(2)
    far = attrs.evolve(far, expiry_date=datetime.max.replace(tzinfo=UTC))
    async with delivering(deliver, far, near):
        await asyncio.sleep(10)

    assert sorted(delivered) == ["tenant-1", "tenant-2"]


@pytest.mark.virtual
async def test_a_plain_function_delivers_too() -> None:
    """What it returns need not be awaited, and it is called once."""
    delivered: list[str] = []

    def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(ticket_id)

    async with delivering(cast("Deliver", deliver), *keys(2)) as ledger:
        await asyncio.sleep(100)

        assert sorted(ledger.done) == [("tenant-1", "erased"), ("tenant-2", "erased")]
    assert sorted(delivered) == ["tenant-1", "tenant-2"]


@pytest.mark.virtual
async def test_what_only_promises_to_deliver_has_not_delivered() -> None:
    """A generator that nobody runs, or a future of a thread: the secret stays, and the call is repeated."""
    calls: list[str] = []

    def deliver(ticket_id: str, key: CreatedKey) -> object:
        calls.append(ticket_id)
        return (_ for _ in ())

    async with delivering(cast("Deliver", deliver), *keys(1)) as ledger:
        await asyncio.sleep(100)

        assert ledger.done == []
    assert len(calls) > 1


@pytest.mark.virtual
async def test_a_secret_that_cannot_be_read_holds_up_nothing_that_a_loop_cut_off() -> None:
    """The others are delivered, and what dead workers have left comes to its turn too."""
    delivered: list[str] = []

    class Locked(Remembering):
        was_away = False

        async def find(self, ticket_id: str) -> TicketRecord | None:
            if ticket_id == "tenant-0":
                raise LedgerError("the secret of ticket 'tenant-0' was encrypted with another key")
            if not self.was_away:
                self.was_away = True
                raise LedgerError("the server is away", retryable=True)
            return await super().find(ticket_id)

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        delivered.append(ticket_id)

    ledger = Locked()
    for number, made in enumerate(keys(3)):
        fields = ticket(number).fields
        ledger.records[f"tenant-{number}"] = TicketRecord(fields=fields, state=TicketState.ISSUED, key=made)
    ledger.kept = [("tenant-9", keys(10)[9])]
    expired = attrs.evolve(keys(1)[0], expiry_date=datetime(2020, 1, 1, tzinfo=UTC))
    ledger.records["tenant-4"] = TicketRecord(fields=ticket(4).fields, state=TicketState.ISSUED, key=expired)
    async with virtual_issuer(ledger, deliver) as (_, issuer):
        assert issuer._delivery is not None
        await issuer.counts()
        issuer._delivery._cut = dict.fromkeys(
            [f"tenant-{number}" for number in range(5)]
        )  # of tenant-3 is nothing known
        await asyncio.sleep(120)

    assert set(delivered) == {"tenant-1", "tenant-2", "tenant-9"}


@pytest.mark.virtual
async def test_a_secret_that_is_erased_because_its_key_is_long_dead_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By a clock that may be wrong: its ticket counts as delivered from then on."""

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        raise AssertionError

    dead = attrs.evolve(keys(1)[0], expiry_date=datetime(2020, 1, 1, tzinfo=UTC))
    async with delivering(deliver, dead) as ledger:
        await asyncio.sleep(60)

        assert ledger.done == [("tenant-1", "erased")]
    told = [record for record in caplog.records if "'tenant-1' was not delivered, and is erased" in record.message]
    assert [record.levelname for record in told] == ["WARNING"]


@pytest.mark.virtual
async def test_what_nobody_expects_of_a_ledger_is_told_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    """Its text may hold anything; the next round looks again."""

    class Strange(Remembering):
        rounds = 0

        async def undelivered(self, after: str, limit: int, *, left_for: float = 0.0) -> Any:
            self.rounds += 1
            if self.rounds == 1:
                raise ValueError("secret")
            return await super().undelivered(after, limit, left_for=left_for)

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        pass

    ledger = Strange()
    ledger.kept = [("left", keys(1)[0])]
    async with virtual_issuer(ledger, deliver) as (_, issuer):
        await issuer.counts()
        await asyncio.sleep(60)

    assert ledger.done == [("left", "erased")]
    assert "what was not delivered could not be looked through: ValueError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.virtual
async def test_a_place_that_refuses_for_good_holds_no_batch_up(caplog: pytest.LogCaptureFixture) -> None:
    """As a file does that has another key for the ticket: that ticket is told with the reason, and the others go on."""

    async def deliver(ticket_id: str, key: CreatedKey) -> None:
        raise LedgerError(f"keys.jsonl: has another key for ticket {ticket_id!r}")

    async with virtual_issuer(Remembering(), deliver, max_undelivered=5) as (_, issuer):
        outcomes = await issuer.issue_many([ticket(number) for number in range(20)])

    assert [outcome.delivered for outcome in outcomes if isinstance(outcome, Issued)] == [False] * 20
    assert "could not be delivered: keys.jsonl: has another key for ticket" in caplog.text
    assert "batches wait" not in caplog.text
