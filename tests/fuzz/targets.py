"""Every target by its name, with good inputs to begin from.

A target is a plain function of bytes: it returns, or it raises because a promise is broken. Hypothesis, atheris and the
corpus of `corpus/TARGET/` run the same ones.
"""

from collections.abc import Callable
from typing import Final

import attrs

from tests.fuzz import answers, arguments, stored
from tests.fuzz.payloads import CORPUS, CREATED_A, CREATED_B, ECHOES, KEY_TEXT, LISTED, TENANTS

_THROTTLED: Final = b'429\nRetry-After: 60\n\n{"detail":"Rate limit exceeded","retry_after":60}'
_REFUSALS: Final = (
    _THROTTLED,
    b"429\nRetry-After: inf\n\n",
    b'503\nRetry-After: -1\n\n{"retry_after":-1e30}',
    b"429\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\nDate: Wed, 21 Oct 2026 07:27:00 GMT\n\n",
    b'400\nX-Request-ID: req-1\n\n{"detail":"Validation error","errors":{"name":["Too long.","Too odd."]}}',
    b'400\n\n{"name":["Ensure this field has no more than 50 characters."],"limit_policies":[{"period":["No."]}]}',
    b'401\n\n{"error":{"message":"no","type":"auth","param":null,"code":"401","retry_after":1.5}}',
    b"502\nContent-Type: text/html\n\n<html><h1>Bad Gateway</h1></html>",
    b"301\nLocation: https://elsewhere.example/\n\n",
    *(
        f'403\nX-Request-ID: {echo}\n\n{{"detail":"Bearer {echo}\\nis wrong","key":"x{KEY_TEXT}"}}'.encode()
        for echo in ECHOES
    ),
    f'500\n\n{{"id":"1","api_key":"{KEY_TEXT}","hashed_key":"pbkdf2$1$\\"abc'.encode(),
)
_ODD_BYTES: Final = (b"[", b'{"a":', b'"\\', b'"', b"9", b" ", b"%", b"/", b"\n", b"\x00", b"\xff", b"a.", b"a,")


def _each(heads: tuple[bytes, ...], *units: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((head, unit) for head in heads for unit in (*_ODD_BYTES, *units))


@attrs.frozen
class Target:
    """A function that takes anything, and what it is usually given.

    Attributes:
        run: Raises when a promise is broken.
        seeds: Good inputs.
        repeated: What a hostile input would repeat, each after some beginning.
        size: To how many bytes.
    """

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    repeated: tuple[tuple[bytes, bytes], ...]
    size: int = 200_000


TARGETS: Final = {
    "created": Target(
        answers.created,
        (
            CREATED_A, CREATED_B, b'{"id":"1","api_key":"k"}', b'{"id":"1"}', b'{"id":"1","api_key":"a b"}',
            b'{"id":"1","api_key":"a\\u0000b"}', b'{"id":"\\n","api_key":"k"}', b'{"id":1,"api_key":"k"}',
        ),
        _each((b"", b'{"id":"', b'{"id":"1","api_key":"')),
        size=1_000_000,
    ),
    "listed": Target(
        answers.listed,
        (
            LISTED, b"[" + CREATED_A + b"]", b'{"results":[],"next":"https://h/?page_size=5&page=2"}',
            b'{"results":[],"next":"?page=-1"}', '{"results":[],"next":"?page=٣"}'.encode(),
        ),
        _each((b"", b"[{}", b'{"results":[],"next":"?'), b'{"id":"1"},', b"page=1&"),
        size=1_000_000,
    ),
    "key": Target(
        answers.key,
        (CREATED_A, CREATED_B),
        _each((b'{"id":"1","expiry_date":"', b'{"id":"1","key_usage":')),
    ),
    "refused": Target(
        answers.refused,
        _REFUSALS,
        _each(
            (b"429\nRetry-After: ", b"400\nX-Request-ID: ", b"400\n\n", b'400\n\n"api_key":'),
            b"(", b"-", b'{"error":',
        ),
        size=1_000_000,
    ),
    "base_url": Target(
        arguments.base_url,
        (
            b"https://api.respan.ai", b"https://api.respan.ai:8443/api/", b"http://127.0.0.1:80", b"http://[::1]",
            b"http://localhost.evil", b"https://user@host", b"http://2130706433", "https://bücher.example".encode(),
        ),
        _each((b"https://", b"https://h:", b"https://h/"), b"@", b":", b"]", "ü".encode(), b"xn--"),
    ),
    "key_id": Target(
        arguments.key_id,
        (b"vcjRcdm8...", b"a1b2c3d4-e5f6-7890-abcd-ef1234567890", b"vcjRcdm8.pbkdf2$+=/", b"..", b"a/../b", b"%2e"),
        _each((b"", b"a"), b"../", b"\\"),
    ),
    "bearer": Target(arguments.bearer, (KEY_TEXT.encode(), b"key\n", b"a b"), _each((b"",))),
    "cell": Target(
        arguments.cell,
        (
            b"name=tenant-42", b"expiry_date=2030-01-31T12:00:00Z", b"expires_in=7d", b"expires_in=0.5h",
            b"max_usage=-1", b"rate_limit=null", b"spending_limit=1e3", b"is_test=yes", b"rate=60/60s",
            b'limit_policies=[{"max_value":5,"period":"day"}]',
        ),
        _each(
            (b"expiry_date=", b"expires_in=", b"max_usage=", b"spending_limit=", b"limit_policies=[", b"rate="),
            b"0", b"1.", b"-", b"T", b"{},",
        ),
    ),
    "request": Target(
        arguments.request,
        (
            b'{"name":"t","max_usage":5,"rate_limit":null,"spending_limit":0.1,"is_test":true}',
            b'{"expiry_date":"2030-01-31T12:00:00+01:00","limit_policies":[{"max_value":5,"period":"day"}]}',
            b'{"limit_policies":[{"max_value":5,"period":"60","metric":"cost","warning_threshold":0.5,"name":"n"}]}',
        ),
        _each((b"", b'{"name":"', b'{"max_usage":', b'{"limit_policies":['), b"{},"),
    ),
    "cipher": Target(
        arguments.cipher, (b"\x01", b"\x01" * 40, b"tenant-42", b"A" * 43 + b"="), _each((b"", b"\x01"))
    ),
    "tenants": Target(
        stored.tenants,
        (TENANTS, b"name\na\nb\n", b'\xef\xbb\xbfticket,expires_in\r\n"a\r\nb",1h\r\n', b"ticket,ticket\n"),
        _each((b"", b"ticket\n", b"ticket,name\n"), b"a\n", b'""', b"\r", b'"a\n', b",\n", b",a\n"),
    ),
    "lines": Target(
        stored.lines,
        (
            b'{"ticket":"a","id":"1","api_key":"k"}\n{"ticket":"b","id":"2","api_key":"k"}\n',
            b'{"ticket":"a","id":"1"}\n{"ticket":"b","id":"2","ap', b'{"ticket":"a","id":"1"}', b"\x00\x00", b'{"tick',
        ),
        _each((b"", b'{"ticket":', b'{"ticket":"a"}\n{"ticket":'), b'{"ticket":"a"}\n'),
    ),
    "row": Target(
        stored.row,
        (
            b'{"name":"t"}\0issued\0{"id":"1","name":"n"}\0' + KEY_TEXT.encode(),
            b'{"name":"t"}\0claimed\0\0', b'{"name":"t"}\x001763784000.5\0{"id":""}\0', b"[1]\0lost\0{}\0\xff",
        ),
        _each((b"", b"\0issued\0", b"\0issued\0{}\0")),
    ),
}  # fmt: skip


def corpus(name: str) -> list[bytes]:
    """Return what a target is always given: good inputs, and files that once broke a promise or led to odd places."""
    return [*TARGETS[name].seeds, *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]
