"""Which messages intake may append now: aligned sources and the short ledger.

Pure: no clock, no I/O. Times are event times in µs; what has waited long enough to count as stuck is said by the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from streams.board import NEVER, Position

ALWAYS = 2**63 - 1
MARKS_PER_SPREAD = 8
"""Marks of the short ledger in one spread A. With more of them intake runs closer to A ahead."""


def aligned_limit(positions: Iterable[Position | None], lateness: int) -> int:
    """Greatest event time that may be appended: L/2 ahead of the slowest source partition that has a backlog.

    A partition that nobody has spoken of yet (None) may have a backlog of any age, so nothing may pass it.
    """
    slowest = ALWAYS
    for position in positions:
        if position is None:
            return NEVER
        if not position.at_end:
            slowest = min(slowest, position.time)
    return slowest if slowest in (ALWAYS, NEVER) else slowest + lateness // 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the ledger ended when the front passed `time`."""

    time: int
    ends: Mapping[int, int]
    """Last offset of each ledger partition that was not empty."""

    def covered(self, applied: Callable[[int], int | None]) -> bool:
        """Whether all that stood there has been applied."""
        for partition, end in self.ends.items():
            done = applied(partition)
            if done is None or done < end:
                return False
        return True


class ShortLedger:
    """A leg of event time t is appended only when what stood in the ledger as the front passed t - A has been applied.

    The front is marked every A / 8. A mark that is applied lets everything up to its time + A pass: for any such leg, the
    ledger as it stood when the front passed t - A is a part of what stood at the mark.
    """

    def __init__(self, spread: int) -> None:
        if spread < MARKS_PER_SPREAD:
            raise ValueError(f"a spread of {spread} µs is shorter than the {MARKS_PER_SPREAD} marks in it")
        self._spread = spread
        self._step = spread // MARKS_PER_SPREAD
        self._waiting: deque[Mark] = deque()
        self._applied_time = NEVER
        self._marked = NEVER

    def limit(self, applied: Callable[[int], int | None]) -> int:
        """Greatest event time that may be appended. `applied` gives the last applied offset of a ledger partition.

        Ask `wanted` before and, when the answer holds everything back, after: what was applied may call for a new mark.
        """
        while self._waiting and self._waiting[0].covered(applied):
            self._applied_time = self._waiting.popleft().time
        return NEVER if self._applied_time == NEVER else self._applied_time + self._spread

    def wanted(self, front: int, head: int) -> int | None:
        """The time of the mark to set now, if one is due.

        `front` is the greatest event time appended so far (NEVER after a start), `head` the smallest one that waits.
        """
        if self._marked == NEVER:
            return head  # after a start the front is not known: all that stands in the ledger counts
        if front >= self._marked + self._step:
            return front
        if not self._waiting and head > self._applied_time + self._spread:
            return head - self._spread  # nothing for longer than A: the front passes it now
        return None

    def mark(self, time: int, ends: Mapping[int, int]) -> None:
        """The front passed `time` while the ledger ended so. Times must not fall."""
        if time < self._marked:
            raise ValueError("a mark of the short ledger lies before the last one")
        self._marked = time
        self._waiting.append(Mark(time, {partition: end for partition, end in ends.items() if end >= 0}))
