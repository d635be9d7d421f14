"""What one process has of a log that many share: slots it holds, slots in the air, and what it has yet to report.

Rules:

1. Slots of one process are alike. The log need not know which of those in the air was answered, only how many were.
2. A name is given once. What is sent without a slot gets a name too, so that the log can count it.
3. News stays until the log has confirmed it.
4. A slot that could be used and is not is given back after two seconds.
5. What is in the air is reported again and again, or the log would take it for answered.
"""

import math
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from respan_async._pacing.shared.log_protocol import SlotReport, SlotStatus

HOLD: Final = 2.0
"""Seconds after which a slot that could be used and is not is given back."""


class ReservedSlots:
    """Slots by their names. All times are in seconds of one monotonic clock.

    Attributes:
        owner: The name of this process; drawn when it first speaks, for it may be forked before.
    """

    def __init__(self) -> None:
        self.owner = ""
        self._named = 0
        self._held: deque[tuple[float, str]] = deque()  # from when it may be used, and its name
        self._air: dict[str, float] = {}  # the name, and when the log last heard of it
        self._reports: list[tuple[SlotStatus, str, float]] = []  # what, of which, and when it happened or ends

    def names(self, number: int) -> tuple[int, list[str]]:
        """Make up names for slots; return the first one's number, and the names."""
        self.owner = self.owner or secrets.token_hex(8)
        first = self._named + 1
        self._named += number
        return first, [f"{self.owner}:{index}" for index in range(first, first + number)]

    # ------------------------------------------------------------------- slots

    @property
    def in_air(self) -> int:
        """How many slots are in the air."""
        return len(self._air)

    def granted(self, names: Sequence[str], begins: Iterable[float]) -> None:
        """Hold slots from now on, each of use from a time on."""
        self._held.extend(zip(begins, names, strict=False))

    def begins(self, nth: int = 0) -> float | None:
        """Return from when the `nth` slot that is held may be used; None if there are not so many."""
        return self._held[nth][0] if nth < len(self._held) else None

    def use(self, now: float) -> None:
        """Send with the first slot that is held."""
        self._air[self._held.popleft()[1]] = now

    def use_unreserved(self) -> None:
        """Send without a slot, of which the log is to hear when it can."""
        self._air[self.names(1)[1][0]] = -math.inf

    def mark_answered(self, at: float) -> None:
        """Note that one in the air was answered, or given up, at a time."""
        slot = next(iter(self._air))
        del self._air[slot]
        self._reports.append((SlotStatus.ANSWERED, slot, at))

    def mark_repeated(self, at: float) -> None:
        """Note that a request was let in once more than it has slots."""
        self._reports.append((SlotStatus.ANSWERED, self.names(1)[1][0], at))

    def mark_unused(self, now: float) -> None:
        """Note that one that was used does not count."""
        self._reports.append((SlotStatus.UNUSED, self._air.popitem()[0], now))

    def give_back(self, now: float, stale_only: bool = False) -> None:
        """Give back what is held."""
        while self._held and (not stale_only or self._held[0][0] + HOLD < now):
            self.give_back_unconfirmed(now, [self._held.popleft()[1]])

    def give_back_unconfirmed(self, now: float, slots: Iterable[str]) -> None:
        """Give back slots that may have been granted."""
        self._reports.extend((SlotStatus.UNUSED, slot, now) for slot in slots)

    def pause(self, until: float) -> None:
        """Let everybody know that the server asks to wait."""
        self._reports.append((SlotStatus.PAUSE, "", until))

    # ----------------------------------------------------------------- telling

    def due(self, patience: float, silence: float) -> float:
        """Return when something must be told: after `patience` with news, or after `silence` of what is in the air.

        That the server asks everybody to wait is told at once.
        """
        due = math.inf
        if self._reports:
            pressing = any(status is SlotStatus.PAUSE for status, _, _ in self._reports)
            due = -math.inf if pressing else self._reports[0][2] + patience
        if self._held:
            due = min(due, self._held[0][0] + HOLD)
        if self._air:
            due = min(due, min(self._air.values()) + silence)
        return due

    def pending_reports(self, now: float, silence: float) -> tuple[SlotReport, ...]:
        """Return what is to be told now."""
        news = (
            SlotReport(status, slot, max(at - now, 0.0) if status is SlotStatus.PAUSE else now - at)
            for status, slot, at in self._reports
        )
        flying = (SlotReport(SlotStatus.FLYING, slot) for slot, at in self._air.items() if at + silence <= now)
        return (*news, *flying)

    def acknowledge(self, reports: Sequence[SlotReport], at: float) -> None:
        """Note that the log has heard what was reported, at a time."""
        flying = [report.slot for report in reports if report.status is SlotStatus.FLYING]
        del self._reports[: len(reports) - len(flying)]
        self._air.update((slot, at) for slot in flying if slot in self._air)

    def reset(self, now: float) -> None:
        """Note that the log knows nothing of what is held and in the air."""
        self.give_back(now)
        self._air = dict.fromkeys(self._air, -math.inf)

    def forget(self, before: float) -> None:
        """Drop reports that are so old that the log does not need them."""
        self._reports = [report for report in self._reports if report[2] >= before]

    @property
    def has_news(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._reports)
