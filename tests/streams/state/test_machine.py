"""Random histories of two workers on one server that may lose its newest writes, against plain dicts.

What must hold: a write that is accepted stands on exactly what its worker loaded and wrote since its claim; a write is
refused if, and only if, somebody else claimed or the server lost something since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streams.state.base import FenceLost, StateStore
from tests.streams.state.backends import Backend, MemoryBackend, RedisBackend, accounts_of

WORKERS = st.integers(0, 1)
PARTITIONS = st.integers(0, 1)
SUBJECTS = st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1])
BLOBS = st.binary(max_size=6)


@dataclass
class View:
    """What a worker believes of a partition that it claimed."""

    epoch: int
    accounts: dict[int, bytes] = field(default_factory=dict)
    control: bytes | None = None
    head: bytes | None = None
    applied: int | None = None
    writes: int = 0
    owner: bool = True
    told: bool = False
    """It was refused once: the store holds it to that until it claims."""


class Machine(RuleBasedStateMachine):
    backend: Backend

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.views: dict[tuple[int, int], View] = {}
        self.mark: Any = None
        self.applied_of: dict[bytes, int] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.backend.lose_everything()
        self.stores: list[StateStore] = [self.backend.store() for _ in range(2)]
        for store in self.stores:
            self.run(store.open())

    def teardown(self) -> None:
        for store in getattr(self, "stores", []):
            self.run(store.close())
        self.runner.close()

    @rule(worker=WORKERS, partition=PARTITIONS)
    def claim(self, worker: int, partition: int) -> None:
        store = self.stores[worker]
        view = View(self.run(store.claim(partition)))
        view.accounts = self.run(accounts_of(store, partition))
        view.control, view.head = (
            self.run(store.load_control(partition)),
            self.run(store.load_head(partition)),
        )
        view.applied = self.applied_of[view.head] if view.head is not None else None
        for (_, number), other in self.views.items():
            if number == partition:
                other.owner = False
                assert other.epoch < view.epoch or self.mark is not None
        self.views[worker, partition] = view

    def write(self, worker: int, partition: int, work: Coroutine[Any, Any, None]) -> bool:
        """Whether it was accepted, which must be so exactly for the owner."""
        view = self.views[worker, partition]
        try:
            self.run(work)
        except FenceLost:
            assert not view.owner, "a write of the owner was refused"
            view.told = True
            return False
        assert view.owner, "a write of somebody else was accepted"
        view.writes += 1
        return True

    def stands_on_its_view(self, worker: int, partition: int) -> None:
        view, store = self.views[worker, partition], self.stores[1 - worker]
        assert self.run(accounts_of(store, partition)) == view.accounts
        assert self.run(store.load_control(partition)) == view.control
        assert self.run(store.load_head(partition)) == view.head

    @precondition(lambda self: self.views)
    @rule(data=st.data(), chunk=st.lists(st.tuples(SUBJECTS, BLOBS), max_size=4))
    def write_accounts(self, data: st.DataObject, chunk: list[tuple[int, bytes]]) -> None:
        worker, partition = data.draw(st.sampled_from(sorted(self.views)))
        view = self.views[worker, partition]
        if self.write(worker, partition, self.stores[worker].write_accounts(partition, view.epoch, chunk)):
            view.accounts = {k: v for k, v in (view.accounts | dict(chunk)).items() if v}
            self.stands_on_its_view(worker, partition)

    @precondition(lambda self: self.views)
    @rule(data=st.data(), blob=st.binary(min_size=1, max_size=4))
    def write_control(self, data: st.DataObject, blob: bytes) -> None:
        worker, partition = data.draw(st.sampled_from(sorted(self.views)))
        view = self.views[worker, partition]
        if self.write(worker, partition, self.stores[worker].write_control(partition, view.epoch, blob)):
            view.control = blob
            self.stands_on_its_view(worker, partition)

    @precondition(lambda self: self.views)
    @rule(data=st.data(), further=st.integers(1, 5))
    def write_head(self, data: st.DataObject, further: int) -> None:
        worker, partition = data.draw(st.sampled_from(sorted(self.views)))
        view = self.views[worker, partition]
        applied = (view.applied or 0) + further
        head = b"%d by %d" % (applied, worker)
        self.applied_of[head] = applied
        work = self.stores[worker].write_head(partition, view.epoch, view.applied, applied, head)
        if self.write(worker, partition, work):
            view.head, view.applied = head, applied
            self.stands_on_its_view(worker, partition)

    @precondition(lambda self: any(view.owner for view in self.views.values()))
    @rule(data=st.data())
    def write_a_wrong_head(self, data: st.DataObject) -> None:
        owners = sorted(place for place, view in self.views.items() if view.owner)
        worker, partition = data.draw(st.sampled_from(owners))
        view = self.views[worker, partition]
        wrong = 1 if view.applied is None else view.applied + 1
        with pytest.raises(FenceLost):
            self.run(self.stores[worker].write_head(partition, view.epoch, wrong, wrong + 1, b"wrong"))
        view.owner, view.told = False, True

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        worker, partition = data.draw(st.sampled_from(sorted(self.views)))
        view = self.views[worker, partition]
        if self.write(worker, partition, self.stores[worker].clear_partition(partition, view.epoch)):
            self.views[worker, partition] = View(view.epoch, writes=view.writes)
            self.stands_on_its_view(worker, partition)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        worker, partition = data.draw(st.sampled_from(sorted(self.views)))
        view = self.views[worker, partition]
        if self.write(worker, partition, self.stores[worker].confirm(partition, view.epoch)):
            view.writes -= 1

    @rule()
    def remember(self) -> None:
        owners = {place: (view.epoch, view.writes) for place, view in self.views.items() if view.owner}
        self.mark = self.backend.mark(), owners

    @precondition(lambda self: self.mark is not None)
    @rule()
    def lose(self) -> None:
        data, owners = self.mark
        self.backend.lose_since(data)
        for place, view in self.views.items():
            view.owner = not view.told and owners.get(place) == (view.epoch, view.writes)


def test_memory_against_dicts() -> None:
    run(MemoryBackend(), 100)


def test_redis_against_dicts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.state.redis.LOAD_BUCKETS", 256)  # nearly empty partitions are read often
    run(RedisBackend(redis_url), 60)


def run(backend: Backend, examples: int) -> None:
    machine = type("Machine", (Machine,), {"backend": backend})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=25))
