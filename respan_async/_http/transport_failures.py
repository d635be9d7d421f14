"""Maps aiohttp's exceptions to a `TransportFailure`: whether bytes left, whether to try again, and the reason.

The reason is a sentence that names the host and the port, which may be a proxy's, and says what happened there. It does
not quote an aiohttp error, because the text may hold headers, and a proxy's URL may hold a password.
"""

import ssl
import traceback
from typing import Final

import aiohttp
from yarl import URL

from respan_async._http.redaction import printable
from respan_async._http.response import Response, TransportFailure
from respan_async.errors import ConfigurationError

# Raised only while a connection is made.
_CERTIFICATE: Final = (
    aiohttp.ClientConnectorCertificateError,
    ssl.SSLCertVerificationError,
    aiohttp.ServerFingerprintMismatch,
)
_BEFORE_SENDING: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    *_CERTIFICATE,
)
_HANDSHAKE_ALERTS: Final = frozenset(
    f"{prefix}_{alert}"
    for prefix in ("SSLV3_ALERT", "TLSV1_ALERT", "TLSV13_ALERT")
    for alert in (
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REQUIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    )
)
"""TLS alerts by which a server ends a handshake (RFC 8446, 6.2) because the client's certificate is wrong or missing.
With TLS 1.3 they come after the client has begun to send, which the server then never reads."""

_WRONG_SETUP: Final = (aiohttp.InvalidURL, ValueError, TypeError)

_PASSING: Final = (408, 425, 429)
"""The 4xx statuses of a proxy that may change with the next request."""


def classify(
    error: Exception,
    target: URL,
    *,
    left: bool,
    begun: bool | None,
    received: Response | None,
    resends: int,
    unused_proxy: str | None = None,
) -> TransportFailure | ConfigurationError:
    """Return the result for an exception of aiohttp.

    Args:
        error: The exception.
        target: The URL of the request.
        left: Whether bytes of the request may have left, as far as its body can tell.
        begun: Whether the body is known to have begun to leave; None for a request without a body.
        received: The part of an answer that broke off; None if no answer had begun.
        resends: How often aiohttp had sent the request again by itself.
        unused_proxy: The environment variable that names a proxy which is not used, or None.
    """
    host = authority(target)
    status = None if received is None else received.status
    of_hook = _is_of_a_hook(error)
    begun = of_hook if begun is None else begun  # a request without a body may have left before the hook raised
    # A connection that a hook makes may fail in the same way, which proves nothing about our connection.
    if status is None and ((isinstance(error, _BEFORE_SENDING) and not begun) or (_alert_in(error) and not of_hook)):
        left = False
    elif status is None and isinstance(error, _WRONG_SETUP) and not begun:
        why = f"the aiohttp session cannot send this request to {host}: {type(error).__name__}"
        # aiohttp refuses duplicate credentials with this word; its message holds neither of them.
        own = "; it has credentials of its own, by auth or by a netrc file" if "AUTHORIZATION" in str(error) else ""
        return ConfigurationError(why + own)
    timed_out = isinstance(error, TimeoutError) and not of_hook
    if status is not None:
        reason = f"the answer of {host} broke off after the status {status}"
    elif of_hook:
        reason = f"a trace hook of the aiohttp session raised {type(error).__name__} at a request to {host}"
    elif timed_out:
        reason = f"no answer in time from {host}" if left else f"no connection in time to {host}"
    else:
        reason = _reason(error, target, host)
    if unused_proxy is not None and not of_hook and _came_nowhere(error, target, host, left):
        reason += f"; {unused_proxy} is set, and not used: a proxy has to be given, as proxy= or --proxy"
    return TransportFailure(
        printable(reason),
        left=left,
        status=status,
        timed_out=timed_out,
        # aiohttp reports bytes that are not HTTP as a ClientResponseError, whose status is aiohttp's, not the server's.
        # The exception is a proxy's status, which came in HTTP.
        not_http=status is None
        and not of_hook
        and isinstance(error, aiohttp.ClientResponseError)
        and not isinstance(error, aiohttp.ClientHttpProxyError),
        permanent=not of_hook and _is_permanent(error),
        resends=resends,
        received=received,
    )


def _is_of_a_hook(error: Exception) -> bool:
    """Whether a trace hook of the caller's session raised the error, whose traceback then shows `aiohttp.tracing`."""
    # If a hook raises while the body is written, its error is the cause of another error.
    return any(
        frame.f_globals.get("__name__") == aiohttp.tracing.__name__
        for cause in (error, error.__cause__)
        if cause is not None
        for frame, _ in traceback.walk_tb(cause.__traceback__)
    )


def _is_permanent(error: Exception) -> bool:
    """Whether a setting must be changed before a connection can be made."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # A 403 or 407 to a CONNECT concerns the client and the host, and so do most other 4xx.
        return error.status < 500 and error.status not in _PASSING
    return isinstance(error, _CERTIFICATE) or _alert_in(error) is not None


def _alert_in(error: Exception) -> ssl.SSLError | None:
    """Find the alert by which a server ended the handshake, in aiohttp's exception."""
    for cause in (error, getattr(error, "os_error", None), error.__cause__):
        if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) in _HANDSHAKE_ALERTS:
            return cause
    return None


def _came_nowhere(error: Exception, target: URL, host: str, left: bool) -> bool:
    """Whether no connection to the server was made, with no proxy in between."""
    if isinstance(error, TimeoutError):
        return not left
    direct = isinstance(error, aiohttp.ClientConnectorError) and _peer(error, target, host) == host
    # A certificate error means that a TCP connection to some host was made.
    return direct and not isinstance(error, _CERTIFICATE)


def _reason(error: Exception, target: URL, host: str) -> str:
    peer = _peer(error, target, host)
    if isinstance(error, _CERTIFICATE):
        return f"no TLS connection to {peer}: its certificate does not verify ({_of_certificate(error)})"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"no TLS connection to {peer} ({_of_os(error.os_error)})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host's name was not found: {peer} ({_of_os(error.os_error)})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {peer} ({_of_os(error.os_error)})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{peer} closed the connection without an answer"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"{peer} answered {error.status}, and made no connection to {host}"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"what answered at {peer} does not speak HTTP"
    if alert := _alert_in(error):
        return f"no TLS connection to {peer} ({_of_os(alert)}); it wants another client certificate"
    said = error.strerror if isinstance(error, OSError) else None  # the system's text; any other text may hold headers
    return f"the connection to {peer} broke ({said or type(error).__name__})"


def _peer(error: Exception, target: URL, host: str) -> str:
    """Name the peer of an exception: the server, or a proxy before it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        at: tuple[str | None, int | None] = (error.host, error.port)
    elif isinstance(error, aiohttp.ClientResponseError):
        at = error.request_info.real_url.host, error.request_info.real_url.port  # the proxy, for a CONNECT
    else:
        return host
    return (
        host if at in ((target.host, target.port), (target.raw_host, target.port)) else f"the proxy {_authority(*at)}"
    )


def authority(url: URL) -> str:
    """Return host and port, including a default port."""
    return _authority(url.host, url.port)


def _authority(host: str | None, port: int | None) -> str:
    return f"[{host}]:{port}" if host is not None and ":" in host else f"{host}:{port}"


def _of_certificate(error: Exception) -> str:
    """Describe what is wrong with a certificate, in OpenSSL's words."""
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return "another fingerprint than the one given"
    cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    return f"{getattr(cause, 'verify_message', '') or _of_os(cause)}"


def _of_os(error: Exception) -> str:
    """Return the message of the operating system or OpenSSL, without a number and in a few words."""
    if reason := getattr(error, "reason", None):  # OpenSSL's reason; missing in an SSLError that Python code has made
        return f"{reason}".replace("_", " ").lower()
    said = error.strerror if isinstance(error, OSError) else None
    return f"{said or str(error) or type(error).__name__:.200}"
