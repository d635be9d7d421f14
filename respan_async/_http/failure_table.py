"""The failure table: what each thing that can happen to a request means for what exists on the server.

Nothing else in the library looks at a status code to decide that.
"""

from typing import Any, Final, TypeGuard

from respan_async._http import body_excerpt
from respan_async._http.operations import Operation
from respan_async._http.response import Response, TransportFailure
from respan_async.errors import Effect

ONLY_429: Final[frozenset[int]] = frozenset()

_NOT_PROCESSED: Final = frozenset({501, 505, 511})
"""No server has begun with the request, and the next one like it would fare no better.

    501   RFC 9110, 15.6.2   the server does not support what the request needs, for any resource
    505   RFC 9110, 15.6.6   the server does not support this version of HTTP, or refuses to
    511   RFC 6585, 6        who controls the access to the network wants a login first; an origin never answers it
"""

_ORIGIN_NOT_REACHED: Final = frozenset({521, 523, 525, 526, 530})
"""Cloudflare has no connection to the API's server, as its documentation of 5xx errors says of each.

    521   the origin refused the connection              525   the TLS handshake with it failed
    523   there is no route to it                        526   its certificate does not verify
    530   its name is not found

All of them are tried again: they say that the API is down, which its people mend, and a batch waits for it.

What leaves it open whether the request arrived stays UNKNOWN, as every other 5xx does:

    520   the origin's answer was empty or none that can be read
    522   no SYN+ACK of the origin came in time, *or* no ACK of the request
    524   the origin was connected, and did not answer in time
    527   the connection to Cloudflare's own Railgun, at the origin, was interrupted
    508   RFC 5842, 7.2: an operation was ended in a loop, when it had begun; some hosters mean a lack of resources
"""


def meaning_of(
    operation: Operation[Any], result: Response | TransportFailure, refusals: frozenset[int] = ONLY_429
) -> tuple[Effect, bool]:
    """Say what a failure left on the server, and whether trying again may mend it."""
    match result:
        case TransportFailure(left=False, permanent=permanent):
            meaning = Effect.NONE, not permanent
        case TransportFailure(not_http=True):
            meaning = Effect.UNKNOWN, False  # the wrong host: trying again will not mend it
        case TransportFailure(status=status):
            meaning = (Effect.LOST if status is not None and 200 <= status < 300 else Effect.UNKNOWN), True
        case Response() if is_refusal(result, refusals):
            meaning = Effect.NONE, True  # before anything is made
        case Response(status=408):
            meaning = Effect.UNKNOWN, True
        case Response(status=status) if 200 <= status < 300:
            meaning = Effect.LOST, False  # a changed server must not cost five keys a call
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
        effect = Effect.UNKNOWN  # there is no key to be lost; the change was made, if it was the API that answered
    return effect, retryable


def is_success(result: Response | TransportFailure) -> TypeGuard[Response]:
    """Whether the server did what was asked, as far as the status tells, and the answer can be read."""
    return isinstance(result, Response) and 200 <= result.status < 300 and not result.oversize


def is_refusal(result: Response | TransportFailure, refusals: frozenset[int] = ONLY_429) -> bool:
    """Whether a request was turned away for now, before anything was made.

    Args:
        result: What came of it.
        refusals: The statuses by which a proxy refuses for the limit, besides 429.
    """
    # 425 (RFC 8470): the server does not risk to process the request yet.
    return is_over_limit(result, refusals) or (isinstance(result, Response) and result.status == 425)


def is_over_limit(result: Response | TransportFailure, refusals: frozenset[int] = ONLY_429) -> bool:
    """Whether it was the account's limit that turned the request away; arguments as of `is_refusal`."""
    if not isinstance(result, Response):
        return False
    if result.status == 429:
        return True
    # The proof is in the whole body: what the API itself answers came from behind the proxy, which had let it through.
    whole = not result.cut and not result.oversize
    return result.status in refusals and whole and not body_excerpt.is_of_the_api(result.body)
