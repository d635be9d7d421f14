"""Prints the summary at the end of a run of `respan-keys issue`."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from respan_async._calls.suspect_store import expires_at
from respan_async._calls.sweep_policy import AFTER_EXPIRY
from respan_async.cli import exit_codes
from respan_async.cli.connection_urls import without_password
from respan_async.cli.console import MOST_LINES, command_line, say
from respan_async.cli.csv_reader import can_be_read_again
from respan_async.cli.ledger_location import LedgerLocation
from respan_async.errors import LedgerError, Suspect


@attrs.frozen(kw_only=True)
class Summary:
    """The results of a run, its possible leftovers, and how to go on.

    Attributes:
        arguments: The command's arguments.
        ledger: The location of the ledger.
        suspects: The suspects that this run knows of.
        issued: Keys made and delivered.
        already: Tickets that were issued before.
        absent: Of these, tickets without a line in the file of keys.
        failed: Tickets that failed.
        kept: Keys that stay in the ledger, because they could not be delivered.
        left: Tickets without a delivered key.
        refused: Requests that the limit turned away.
        elapsed: Seconds.
        rate: Outcomes a second.
        fatal: The error that ended the run; None if no error did.
        conflicting: Tickets whose fields differ from those they were issued with.
        foreign: Tickets for which the file of keys has another key.
    """

    arguments: argparse.Namespace
    ledger: LedgerLocation
    suspects: Sequence[Suspect]
    issued: int
    already: int
    absent: int
    failed: int
    kept: int
    left: int
    refused: int
    elapsed: float
    rate: float
    fatal: Exception | None
    conflicting: int = 0
    foreign: int = 0

    def say(self) -> None:
        """Print the summary, once the ledger is closed."""
        remembered = self._remembered()
        if self.failed > MOST_LINES:
            say(f"... and {self.failed - MOST_LINES} more failures")
        if remembered is None:
            say_suspects(self.suspects)
        suspects = len(self.suspects) if remembered is None else remembered
        not_sent = max(self.left - self.failed - self.kept, 0)
        say(
            f"{self.issued} issued in {self.elapsed:.1f} s ({self.rate:.1f}/s), {self.already} already issued, "
            f"{self.failed} failed, {not_sent} not sent, {self.refused} refused, {suspects} suspects"
        )
        self._say_what_is_missing()
        if remembered:
            sweep, status = self._command("sweep"), self._command("status")
            say(f"suspects may be live keys that nobody holds; {status} names them, {sweep} revokes them")
        if self.fatal is not None:
            say(f"respan-keys: {exit_codes.sentence(self.fatal)}")
        if self.left and not isinstance(self.fatal, exit_codes.WrongUse):
            self._say_how_to_go_on()

    def _remembered(self) -> int | None:
        """Count the ledger's suspects; None if the ledger is forgotten with this process."""
        if self.ledger.in_memory:
            return None
        try:
            return len(self.ledger.snapshot().suspects)
        except LedgerError:
            return None

    def _say_what_is_missing(self) -> None:
        if self.absent:
            anew = f"; to play anew, remove {self.ledger.name}" if self.arguments.sandbox else ""
            say(
                f"{self.absent} of those already issued are not in {self.arguments.out}: their keys were delivered "
                f"before, and their secrets are erased{anew}"
            )
        if self.kept:
            say(f"{self.kept} keys are in {self.ledger.name}, and could not be delivered yet")

    def _command(self, name: str) -> str:
        url = ("--base-url", self.arguments.base_url) if self.arguments.base_url and name == "sweep" else ()
        account = ("--account", self.arguments.account) if self.arguments.account and name == "sweep" else ()
        return command_line("respan-keys", name, *self.ledger.words, *url, *account)

    def _say_how_to_go_on(self) -> None:
        if self.ledger.in_memory and self.arguments.out == "-":
            say("to go on, leave out what was issued: without --ledger, keys on standard output are not remembered")
            return
        if self.conflicting:
            say(
                f"{self.conflicting} of the lines that failed will fail again as long as their fields are others than "
                "before: give them their former fields, or tickets of their own"
            )
        if self.foreign:
            place = self.arguments.out
            say(f"{self.foreign} of the lines that failed will fail again as long as {place} has another key for them")
        if self.left <= self.conflicting + self.foreign:
            return
        argv, again = [without_password(word) for word in self.arguments.argv], ""
        if not can_be_read_again(self.arguments.file):
            argv = ["-" if word == self.arguments.file else word for word in argv]
            again = "give the same input to "
        say(f"to go on: {again}{command_line('respan-keys', *argv)}")


_LAST_HOUR: Final = datetime.max.replace(tzinfo=UTC) - AFTER_EXPIRY


def how_they_end(suspects: Sequence[Suspect]) -> str:
    """Say in one sentence how suspects end."""
    ends = [end for end in map(expires_at, suspects) if end is not None]
    says = "a suspect ends when its key is found and revoked, or an hour after its expiry"
    if len(ends) == len(suspects):
        last = (min(max(ends), _LAST_HOUR) + AFTER_EXPIRY).isoformat(timespec="seconds")
        return f"{says}: the last of these at {last}, by the next sweep"
    count = len(suspects) - len(ends)
    return f"{says}; {count} without an expiry stay{'s' if count == 1 else ''} until the key is found, if there is one"


def say_suspects(suspects: Sequence[Suspect]) -> None:
    """Print the first few suspects, one per line."""
    for suspect in suspects[:MOST_LINES]:
        known = f"; respan-keys delete -- {command_line(suspect.id)}" if suspect.id else ""
        sent_at = suspect.sent_at.isoformat(timespec="seconds")
        say(f"suspect: name {suspect.name!r}, sent at {sent_at}: {suspect.reason}{known}")
    if len(suspects) > MOST_LINES:
        say(f"... and {len(suspects) - MOST_LINES} more suspects")
