"""Maps a request's method and path to an operation, or to the answer that Django gives if none matches."""

from collections.abc import Mapping
from urllib.parse import unquote

import attrs

from respan_async.testing.responses import ServerResponse, detail, html

__all__ = ["OTHER", "ROOT", "Target", "find_target"]

ROOT = "/api/temporary-keys/"
OTHER = "other"
"""The operation of a request that matches none."""

_COLLECTION: Mapping[str, str] = {"GET": "list", "POST": "create"}
_ITEM: Mapping[str, str] = {"GET": "retrieve", "PATCH": "update", "DELETE": "delete"}


@attrs.frozen
class Target:
    """The target of a request.

    Attributes:
        operation: "create", "list", "retrieve", "update" or "delete"; "other" for none.
        key_id: The id of the key; empty for the whole collection.
        no_route: The answer to an unknown path, given before the token is checked.
        wrong_method: The answer to a wrong method, given after the token and the limit were checked.
    """

    operation: str = OTHER
    key_id: str = ""
    no_route: ServerResponse | None = None
    wrong_method: ServerResponse | None = None


_NOWHERE = Target(no_route=html(404, "Not Found"))
_LIST = Target("list")
_CREATE = Target("create")


def find_target(method: str, raw_path: str) -> Target:
    """Find the target of a request.

    Args:
        method: In capitals.
        raw_path: Path and query as they were sent, because a percent-encoded slash belongs to an id.
    """
    path, question, query = raw_path.partition("?")
    if path == ROOT:
        if method == "POST":
            return _CREATE
        return _LIST if method == "GET" else _wrong_method(method, _COLLECTION)
    if not f"{path}/".startswith(ROOT):
        return _NOWHERE
    item = path[len(ROOT) :]
    if not path.endswith("/") and "/" not in item:
        return Target(no_route=ServerResponse(301, headers={"Location": f"{path}/{question}{query}"}))
    key_id = unquote(item.removesuffix("/"))
    if not key_id or "/" in item.removesuffix("/"):
        return _NOWHERE
    operation = _ITEM.get(method)
    return Target(operation, key_id) if operation else _wrong_method(method, _ITEM)


def _wrong_method(method: str, allowed: Mapping[str, str]) -> Target:
    return Target(wrong_method=detail(405, f'Method "{method}" not allowed.', {"Allow": ", ".join(allowed)}))
