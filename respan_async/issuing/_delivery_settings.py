"""How much an issuer delivers at a time, and how long that may take."""

import attrs

from respan_async.errors import ConfigurationError


@attrs.frozen(kw_only=True)
class DeliverySettings:
    """How much is delivered at a time, and how long that may take.

    Attributes:
        max_deliveries: Calls of the user's function at a time.
        deliver_timeout: Seconds that one may take; None for any number.
        max_undelivered: Keys that could not be delivered, of which a batch makes no more; None for any number.

    Raises:
        ConfigurationError: One of them is not that.
    """

    max_deliveries: int
    deliver_timeout: float | None
    max_undelivered: int | None

    def __attrs_post_init__(self) -> None:
        for name in ("max_deliveries", "max_undelivered"):
            count = getattr(self, name)
            optional = name == "max_undelivered" and count is None
            if not optional and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
                raise ConfigurationError(f"{name}: expected a whole number, 1 or more, got {count!r:.100}")
        seconds = self.deliver_timeout
        if seconds is not None and (
            not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < float("inf")
        ):
            raise ConfigurationError(f"deliver_timeout: expected seconds above 0, or None, got {seconds!r:.100}")
