"""The make-believe Respan on this machine: `respan-keys sandbox`, and the one within `issue --sandbox`."""

import argparse
import asyncio
import os
import shlex
import signal
from collections.abc import Iterable
from typing import Final

from respan_async._pacing.rate_limit import RateLimit
from respan_async.cli import exit_codes
from respan_async.cli.closed_streams import check_output
from respan_async.cli.console import ConsoleLogHandler, say
from respan_async.cli.interrupts import interrupts
from respan_async.cli.stdout_sink import STANDARD_OUTPUT
from respan_async.issuing._append_only_file import write_all
from respan_async.testing import FAULTS, FakeRespan, SlidingLog

SANDBOX_LIMIT: Final = RateLimit(20, per=1)
"""The limit of the sandbox within `issue`: three times the documented keys per minute in less than ten seconds."""

_LATENCY: Final = (0.01, 0.03)


def small_sandbox() -> FakeRespan:
    """Return a server for one run of `issue`."""
    return FakeRespan(limit=SlidingLog(SANDBOX_LIMIT.limit, per=SANDBOX_LIMIT.per), latency=_LATENCY)


def report(fake: FakeRespan, held: Iterable[str] | None = None) -> None:
    """Report what happened on the server.

    Args:
        fake: The server.
        held: The ids of the keys that were delivered; None if unknown.
    """
    counts = fake.counts
    text = f"sandbox: {counts.requests} requests, {counts.refused} refused, {counts.created} keys made"
    text += f", {counts.alive} alive"
    if held is not None:
        text += f", {len(fake.unheld(held))} of them held by nobody"
    say(text)


def fault(text: str) -> tuple[str, float]:
    """Read a fault and its probability, as in `refuse:2.5:0.1`.

    Raises:
        ValueError: The text is not a fault.
    """
    name, _, chance = text.rpartition(":")
    if name.partition(":")[0] not in FAULTS:
        raise ValueError(f"expected NAME:PROBABILITY, with one of the names {', '.join(FAULTS)}, got {text!r:.100}")
    try:
        probability = float(chance)
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise ValueError(f"expected a probability from 0 to 1 after the last colon, got {text!r:.100}")
    return name, probability


def serve(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Serve until Ctrl-C, then report what happened."""
    check_output()
    return asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    limit: RateLimit | None = arguments.limit
    fake = FakeRespan(
        limit=None if limit is None else SlidingLog(limit.limit, per=limit.per),
        latency=arguments.latency,
        port=arguments.port,
    )
    for name, probability in arguments.fault:
        try:
            fake.chance(name, probability)
        except ValueError as error:
            raise exit_codes.WrongUse(f"--fault: {error}") from None
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background processes with Ctrl-C ignored. A server has nothing to lose, and should end with the
        # rest.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = asyncio.Event()
    with interrupts(ended.set):
        async with fake:
            say(f"sandbox: at {fake.url}, limit {limit or 'none'}; Ctrl-C ends it")
            _export(RESPAN_BASE_URL=fake.url, RESPAN_API_KEY=fake.api_key, RESPAN_SANDBOX_PID=str(os.getpid()))
            await ended.wait()
            report(fake)
    return exit_codes.OK


def _export(**variables: str) -> None:
    """Write variables in a shell's syntax, and close standard output, which `eval "$(... &)"` waits for."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_all(STANDARD_OUTPUT, text.encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STANDARD_OUTPUT)
    os.close(nowhere)
