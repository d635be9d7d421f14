"""Encrypting what a ledger keeps with the key that is used now; the order is that of `_cipher_key_mark.py`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from respan_async.errors import LedgerError
from respan_async.events import logger
from respan_async.issuing import _rows
from respan_async.issuing._cipher_key_mark import key_id_of
from respan_async.issuing.cipher import Cipher

Read: TypeAlias = Callable[[str, int], Awaitable[Sequence[tuple[str, bytes]]]]
"""Returns tickets with the bytes of their secrets, in order: those after the first argument, as many as the second."""

Replace: TypeAlias = Callable[[Sequence[tuple[str, bytes, bytes]]], Awaitable[int]]
"""Puts new bytes in the place of the old ones of a ticket, if those are still there; returns how often they were."""

_PAGE: Final = 100


async def rotate(cipher: Cipher | None, read: Read, mark: Callable[[str], Awaitable[object]], replace: Replace) -> int:
    """Encrypt secrets anew; return how many. One that is damaged holds up no other.

    Args:
        cipher: Encrypts them with its current key.
        read: Reads them.
        mark: Marks the ledger with the id of that key.
        replace: Writes them.

    Raises:
        LedgerError: There is no cipher, or it has not the key of a secret; then all is left as it was.
    """
    if cipher is None:
        raise LedgerError("a ledger without a cipher has nothing to rotate")
    damaged: set[str] = set()
    async for page in _pages(read):
        # All of them, or the mark would lock out who has the right key.
        for ticket, problem in _rows.damage_in(page, cipher):
            damaged.add(ticket)
            logger.warning("%s; it is not encrypted anew", problem)
    if damaged:
        logger.warning("%d secrets are damaged, and not encrypted anew: no former key is needed for them", len(damaged))
    if (key_id := key_id_of(cipher)) is not None:
        await mark(key_id)  # first: what comes after is of this key
    rotated = 0
    async for page in _pages(read):
        await replace(_rows.relabelled([row for row in page if row[0] in damaged], cipher))
        rotated += await replace(_rows.renewed([row for row in page if row[0] not in damaged], cipher))
    return rotated


async def _pages(read: Read) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
    after = ""
    while page := await read(after, _PAGE):
        yield page
        after = page[-1][0]
