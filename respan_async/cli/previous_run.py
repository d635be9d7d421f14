"""Delivers the keys that an earlier run left in the ledger, and finds the tickets that it issued elsewhere."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from respan_async._calls.sweep_policy import LONG_AFTER_EXPIRY
from respan_async.cli.cipher_from_env import KEY, OLD_KEYS
from respan_async.cli.exit_codes import WrongUse
from respan_async.cli.key_delivery import KeyDelivery
from respan_async.cli.ledger_location import CommandLedger
from respan_async.errors import LedgerError
from respan_async.events import logger
from respan_async.issuing.jsonlines_sink import digest
from respan_async.issuing.ledger import UnreadableSecret
from respan_async.models import CreatedKey

_PAGE: Final = 500


async def deliver_left(ledger: CommandLedger, name: str, output: KeyDelivery) -> int:
    """Deliver the keys that an earlier run left in the ledger; return their number.

    Raises:
        WrongUse: A key cannot be read.
        OSError: A key cannot be delivered.
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
                    raise key  # with the right cipher key, all of them are delivered
                logger.warning("%s; %s", key, key.remedy)
            alive = [(ticket, key) for ticket, key in left if isinstance(key, CreatedKey) and not key.expired]
            results = await asyncio.gather(*(deliver(*pair) for pair in alive), return_exceptions=True)
            for result in results:
                # A key that the file refuses is reported when the run comes to its line.
                if result is not None and not isinstance(result, LedgerError):
                    raise result
            count += sum(result is None for result in results)
            after = left[-1][0]
    except LedgerError as error:
        hint = f"; expected its key in {KEY} or {OLD_KEYS}" if isinstance(error, UnreadableSecret) else ""
        raise WrongUse(f"{name}: {error}{hint}") from None
    return count


def _is_long_dead(error: LedgerError) -> bool:
    """Whether an unreadable secret expired so long ago that the issuer erases it."""
    expiry_date = error.expiry_date if isinstance(error, UnreadableSecret) else None
    return expiry_date is not None and expiry_date <= datetime.now(UTC) - LONG_AFTER_EXPIRY


async def issued_elsewhere(ledger: CommandLedger, output: KeyDelivery, tickets: set[bytes]) -> set[bytes]:
    """Return the tickets that have a line in the output, and no key in the ledger.

    An earlier version issued them, or a run whose ledger is lost; they are not issued again.
    """
    if output.sink is None or not (there := output.sink.among(tickets)):
        return set()
    after = ""
    while ids := await ledger.with_keys(after, 10_000):
        there.difference_update(map(digest, ids))
        after = ids[-1]
        await asyncio.sleep(0)
    return there
