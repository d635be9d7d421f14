"""The priority of a call that waits for a slot."""

import enum


class Priority(enum.IntEnum):
    """The order in which waiting calls get slots; the lower number goes first."""

    INTERACTIVE = 0
    BATCH = 1
    SWEEP = 2
