"""What comes back for a request: an answer, or the reason why no whole answer came."""

from collections.abc import Mapping

import attrs


@attrs.define
class Response:
    """An answer of which at least the status is certain.

    Attributes:
        status: The HTTP status.
        headers: With case-insensitive names, and every line of each (`getall`) where it is aiohttp's.
        body: What was read of it.
        oversize: The body went past the size bound and was not read to its end.
        cut: The body broke off.
        resends: How often the request was sent again underneath us before this answer.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    oversize: bool = False
    resends: int = 0
    cut: bool = False


@attrs.frozen
class TransportFailure:
    """No whole answer came.

    Attributes:
        reason: What was seen, in a few words.
        left: Whether bytes of the request may have reached the server.
        status: The status of an answer that broke off, where one had begun.
        timed_out: The time for the attempt was up.
        not_http: What came back does not speak the protocol.
        permanent: No connection can be made before somebody has changed a setting.
        resends: How often the request was sent again underneath us before that.
        received: What had come of that answer.
    """

    reason: str
    left: bool
    status: int | None = None
    timed_out: bool = False
    not_http: bool = False
    permanent: bool = False
    resends: int = 0
    received: Response | None = None


def response_of(result: Response | TransportFailure) -> Response | None:
    """Return the answer, or what had come of one that broke off; None where none had begun."""
    return result if isinstance(result, Response) else result.received
