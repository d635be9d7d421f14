"""Encrypts the kept secrets of a ledger with the cipher's current key; see `_cipher_key_mark.py` for the safe order."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from respan_async.errors import LedgerError
from respan_async.events import logger
from respan_async.issuing import _rows
from respan_async.issuing._cipher_key_mark import key_id_of
from respan_async.issuing.cipher import Cipher

Read: TypeAlias = Callable[[str, int], Awaitable[Sequence[tuple[str, bytes]]]]
"""Returns tickets and the bytes of their secrets, by ids: those after the first argument, at most the second."""

Replace: TypeAlias = Callable[[Sequence[tuple[str, bytes, bytes]]], Awaitable[int]]
"""Replaces the old bytes of tickets by new ones where the old bytes are still kept; returns the number of tickets."""

_PAGE: Final = 100


async def rotate(cipher: Cipher | None, read: Read, mark: Callable[[str], Awaitable[object]], replace: Replace) -> int:
    """Encrypt all kept secrets with the current key; return how many. A damaged secret does not hold up the others.

    Args:
        cipher: Encrypts the secrets with its current key.
        read: Reads the secrets.
        mark: Marks the ledger with the id of the current key.
        replace: Writes the secrets.

    Raises:
        LedgerError: There is no cipher, or it lacks the key of a secret; then nothing was changed.
    """
    if cipher is None:
        raise LedgerError("a ledger without a cipher has nothing to rotate")
    damaged: set[str] = set()
    async for page in _pages(read):
        # Check all secrets first. If one needs a missing key, a mark would lock out the processes that have that key.
        for ticket, problem in _rows.damage_in(page, cipher):
            damaged.add(ticket)
            logger.warning("%s; it is not encrypted anew", problem)
    if damaged:
        logger.warning("%d secrets are damaged, and not encrypted anew: no former key is needed for them", len(damaged))
    if (key_id := key_id_of(cipher)) is not None:
        await mark(key_id)  # before the secrets, because from now on no process may write with another key
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
