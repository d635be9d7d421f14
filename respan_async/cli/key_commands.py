"""The commands on single keys: create, list, show, update and delete."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from respan_async._http.json_text import parse
from respan_async._http.response_parsing import states_absence
from respan_async.cli import exit_codes, tables
from respan_async.cli.client_factory import make_client
from respan_async.cli.closed_streams import check_output
from respan_async.cli.console import ConsoleLogHandler, say
from respan_async.cli.fields import request_of
from respan_async.cli.stdout_sink import STANDARD_OUTPUT
from respan_async.cli.tables import Table
from respan_async.cli.undeliverable_keys import revoke
from respan_async.client import AsyncRespan
from respan_async.errors import InvalidRequestError, NotFoundError
from respan_async.issuing._append_only_file import write_all
from respan_async.issuing.jsonlines_sink import line_of
from respan_async.models import UNSET, CreateKeyRequest, TemporaryKey, UpdateKeyRequest
from respan_async.secret import SecretBytes


def create(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Create one key and print it."""
    request = request_of(CreateKeyRequest, _given(arguments, CreateKeyRequest))

    async def work(respan: AsyncRespan) -> None:
        key = await respan.temporary_keys.create(request)
        try:
            _print(arguments, key)
        except OSError:
            say(await revoke(respan, key.id, f"key {key.id} could not be written to standard output"))
            raise

    return _call(arguments, work)


def list_keys(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Print all keys, or one page."""

    async def work(respan: AsyncRespan) -> None:
        listing = respan.temporary_keys.list(page=arguments.page or 1, page_size=arguments.page_size)
        if tables.wanted(arguments):
            keys = (await listing).results if arguments.page is not None else await listing.all()
            tables.show([_overview(keys)])
        elif arguments.page is not None:
            for key in (await listing).results:
                _print(arguments, key)
        else:
            async for key in listing:
                _print(arguments, key)

    return _call(arguments, work)


def show(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Print one key."""

    async def work(respan: AsyncRespan) -> None:
        _print(arguments, await respan.temporary_keys.retrieve(arguments.id))

    return _call(arguments, work)


def update(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Change one key and print it."""
    given = _given(arguments, UpdateKeyRequest)
    if arguments.expires_in is not UNSET:
        if given["expiry_date"] is not UNSET:
            raise InvalidRequestError("expected expires_in or expiry_date, got both")
        given["expiry_date"] = datetime.now(UTC) + arguments.expires_in
    request = request_of(UpdateKeyRequest, given)

    async def work(respan: AsyncRespan) -> None:
        _print(arguments, await respan.temporary_keys.update(arguments.id, request))

    return _call(arguments, work)


def delete(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Revoke one key."""

    async def work(respan: AsyncRespan) -> None:
        try:
            await respan.temporary_keys.delete(arguments.id)
        except NotFoundError as error:
            if not arguments.missing_ok or not states_absence(error):
                raise
            say(f"key {arguments.id} is not there")
        else:
            say(f"key {arguments.id} is revoked")

    return _call(arguments, work, prints=False)


def _given(arguments: argparse.Namespace, model: type[attrs.AttrsInstance]) -> dict[str, Any]:
    return {field.name: getattr(arguments, field.name) for field in attrs.fields(model)}


def _print(arguments: argparse.Namespace, key: TemporaryKey) -> None:
    """Print a key: as a table of all its fields on a terminal, as a line of JSON anywhere else."""
    line = SecretBytes(line_of(key))
    if tables.wanted(arguments):
        rows = [(name, _cell(value)) for name, value in parse(line).items() if value is not None]
        tables.show([Table(f"key {key.id}", ("field", "value"), rows, most=None)])
    else:
        write_all(STANDARD_OUTPUT, line)


def _overview(keys: Sequence[TemporaryKey]) -> Table:
    """Return the table of many keys, one line each."""
    rows = [
        (
            key.id,
            key.name or "",
            "" if key.expiry_date is None else key.expiry_date.astimezone(UTC).isoformat(sep=" ", timespec="seconds"),
            _usage(key),
            _state(key),
        )
        for key in keys
    ]
    return Table(f"{len(rows)} keys", ("id", "name", "expires", "used", "state"), rows, most=None)


def _usage(key: TemporaryKey) -> str:
    limit = "" if key.max_usage in (None, -1) else f" of {key.max_usage}"
    return "" if key.key_usage is None else f"{key.key_usage}{limit}"


def _state(key: TemporaryKey) -> str:
    if key.revoked:
        return "revoked"
    return "expired" if key.expired else key.status or "alive"


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _call(arguments: argparse.Namespace, work: Callable[[AsyncRespan], Awaitable[None]], *, prints: bool = True) -> int:
    if prints:
        check_output()

    async def call() -> None:
        async with make_client(arguments) as respan:
            await work(respan)

    asyncio.run(call())
    return exit_codes.OK
