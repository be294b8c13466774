"""What intake has read and not yet appended: one queue a source partition, in source order. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from detectors.model import PRECISION_US
from streams.aligned import ALWAYS, ShortLedger, aligned_limit
from streams.board import NEVER, Position
from streams.payment import FUTURE_TOLERANCE, Payment, Rejected

Items = list[Payment | Rejected]

RELEASE_MESSAGES = 8_000
"""Messages of one append."""

_AHEAD = tuple(FUTURE_TOLERANCE + (step if step > 1 else 0) for step in PRECISION_US)
"""How far ahead of its record a payment may be dated, by precision: the rule of `streams.legs`."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How the messages of one bank topic are read."""

    topic: str
    decode: Callable[[bytes], Items]
    system_wide: bool = False
    learn: bool = False
    max_bytes: int = 16 * 1024 * 1024


class Pending(NamedTuple):
    """A message that is decoded and waits to be appended."""

    offset: int
    received: int
    earliest: int
    latest: int
    items: Items
    value: bytes
    key: bytes | None


def pending(offset: int, received: int, items: Items, value: bytes, key: bytes | None) -> Pending:
    """Note the event times of a message, without those of payments that will be refused as future-dated.

    One such payment would else move its partition's position far ahead of what it really gives, and everybody with it.
    """
    earliest, latest = ALWAYS, NEVER
    for item in items:
        if type(item) is Payment:
            time = item.time
            if time <= received + _AHEAD[item.precision]:
                earliest = time if time < earliest else earliest
                latest = time if time > latest else latest
    return Pending(offset, received, NEVER if latest == NEVER else earliest, latest, items, value, key)


@dataclass(slots=True)
class SourceQueue:
    """One source partition."""

    name: str
    """`topic/partition`"""
    feed: Feed
    waiting: deque[Pending] = field(default_factory=deque)
    front: int = NEVER
    """Greatest event time appended."""
    at_end: bool = False
    """Everything that the broker had when we last asked has been fetched."""
    moved_at: float = 0.0
    """Monotonic time when it last gave or released something."""
    stuck: bool = False
    waiting_bytes: int = 0

    def add(self, message: Pending) -> None:
        """Take a decoded message."""
        self.waiting.append(message)
        self.waiting_bytes += len(message.value)

    def pop(self) -> Pending:
        """Release the first one."""
        message = self.waiting.popleft()
        self.waiting_bytes -= len(message.value)
        if message.latest > self.front:
            self.front = message.latest
        return message

    @property
    def position(self) -> Position:
        """Where it stands: nothing that it still has, or gave, is behind this by more than its own disorder."""
        if not self.waiting:
            return Position(self.front, self.at_end)
        head = self.waiting[0].earliest
        return Position(head if head > self.front else self.front, False)


class Sources:
    """The source partitions of this process, and those of others as far as they are known."""

    def __init__(self, lateness: int, spread: int) -> None:
        self.queues: dict[str, SourceQueue] = {}
        self.short = ShortLedger(spread)
        self.front = NEVER
        self._lateness = lateness
        self.held_by = ""
        """Why the last release ended: `short-ledger`, `alignment`, or nothing."""

    def head(self) -> int | None:
        """Smallest event time that waits."""
        times = [queue.waiting[0].latest for queue in self.queues.values() if queue.waiting]
        return min(times) if times else None

    def release(
        self,
        others: Mapping[str, Position | None],
        applied: Callable[[int], int | None],
        most: int = RELEASE_MESSAGES,
    ) -> list[tuple[SourceQueue, list[Pending]]]:
        """Take what may be appended now, in an order that keeps the ledger aligned.

        Own positions move while messages are taken, so a long stretch of event time can be released at once.
        """
        taken: list[tuple[SourceQueue, list[Pending]]] = []
        count = 0
        short = self.short.limit(applied)
        self.held_by = ""
        foreign = [position for position in others.values() if position is None or not position.at_end]
        outside = aligned_limit(foreign, self._lateness)
        while count < most:
            own = [queue for queue in self.queues.values() if not queue.stuck]
            positions = [queue.position for queue in own]
            aligned = min(outside, aligned_limit(positions, self._lateness))
            before = count
            for queue in self.queues.values():
                if not queue.waiting:
                    continue
                limit = min(aligned, short)
                slowest = aligned != ALWAYS and queue.position.time + self._lateness // 2 <= aligned
                some: list[Pending] = []
                while queue.waiting and count < most:
                    latest = queue.waiting[0].latest
                    # A message whose payments span more than L/2 passes when its partition is the slowest.
                    if latest > limit and not (slowest and not some and latest <= short):
                        break
                    some.append(queue.pop())
                    count += 1
                if some:
                    taken.append((queue, some))
                    self.front = max(self.front, queue.front)
            if count == before:
                self._why(short)
                break
        return taken

    def _why(self, short: int) -> None:
        head = self.head()
        if head is not None:
            self.held_by = "short-ledger" if head > short else "alignment"


def behind(queues: Iterable[SourceQueue]) -> SourceQueue | None:
    """The partition that holds the others back, if one does: not at its end, and with nothing to give."""
    empty = [queue for queue in queues if not queue.waiting and not queue.at_end and not queue.stuck]
    return min(empty, key=lambda queue: queue.front) if empty else None
