"""Interprets a server's `Retry-After`, which it may have rounded up."""


def at_least(retry_after: float) -> float:
    """Return the shortest wait that this `retry_after` can mean; whole seconds were most likely rounded up."""
    return max(retry_after - 1.0, 0.0) if is_whole(retry_after) else retry_after


def is_whole(retry_after: float) -> bool:
    """Whether `retry_after` is a whole number of seconds."""
    return float(retry_after).is_integer()
