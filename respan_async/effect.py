"""What a failed call may have left on the server."""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs


class Effect(enum.Enum):
    """Say what a failure *means*, where the class of an error says what was *seen*.

    The order is from harmless to worst; an error carries the worst over all attempts of its call.
    """

    NONE = "none"
    """Nothing was made or changed."""
    UNKNOWN = "unknown"
    """Something may have been: the request left and no whole answer came back."""
    LOST = "lost"
    """A key was made, and its secret, shown only once, did not arrive."""

    def or_worse(self, other: "Effect") -> "Effect":
        """Return the worse of two effects."""
        return max(self, other, key=_SEVERITY.__getitem__)


_SEVERITY = {effect: severity for severity, effect in enumerate(Effect)}


@attrs.frozen(kw_only=True)
class Suspect:
    """One attempt to create a key that may have left a live key which nobody holds.

    Attributes:
        name: The key's name as it was sent, with the tag if there was one.
        tag: The random tag at the end of `name`; the proof of origin that a sweep needs. None: untagged, so
            the suspect is reported and its key, if there is one, never touched.
        id: The key's id where the server told it: then the key is known and can be revoked by it.
        effect: `UNKNOWN` or `LOST`.
        sent_at: When the attempt began, aware, by the local clock.
        sent: The fields of the POST as they went out, in JSON types.
        reason: What happened to the answer, in a few words.
    """

    name: str | None
    tag: str | None
    id: str | None = None
    effect: Effect
    sent_at: datetime
    sent: Mapping[str, Any] = attrs.field(repr=False)
    reason: str
