"""When a partition's snapshot is due, taken after a flush; and the restore of a partition whose state is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from streams.state.base import StateStore
from streams.state.snapshots import SnapshotError, SnapshotGap, Snapshots

log = logging.getLogger(__name__)


class Keeper:
    """Snapshots of the partitions that this process judges."""

    def __init__(
        self,
        snapshots: Snapshots,
        store: StateStore,
        log_start: Callable[[int], Awaitable[int]],
        *,
        every: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._snapshots = snapshots
        self._store = store
        self._log_start = log_start
        self._every = every
        self._now = now
        self._next: dict[int, float] = {}

    async def after_flush(self, partition: int, applied: int, epoch: int) -> None:
        """Take one if it is due. Nothing of the partition is written meanwhile. A folder that fails costs a warning."""
        if partition not in self._next:
            newest = await asyncio.to_thread(self._snapshots.newest_time, partition)
            self._next[partition] = 0.0 if newest is None else newest + self._every
        if self._now() < self._next[partition]:
            return
        try:
            await self._snapshots.take(partition, applied, self._store, epoch)
        except (SnapshotError, OSError) as problem:
            log.warning(
                "snapshot not taken", extra={"partition": partition, "problem": type(problem).__name__}
            )
            self._next[partition] = self._now() + self._every / 24
            return
        self._next[partition] = self._now() + self._every

    async def restore(self, partition: int, epoch: int, accept_gap: bool = False) -> bool:
        """Fill an empty partition from its newest good snapshot; False when there is none.

        A log that starts behind the snapshot raises `SnapshotGap`, before anything is touched, unless it is accepted; the
        partition then finds the gap itself and marks the accounts.
        """
        start = await self._log_start(partition)
        try:
            done = await self._snapshots.restore(
                partition, self._store, log_start=start, accept_gap=accept_gap, epoch=epoch
            )
        except SnapshotGap:
            raise
        except SnapshotError as problem:
            log.info("no snapshot to restore", extra={"partition": partition, "problem": str(problem)})
            return False
        if done.skipped:
            log.warning(
                "newer snapshots not used", extra={"partition": partition, "problem": "; ".join(done.skipped)}
            )
        self._next.pop(partition, None)
        return True
