"""What an exception of aiohttp means, where a real server cannot be brought to cause it reliably."""

import ssl

import aiohttp
import pytest
from yarl import URL

from respan_async._http.response import TransportFailure
from respan_async._http.transport_failures import classify

API = URL("https://api.example")


def of_ssl(reason: str) -> aiohttp.ClientOSError:
    """Make the error that aiohttp raises where OpenSSL gives this reason while the request is in the air."""
    cause = ssl.SSLError(1, f"[SSL: {reason}] said by the server (_ssl.c:2548)")
    cause.reason = reason
    error = aiohttp.ClientOSError(*cause.args)
    error.__cause__ = cause
    return error


def meaning(error: Exception) -> TransportFailure:
    """Classify an error of a request of which bytes have left."""
    failure = classify(error, API, left=True, begun=True, received=None, resends=0)
    assert isinstance(failure, TransportFailure)
    return failure


@pytest.mark.parametrize("reason", ["TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_UNKNOWN_CA"])
def test_a_server_that_wants_another_certificate_has_read_nothing(reason: str) -> None:
    """With TLS 1.3 it says so after the request has begun to leave; and no attempt mends it."""
    failure = meaning(of_ssl(reason))

    assert (failure.left, failure.permanent) == (False, True)
    said = reason.partition("_")[2].replace("_", " ").lower()
    assert said in failure.reason
    assert "api.example:443" in failure.reason
    assert "client certificate" in failure.reason


@pytest.mark.parametrize("reason", ["TLSV1_ALERT_INTERNAL_ERROR", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"])
def test_another_trouble_of_tls_proves_nothing(reason: str) -> None:
    """It may come when the request was read."""
    failure = meaning(of_ssl(reason))

    assert (failure.left, failure.permanent) == (True, False)


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ConnectionTimeoutError(),
        ssl.SSLCertVerificationError("x"),
        aiohttp.ServerFingerprintMismatch(b"", b"", "", 1),
    ],
)
def test_an_error_of_a_connection_proves_nothing_of_a_request_that_has_begun(error: Exception) -> None:
    """It is that of another connection then, such as one of a hook."""
    failure = meaning(error)

    assert failure.left


def test_a_connection_that_breaks_says_why() -> None:
    """In the system's words; the text of any other error may hold headers."""
    assert "Connection reset by peer" in meaning(aiohttp.ClientOSError(104, "Connection reset by peer")).reason
    assert "secret" not in meaning(aiohttp.ClientError("Authorization: Bearer secret")).reason
