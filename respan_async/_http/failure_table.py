"""The failure table: says, for everything that can happen to a request, what may now exist on the server.

No other part of the library looks at a status code to decide that.
"""

from typing import Any, Final, TypeGuard

from respan_async._http import body_origin
from respan_async._http.operations import Operation
from respan_async._http.response import Response, TransportFailure
from respan_async.errors import Effect

ONLY_429: Final[frozenset[int]] = frozenset()

_NOT_PROCESSED: Final = frozenset({501, 505, 511})
"""The request was not processed, and another one like it would fail the same way.

    501   RFC 9110, 15.6.2   the server does not support what the request needs, for any resource
    505   RFC 9110, 15.6.6   the server does not support this version of HTTP, or refuses to
    511   RFC 6585, 6        a captive network wants a login first; an origin never answers it
"""

_ORIGIN_NOT_REACHED: Final = frozenset({521, 523, 525, 526, 530})
"""Cloudflare has no connection to the API's server, as its documentation of 5xx errors says of each.

    521   the origin refused the connection              525   the TLS handshake with it failed
    523   there is no route to it                        526   its certificate does not verify
    530   its name is not found

All of them are tried again: they say that the API is down, which its operators repair, and a batch waits for it.

Statuses that leave it open whether the request arrived stay UNKNOWN, as every other 5xx does:

    520   the origin's answer was empty or unreadable
    522   no SYN+ACK of the origin came in time, *or* no ACK of the request
    524   the origin was connected, and did not answer in time
    527   the connection to Cloudflare's own Railgun, at the origin, was interrupted
    508   RFC 5842, 7.2: an operation was ended in a loop, after it had begun; some hosters mean a lack of resources
"""


def meaning_of(
    operation: Operation[Any], result: Response | TransportFailure, refusals: frozenset[int] = ONLY_429
) -> tuple[Effect, bool]:
    """Return what a failure left on the server, and whether trying again may help."""
    match result:
        case TransportFailure(left=False, permanent=permanent):
            meaning = Effect.NONE, not permanent
        case TransportFailure(not_http=True):
            meaning = Effect.UNKNOWN, False  # the wrong host: trying again will not help
        case TransportFailure(status=status):
            meaning = (Effect.LOST if status is not None and 200 <= status < 300 else Effect.UNKNOWN), True
        case Response() if is_refusal(result, refusals):
            meaning = Effect.NONE, True  # refused before the server made anything
        case Response(status=408):
            meaning = Effect.UNKNOWN, True
        case Response(status=status) if 200 <= status < 300:
            # Do not retry: if the server changed its format, each retry would create one more lost key.
            meaning = Effect.LOST, False
        case Response(status=status) if status < 400:
            meaning = Effect.UNKNOWN, False  # a redirect, never followed: the wrong host
        case Response(status=status) if status < 500:
            meaning = Effect.NONE, False
        case Response(status=status) if status in _NOT_PROCESSED:
            meaning = Effect.NONE, False
        case Response(status=status) if status in _ORIGIN_NOT_REACHED:
            meaning = Effect.NONE, True
        case _:
            meaning = Effect.UNKNOWN, True
    effect, retryable = meaning
    if not operation.changes:
        effect = Effect.NONE
    elif not operation.creates and effect is Effect.LOST:
        effect = Effect.UNKNOWN  # there is no key to lose; the change was made, if it was the API that answered
    return effect, retryable


def is_success(result: Response | TransportFailure) -> TypeGuard[Response]:
    """Whether the status reports success, and the answer can be read."""
    return isinstance(result, Response) and 200 <= result.status < 300 and not result.oversize


def is_refusal(result: Response | TransportFailure, refusals: frozenset[int] = ONLY_429) -> bool:
    """Whether a request was turned away for now, before the server made anything.

    Args:
        result: The result of the request.
        refusals: The statuses, besides 429, by which a proxy refuses for the limit.
    """
    # 425 (RFC 8470): the server does not risk to process the request yet.
    return is_over_limit(result, refusals) or (isinstance(result, Response) and result.status == 425)


def is_over_limit(result: Response | TransportFailure, refusals: frozenset[int] = ONLY_429) -> bool:
    """Whether the account's limit turned the request away; arguments as of `is_refusal`."""
    if not isinstance(result, Response):
        return False
    if result.status == 429:
        return True
    # Only a complete body shows who answered; if the API wrote it, the proxy did let the request through.
    whole = not result.cut and not result.oversize
    return result.status in refusals and whole and not body_origin.is_of_the_api(result.body)
