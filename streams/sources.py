"""What intake has read and not yet appended: one queue a source partition, in source order. No I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from streams.aligned import ALWAYS, ShortLedger, aligned_limit
from streams.block import Block, Feed, Refused
from streams.board import NEVER, Position
from streams.rows import Part

RELEASE_MESSAGES = 8_000
"""Messages of one append."""


class Taken(NamedTuple):
    """Messages [first, until) of a block, released."""

    queue: SourceQueue
    block: Block
    first: int
    until: int

    @property
    def rows(self) -> Part:
        """Their legs and counts."""
        return self.block.rows(self.first, self.until)

    @property
    def refused(self) -> list[Refused]:
        """What was refused of them."""
        return self.block.refusals(self.first, self.until)


@dataclass(slots=True)
class SourceQueue:
    """One source partition."""

    name: str
    """`topic/partition`"""
    feed: Feed
    blocks: deque[Block] = field(default_factory=deque)
    """What waits; of the first one, from message `at` on."""
    at: int = 0
    front: int = NEVER
    """Greatest event time appended."""
    at_end: bool = False
    """Everything that the broker had when we last asked has been fetched."""
    moved_at: float = 0.0
    """Monotonic time when it last gave or released something."""
    stuck: bool = False
    waiting: int = 0
    """Messages that wait."""
    waiting_bytes: int = 0

    def add(self, block: Block) -> None:
        """Take what was fetched."""
        if len(block):
            self.blocks.append(block)
            self.waiting += len(block)
            self.waiting_bytes += int(block.bytes_until[-1])

    @property
    def head_latest(self) -> int:
        """Greatest event time of the first message that waits."""
        return int(self.blocks[0].latest[self.at])

    def pop(self, limit: int, most: int) -> Taken | None:
        """Release messages of the first block, up to the first one that is later than `limit`; None if that is its first."""
        block, first = self.blocks[0], self.at
        until = min(len(block), first + most)
        later = np.flatnonzero(block.latest[first:until] > limit)
        if len(later):
            until = first + int(later[0])
        if until == first:
            return None
        self.front = max(self.front, int(block.latest[first:until].max()))
        self.waiting -= until - first
        self.waiting_bytes -= int(block.bytes_until[until] - block.bytes_until[first])
        self.at = until
        if until == len(block):
            self.blocks.popleft()
            self.at = 0
        return Taken(self, block, first, until)

    @property
    def position(self) -> Position:
        """Where it stands: nothing that it still has, or gave, is behind this by more than its own disorder."""
        if not self.waiting:
            return Position(self.front, self.at_end)
        head = int(self.blocks[0].earliest[self.at])
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
        times = [queue.head_latest for queue in self.queues.values() if queue.waiting]
        return min(times) if times else None

    def release(
        self,
        others: Mapping[str, Position | None],
        applied: Callable[[int], int | None],
        most: int = RELEASE_MESSAGES,
    ) -> list[Taken]:
        """Take what may be appended now, in an order that keeps the ledger aligned.

        Own positions move while messages are taken, so a long stretch of event time can be released at once.
        """
        taken: list[Taken] = []
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
                first = True
                while queue.waiting and count < most:
                    some = queue.pop(limit, most - count)
                    if some is None and first and slowest and queue.head_latest <= short:
                        # A message whose payments span more than L/2 passes when its partition is the slowest.
                        some = queue.pop(short, 1)
                    if some is None:
                        break
                    first = False
                    taken.append(some)
                    count += some.until - some.first
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
