"""Good inputs, what to put in their place, and mutations that keep their structure."""

import html
import json
import random
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from respan_async.secret import Secret

SAMPLES: Final = Path(__file__).parent.parent / "samples"
CORPUS: Final = Path(__file__).parent / "corpus"

BEARER: Final = 'cnry/0aK9+sD8f"G7hJ\\6kL5<zX4c&V3bN=2mQ1'
TOKEN: Final = Secret(BEARER)
"""What is never to be seen in an error, whatever a server echoes; JSON, URLs and HTML each write it in another way."""
_IN_JSON: Final = json.dumps(BEARER)[1:-1]
ECHOES: Final = (BEARER, _IN_JSON, _IN_JSON.replace("/", "\\/"), quote(BEARER, safe=""), html.escape(BEARER))
KEY_TEXT: Final = "vcjRcdm8.5hSZiXrA698O6KAiWX5CJj8Zrbp0H6gV"

CREATED_A: Final = (SAMPLES / "create-response-a.json").read_bytes().strip()
CREATED_B: Final = (SAMPLES / "create-response-b.json").read_bytes().strip()
LISTED: Final = (SAMPLES / "list-response.json").read_bytes().strip()
TENANTS: Final = b"".join((SAMPLES / "tenants.csv").read_bytes().splitlines(keepends=True)[:4])

ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    0.5,
    -0.0,
    1e30,
    1e308,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**400,
    float("nan"),
    float("inf"),
    "",
    " ",
    ".",
    "..",
    "\x00",
    "\x1b[31m",
    "\u2028",
    "\ud800",
    "\U0001f511",
    "x" * 600,
    *ECHOES,
    f"Bearer {BEARER}\n",
    KEY_TEXT,
    f"\n{KEY_TEXT}",
    KEY_TEXT[:20],
    "1970-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2030-01-01T00:00:00+05:30:15",
    "2030-01-01",
    "20300101T000000.123456789Z",
    "2030-W01-1",
    "https://api.respan.ai/api/temporary-keys/?page=2",
    "https://elsewhere.example/?page=99999999999999",
    "//[::1",
    "60",
    "Wed, 21 Oct 2026 07:28:00 GMT",
    [],
    {},
    [[[[[[[[]]]]]]]],
    {"message": "no", "type": {"a": ["b"]}},
)
"""Values for any place in a JSON document; some of them no JSON writer would write."""

NAMES: Final = (
    "id", "api_key", "hashed_key", "name", "prefix", "status", "created", "created_at", "expiry_date", "expires_in",
    "revoked", "key_usage", "max_usage", "last_used", "rate_limit", "spending_limit", "spending_in_period", "is_test",
    "is_temporary", "limit_policies", "results", "count", "next", "detail", "error", "errors", "message",
    "retry_after", "ticket", "sandbox", "", "__class__",
)  # fmt: skip


def written(value: Any) -> bytes:
    """Write a JSON document, or nearly one."""
    return json.dumps(value, ensure_ascii="\ud800" in repr(value)).encode(errors="surrogatepass")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Change a few places of the JSON document within `data`, whatever stands before it; bytes, where there is none."""
    head, brace, _ = data.partition(b"{")
    try:
        document = json.loads(data[len(head) :]) if brace else json.loads(data)
    except (ValueError, RecursionError):
        return scrambled(data, chance)
    for _ in range(chance.randint(1, 3)):
        document = _changed(document, chance)
    text = (head if brace else b"") + written(document)
    return scrambled(text, chance) if chance.random() < 0.2 else text


def _changed(node: Any, chance: random.Random) -> Any:
    """Return a document with one place changed."""
    down = chance.random() < 0.8
    if isinstance(node, dict) and node and down:
        name = chance.choice(list(node))
        match chance.randint(0, 4):
            case 0:
                return {other: value for other, value in node.items() if other != name}
            case 1:
                return {**node, chance.choice(NAMES): chance.choice(ODD)}
            case 2:
                return {chance.choice(NAMES) if other == name else other: value for other, value in node.items()}
            case _:
                return {**node, name: _changed(node[name], chance)}
    if isinstance(node, list) and node and down:
        place = chance.randrange(len(node))
        if chance.random() < 0.3:
            return node[:place] + node[place:] * 2
        return [*node[:place], _changed(node[place], chance), *node[place + 1 :]]
    if isinstance(node, str) and node and down:
        place = chance.randrange(len(node) + 1)
        return node[:place] + str(chance.choice(ODD))[:50] + node[place:]
    return chance.choice(ODD)


def scrambled(data: bytes, chance: random.Random) -> bytes:
    """Cut, double, overwrite or insert a few bytes."""
    first, last = sorted(chance.randint(0, len(data)) for _ in range(2))
    match chance.randint(0, 3):
        case 0:
            return data[:first] + data[last:]
        case 1:
            return data[:last] + data[first:]
        case 2:
            return data[:first] + bytes([chance.randint(0, 255)]) + data[first + 1 :]
        case _:
            return data[:first] + str(chance.choice(ODD)).encode(errors="surrogatepass") + data[first:]
