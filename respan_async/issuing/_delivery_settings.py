"""Defines the limits of delivery: how many calls run at a time, and how long each may take."""

import attrs

from respan_async._arguments import is_number, is_whole, shown
from respan_async.errors import ConfigurationError


@attrs.frozen(kw_only=True)
class DeliverySettings:
    """The limits of delivery.

    Attributes:
        max_deliveries: The most concurrent calls of the user's function.
        deliver_timeout: Seconds that one call may take; None for no limit.
        max_undelivered: The number of undelivered keys at which batches stop making more; None for no limit.

    Raises:
        ConfigurationError: A setting is invalid.
    """

    max_deliveries: int
    deliver_timeout: float | None
    max_undelivered: int | None

    def __attrs_post_init__(self) -> None:
        for name in ("max_deliveries", "max_undelivered"):
            count = getattr(self, name)
            optional = name == "max_undelivered" and count is None
            if not optional and (not is_whole(count) or count < 1):
                raise ConfigurationError(f"{name}: expected a whole number, 1 or more, got {shown(count)}")
        seconds = self.deliver_timeout
        if seconds is not None and (not is_number(seconds) or not 0 < seconds < float("inf")):
            raise ConfigurationError(f"deliver_timeout: expected seconds above 0, or None, got {shown(seconds)}")
