"""Accounts for one process's slots in a shared log: those held, those in flight, and the reports not yet confirmed.

Rules:

1. The slots of one process are alike. The log needs to know how many were answered, not which.
2. A name is given once. A request sent without a slot gets a name too, so that the log can count it.
3. A report stays until the log has confirmed it.
4. A slot that could be used and is not is given back after two seconds.
5. Slots in flight are reported again and again, because the log would otherwise take them for answered.
"""

import math
import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from respan_async._pacing.shared.log_protocol import SlotReport, SlotStatus

HOLD: Final = 2.0
"""Seconds after which an unused slot is given back."""


class SlotAccounting:
    """Account for slots by their names. All times are in seconds of one monotonic clock.

    Attributes:
        owner: The name of this process; drawn at its first request to the log, because it may fork before.
    """

    def __init__(self) -> None:
        self.owner = ""
        self._named = 0
        self._held: deque[tuple[float, str]] = deque()  # the time from which it may be used, and its name
        self._air: dict[str, float] = {}  # the name, and when the log last heard of it
        self._reports: list[tuple[SlotStatus, str, float]] = []  # status, slot, and when it happened or ends

    def names(self, number: int) -> tuple[int, list[str]]:
        """Make up names for slots; return the first one's number, and the names."""
        self.owner = self.owner or secrets.token_hex(8)
        first = self._named + 1
        self._named += number
        return first, [f"{self.owner}:{index}" for index in range(first, first + number)]

    # ------------------------------------------------------------------- slots

    @property
    def in_air(self) -> int:
        """The number of slots in flight."""
        return len(self._air)

    def granted(self, names: Sequence[str], begins: Iterable[float]) -> None:
        """Hold slots; each may be used from its time in `begins`."""
        self._held.extend(zip(begins, names, strict=False))

    def begins(self, nth: int = 0) -> float | None:
        """Return the time from which the `nth` held slot may be used; None if fewer are held."""
        return self._held[nth][0] if nth < len(self._held) else None

    def use(self, now: float) -> None:
        """Mark the first held slot as in flight."""
        self._air[self._held.popleft()[1]] = now

    def use_unreserved(self) -> None:
        """Mark a request as in flight that has no slot; the log hears of it when it can be reached."""
        self._air[self.names(1)[1][0]] = -math.inf

    def mark_answered(self, at: float) -> None:
        """Note that a request in flight was answered, or given up, at a time."""
        slot = next(iter(self._air))
        del self._air[slot]
        self._reports.append((SlotStatus.ANSWERED, slot, at))

    def mark_repeated(self, at: float) -> None:
        """Note that the server let a request in once more than it has slots."""
        self._reports.append((SlotStatus.ANSWERED, self.names(1)[1][0], at))

    def mark_unused(self, now: float) -> None:
        """Note that a request in flight does not count."""
        self._reports.append((SlotStatus.UNUSED, self._air.popitem()[0], now))

    def give_back(self, now: float, stale_only: bool = False) -> None:
        """Give back the held slots; with `stale_only`, those unused for longer than `HOLD`."""
        while self._held and (not stale_only or self._held[0][0] + HOLD < now):
            self.give_back_unconfirmed(now, [self._held.popleft()[1]])

    def give_back_unconfirmed(self, now: float, slots: Iterable[str]) -> None:
        """Give back slots that may have been granted."""
        self._reports.extend((SlotStatus.UNUSED, slot, now) for slot in slots)

    def pause(self, until: float) -> None:
        """Report to all processes that the server asks to wait."""
        self._reports.append((SlotStatus.PAUSE, "", until))

    # ----------------------------------------------------------------- telling

    def due(self, patience: float, silence: float) -> float:
        """Return when the log must be told something.

        News is due after `patience`, slots in flight after `silence`; a pause that the server asks for is due at once.
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
        """Return what the log is to be told now."""
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
        """Note that the log has lost the slots held and in flight."""
        self.give_back(now)
        self._air = dict.fromkeys(self._air, -math.inf)

    def forget(self, before: float) -> None:
        """Drop reports from before a time, which the log does not need."""
        self._reports = [report for report in self._reports if report[2] >= before]

    @property
    def has_news(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._reports)
