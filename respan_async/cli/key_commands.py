"""The commands that make one call, or read one list."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from respan_async._http.sans_io import states_absence
from respan_async.cli import exit_codes
from respan_async.cli.client_factory import make_client
from respan_async.cli.console import ConsoleLogHandler, say
from respan_async.cli.fields import request_of
from respan_async.cli.standard_streams import check_output
from respan_async.cli.stdout_sink import STANDARD_OUTPUT
from respan_async.cli.undeliverable_keys import revoke
from respan_async.client import AsyncRespan
from respan_async.errors import NotFoundError
from respan_async.issuing._append_only_file import write_all
from respan_async.issuing.jsonlines_sink import line_of
from respan_async.models import CreateKeyRequest, TemporaryKey, UpdateKeyRequest
from respan_async.secret import SecretBytes


def create(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Create one key and print it."""
    request = request_of(CreateKeyRequest, _given(arguments, CreateKeyRequest))

    async def work(respan: AsyncRespan) -> None:
        key = await respan.temporary_keys.create(request)
        try:
            _print(key)
        except OSError:
            say(await revoke(respan, key.id, f"key {key.id} could not be written to standard output"))
            raise

    return _call(arguments, work)


def list_keys(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Print keys, all of them or one page."""

    async def work(respan: AsyncRespan) -> None:
        listing = respan.temporary_keys.list(page=arguments.page or 1, page_size=arguments.page_size)
        if arguments.page is not None:
            for key in (await listing).results:
                _print(key)
            return
        async for key in listing:
            _print(key)

    return _call(arguments, work)


def show(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Print one key."""

    async def work(respan: AsyncRespan) -> None:
        _print(await respan.temporary_keys.retrieve(arguments.id))

    return _call(arguments, work)


def update(arguments: argparse.Namespace, log: ConsoleLogHandler) -> int:
    """Change one key and print it."""
    request = request_of(UpdateKeyRequest, _given(arguments, UpdateKeyRequest))

    async def work(respan: AsyncRespan) -> None:
        _print(await respan.temporary_keys.update(arguments.id, request))

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


def _print(key: TemporaryKey) -> None:
    write_all(STANDARD_OUTPUT, SecretBytes(line_of(key)))


def _call(arguments: argparse.Namespace, work: Callable[[AsyncRespan], Awaitable[None]], *, prints: bool = True) -> int:
    if prints:
        check_output()

    async def call() -> None:
        async with make_client(arguments) as respan:
            await work(respan)

    asyncio.run(call())
    return exit_codes.OK
