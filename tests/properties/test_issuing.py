"""Two workers, a ledger, and a server that loses answers, makes keys late and shows old lists, against a dict."""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from respan_async import AsyncRespan, CreateKeyRequest, Issued, KeyPage, RespanError, RetryPolicy, TemporaryKey
from respan_async._calls.call_service import CallService
from respan_async._calls.lifecycle import Stage
from respan_async._calls.sweep import sweep
from respan_async._calls.sweep_policy import SweepPolicy
from respan_async._http.operations import LIST, Request
from respan_async.issuing import Issuer, Ledger, LedgerError, SQLiteLedger, Ticket, TicketConflictError
from respan_async.testing import FakeRespan
from tests.integration.test_issuing import TroubledLedger

T = TypeVar("T")

FAULTS = (
    "ok",
    "lose_answer_after_create",
    "disconnect_after_create",
    "late_create:0.02",
    "html_502",
    "html_502_after",
    "truncate",
    "no_api_key",
    "reset",
    "refuse:0.001",
    "conflict_409",
)
RETRY = RetryPolicy(max_attempts=3, initial=0.001, maximum=0.002)

names = st.sampled_from(["one", "other"])
numbers = st.integers(0, 3)
faults = st.lists(st.sampled_from(FAULTS), max_size=3)


@attrs.define
class Worker:
    """One process's client, issuer and ledger."""

    respan: AsyncRespan
    issuer: Issuer
    ledger: SQLiteLedger
    troubled: TroubledLedger


class OldList:
    """A client's service, with a list as it was some time ago."""

    def __init__(self, service: CallService, old: list[TemporaryKey]) -> None:
        self.context = service.context
        self._service = service
        self._old = old

    def lowest(self) -> "OldList":
        return self

    async def send(self, request: Request[Any], *arguments: Any) -> Any:
        if request.operation is LIST:
            return KeyPage(results=tuple(self._old), count=len(self._old))
        return await self._service.send(request, *arguments)


def ticket(number: int, **fields: Any) -> Ticket:
    """Give a ticket; every other one's key dies some day."""
    if number % 2:
        fields["expires_in"] = timedelta(days=1)
    return Ticket(f"tenant-{number}", CreateKeyRequest(name=f"tenant {number}", **fields))


class Issuing(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stack = contextlib.AsyncExitStack()
        self._path = Path(self._stack_enter(tempfile.TemporaryDirectory())) / "keys.db"
        self._fake: FakeRespan = self._run(self._stack.enter_async_context(FakeRespan()))
        self._workers: dict[str, Worker] = {}
        self._old: list[TemporaryKey] = []
        self._backup = self._path.with_name("backup.db")
        self.restored = False
        """Whether the ledger was brought back to what it was some time ago."""
        self.held: dict[int, str] = {}
        """The model: the id of the key that each ticket's caller was given, as far as the ledger can know."""
        self.handed_out: set[str] = set()
        """The ids of all keys that any caller was ever given."""

    def _stack_enter(self, manager: contextlib.AbstractContextManager[T]) -> T:
        return self._stack.enter_context(manager)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def teardown(self) -> None:
        try:
            self._run(self._final())
        finally:
            self._run(self._stack.aclose())
            self._runner.close()

    async def _final(self) -> None:
        """Close everything, let late keys happen, issue what is left, sweep: exactly the tickets' keys are alive.

        Of a ledger that was restored nobody may say that it is no copy; all that was handed out is alive then.
        """
        for name in list(self._workers):
            await self._close(name)
        self._fake._plan.script((), "create")
        while self._fake._plan.draw("create"):
            pass
        await self._fake.settle()
        worker = await self._worker("last")
        for number in range(4):
            self._take(number, await worker.issuer.issue(ticket(number)))
        await worker.issuer.sweep(grace=0, taken_over=not self.restored)
        await self._close("last")
        alive = {record.id for record in self._fake.alive()}
        assert self.handed_out <= alive
        assert self.restored or alive == set(self.held.values())

    def _take(self, number: int, issued: Issued[Ticket]) -> None:
        """Hold a ticket's key: always the same one."""
        assert self.held.setdefault(number, issued.key.id) == issued.key.id
        self.handed_out.add(issued.key.id)

    async def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            respan = AsyncRespan(self._fake.api_key, base_url=self._fake.url, retry=RETRY)
            ledger = SQLiteLedger(self._path)
            troubled = TroubledLedger(ledger)
            self._workers[name] = Worker(respan, Issuer(respan, cast("Ledger", troubled)), ledger, troubled)
        return self._workers[name]

    async def _close(self, name: str) -> None:
        worker = self._workers.pop(name)
        await worker.respan.aclose()
        await worker.issuer.aclose()

    async def _issue(self, name: str, number: int) -> None:
        worker = await self._worker(name)
        try:
            issued = await worker.issuer.issue(ticket(number))
        except RespanError:
            if number in self.held:
                raise  # a ticket that has its key gives it back, whatever the server does
            return
        assert isinstance(issued, Issued)
        assert issued.replayed or number not in self.held
        self._take(number, issued)
        assert issued.key.api_key.reveal() == self._fake.keys[issued.key.id].api_key

    # ----------------------------------------------------------------- rules

    @rule(name=names, number=numbers, faults=faults)
    def issue(self, name: str, number: int, faults: list[str]) -> None:
        """A worker issues a ticket, and the server is in some mood."""
        self._fake.script(*faults)
        self._run(self._issue(name, number))

    @rule(number=numbers, faults=faults)
    def issue_in_both(self, number: int, faults: list[str]) -> None:
        """Both workers issue the same ticket at the same time."""

        async def both() -> None:
            await asyncio.gather(self._try(number, "one"), self._try(number, "other"))

        self._fake.script(*faults)
        self._run(both())

    async def _try(self, number: int, name: str) -> None:
        worker = await self._worker(name)
        with contextlib.suppress(RespanError):
            self._take(number, await worker.issuer.issue(ticket(number)))

    @rule(name=names, number=numbers)
    def conflict(self, name: str, number: int) -> None:
        """A worker is asked for a ticket with other fields: a conflict, if the ticket is known, and nothing happens."""
        if number in self.held:

            async def other() -> None:
                worker = await self._worker(name)
                before = len(self._fake.keys)
                try:
                    await worker.issuer.issue(ticket(number, max_usage=99))
                except TicketConflictError:
                    assert len(self._fake.keys) == before
                else:
                    raise AssertionError("no conflict")

            self._run(other())

    @rule(name=names, number=numbers, step=st.sampled_from(["claim_attempt", "record"]), after=st.booleans())
    def fail(self, name: str, number: int, step: str, after: bool) -> None:
        """A worker's ledger fails once, before or after a step was done."""

        async def failing() -> None:
            worker = await self._worker(name)
            times = worker.troubled.after if after else worker.troubled.before
            times[step] = 1
            await self._issue(name, number)
            times[step] = 0

        self._run(failing())

    @rule(name=names, number=numbers, step=st.sampled_from(["claim_attempt", "record"]), faults=faults)
    def crash(self, name: str, number: int, step: str, faults: list[str]) -> None:
        """A worker's process ends right before a step of its ledger, or while it waits."""

        async def crashing() -> None:
            worker = await self._worker(name)
            await worker.issuer.counts()
            worker.troubled.gates[step] = asyncio.Event()
            call = asyncio.create_task(worker.issuer.issue(ticket(number)))
            for _ in range(200):
                if call.done() or worker.troubled.called[step]:
                    break
                await asyncio.sleep(0.001)
            del self._workers[name]
            await die(worker)
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
            if isinstance(outcome, Issued):
                self._take(number, outcome)

        self._fake.script(*faults)
        self._run(crashing())

    @precondition(lambda self: self._workers)
    @rule(name=names)
    def close(self, name: str) -> None:
        """A worker shuts down in order."""
        if name in self._workers:
            self._run(self._close(name))

    @rule()
    def late_keys_happen(self) -> None:
        """The server makes what it had put off."""
        self._run(self._fake.settle())

    @rule(name=names, number=numbers)
    def back_up_in_the_air(self, name: str, number: int) -> None:
        """A hot backup is taken while a worker's key is on its way to the ledger, and to its caller."""

        async def backing_up() -> None:
            worker = await self._worker(name)
            await worker.issuer.counts()
            gate = worker.troubled.gates["record"] = asyncio.Event()
            before = worker.troubled.called["record"]
            call = asyncio.create_task(worker.issuer.issue(ticket(number)))
            for _ in range(200):
                if call.done() or worker.troubled.called["record"] > before:
                    break
                await asyncio.sleep(0.001)
            copy(self._path, self._backup)
            gate.set()
            (outcome,) = await asyncio.gather(call, return_exceptions=True)
            del worker.troubled.gates["record"]
            if isinstance(outcome, Issued):
                self._take(number, outcome)

        self._run(backing_up())

    @precondition(lambda self: self._backup.exists())
    @rule()
    def restore(self) -> None:
        """Everybody shuts down in order, and the backup is put in the ledger's place."""

        async def restoring() -> None:
            for name in list(self._workers):
                await self._close(name)

        self._run(restoring())
        self._backup.replace(self._path)
        self._path.chmod(0o600)
        self.held.clear()
        self.restored = True

    @rule(name=names, taken_over=st.booleans(), dry_run=st.booleans())
    def sweep(self, name: str, taken_over: bool, dry_run: bool) -> None:
        """A worker sweeps, without waiting; of a ledger that is no copy, a person may say so."""

        async def sweeping() -> None:
            issuer, alive = (await self._worker(name)).issuer, len(self._fake.alive())
            report = await issuer.sweep(grace=0, taken_over=taken_over and not self.restored, dry_run=dry_run)
            assert not dry_run or len(self._fake.alive()) == alive
            assert all(not report.dry_run or key_id not in self.handed_out for key_id in report.revoked)

        self._run(sweeping())

    @rule(name=names)
    def remember_the_list(self, name: str) -> None:
        """Keep the list as it is now, to show it later."""

        async def remembering() -> None:
            worker = await self._worker(name)
            self._old = [key async for key in worker.respan.temporary_keys.list(page_size=100)]

        self._run(remembering())

    @rule(name=names)
    def sweep_by_an_old_list(self, name: str) -> None:
        """A worker sweeps by a list of some time ago: keys are in it that are gone, and others are missing."""

        async def sweeping() -> None:
            worker = await self._worker(name)
            await worker.issuer.counts()
            service = cast("CallService", OldList(worker.respan._service, self._old))
            await sweep(service, worker.issuer._suspects, SweepPolicy(grace=0, taken_over=not self.restored))

        self._run(sweeping())

    @invariant()
    def what_was_handed_out_is_alive(self) -> None:
        """No key that a caller was given is ever revoked."""
        assert self.handed_out <= {record.id for record in self._fake.alive()}


def copy(source: Path, target: Path) -> None:
    """Copy a ledger as a backup of SQLite's does, while others write to it."""
    with (
        contextlib.closing(sqlite3.connect(source)) as reading,
        contextlib.closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing)


async def die(worker: Worker) -> None:
    """End a worker as SIGKILL would: nothing more is written, and its lock is free."""
    ledger, context = worker.ledger, worker.respan._service.context
    session = ledger._session
    session.owner.lease_keeper.cancel()
    if session._writer is not None:
        await session._writer.stop()
    lock = session.owner.lock
    if lock._descriptor >= 0:
        os.close(lock._descriptor)
        lock._descriptor = -1
    session.owner.id = 0
    context.lifecycle.unregister(Stage.DEPENDENTS, worker.issuer.aclose)
    with contextlib.suppress(LedgerError):
        await context.lifecycle.aclose(0)


def test_two_workers_and_a_bad_server_keep_to_the_model() -> None:
    """Whatever happens in whatever order: one key for each ticket, always the same, alive; and in the end no other."""
    run_state_machine_as_test(
        Issuing, settings=settings(max_examples=14, stateful_step_count=18, deadline=None, derandomize=True)
    )
