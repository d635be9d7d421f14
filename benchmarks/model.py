"""The key as a model of one's own, which a default cattrs converter fills in."""

from datetime import datetime
from typing import Any, Final

import attrs
import cattrs


@attrs.frozen
class Key:
    """What the answer to a create says."""

    id: str
    api_key: str
    prefix: str
    created: datetime
    name: str
    revoked: bool
    expiry_date: datetime
    key_usage: int
    max_usage: int
    last_used: datetime
    rate_limit: float | None
    spending_limit: float | None
    spending_in_period: float
    is_test: bool
    is_temporary: bool


_CONVERTER: Final = cattrs.Converter()
_CONVERTER.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))


def structured(answer: dict[str, Any]) -> Key:
    """Make a key of an answer."""
    return _CONVERTER.structure(answer, Key)
