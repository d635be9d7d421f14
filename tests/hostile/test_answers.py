"""Answers that are cut, lie, never end or say nothing: for every operation the right effect, and nothing left over."""

import re

import pytest

from respan_async import CreatedKey, Effect, RespanError
from tests.hostile.framings import FRAMINGS, cuts, mutants
from tests.hostile.misbehaviours import ANSWERS, Means, Misbehaviour, everything
from tests.hostile.scenarios import AGAIN, OPERATIONS, Watch, check_once, meet, play
from tests.integration.raw_server import RawServer, answer, key

virtual = pytest.mark.virtual
hostile = pytest.mark.hostile
every_operation = pytest.mark.parametrize("operation", OPERATIONS)


@virtual
@every_operation
async def test_an_answer_that_ends_early(operation: str) -> None:
    """At some of its bytes, by an end of the stream or in silence."""
    watch = Watch()
    for then in ("fin", "stall"):
        await meet(watch, operation, cuts(OPERATIONS[operation].asks, "length", then, every=29))

    watch.verdict()


@virtual
@hostile
@pytest.mark.parametrize("then", ["fin", "stall"])
@pytest.mark.parametrize("framing", FRAMINGS)
@every_operation
async def test_an_answer_that_ends_at_every_byte(operation: str, framing: str, then: str) -> None:
    """In every framing: nothing is claimed that is not known, and what came whole counts."""
    watch = Watch()

    assert await meet(watch, operation, cuts(OPERATIONS[operation].asks, framing, then)) > 50
    watch.verdict()


@hostile
@pytest.mark.parametrize("framing", ["length", "chunked"])
@every_operation
async def test_an_answer_that_is_reset_at_every_byte(operation: str, framing: str) -> None:
    """On real sockets, where a reset is one."""
    watch = Watch()

    assert await meet(watch, operation, cuts(OPERATIONS[operation].asks, framing, "rst", every=7)) >= 10
    watch.verdict()


@virtual
@every_operation
async def test_a_redirect_leads_nowhere(operation: str) -> None:
    """Neither the token nor the request reaches the host that a server names, by whichever operation."""
    watch = Watch()
    async with RawServer(key()) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            for target in (f"{elsewhere.url}/api/temporary-keys/", elsewhere.url.removeprefix("http:"), "/elsewhere/"):
                act = answer(status, None, {"Location": target}, name=f"redirects by {status} to {target}")
                redirected = Misbehaviour(act, Means.REDIRECTED)
                check_once(watch, operation, redirected, await play(watch, operation, redirected, retry=AGAIN))

    assert elsewhere.connections == 0
    watch.verdict()


@virtual
@hostile
@every_operation
async def test_a_server_that_misbehaves(operation: str) -> None:
    """In every other way that was thought of."""
    watch = Watch()

    assert await meet(watch, operation, everything(OPERATIONS[operation].asks)) > 80
    watch.verdict()


@virtual
@hostile
@pytest.mark.parametrize("operation", ["create", "create_many"])
async def test_a_server_that_misbehaves_once_costs_no_key(operation: str) -> None:
    """The next attempt makes one, wherever another attempt may help; and the doubtful one is remembered."""
    watch = Watch()
    for misbehaviour in everything("create"):
        alone = await play(watch, operation, misbehaviour)
        result = await play(watch, operation, misbehaviour, key(id="key-1"), retry=AGAIN)

        if isinstance(alone, RespanError) and not alone.retryable:
            check_once(watch, operation, misbehaviour, result)
        else:
            watch.check(isinstance(result, CreatedKey), f"no key, but {result!r}")

    watch.verdict()


@virtual
@hostile
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("operation", ["create", "update", "delete", "retrieve", "list"])
async def test_an_answer_with_one_byte_wrong(operation: str, framing: str) -> None:
    """At every byte: a typed error that claims nothing the bytes do not say, or what they do say."""
    watch = Watch()
    for act, sent in mutants(OPERATIONS[operation].asks, framing, every=2 if operation == "create" else 7):
        # What it means depends on the byte: that is checked below.
        result = await play(watch, operation, Misbehaviour(act, Means.GARBAGE))

        refused = re.match(rb"[\r\n]*HTTP/1.[0-9][ ]*4[0-9][0-9]", sent)
        if isinstance(result, RespanError):
            begun = result.status is not None and 200 <= result.status < 300
            nothing = result.effect is Effect.NONE
            watch.check(result.effect is not Effect.LOST or (begun and operation == "create"), f"lost: {result!r}")
            if operation == "create":
                watch.check(not nothing or refused, f"{result.effect}: {result!r}")
            elif operation in ("retrieve", "list"):
                watch.check(nothing, f"{result.effect}: {result!r}")
        elif operation == "create":
            assert isinstance(result, CreatedKey)
            there = sent if framing != "gzip" else ANSWERS["create"][1]
            plain = there.replace(b"\r\n", b"")
            watch.check(refused is None, "a key in a refusal")
            watch.check(
                framing == "chunked" or result.api_key.reveal().encode() in plain, f"{result.api_key.reveal()!r}"
            )

    watch.verdict()
