"""A ledger whose secrets are encrypted from now on, or with another key, while others issue with it."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from respan_async import CreatedKey, CreateKeyRequest
from respan_async.issuing import AESGCMCipher, LedgerError, PostgresLedger, SQLiteLedger, Ticket
from respan_async.issuing.ledger import Intent, UnreadableSecret
from respan_async.secret import Secret
from tests.contract.test_ledger import Store, shared  # noqa: F401  a fixture

SECRET = "prefix12.0123456789abcdef0123456789abcdef"
FIRST, SECOND, THIRD = b"a" * 32, b"b" * 32, b"c" * 32
REFUSED = "start again with .*, then rotate the ledger once more"
_numbers = itertools.count(1)

Kept = SQLiteLedger | PostgresLedger


async def opened(store: Store, key: bytes | None = None, *old_keys: bytes) -> Kept:
    """Open a ledger as a process has it that has these keys."""
    ledger: Any = await store.open(cipher=None if key is None else AESGCMCipher(key, old_keys=old_keys))
    return ledger  # type: ignore[no-any-return]  # one of the two


async def claimed(ledger: Kept, ticket: str) -> tuple[int, str]:
    """Claim a ticket; give the claim's epoch and the attempt's tag."""
    tag = f"tag{next(_numbers):09}"
    now = datetime.now(UTC).timestamp()
    return await ledger.claim_attempt(
        Ticket(ticket, CreateKeyRequest()), Intent(tag=tag, name=None, sent={}, sent_at=now)
    ), tag


async def recorded(ledger: Kept, ticket: str, epoch: int, tag: str) -> None:
    """Record a ticket's key."""
    assert await ledger.record(ticket, epoch, tag, CreatedKey(id=f"key-{ticket}", api_key=Secret(SECRET)))


async def issued(ledger: Kept, *tickets: str) -> None:
    """Bring tickets to their keys."""
    for ticket in tickets:
        await recorded(ledger, ticket, *await claimed(ledger, ticket))


async def readable(ledger: Kept) -> list[str]:
    """Give the tickets whose secrets can be read, one by one and as a page."""
    page = await ledger.undelivered("", 100)
    found = [ticket for ticket, key in page if isinstance(key, CreatedKey) and key.api_key.reveal() == SECRET]
    for ticket in found:
        record = await ledger.find(ticket)
        assert record is not None
        assert record.key is not None
        assert record.key.api_key.reveal() == SECRET
    return found


async def test_what_was_kept_in_plain_text_is_read_and_encrypted_by_a_rotation(shared: Store) -> None:  # noqa: F811
    """Encryption that is turned on takes nothing away; and once it was rotated nothing is plain any more."""
    await issued(await opened(shared), "t1", "t2")
    ledger = await opened(shared, FIRST)
    await issued(ledger, "t3")

    before = await readable(ledger)
    rotated = await ledger.rotate(), await ledger.rotate()
    after = await readable(await opened(shared, FIRST))
    without = await readable(await opened(shared))

    assert before == after == ["t1", "t2", "t3"]
    assert rotated == (2, 0)
    assert without == []


async def test_a_rotation_that_lacks_a_key_leaves_everything_as_it_was(shared: Store) -> None:  # noqa: F811
    """Whoever has the right key goes on, and the wrong one is the one that is refused."""
    right = await opened(shared, FIRST)
    await issued(right, "t1")
    forgetful = await opened(shared, SECOND)

    with pytest.raises(LedgerError, match="encrypted with another key"):
        await forgetful.rotate()

    await issued(right, "t2")
    assert await readable(await opened(shared, FIRST)) == ["t1", "t2"]


@pytest.mark.parametrize("first", [FIRST, None])
async def test_a_process_that_missed_a_rotation_sends_nothing_more(shared: Store, first: bytes | None) -> None:  # noqa: F811
    """It would write what nobody can read once the former key is gone; what it had in the air is not lost."""
    missed = await opened(shared, first)
    await issued(missed, "t1")
    in_the_air = await claimed(missed, "t2")
    rotating = await opened(shared, SECOND, *([] if first is None else [first]))

    assert await rotating.rotate() == 1
    for ticket in ("t3", "t1"):
        with pytest.raises(LedgerError, match=REFUSED) as caught:
            await claimed(missed, ticket)
        assert not caught.value.retryable
    await recorded(missed, "t2", *in_the_air)
    assert await rotating.rotate() == 1
    await issued(rotating, "t3")

    assert await readable(await opened(shared, SECOND)) == ["t1", "t2", "t3"]


async def test_a_process_that_begins_with_the_former_key_alone_sends_nothing(shared: Store) -> None:  # noqa: F811
    """Nor does one without any; what is there can be counted and swept all the same."""
    await (await opened(shared, SECOND)).rotate()

    for keys in ([FIRST], []):
        ledger = await opened(shared, *keys)
        with pytest.raises(LedgerError, match=REFUSED):
            await claimed(ledger, "t1")
        assert await ledger.suspects() == []
        assert sum((await ledger.counts()).tickets.values()) == 0


async def test_in_the_documented_order_two_processes_issue_all_the_time(shared: Store) -> None:  # noqa: F811
    """Each reads what the other writes, at every step; in the end the former key is not needed, and so once more."""
    numbers = itertools.count(1)

    async def both(one: Kept, other: Kept) -> None:
        names = [f"t{next(numbers):02}" for _ in range(2)]
        await issued(one, names[0])
        await issued(other, names[1])
        for ledger in (one, other):
            assert {*names} <= {*await readable(ledger)}

    one, other = await opened(shared, FIRST), await opened(shared, FIRST)
    for former, new in ((FIRST, SECOND), (SECOND, THIRD)):
        for step in ((former, new), (new, former)):
            one_next = await opened(shared, *step)
            await both(one_next, other)
            one, other = one_next, await opened(shared, *step)
            await both(one, other)
        await one.rotate()
        await both(one, other)
        one, other = await opened(shared, new), await opened(shared, new)
        await both(one, other)

    assert len(await readable(one)) == 24


class Damaging(AESGCMCipher):
    """A cipher on a disk that changes one bit of a ticket's secret."""

    def encrypt(self, secret: Secret, ticket: str) -> bytes:
        sealed = super().encrypt(secret, ticket)
        return sealed if ticket != "t2" else sealed[:-1] + bytes([sealed[-1] ^ 1])


async def test_a_damaged_secret_keeps_no_former_key_in_use(shared: Store, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    """It is told, and the others are encrypted anew; without the former key it is damaged as before, and no riddle."""
    damaging: Any = await shared.open(cipher=Damaging(FIRST))
    await issued(damaging, "t1", "t2", "t3")
    rotating = await opened(shared, SECOND, FIRST)

    rotated = await rotating.rotate(), await rotating.rotate()

    assert rotated == (2, 0)
    assert "the secret of ticket 't2' was changed, or is another ticket's; it is not encrypted anew" in caplog.text
    assert "1 secrets are damaged, and not encrypted anew" in caplog.text
    without = await opened(shared, SECOND)
    problem = dict(await without.undelivered("", 100))["t2"]
    assert isinstance(problem, UnreadableSecret)
    assert problem.is_damaged
    assert problem.remedy == "it is left as it is: revoke its key, key-t2, and issue another ticket in its place"
    assert await (await opened(shared, THIRD, SECOND)).rotate() == 2
    assert await readable(await opened(shared, THIRD)) == ["t1", "t3"]


class Reversed:
    """A cipher of somebody's own, which does no more than it must."""

    def encrypt(self, secret: Secret, ticket: str) -> bytes:
        return secret.reveal()[::-1].encode()

    def decrypt(self, sealed: bytes, ticket: str) -> Secret:
        return Secret(sealed[::-1].decode())

    def is_current(self, sealed: bytes) -> bool:
        return True


async def test_a_cipher_that_does_not_tell_its_keys_is_used_as_it_is(shared: Store) -> None:  # noqa: F811
    """What it has encrypted may look like text, and is never taken for that."""
    ledger: Any = await shared.open(cipher=Reversed())
    await (await opened(shared, FIRST)).rotate()

    await issued(ledger, "t1")

    assert await ledger.rotate() == 0
    assert await readable(ledger) == ["t1"]
