"""Parses connection strings of Postgres; its messages never show the password.

libpq splits a URL at the first `@` and the first `/`, so that the rest of a password with such a character becomes part
of the host or the port, and would be shown in every error. So such a URL is refused before it is used.
"""

import re
from typing import Any, Final

import psycopg
from psycopg import conninfo

from respan_async.secret import Secret

_NONE: Final = "not a connection string of Postgres, such as postgresql://user:password@host/database"
_ESCAPES: Final = "in a URL, a user's name and password have %40 for @, %2F for /, %25 for %, and %20 for a space"
_QUOTES: Final = "either a parameter is unknown, or a value with a space in it is not written as password='two words'"
_UNKNOWN: Final = re.compile(r'invalid (?:URI query parameter|connection option):? "(\w{1,40})"')


class Settings(dict[str, Any]):
    """Settings for libpq, including the password, which do not show themselves."""

    def __repr__(self) -> str:
        return "Settings(***)"

    __str__ = __repr__


def settings_of(dsn: object) -> Settings | str:
    """Return the settings in a connection string, or what is wrong with it."""
    text = dsn.reveal() if isinstance(dsn, Secret) else ""
    scheme, separator, rest = text.partition("://")
    if separator and scheme.isascii() and scheme.replace("+", "").isalnum() and "+" in scheme:
        return f"{scheme}:// is another library's; leave out +{scheme.partition('+')[2]}"
    if not text.strip():
        return _NONE
    try:
        settings = Settings(conninfo.conninfo_to_dict(text))
    except psycopg.Error as error:  # its message shows parts of the string, and may show the password
        return f"{_NONE}; {_reason(str(error), text, is_url=bool(separator))}"
    if separator and ("@" in str(settings.get("host", "")) or "@" in _path(rest)):
        return f"{_NONE}; {_ESCAPES}"
    if not all(port.isascii() and port.isdigit() for port in str(settings.get("port", "")).split(",") if port):
        return f"{_NONE}; expected a number as the port{f'; {_ESCAPES}' if separator else ''}"
    return settings


def _path(rest: str) -> str:
    """Return the name of the database in a URL."""
    return rest.partition("/")[2].partition("?")[0]


def _reason(said: str, text: str, *, is_url: bool) -> str:
    """Describe libpq's complaint, without an unknown parameter's name that may be part of the password."""
    unknown = _UNKNOWN.match(said)
    if unknown is not None:
        before, _, after = text.partition(unknown[1])
        if "@" not in after if is_url else "password" not in before:
            return f"unknown parameter {unknown[1]!r}"
    return _ESCAPES if is_url else _QUOTES
