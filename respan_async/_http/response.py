"""Defines the two results of a request: an answer, or the reason why no complete answer came."""

from collections.abc import Mapping

import attrs


@attrs.define
class Response:
    """An answer whose status is certain.

    Attributes:
        status: The HTTP status.
        headers: With case-insensitive names; aiohttp's have every line of each (`getall`).
        body: The part of the body that was read.
        oversize: Whether the body exceeded the size bound and was not read to its end.
        cut: Whether the body broke off.
        resends: How often aiohttp sent the request again before this answer.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    oversize: bool = False
    resends: int = 0
    cut: bool = False


@attrs.frozen
class TransportFailure:
    """The failure of a request that got no complete answer.

    Attributes:
        reason: A few words about what happened.
        left: Whether bytes of the request may have reached the server.
        status: The status of an answer that broke off; None if no answer had begun.
        timed_out: Whether the time for the attempt was up.
        not_http: Whether the received bytes are not HTTP.
        permanent: Whether no connection can be made until a setting is changed.
        resends: How often aiohttp sent the request again before that.
        received: The part of the answer that had come.
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
    """Return the answer, or the part that came before it broke off; None if no answer had begun."""
    return result if isinstance(result, Response) else result.received
