"""A state store in this process: for `judge`, the demo and tests. It forgets everything at the end.

`MemoryData` is what a server would hold; several `MemoryStore` objects over one `MemoryData` are several workers.
"""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from streams.state.base import (
    MAX_CHUNK,
    Account,
    FenceLost,
    FlagEntry,
    MemberHeld,
    MemberLost,
    RecommendationEntry,
    StoreMeta,
    StoreRefused,
)

LOAD_CHUNK = 2_000


@dataclass(slots=True)
class _Partition:
    epoch: int = 0
    writes: int = 0
    applied: int | None = None
    head: bytes | None = None
    control: bytes | None = None
    accounts: dict[int, bytes] = field(default_factory=dict)
    recommendations: dict[str, RecommendationEntry] = field(default_factory=dict)


@dataclass(slots=True)
class _Everything:
    meta: StoreMeta | None = None
    partitions: dict[int, _Partition] = field(default_factory=dict)
    flags: dict[str, FlagEntry] = field(default_factory=dict)
    members: dict[str, tuple[str, float]] = field(default_factory=dict)


class MemoryData:
    """What the stores of one "server" share, and the ways in which a server loses it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.everything = _Everything()

    def partition(self, number: int) -> _Partition:
        """The record of a partition, made when it is asked for."""
        return self.everything.partitions.setdefault(number, _Partition())

    def mark(self) -> _Everything:
        """Remember everything as it is now."""
        return copy.deepcopy(self.everything)

    def lose_since(self, mark: _Everything) -> None:
        """Go back to the mark, as a server that lost its last second does."""
        self.everything = copy.deepcopy(mark)

    def lose_everything(self) -> None:
        """Be empty, as a server without persistence is after a restart."""
        self.everything = _Everything()


class MemoryStore:
    """`StateStore` over a `MemoryData`."""

    def __init__(self, meta: StoreMeta, data: MemoryData | None = None) -> None:
        self._meta = meta
        self._data = data or MemoryData()
        self._claims: dict[int, tuple[int, int]] = {}
        """Partition → the epoch that this object claimed, and the number of its last write."""

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def check(self) -> None:
        """Compare the meta record; memory has no eviction and no persistence to ask for."""
        everything = self._data.everything
        if everything.meta is None:
            everything.meta = self._meta
        if problems := self._meta.differences(everything.meta):
            raise StoreRefused(problems)

    # -- one partition ----------------------------------------------------------------------------------------------------

    async def claim(self, partition: int) -> int:
        """Start a new epoch."""
        record = self._data.partition(partition)
        record.epoch = max(record.epoch + 1, int(self._data.clock() * 1000))
        record.writes = 0
        self._claims[partition] = (record.epoch, 0)
        return record.epoch

    async def confirm(self, partition: int, epoch: int) -> None:
        """Raise `FenceLost` unless nothing happened since this object's last write."""
        self._fenced(partition, epoch)

    async def load_head(self, partition: int) -> bytes | None:
        """The head."""
        return self._data.partition(partition).head

    async def load_control(self, partition: int) -> bytes | None:
        """The control blob."""
        return self._data.partition(partition).control

    async def load_accounts(self, partition: int) -> AsyncIterator[list[Account]]:
        """Every account."""
        items = list(self._data.partition(partition).accounts.items())
        for at in range(0, len(items), LOAD_CHUNK):
            yield items[at : at + LOAD_CHUNK]

    async def write_accounts(self, partition: int, epoch: int, chunk: Sequence[Account]) -> None:
        """Write accounts; an empty blob removes one."""
        _at_most_a_chunk(chunk)
        record = self._fenced(partition, epoch)
        for subject, blob in chunk:
            if blob:
                record.accounts[subject] = bytes(blob)
            else:
                record.accounts.pop(subject, None)
        self._written(partition, record)

    async def write_control(self, partition: int, epoch: int, blob: bytes) -> None:
        """Write the control blob."""
        record = self._fenced(partition, epoch)
        record.control = bytes(blob)
        self._written(partition, record)

    async def write_head(
        self, partition: int, epoch: int, expected_applied: int | None, applied: int, head: bytes
    ) -> None:
        """Write the head on top of the expected one."""
        record = self._fenced(partition, epoch)
        if record.applied != expected_applied:
            raise self._lost(partition, f"applied is {record.applied}, expected {expected_applied}")
        record.applied, record.head = applied, bytes(head)
        self._written(partition, record)

    async def clear_partition(self, partition: int, epoch: int) -> None:
        """Forget the partition's state and recommendations."""
        record = self._fenced(partition, epoch)
        record.applied = record.head = record.control = None
        record.accounts.clear()
        record.recommendations.clear()
        self._written(partition, record)

    def _fenced(self, partition: int, epoch: int) -> _Partition:
        record = self._data.partition(partition)
        claimed, writes = self._claims.get(partition, (None, 0))
        if claimed != epoch or record.epoch != epoch:
            raise self._lost(partition, f"epoch is {record.epoch}, the write's is {epoch}")
        if record.writes != writes:
            raise self._lost(partition, f"the store went back from write {writes} to {record.writes}")
        return record

    def _lost(self, partition: int, reason: str) -> FenceLost:
        self._claims.pop(partition, None)
        return FenceLost(partition, reason)

    def _written(self, partition: int, record: _Partition) -> None:
        record.writes += 1
        self._claims[partition] = (record.epoch, record.writes)

    # -- for people -------------------------------------------------------------------------------------------------------

    async def put_recommendations(
        self, partition: int, epoch: int, items: Sequence[RecommendationEntry]
    ) -> None:
        """Put entries; the greatest cause of an id stays."""
        _at_most_a_chunk(items)
        record = self._fenced(partition, epoch)
        for item in items:
            old = record.recommendations.get(item.id)
            if old is None or (old.offset, old.index) <= (item.offset, item.index):
                record.recommendations[item.id] = item
        self._written(partition, record)

    async def list_recommendations(
        self, *, partition: int | None = None, limit: int = 100, withdrawn: bool = False
    ) -> list[RecommendationEntry]:
        """The newest first."""
        partitions = self._data.everything.partitions
        chosen = partitions.values() if partition is None else [self._data.partition(partition)]
        found = [
            item
            for record in chosen
            for item in record.recommendations.values()
            if withdrawn or not item.withdrawn
        ]
        return sorted(found, key=lambda item: (item.event_time, item.id), reverse=True)[:limit]

    async def get_recommendation(self, recommendation_id: str) -> RecommendationEntry | None:
        """One entry."""
        for record in self._data.everything.partitions.values():
            if item := record.recommendations.get(recommendation_id):
                return item
        return None

    async def put_flag(self, entry: FlagEntry) -> None:
        """Keep the later state of a flag."""
        flags = self._data.everything.flags
        old = flags.get(entry.key)
        if old is None or old.order <= entry.order:
            flags[entry.key] = entry

    async def list_flags(self, *, party: int | None = None) -> list[FlagEntry]:
        """Flags by id."""
        flags = self._data.everything.flags.values()
        found = [entry for entry in flags if party is None or entry.party == party]
        return sorted(found, key=lambda entry: (entry.flag_id, entry.party))

    # -- one process per static member id -----------------------------------------------------------------------------------

    async def acquire_member(self, member_id: str, ttl: float) -> str:
        """Take the lock."""
        now = self._data.clock()
        _, until = self._data.everything.members.get(member_id, ("", now))
        if until > now:
            raise MemberHeld(member_id, until - now)
        token = secrets.token_hex(16)
        self._data.everything.members[member_id] = (token, now + ttl)
        return token

    async def renew_member(self, member_id: str, token: str, ttl: float) -> None:
        """The heartbeat."""
        now = self._data.clock()
        held, until = self._data.everything.members.get(member_id, ("", now))
        if held != token or until <= now:
            raise MemberLost(member_id)
        self._data.everything.members[member_id] = (token, now + ttl)

    async def release_member(self, member_id: str, token: str) -> None:
        """Give the lock back."""
        held, _ = self._data.everything.members.get(member_id, ("", 0.0))
        if held == token:
            del self._data.everything.members[member_id]


def _at_most_a_chunk(items: Sequence[object]) -> None:
    if len(items) > MAX_CHUNK:
        raise ValueError(f"at most {MAX_CHUNK} in one write, not {len(items)}")
