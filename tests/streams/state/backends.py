"""Two servers behind one face: memory and a real Redis. Tests open any number of stores on them, and lose their data."""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Protocol

import redis

from streams.state.base import Account, StateStore, StoreMeta
from streams.state.memory import MemoryData, MemoryStore
from streams.state.redis import RedisStore

META = StoreMeta(partitions=12, key_id="k1", generation="g1")


class Backend(Protocol):
    """A server that keeps state for several workers and can forget some of it."""

    name: str

    def store(self, meta: StoreMeta = META) -> StateStore:
        """A store that is not open yet: one worker."""

    def mark(self) -> Any:
        """Remember everything as it is."""

    def lose_since(self, mark: Any) -> None:
        """Go back to the mark, as after the loss of the last second."""

    def lose_everything(self) -> None:
        """Be empty."""


class MemoryBackend:
    name = "memory"

    def __init__(self) -> None:
        self.away = 0.0
        self.data = MemoryData(lambda: time.time() + self.away)

    def store(self, meta: StoreMeta = META) -> StateStore:
        return MemoryStore(meta, self.data)

    def mark(self) -> Any:
        return self.data.mark()

    # A server that comes back was away for longer than a millisecond, or an epoch would be given twice.
    def lose_since(self, mark: Any) -> None:
        self.away += 0.1
        self.data.lose_since(copy.deepcopy(mark))

    def lose_everything(self) -> None:
        self.away += 0.1
        self.data.lose_everything()


class RedisBackend:
    """One database of a real server. Going back is done with DUMP and RESTORE; test_redis.py does it with kill -9."""

    name = "redis"

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url, protocol=2)

    def store(self, meta: StoreMeta = META) -> StateStore:
        return RedisStore(self.url, meta, persistence="none")

    def mark(self) -> Any:
        return {key: self.client.dump(key) for key in self.client.scan_iter()}

    def lose_since(self, mark: Any) -> None:
        self.client.flushdb()
        for key, value in mark.items():
            self.client.restore(key, 0, value)

    def lose_everything(self) -> None:
        self.client.flushdb()


async def opened(backend: Backend, meta: StoreMeta = META) -> StateStore:
    store = backend.store(meta)
    await store.open()
    return store


async def accounts_of(store: StateStore, partition: int) -> dict[int, bytes]:
    """Every account; an account that comes twice fails."""
    found: dict[int, bytes] = {}
    async for chunk in store.load_accounts(partition):
        for subject, blob in chunk:
            assert subject not in found
            found[subject] = blob
    return found


def some_accounts(n: int, *, first: int = 1, size: int = 50) -> list[Account]:
    return [((first + i) * 0x9E3779B97F4A7C15 % 2**64, bytes([i % 251 + 1]) * size) for i in range(n)]


async def stream(items: Iterable[list[Account]]) -> AsyncIterator[list[Account]]:
    for item in items:
        yield item
