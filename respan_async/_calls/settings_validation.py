"""Validates the settings of a client; the message of each error names the setting."""

import inspect
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Final, cast
from urllib.request import proxy_bypass

from yarl import URL

from respan_async._arguments import is_number, plain_value, shown
from respan_async._calls.client_context import Options
from respan_async._http.redaction import redacted
from respan_async._http.session import Network
from respan_async._http.transport import Timeout, timeout_of
from respan_async._pacing.local_window import LocalWindow
from respan_async._pacing.priority import Priority
from respan_async._pacing.rate_limit import RateLimit
from respan_async._pacing.window import Window
from respan_async.errors import ConfigurationError
from respan_async.events import Hook
from respan_async.retry import RetryPolicy
from respan_async.secret import Secret, TokenSource, as_secret, secret_of_environment, usable_token

DEFAULT_BASE_URL: Final = "https://api.respan.ai"

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PASSWORD: Final = re.compile(r"//[^/]*@")
_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)
_OURS: Final = frozenset(
    (
        "authorization",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
        "transfer-encoding",
        "host",
        "expect",
        "content-encoding",
        "upgrade",
    )
)
"""What the client or aiohttp sends by itself, and what would make the server take the body or the connection for
something else."""


def token_source(api_key: object) -> Secret | TokenSource:
    if callable(api_key):
        return cast("TokenSource", api_key)
    if api_key is None:
        api_key = secret_of_environment("RESPAN_API_KEY")
    if api_key is None:
        raise ConfigurationError(
            "api_key: expected one as an argument or in RESPAN_API_KEY, or its file in RESPAN_API_KEY_FILE, got none"
        )
    return usable_token(api_key)


def _check_phases(timeout: Timeout) -> None:
    """Refuse a time at which aiohttp would fail only after the request has left."""
    for phase in ("total", "connect", "sock_read", "sock_connect"):
        seconds = getattr(timeout, phase)
        if seconds is not None and not (is_number(seconds) and 0 <= seconds < float("inf")):
            raise ConfigurationError(f"timeout: expected seconds, or None, as {phase}, got {shown(seconds)}")


def options_of(
    *,
    timeout: float | Timeout,
    deadline: float | None,
    retry: RetryPolicy,
    priority: Priority | None = None,
    extra_headers: tuple[tuple[str, Secret | str], ...] = (),
) -> Options:
    if not isinstance(timeout, Timeout) and not _is_seconds(timeout):
        raise ConfigurationError(
            f"timeout: expected seconds above 0, or an aiohttp.ClientTimeout, got {shown(timeout)}"
        )
    if isinstance(timeout, Timeout):
        _check_phases(timeout)
    if deadline is not None and not _is_seconds(deadline):
        raise ConfigurationError(f"deadline: expected seconds above 0, or None, got {shown(deadline)}")
    if not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry: expected a RetryPolicy, got {shown(retry)}")
    return Options(
        timeout=timeout_of(timeout),
        deadline=deadline,
        retry=retry,
        priority=priority,
        extra_headers=extra_headers,
    )


def _is_seconds(value: object) -> bool:
    # The upper bound is a year; it also excludes infinity, and values that overflow when added to a clock.
    return is_number(value) and 0 < value < 31_536_000


def checked_flag(name: str, value: object) -> bool:
    # "false" from a settings file is a text, and so would be true.
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}: expected True or False, got {shown(value)}")
    return value


def checked_url(text: str, allow_http: bool) -> str:
    """Return scheme, host and port of a base URL."""
    text = plain_value(text)
    expected = f"base_url: expected a URL such as {DEFAULT_BASE_URL}, got {_shown(text)}"
    # An international name must be given in its ASCII form (xn--...), so that look-alikes cannot deceive a reader.
    if not isinstance(text, str) or not text.isprintable() or not text.isascii() or set(text) & set(" \\"):
        raise ConfigurationError(expected)
    try:
        url = URL(text)
        host, port = url.host, url.port
    except (ValueError, IndexError):  # yarl 1.25 raises IndexError for `http://[::1]@/`
        url, host, port = URL(), None, None
    if not host or url.scheme not in ("https", "http") or not port:
        raise ConfigurationError(expected)
    if "@" in text:
        raise ConfigurationError("base_url: expected no user name or password in it")
    if "?" in text or "#" in text:
        raise ConfigurationError(f"base_url: expected no query or fragment, got {_shown(text)}")
    if url.path.rstrip("/") not in ("", "/api"):
        raise ConfigurationError(f"base_url: expected no path but /api, got {_shown(text)}")
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"base_url: expected https, because http would send the API key unencrypted to {host:.100}; "
            "allow_http=True allows that"
        )
    return str(url.origin())


def _shown(text: object) -> str:
    """Show a wrong URL without what may be a secret in it: a password, a query, or the API key itself."""
    if not isinstance(text, str):
        return type(text).__name__
    if "://" not in text:
        return f"a text of {len(text)} characters without ://"
    shown = _PASSWORD.sub("//***@", _QUERY.sub("?***", text))
    return f"{redacted(shown, ())!r:.100}"


def _is_loopback(host: str) -> bool:
    """Whether a host is literally this machine: an address, or the one name that RFC 6761 reserves for it.

    An IPv4 address mapped into IPv6 does not count: Python's answer changed with 3.13, and each operating system
    decides where such an address leads.
    """
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return "%" not in host and address.is_loopback and getattr(address, "ipv4_mapped", None) is None


def checked_network(
    proxy: object,
    tls: object,
    *,
    origin: str,
    allow_http: bool,
    has_session: bool,
    trusts_environment: bool,
) -> Network:
    """Return the network settings of the client's own session.

    Args:
        proxy: A proxy's URL as a secret, or None.
        tls: An SSLContext, or the path of a CA file, or None.
        origin: Scheme, host and port of the base URL.
        allow_http: Whether a token may go over the network unencrypted.
        has_session: Whether the caller has given a session, which has its own network settings.
        trusts_environment: Whether that session takes a proxy from the environment.
    """
    for name, value in (("proxy", proxy), ("ssl", tls)):
        if has_session and value is not None:
            raise ConfigurationError(f"{name}: expected none beside a session of one's own, which has its own settings")
    # Raised here, and not where the URL is a plain text, because a traceback with locals would show the password.
    if proxy is not None and (problem := _problem_of_proxy(proxy, origin, allow_http)) is not None:
        raise ConfigurationError(f"proxy: expected {problem}")
    unused = None if trusts_environment or proxy is not None else _proxy_variable(URL(origin))
    return Network(proxy=cast("Secret | None", proxy), ssl=_tls_of(tls), unused_proxy=unused)


def _problem_of_proxy(proxy: object, origin: str, allow_http: bool) -> str | None:
    """Say what is wrong with a proxy's URL; None if it can be used."""
    expected = "a URL such as http://proxy.example:3128, or one with user:password@ before the host"
    if not isinstance(proxy, Secret):
        return f"{expected}, got {'an empty text' if isinstance(proxy, str) else type(proxy).__name__}"
    if proxy.is_erased:
        return f"{expected}, got an erased Secret"
    text = proxy.reveal()
    if not _is_plain(proxy) or set(text) & set(" \\"):
        return f"{expected}; other letters are percent-encoded"
    try:
        url = URL(text)
        host, port, user, password = url.host, url.port, url.user or "", url.password or ""
    except (ValueError, IndexError):
        return f"{expected}, got {_shown(text)}"
    if (
        url.scheme not in ("http", "https")
        or not host
        or not port
        or url.path not in ("", "/")
        or set(text) & set("?#")
    ):
        return f"{expected}, got {_shown(text)}"
    if ":" in user or not all(ord(letter) < 256 for letter in user + password):  # Basic credentials (RFC 7617)
        return "a user name without a colon, and credentials in Latin-1"
    if origin.startswith("http://") and not allow_http and not _is_loopback(host):
        unencrypted = f"because http would send the API key unencrypted to {host:.100}"
        return f"an https base_url beside it, {unencrypted}; allow_http=True allows that"
    return None


def _tls_of(tls: object) -> ssl.SSLContext | None:
    if tls is None or isinstance(tls, ssl.SSLContext):
        if tls is not None and tls.protocol is ssl.PROTOCOL_TLS_SERVER:
            raise ConfigurationError("ssl: expected the SSLContext of a client, got that of a server")
        return tls
    if not isinstance(tls, str | os.PathLike) or not os.fspath(tls):
        # E.g. False, with which aiohttp would verify no certificate.
        raise ConfigurationError(f"ssl: expected an SSLContext, or the path of a CA file, got {shown(tls)}")
    path = os.fspath(tls)
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        problem = "holds no certificates in PEM"
    except (OSError, ValueError) as error:  # ValueError: the path holds a NUL
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise ConfigurationError(f"ssl: the CA file {path!r:.200} {problem}")


def _proxy_variable(origin: URL) -> str | None:
    """Return the environment variable from which other programs would take a proxy for this origin."""
    host = origin.host or ""
    wanted = (f"{origin.scheme}_proxy", "all_proxy")
    found = {name.lower(): name for name, value in os.environ.items() if value and name.lower() in wanted}
    if not found or _is_loopback(host) or proxy_bypass(host):
        return None
    return found.get(wanted[0]) or found[wanted[1]]


def checked_window(pace: object, longest_pause: float) -> Window:
    if isinstance(pace, str) and pace == "auto":  # what numpy has compares itself part by part
        return LocalWindow(None, longest_pause)
    if isinstance(pace, RateLimit):
        return LocalWindow(pace, longest_pause)
    if isinstance(pace, Window) and not isinstance(pace, type):
        return pace
    # Only its type is shown, because the value may be a Redis URL with a password.
    raise ConfigurationError(f"pace: expected a RateLimit, 'auto' or a RedisWindow, got {type(pace).__name__}")


def checked_hooks(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    checked = tuple(hooks) if isinstance(hooks, Iterable) else (hooks,)
    for hook in checked:
        if not callable(hook) or _is_async(hook):
            raise ConfigurationError(f"hooks: expected plain callables, which nobody awaits, got {shown(hook)}")
    return checked


def _is_async(hook: object) -> bool:
    """Whether a hook returns an awaitable: a function, a method, an object with `__call__`, or a partial of one."""
    while isinstance(hook, partial):
        hook = hook.func
    functions = (hook, getattr(hook, "__call__", None))  # noqa: B004  read, not called
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in functions)


def checked_priority(name: str) -> Priority:
    try:
        return Priority[name.upper()]
    except (KeyError, AttributeError, TypeError):
        names = ", ".join(repr(priority.name.lower()) for priority in Priority)
        raise ConfigurationError(f"priority: expected one of {names}, got {shown(name)}") from None


def headers_as_secrets(headers: object) -> object:
    """Return headers with their values as secrets, so that no traceback with locals shows the values."""
    return {name: as_secret(value) for name, value in headers.items()} if isinstance(headers, Mapping) else headers


def checked_headers(headers: object) -> tuple[tuple[str, Secret | str], ...]:
    """Return headers, whose values may be secrets; an empty value becomes a plain text."""
    headers = headers_as_secrets(headers)
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"extra_headers: expected a mapping, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ConfigurationError(f"extra_headers: expected a header's name, got {shown(name)}")
        if name.lower() in _OURS:
            raise ConfigurationError(f"extra_headers: {name} is this library's own")
        if value != "" and not (isinstance(value, Secret) and _is_plain(value)):
            raise ConfigurationError(f"extra_headers: expected printable ASCII as the value of {name}")
    return tuple((plain_value(name), value) for name, value in headers.items())


def _is_plain(value: Secret) -> bool:
    return not value.is_erased and value.reveal().isascii() and value.reveal().isprintable()
