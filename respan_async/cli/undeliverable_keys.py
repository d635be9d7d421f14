"""Revokes a key that could not be delivered, and describes the result."""

from respan_async.cli import exit_codes
from respan_async.cli.console import command_line
from respan_async.client import AsyncRespan
from respan_async.errors import RespanError


async def revoke(respan: AsyncRespan, key_id: str, what: str) -> str:
    """Revoke a key that was just made; return a sentence that begins with what went wrong with the key.

    A 404 does not count as revoked, because a key that was just made exists, even if a server denies it.
    """
    try:
        await respan.temporary_keys.delete(key_id)
    except RespanError as error:
        command = f"respan-keys delete -- {command_line(key_id)}"
        return f"{what} nor revoked ({exit_codes.sentence(error)}); it is alive, and nobody's: {command}"
    return f"{what}, and was revoked"
