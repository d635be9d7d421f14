"""What a server's `Retry-After` can mean."""


def at_least(retry_after: float) -> float:
    """Return the least wait that this `retry_after` can mean; whole seconds were most likely rounded up."""
    return max(retry_after - 1.0, 0.0) if is_whole(retry_after) else retry_after


def is_whole(retry_after: float) -> bool:
    """Whether it is a whole number of seconds."""
    return float(retry_after).is_integer()
