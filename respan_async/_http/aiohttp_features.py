"""What the installed aiohttp has and lacks, found out once: other modules ask here, and none for a version.

Imported before anything else that knows aiohttp, so that one that is too old is refused in a sentence.

Raises:
    ImportError: aiohttp is older than 3.12. Its payloads do not have themselves written by `write_with_length`, so that
        nothing tells whether a request has left, and every key of a lost answer would be called unsent.
"""

from typing import Any, Final

import aiohttp

if not hasattr(aiohttp.Payload, "write_with_length"):
    raise ImportError(
        f"respan_async needs aiohttp 3.12 or newer, and aiohttp {aiohttp.__version__} is installed, which cannot tell "
        "whether a request has left"
    )

_UPLOAD_TRACKER: Final[type[Any] | None] = getattr(aiohttp, "UploadTracker", None)
"""Of aiohttp 3.14.4 and newer."""


class ResendCounter:
    """Counts how often aiohttp sends one request again by itself: a GET or a DELETE, after a dropped connection.

    Without aiohttp's `UploadTracker` it counts none. The pace then takes what was sent twice for one request. Where the
    server had counted the first, it refuses one request earlier than expected, which the pacer takes for other people's
    use: the request waits as told, and nothing is lost.

    Args:
        tracker: aiohttp's class that counts; None where there is none.
    """

    def __init__(self, tracker: type[Any] | None = _UPLOAD_TRACKER) -> None:
        self._tracker = None if tracker is None else tracker()

    @property
    def options(self) -> dict[str, Any]:
        """What `ClientSession.request` is called with besides, to be counted."""
        return {} if self._tracker is None else {"upload_tracker": self._tracker}

    @property
    def resends(self) -> int:
        """How often the request was sent after the first time, as far as can be known."""
        return 0 if self._tracker is None else max(0, self._tracker.attempts - 1)
