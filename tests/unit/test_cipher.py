"""Kept secrets, encrypted: of no use without the key, for another ticket, or when a bit was changed."""

import base64
import builtins
from typing import Any

import pytest

from respan_async import ConfigurationError
from respan_async.issuing import AESGCMCipher, LedgerError
from respan_async.issuing.ledger import DamagedRecord
from respan_async.secret import Secret

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
HEAD = 5
"""Bytes of the version and the key's id."""
SECRET = Secret("vcjRcdm8.0123456789abcdef0123456789abcdef")


def test_a_secret_comes_back() -> None:
    """With the same key and the same ticket."""
    cipher = AESGCMCipher(KEY)

    assert cipher.decrypt(cipher.encrypt(SECRET, "tenant-1"), "tenant-1") == SECRET


def test_the_same_secret_never_looks_the_same() -> None:
    """Each encryption has a nonce of its own, and shows nothing of the text."""
    cipher = AESGCMCipher(KEY)
    sealed = {cipher.encrypt(SECRET, "tenant-1") for _ in range(100)}

    assert len(sealed) == 100
    assert not any(b"vcjRcdm8" in one or b"0123" in one for one in sealed)


def with_bit_flipped(sealed: bytes, position: int) -> bytes:
    """Change one bit."""
    changed = bytearray(sealed)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def test_every_changed_bit_is_noticed_as_damage() -> None:
    """In the nonce, the text and the tag alike: the key is at hand, so it is no other key's."""
    cipher = AESGCMCipher(KEY)
    sealed = cipher.encrypt(SECRET, "tenant-1")

    for position in range(HEAD * 8, len(sealed) * 8):
        with pytest.raises(DamagedRecord, match="'tenant-1' was changed"):
            cipher.decrypt(with_bit_flipped(sealed, position), "tenant-1")


def test_a_changed_bit_in_the_head_costs_nothing() -> None:
    """The version and the key's id only say which key to try; that one of them opens it proves which it was."""
    cipher = AESGCMCipher(OTHER, old_keys=(KEY,))
    sealed = AESGCMCipher(KEY).encrypt(SECRET, "tenant-1")

    for position in range(HEAD * 8):
        assert cipher.decrypt(with_bit_flipped(sealed, position), "tenant-1") == SECRET
    damaged = with_bit_flipped(with_bit_flipped(sealed, 0), 300)
    with pytest.raises(DamagedRecord, match="'tenant-1' was changed"):
        cipher.decrypt(damaged, "tenant-1")


def test_every_cut_is_noticed() -> None:
    """A row that was cut off is damaged at any length."""
    cipher = AESGCMCipher(KEY)
    sealed = cipher.encrypt(SECRET, "tenant-1")

    for length in range(len(sealed)):
        with pytest.raises(DamagedRecord, match="'tenant-1'"):
            cipher.decrypt(sealed[:length], "tenant-1")


@pytest.mark.parametrize("ticket", ["tenant-2", "tenant-", "tenant-11", "Tenant-1", ""])
def test_a_secret_is_of_no_use_for_another_ticket(ticket: str) -> None:
    """Rows that were swapped do not decrypt."""
    cipher = AESGCMCipher(KEY)

    with pytest.raises(LedgerError, match="was changed, or is another ticket's"):
        cipher.decrypt(cipher.encrypt(SECRET, "tenant-1"), ticket)


def test_another_key_is_told_as_that() -> None:
    """Not as damage; and the message shows neither the key nor the secret."""
    sealed = AESGCMCipher(KEY).encrypt(SECRET, "tenant-1")

    with pytest.raises(LedgerError, match="encrypted with another key") as caught:
        AESGCMCipher(OTHER).decrypt(sealed, "tenant-1")

    assert not isinstance(caught.value, DamagedRecord)
    assert "vcjR" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_with_the_same_id_by_chance_is_refused_all_the_same() -> None:
    """The id only says which key to try."""
    one, other = AESGCMCipher(KEY), AESGCMCipher(OTHER)
    forged = other.encrypt(SECRET, "t")[:5] + one.encrypt(SECRET, "t")[5:]

    with pytest.raises(LedgerError, match="was changed"):
        other.decrypt(forged, "t")


def test_old_keys_decrypt_and_the_new_one_encrypts() -> None:
    """Rotation: what is old is told from what is current, and both can be read meanwhile."""
    old, new = AESGCMCipher(KEY), AESGCMCipher(OTHER, old_keys=(KEY,))
    sealed = old.encrypt(SECRET, "t")

    assert new.decrypt(sealed, "t") == SECRET
    assert not new.is_current(sealed)
    again = new.encrypt(new.decrypt(sealed, "t"), "t")
    assert new.is_current(again)
    assert AESGCMCipher(OTHER).decrypt(again, "t") == SECRET
    with pytest.raises(LedgerError):
        old.decrypt(again, "t")


TEXT = base64.b64encode(KEY).decode()


@pytest.mark.parametrize("form", [KEY, TEXT, Secret(TEXT), f"{TEXT}\n", Secret(f" {TEXT}\r\n")])
def test_a_key_may_be_bytes_or_base64(form: Any) -> None:
    """They are the same key."""
    assert AESGCMCipher(form).decrypt(AESGCMCipher(KEY).encrypt(SECRET, "t"), "t") == SECRET


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is given, the argument wins."""
    monkeypatch.setenv("RESPAN_LEDGER_KEY", base64.b64encode(OTHER).decode())
    sealed = AESGCMCipher().encrypt(SECRET, "t")

    assert AESGCMCipher(OTHER).is_current(sealed)
    assert AESGCMCipher(KEY).is_current(AESGCMCipher(KEY).encrypt(SECRET, "t"))


@pytest.mark.parametrize("value", [None, ""])
def test_no_key_at_all_is_told(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """With the name of the variable."""
    monkeypatch.delenv("RESPAN_LEDGER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("RESPAN_LEDGER_KEY", value)

    with pytest.raises(ConfigurationError, match="RESPAN_LEDGER_KEY"):
        AESGCMCipher()


@pytest.mark.parametrize(
    "key", [b"", b"short", bytes(31), bytes(33), "not base64!", base64.b64encode(bytes(16)).decode(), 5, "é" * 43 + "="]
)
def test_what_is_no_key_is_refused_without_being_shown(key: Any) -> None:
    """32 bytes, or their base64 text; what was given may be a key in some other wrapping."""
    with pytest.raises(ConfigurationError, match="expected 32 bytes") as caught:
        AESGCMCipher(key)

    assert "short" not in str(caught.value)
    assert "not base64" not in str(caught.value)


def test_an_old_key_that_is_none_is_refused_as_well() -> None:
    """At construction, not at the first row that needs it."""
    with pytest.raises(ConfigurationError, match="expected 32 bytes"):
        AESGCMCipher(KEY, old_keys=("nonsense",))


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(ImportError, match=r"pip install 'respan-async\[crypto\]'"):
        AESGCMCipher(KEY)
