"""The ledger a command works on: what encrypts its secrets, and what an earlier run has left in it."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Final

from respan_async._calls.sweep import LONG_AFTER_EXPIRY
from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.ledger_location import CommandLedger, LedgerLocation
from respan_async.cli.output_target import OutputTarget
from respan_async.errors import ConfigurationError, LedgerError
from respan_async.events import logger
from respan_async.issuing import AESGCMCipher, Issuer
from respan_async.issuing.cipher import ENVIRONMENT
from respan_async.issuing.jsonlines_sink import digest
from respan_async.issuing.ledger import UnreadableSecret
from respan_async.models import CreatedKey
from respan_async.secret import Secret, secret_of_environment

KEY: Final = ENVIRONMENT
OLD_KEYS: Final = "RESPAN_LEDGER_OLD_KEYS"

_PAGE: Final = 500


def cipher() -> AESGCMCipher | None:
    """Return what encrypts kept secrets, with the keys in the environment; None when there is none.

    Raises:
        WrongUse: A key is none, or the extra `crypto` is not installed.
    """
    try:
        key, former = secret_of_environment(KEY), secret_of_environment(OLD_KEYS)
    except ConfigurationError as error:
        raise WrongUse(str(error)) from None
    old = [] if former is None else [Secret(text) for text in re.split(r"[,\s]+", former.reveal()) if text]
    if key is None:
        if old:
            raise WrongUse(f"{KEY}: expected the key to encrypt with beside {OLD_KEYS}, got none")
        return None
    try:
        AESGCMCipher(key)
    except ConfigurationError:
        raise WrongUse(f"{KEY}: expected 32 bytes as base64, as `openssl rand -base64 32` makes them") from None
    except ImportError as error:
        raise WrongUse(f"{KEY}: {error}") from None
    try:
        return AESGCMCipher(key, old_keys=tuple(old))
    except ConfigurationError:
        raise WrongUse(f"{OLD_KEYS}: expected keys of 32 bytes as base64, separated by commas") from None


async def enter(issuer: Issuer, location: LedgerLocation) -> None:
    """Open an issuer.

    Raises:
        WrongUse: Its ledger cannot be used.
    """
    try:
        await issuer.__aenter__()
    except LedgerError as error:
        raise location.wrong(error) from None


async def deliver_left(ledger: CommandLedger, name: str, output: OutputTarget) -> int:
    """Deliver what an earlier run has left, before anything is sent; return how many it was.

    Raises:
        WrongUse: It cannot be read.
        OSError: It cannot be delivered.
    """

    async def deliver(ticket: str, key: CreatedKey) -> None:
        await output(ticket, key)
        await ledger.erase(ticket)

    after, count = "", 0
    try:
        while left := await ledger.undelivered(after, _PAGE):
            for _, key in left:
                if not isinstance(key, LedgerError) or _is_long_dead(key):
                    continue
                if not (isinstance(key, UnreadableSecret) and key.is_damaged):
                    raise key  # with the right key they are delivered, all of them
                logger.warning("%s; %s", key, key.remedy)
            alive = [(ticket, key) for ticket, key in left if isinstance(key, CreatedKey) and not key.expired]
            results = await asyncio.gather(*(deliver(*pair) for pair in alive), return_exceptions=True)
            for result in results:
                # One that the file does not want is told when its line has its turn.
                if result is not None and not isinstance(result, LedgerError):
                    raise result
            count += sum(result is None for result in results)
            after = left[-1][0]
    except LedgerError as error:
        hint = f"; expected its key in {KEY} or {OLD_KEYS}" if "encrypted" in str(error) else ""
        raise WrongUse(f"{name}: {error}{hint}") from None
    return count


def _is_long_dead(error: LedgerError) -> bool:
    """Whether a secret that cannot be read is of no use any more, so that the issuer erases it."""
    expiry_date = error.expiry_date if isinstance(error, UnreadableSecret) else None
    return expiry_date is not None and expiry_date <= datetime.now(UTC) - LONG_AFTER_EXPIRY


async def issued_elsewhere(ledger: CommandLedger, output: OutputTarget, tickets: set[bytes]) -> set[bytes]:
    """Return those of these tickets that have a line already, and no key in the ledger.

    They were issued by an earlier version, or with a ledger that is lost, and are not issued again.
    """
    if output.sink is None or not (there := output.sink.among(tickets)):
        return set()
    after = ""
    while ids := await ledger.with_keys(after, 10_000):
        there.difference_update(map(digest, ids))
        after = ids[-1]
        await asyncio.sleep(0)
    return there
