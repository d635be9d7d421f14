"""What a ledger costs. As a module, it takes one sample: `python -m benchmarks.durable WHAT ...`."""

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import ours, pictures
from benchmarks.figures import TIMES, Figure, Report
from benchmarks.processes import canned_server, peak, sample, spent
from benchmarks.tenants import API_KEY, IN_FLIGHT
from respan_async import AsyncRespan, CreatedKey, Issued, Secret
from respan_async.issuing import Issuer, SQLiteLedger, Ticket
from respan_async.issuing.ledger import Intent

_DURABLE: Final = "issue_many with a ledger"
_GROUPED: Final = "the ledger alone, group commit"
_SINGLE: Final = "the ledger alone, single commits"
_SECRET: Final = "vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"


def run(quick: bool) -> Report:
    """Compare batches with and without a ledger, group commit with single ones, and resume a large ledger."""
    rounds, count, large = (1, 3_000, 50_000) if quick else (5, 10_000, 1_000_000)
    costs: dict[str, list[float]] = {"create_many": [], "issue_many": []}
    with canned_server() as url:
        for _ in range(rounds):
            for name, samples in costs.items():
                samples.append(sample("durable", "cpu", name, url, count))
        resumed = [sample("durable", "resume", url, large) for _ in range(min(rounds, 2))]
    grouped = [sample("durable", "pairs", IN_FLIGHT, count) for _ in range(rounds)]
    single = [sample("durable", "pairs", 1, count // 10) for _ in range(rounds)]
    return Report(
        name="durable",
        title="What it costs to remember.",
        conditions=f"SQLite, WAL, synchronous=FULL, {IN_FLIGHT} in flight, {rounds} rounds, "
        f"{count:,} tickets; an intent and a result for each; the disk is this machine's",
        figures=[
            Figure(
                name="issue_many with a ledger, against create_many, in CPU time",
                unit=TIMES,
                samples=[a / b for a, b in zip(costs["issue_many"], costs["create_many"], strict=True)],
                at_most=1.35,
                note="median of the ratios within a round",
            ),
            Figure(
                name="single commits take, against group commit",
                unit=TIMES,
                samples=[a / b for a, b in zip(grouped, single, strict=True)],
                note="times as long a pair; wanted: at least 10",
            ),
            Figure(name="group commit", unit="pairs a second", samples=grouped, note="wanted: at least 10,000"),
            Figure(name="single commits", unit="pairs a second", samples=single),
            Figure(
                name=f"from the opening of a ledger of {large:,} tickets to the first request",
                unit="s",
                samples=[seconds for seconds, _ in resumed],
                at_most=2.0,
            ),
            Figure(
                name=f"peak memory of a process that resumes {large:,} tickets",
                unit="MiB",
                samples=[peak for _, peak in resumed],
                at_most=100.0,
            ),
            Figure(name="create_many", unit="µs a key", samples=costs["create_many"]),
            Figure(name=_DURABLE, unit="µs a key", samples=costs["issue_many"]),
            Figure(name=_GROUPED, unit="µs a key", samples=[1e6 / each for each in grouped], note="wall time"),
            Figure(name=_SINGLE, unit="µs a key", samples=[1e6 / each for each in single], note="wall time"),
        ],
        draw=_draw,
    )


def _draw(report: Report, path: Path) -> None:
    values = {figure.name: figure.median for figure in report.figures if figure.unit == "µs a key"}
    pictures.bars(path, values, "µs a key, median", [_DURABLE, _GROUPED])


async def _cpu(name: str, url: str, count: int, folder: Path) -> float:
    """Return the CPU time of a key, in microseconds."""
    async with (
        AsyncRespan(API_KEY, base_url=url, max_in_flight=IN_FLIGHT) as respan,
        Issuer(respan, SQLiteLedger(folder / "keys.db")) as issuer,
    ):

        async def batch(first: int, number: int) -> None:
            numbers = range(first, first + number)
            if name == "create_many":
                async with respan.temporary_keys.create_many(map(ours.request, numbers)) as plain:
                    async for outcome in plain:
                        assert isinstance(outcome, Issued)
                return
            durable = issuer.issue_many(map(ours.ticket, numbers))
            async with durable:
                async for issued in durable:
                    assert isinstance(issued, Issued)

        await batch(0, 500)
        before = spent()
        await batch(500, count)
        return (spent() - before) / count * 1e6


async def _pairs(concurrent: int, count: int, folder: Path) -> float:
    """Return how many pairs of intent and result are durable in a second."""
    ledger = SQLiteLedger(folder / "keys.db")
    await ledger.open("benchmark ?")
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            ticket = ours.ticket(number)
            intent = Intent(tag=f"tag-{number}", name="tenant", sent={"name": "tenant"}, sent_at=time.time())
            epoch = await ledger.claim_attempt(ticket, intent)
            key = CreatedKey(id=f"key-{number}", api_key=Secret(_SECRET))
            assert await ledger.record(ticket.id, epoch, intent.tag, key)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrent)))
    seconds = time.perf_counter() - began
    await ledger.aclose()
    return count / seconds


async def _resume(url: str, count: int, folder: Path) -> tuple[float, float]:
    """Return the seconds from opening a large ledger to the first request, and the peak memory in MiB."""
    path = folder / "keys.db"
    ledger = SQLiteLedger(path)
    await ledger.open(f"{url} ?")
    await ledger.aclose()
    await asyncio.to_thread(_fill, path, count)
    sent_at: list[float] = []
    base = peak()
    began = time.perf_counter()

    async def token() -> str:
        sent_at.append(time.perf_counter())
        return API_KEY

    async with AsyncRespan(token, base_url=url) as respan, Issuer(respan, SQLiteLedger(path)) as issuer:
        # Some that have their keys, as the input of a run that is resumed has, and one that has not.
        outcomes = await issuer.issue_many([*map(_known, range(1_000)), Ticket("new", ours.request(0))])
        assert all(isinstance(outcome, Issued) for outcome in outcomes)
    assert len(sent_at) == 1
    return sent_at[0] - began, max(peak(), base)


def _known(number: int) -> Ticket:
    return Ticket(f"tenant-{number:07}", ours.request(0))


def _fill(path: Path, count: int) -> None:
    """Fill a ledger with tickets that have their keys, in a process of its own, whose memory does not count."""
    sample("durable", "fill", path, count)


def _fill_here(path: Path, count: int) -> None:
    fields = _known(0).fields
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(
            "INSERT INTO tickets (ticket, fields, state, owner, epoch, key_id, key) "
            "VALUES (?, ?, 'delivered', 1, 1, ?, ?)",
            ((_known(each).id, fields, f"key-{each}", json.dumps({"id": f"key-{each}"})) for each in range(count)),
        )
        connection.executemany(
            "INSERT INTO attempts (tag, ticket, owner, epoch, state, sent, sent_at) "
            "VALUES (?, ?, 1, 1, 'recorded', '{}', 0)",
            ((f"tag-{each}", _known(each).id) for each in range(count)),
        )


def _sample(what: str, arguments: list[str]) -> Any:
    if what == "fill":
        return _fill_here(Path(arguments[0]), int(arguments[1]))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if what == "cpu":
            return asyncio.run(_cpu(arguments[0], arguments[1], int(arguments[2]), place))
        if what == "pairs":
            return asyncio.run(_pairs(int(arguments[0]), int(arguments[1]), place))
        return asyncio.run(_resume(arguments[0], int(arguments[1]), place))


if __name__ == "__main__":
    print(json.dumps(_sample(sys.argv[1], sys.argv[2:])))
