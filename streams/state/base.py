"""The contract of a state store: what the monitor may rely on, whatever keeps the bytes.

A partition of the ledger has one **epoch** at a time. `claim` starts a new one; whoever writes under an older one gets
`FenceLost` and must drop what it holds in memory, claim again, load and replay. A store object numbers its writes inside an
epoch, and the store applies write *n* only on top of write *n - 1*. So a store that went back in time (it lost its last
second, or failed over to a replica that was behind) refuses the next write, also in the middle of a flush, and a write that
is sent twice because its answer was lost is applied once.

All keys of one partition live and die together: a store may lose the newest writes of a partition, never older ones alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from detectors.packing import STATE_LAYOUT

MAX_CHUNK = 500
"""Accounts in one write: more would hold up a single-threaded store for longer than 5 ms."""

MAX_CHUNK_BYTES = 1 << 18
"""Bytes in one write that `chunked` makes, unless one account alone is larger."""

MIN_MEMBER_TTL = 1.0
"""Shortest life of a member lock, in seconds."""

Account = tuple[int, bytes]
"""A subject (unsigned 64 bit) and its packed state."""


class StoreError(Exception):
    """The store failed. Whether the last write was applied is unknown; sending the same write again is safe."""


class StoreUnavailable(StoreError):
    """Not reached, or no answer in time, after the store's own retries."""


class StoreFull(StoreError):
    """The store has no room for the write and, being `noeviction`, says so."""


class StoreRefused(StoreError):
    """The store is not one that Safehold may use. `problems` names everything that is wrong, not just the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class FenceLost(Exception):
    """The partition has another owner, or the store went back in time. Nothing of this write was applied.

    Answer: drop the partition's memory, confirm membership, `claim`, load, replay from the head. Until that claim every
    further write of this store object to the partition is refused too.
    """

    def __init__(self, partition: int, reason: str) -> None:
        self.partition = partition
        self.reason = reason
        super().__init__(f"partition {partition}: {reason}")


class MemberHeld(Exception):
    """Another process runs under this static member id. `remaining` seconds until its lock ends unless it renews."""

    def __init__(self, member_id: str, remaining: float) -> None:
        self.member_id = member_id
        self.remaining = remaining
        super().__init__(
            f"member id {member_id!r} is in use by another process (lock ends in {remaining:.1f} s)"
        )


class MemberLost(Exception):
    """The lock of this member id is not ours any more: stop, another process may have started."""

    def __init__(self, member_id: str) -> None:
        self.member_id = member_id
        super().__init__(f"the lock of member id {member_id!r} was lost")


class StoreMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What the stored state belongs to. Written by the first `check`, compared by every later one."""

    partitions: int
    """Ledger partitions."""
    key_id: str
    """Version of the pseudonym key: other keys give other subjects."""
    generation: str
    """Ledger generation: offsets of another generation mean nothing here."""
    layout: int = STATE_LAYOUT
    """Version of the packed state."""

    def differences(self, stored: StoreMeta) -> list[str]:
        """Every way in which the stored state is not ours, in words."""
        return [
            f"{words}: the store has {getattr(stored, name)!r}, this worker {getattr(self, name)!r}"
            for name, words in (
                ("layout", "state layout"),
                ("partitions", "ledger partitions"),
                ("key_id", "pseudonym key"),
                ("generation", "ledger generation"),
            )
            if getattr(stored, name) != getattr(self, name)
        ]


class RecommendationEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the index that people look at. The review topic is the record; this is a convenience."""

    id: str
    partition: int
    subject: int
    event_time: int
    offset: int
    """Cause: ledger offset."""
    index: int
    """Cause: place inside that ledger message's outputs."""
    action: str
    mode: str
    entity: str = ""
    withdrawn: bool = False
    body: bytes = b""
    """Canonical bytes of the body; empty for a withdrawal."""


class FlagEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The latest state of one flag, for people to look at. Never read while judging."""

    flag_id: str
    party: int
    state: str
    effective_at: int
    record_id: str
    body: bytes = b""
    """The flag record as it went into the ledger."""

    @property
    def key(self) -> str:
        """What it is kept under. Two partners may number alike, so an id alone is no flag's."""
        return f"{self.party:016x}/{self.flag_id}"

    @property
    def order(self) -> tuple[int, str]:
        """States of one flag in the order that counts."""
        return self.effective_at, self.record_id


class StateStore(Protocol):
    """Where the state of the partitions is kept.

    Every method may raise `StoreError`. Writes are all or nothing. A write under an epoch that this object did not get from
    `claim`, or that is not the partition's latest, raises `FenceLost`. Writes of one partition are applied in the order in
    which they were called; different partitions are independent. After a `StoreError` (or a cancelled call) the same write
    may be sent again; any other write of that partition raises `FenceLost`, because what it would stand on is not known.
    """

    async def open(self) -> None:
        """Connect. Called once, before anything else."""

    async def close(self) -> None:
        """Let go of every connection. The object is not used again; locks are not released by this."""

    async def check(self) -> None:
        """Raise `StoreRefused` with every problem: eviction, persistence, version, and the `StoreMeta` that does not fit.

        Writes the `StoreMeta` when the store has none. Two workers that start at once agree on one.
        """

    # -- one partition ----------------------------------------------------------------------------------------------------

    async def claim(self, partition: int) -> int:
        """Start a new epoch and return it. It is greater than every epoch before, also than one that the store has lost.

        From here on no write under an older epoch is applied, so what is loaded next stays as it is read.
        """

    async def confirm(self, partition: int, epoch: int) -> None:
        """Raise `FenceLost` unless the partition is still as this object's last write under this epoch left it."""

    async def load_head(self, partition: int) -> bytes | None:
        """The head as it was last written. None: the partition is new; anything else under it is debris of a torn
        `clear_partition` or restore, so call `clear_partition` before the first write."""

    async def load_control(self, partition: int) -> bytes | None:
        """The control blob as it was last written."""

    def load_accounts(self, partition: int) -> AsyncIterator[list[Account]]:
        """Every account of the partition, once, in chunks of any size and order. Call it after `claim`."""

    async def write_accounts(self, partition: int, epoch: int, chunk: Sequence[Account]) -> None:
        """Write at most `MAX_CHUNK` accounts. An empty blob removes the account."""

    async def write_control(self, partition: int, epoch: int, blob: bytes) -> None:
        """Write the control blob."""

    async def write_head(
        self, partition: int, epoch: int, expected_applied: int | None, applied: int, head: bytes
    ) -> None:
        """Write the head if the stored applied offset is `expected_applied` (None: there is no head yet).

        The last write of a flush: everything that the head speaks of was written before it.
        """

    async def clear_partition(self, partition: int, epoch: int) -> None:
        """Remove head, control, accounts and recommendations, the head first. Sent again after a crash it goes on."""

    # -- for people -------------------------------------------------------------------------------------------------------

    async def put_recommendations(
        self, partition: int, epoch: int, items: Sequence[RecommendationEntry]
    ) -> None:
        """Put at most `MAX_CHUNK` entries. Of one id the greatest cause `(offset, index)` stays."""

    async def list_recommendations(
        self, *, partition: int | None = None, limit: int = 100, withdrawn: bool = False
    ) -> list[RecommendationEntry]:
        """The newest by `(event_time, id)`, newest first; withdrawn ones only when asked for."""

    async def get_recommendation(self, recommendation_id: str) -> RecommendationEntry | None:
        """One entry, withdrawn or not."""

    async def put_flag(self, entry: FlagEntry) -> None:
        """Keep this state of the flag unless a later one (`FlagEntry.order`) is there."""

    async def list_flags(self, *, party: int | None = None) -> list[FlagEntry]:
        """Every flag, or those of one account, ordered by `flag_id` and account."""

    # -- one process per static member id -----------------------------------------------------------------------------------

    async def acquire_member(self, member_id: str, ttl: float) -> str:
        """Take the lock for `ttl` seconds and return its token, or raise `MemberHeld`."""

    async def renew_member(self, member_id: str, token: str, ttl: float) -> None:
        """The heartbeat: `ttl` seconds from now. Raises `MemberLost` when the lock is gone or another's."""

    async def release_member(self, member_id: str, token: str) -> None:
        """Give the lock back if it is still ours."""


def chunked(accounts: Iterable[Account]) -> Iterator[list[Account]]:
    """Split into writes of at most `MAX_CHUNK` accounts and about `MAX_CHUNK_BYTES`, neighbours in storage together.

    The order is by `bucket_of`, so that one write touches few of the store's hashes.
    """
    chunk: list[Account] = []
    size = 0
    for subject, blob in sorted(accounts, key=lambda account: bucket_of(account[0])):
        if chunk and (len(chunk) == MAX_CHUNK or size + len(blob) > MAX_CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((subject, blob))
        size += len(blob)
    if chunk:
        yield chunk


BUCKETS = 1024
"""Hashes that hold the accounts of one partition."""


def bucket_of(subject: int) -> int:
    """Which of them holds a subject: the top ten bits of its Fibonacci hash, so that short subjects spread too."""
    return ((subject * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF) >> 54


async def flush_accounts(store: StateStore, partition: int, epoch: int, accounts: Iterable[Account]) -> int:
    """Write any number of accounts chunk by chunk, giving way to the event loop in between; the number of chunks."""
    chunks = 0
    for chunk in chunked(accounts):
        await store.write_accounts(partition, epoch, chunk)
        await asyncio.sleep(0)
        chunks += 1
    return chunks


async def take_member(store: StateStore, member_id: str, ttl: float, *, patience: float) -> str:
    """Take the member lock, waiting up to `patience` seconds for one that a killed process left behind.

    With `patience` above the old lock's `ttl` only a process that is alive and renewing makes this fail.
    """
    give_up = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await store.acquire_member(member_id, ttl)
        except MemberHeld as held:
            left = give_up - asyncio.get_running_loop().time()
            if left <= 0:
                raise
            await asyncio.sleep(min(left, max(0.05, held.remaining + 0.05)))
