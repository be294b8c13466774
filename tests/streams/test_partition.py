"""A ledger partition over an in-memory log and the memory store: crashes at every numbered step, fences, gaps, rebalances."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from aiokafka.errors import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st

import streams.partition as module
from detectors.model import LEG, Fact, Kind
from streams import ledger, stops
from streams.board import Progress
from streams.folding import Fold
from streams.keeping import Keeper
from streams.latest import Latest
from streams.metrics import Metrics
from streams.partition import Partition, PartitionSettings, Phase
from streams.publish import Message
from streams.quarantine import Cases, Said, encode
from streams.state.base import StoreMeta, StoreUnavailable
from streams.state.memory import MemoryData, MemoryStore
from streams.state.snapshots import Snapshots
from tests.streams.tinyfold import TINY, TinyPublisher, TinyState

META = StoreMeta(partitions=1, key_id="k", generation="g1")
STEPS = (
    "after-claim", "after-load", "after-step", "between-outputs", "after-publish",
    "between-chunks", "after-accounts", "after-control", "after-head", "after-ledger-commit",
)  # fmt: skip


class Crash(BaseException):
    """The process is gone: nothing that follows is executed."""


class Rec(NamedTuple):
    offset: int
    timestamp: int
    value: bytes


class World:
    """What outlives a process: the ledger, the store's data, and the output topic."""

    def __init__(self, log: list[bytes]) -> None:
        self.log = log
        self.start = 0
        self.data = MemoryData()
        self.said: list[Message] = []
        self.committed: int | None = None
        self.member = True
        self.topic: list[bytes] = []  # of quarantines

    def latest(self) -> Latest:
        latest = Latest()
        for message in self.said:
            latest.add(message.value, message.headers)
        return latest

    async def totals(self) -> dict[str, int]:
        store = MemoryStore(META, self.data)
        head = await store.load_head(0)
        assert head is not None
        state = TinyState(0)
        state.load_head(head)
        return state.head.counters


class Topic:
    """The quarantine topic, as one process reads it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cases = Cases("g1")
        self.read = 0
        self.away = 0
        """So many times it does not answer."""

    async def refresh(self) -> None:
        if self.away:
            self.away -= 1
            raise KafkaError("away")
        for at in range(self.read, len(self.world.topic)):
            self.cases.take(self.world.topic[at], at + 1)
        self.read = len(self.world.topic)

    async def append(self, said: Said) -> None:
        self.world.topic.append(encode(said))
        await self.refresh()


class Process:
    """One process that judges the partition: it can be killed at any step."""

    def __init__(self, world: World, *, chunk: int = 3, fold: Fold = TINY, **options: Any) -> None:
        self.world = world
        self.chunk = chunk
        self.position = 0
        self.held = True
        self.progress = Progress()
        self.store = MemoryStore(META, world.data)
        self.refuse: Exception | None = None
        self.metrics = Metrics()
        self.topic = Topic(world)
        self.part = Partition(
            0,
            fold=fold,
            store=self.store,
            broker=self,
            send=self.send,
            publisher=TinyPublisher(),
            progress=self.progress,
            metrics=self.metrics,
            settings=PartitionSettings(
                **{
                    "flush_seconds": 0.0,
                    "retry_seconds": 0.0,
                    "retry_most": 0.0,
                    "signed_seconds": 0.0,
                    "belongs": ("k", "g1"),
                    **options,
                }
            ),
            quarantines=self.topic,
        )

    async def seek(self, partition: int, offset: int) -> None:
        self.position, self.held = offset, False

    async def start_of_log(self, partition: int) -> int:
        return self.world.start

    async def committed(self, partition: int) -> int | None:
        return self.world.committed

    async def commit(self, partition: int, offset: int) -> bool:
        if self.world.member:
            self.world.committed = offset
        return self.world.member

    def hold(self, partition: int, held: bool) -> None:
        self.held = held

    async def send(self, message: Message) -> Any:
        if self.refuse is not None:
            problem, self.refuse = self.refuse, None
            raise problem
        self.world.said.append(message)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def fetch(self) -> bool:
        """Hand over the next records, as the consumer would."""
        if self.held or self.part.phase is not Phase.RUNNING or self.position >= len(self.world.log):
            return False
        records = [
            Rec(at, 0, self.world.log[at])
            for at in range(self.position, min(self.position + self.chunk, len(self.world.log)))
        ]
        self.position += len(records)
        self.part.accept(self.part.session, records)
        return True

    async def run(self, until: Callable[[], bool]) -> None:
        """Run until the condition holds. Raises what killed the process."""
        if self.part._task is None:
            self.part.start()
        task = self.part._task
        assert task is not None
        for _ in range(100_000):
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]
            if until():
                return
            self.fetch()
            await asyncio.sleep(0)
        pytest.fail(f"nothing came of it: {self.part.phase} {self.part.problem}")

    async def catch_up(self) -> None:
        end = len(self.world.log) - 1
        await self.run(lambda: self.progress.applied(0) == end and self.part.unwritten_since is None)

    async def finish(self) -> None:
        await self.catch_up()
        await self.part.drop()


def frames(spec: Sequence[Sequence[tuple[int, int]]]) -> list[bytes]:
    """One frame per inner list of (subject, leg); coordinates rise through the whole log."""
    made, coordinate = [], 0
    for number, legs in enumerate(spec):
        rows = np.zeros(len(legs), LEG)
        for row, (subject, leg) in zip(rows, legs, strict=True):
            coordinate += 1
            row["subject"], row["leg"], row["coordinate"] = subject, leg, coordinate
            row["time"], row["amount"] = 1_000 * number, leg + 1
        made += ledger.encode_rows(
            Kind.LEGS, rows, sources=["pay/0"], banks=["north"], key_id="k", generation="g1"
        )
        if number % 3 == 2:
            made += ledger.encode_records(
                Kind.FLAGS,
                [Fact(record_id=f"f{number}", effective_at=0, subject=1)],
                key_id="k",
                generation="g1",
            )
    return made


LOG = frames(
    [[(1, 1), (2, 2)], [(1, 3), (3, 4)], [(2, 2), (4, 5)], [(5, 6)], [(1, 7), (5, 8)], [(6, 9), (6, 10)]]
)


async def undisturbed(log: list[bytes]) -> World:
    world = World(log)
    await Process(world).finish()
    return world


@contextlib.contextmanager
def crash_at(name: str, count: int = 1) -> Any:
    """From here on the named step ends the process the `count`-th time that it is passed."""
    passed = 0

    def point(here: str) -> None:
        nonlocal passed
        if here == name:
            passed += 1
            if passed == count:
                raise Crash(name)

    original = module.crash_point
    module.crash_point = stops.crash_point = point  # type: ignore[assignment]
    try:
        yield
    finally:
        module.crash_point = stops.crash_point = original


async def same_as(world: World, log: list[bytes]) -> None:
    expected = await undisturbed(log)
    assert world.latest().bodies() == expected.latest().bodies()
    mine, theirs = await world.totals(), await expected.totals()
    assert {k: v for k, v in mine.items() if k != "redelivered"} == {
        k: v for k, v in theirs.items() if k != "redelivered"
    }


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_step_loses_and_doubles_nothing(
    step: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "chunked", one_by_one)
    world = World(LOG)
    with crash_at(step, count), contextlib.suppress(Crash):
        await Process(world).catch_up()
    await Process(world).finish()
    await same_as(world, LOG)


def one_by_one(accounts: Any) -> Any:
    """Chunks of one account, so that there are several boundaries to crash at."""
    return ([account] for account in accounts)


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.integers(1, 12)), min_size=1, max_size=4),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 4), st.integers(1, 4)), max_size=6),
    st.data(),
)
def test_any_sequence_of_crashes_and_lost_seconds(
    spec: list[list[tuple[int, int]]], crashes: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    async def scenario() -> None:
        log = frames(spec)
        world = World(log)
        marks = [world.data.mark()]
        for step, count, chunk in crashes:
            with crash_at(step, count), contextlib.suppress(Crash):
                await Process(world, chunk=chunk).catch_up()
            marks.append(world.data.mark())
            if data.draw(st.booleans(), "the store loses its last moments"):
                world.data.lose_since(marks[data.draw(st.integers(0, len(marks) - 1))])
        await Process(world).finish()
        await same_as(world, log)

    asyncio.run(scenario())


async def test_a_zombie_writes_nothing_and_its_late_messages_lose() -> None:
    world = World(LOG)
    zombie = Process(world, flush_seconds=3600.0)
    await zombie.run(lambda: (zombie.progress.applied(0) or 0) >= 3)
    late = list(world.said)
    heir = Process(world)
    await heir.catch_up()
    world.member = False  # the group has given the partition to the heir
    zombie.part._flushed_at = float("-inf")  # its next flush is due
    zombie.part._woken.set()
    await zombie.run(lambda: zombie.part.phase is Phase.GONE)
    world.said += late  # what it had handed to its producer arrives now
    await heir.part.drop()
    await same_as(world, LOG)


async def test_a_store_that_loses_its_last_second_under_a_living_worker_is_replayed() -> None:
    world = World(LOG[:4])
    process = Process(world)
    await process.catch_up()
    mark = world.data.mark()
    world.log = LOG[:6]
    await process.catch_up()
    world.data.lose_since(mark)
    world.log = LOG
    await process.finish()
    await same_as(world, LOG)


async def test_an_emptied_store_is_rebuilt_and_nothing_is_said_twice() -> None:
    world = World(LOG)
    await Process(world).finish()
    before = len(world.said)
    world.data.lose_everything()
    await Process(world).finish()
    assert len(world.said) == before
    await same_as(world, LOG)


async def test_a_log_that_starts_later_than_the_state_stops_the_partition() -> None:
    world = World(LOG)
    world.start = 2
    process = Process(world)
    await process.run(lambda: process.part.phase is Phase.STOPPED)
    assert "log starts at offset 2" in process.part.problem
    assert not world.said


async def gaps(world: World) -> list[list[int]]:
    head = await MemoryStore(META, world.data).load_head(0)
    state = TinyState(0)
    assert head is not None
    state.load_head(head)
    return [list(gap) for gap in state.head.gaps]


@pytest.mark.parametrize("step", ["never", *STEPS])
async def test_an_accepted_gap_is_in_the_head_and_is_accepted_once(step: str) -> None:
    world = World(LOG[:3])
    await Process(world).finish()
    world.log, world.start = LOG, 5
    with crash_at(step), contextlib.suppress(Crash):
        await Process(world, accept_gap=True).catch_up()
    written = len(await gaps(world))
    again = Process(world, accept_gap=True)
    await again.finish()
    assert await gaps(world) == [[3, 4]]
    assert again.metrics.accepted_gaps._value.get() == 1 - written
    await Process(world).finish()  # without the flag: it is written down


async def test_a_gap_is_written_down_though_nothing_follows() -> None:
    world = World(LOG[:3])
    await Process(world).finish()
    world.log, world.start = LOG[:5], 5
    await Process(world, accept_gap=True).finish()
    assert await gaps(world) == [[3, 4]]
    assert world.committed == 5


@pytest.mark.parametrize("accept", [False, True])
async def test_a_gap_behind_the_newest_snapshot(tmp_path: Path, accept: bool) -> None:
    """The store is lost, and the log begins later than the snapshot ends."""
    world = World(LOG[:3])
    await kept(with_snapshots(world, tmp_path), tmp_path, 2)
    world.data.lose_everything()
    world.log, world.start = LOG, 5
    process = with_snapshots(world, tmp_path, accept_gap=accept)
    if not accept:
        await process.run(lambda: process.part.phase is Phase.STOPPED)
        assert "2 records are gone" in process.part.problem
        return
    await kept(process, tmp_path, len(LOG) - 1)
    assert await gaps(world) == [[3, 4]]
    # The snapshot that is taken with the gap in its head needs nobody's leave.
    world.data.lose_everything()
    again = with_snapshots(world, tmp_path)
    await again.finish()
    assert await gaps(world) == [[3, 4]]


async def kept(process: Process, folder: Path, applied: int) -> None:
    """Run until there is a snapshot of this offset."""
    await process.catch_up()
    async with asyncio.timeout(30):
        while applied not in [manifest.applied for manifest in Snapshots(folder, META).list(0)]:
            await asyncio.sleep(0.01)
    await process.part.drop()


def with_snapshots(world: World, folder: Path, **options: Any) -> Process:
    """A process that takes a snapshot after each flush."""
    process = Process(world, **options)
    keeper = Keeper(
        Snapshots(folder, META),
        process.store,
        process.start_of_log,
        every=0.0,
    )
    process.part._restore, process.part._keep = keeper.restore, keeper.after_flush
    return process


async def test_a_gap_before_everything_is_accepted_too() -> None:
    world = World(LOG)
    world.start = 2
    await Process(world, accept_gap=True).finish()
    assert await gaps(world) == [[0, 1]]
    assert world.latest().bodies()


async def test_a_gap_is_accepted_at_the_first_load_and_not_at_a_later_one() -> None:
    world = World(LOG[:3])
    process = Process(world, accept_gap=True)
    await process.catch_up()
    world.log, world.start = LOG, 5
    await MemoryStore(META, world.data).claim(0)  # its next flush finds that out, and it loads again
    await process.run(lambda: process.part.phase is Phase.STOPPED)
    assert "log starts at offset 5" in process.part.problem
    # Nor by a partition that was taken away and came back to the same process.
    heir = Process(world, accept_gap=True)
    heir.part._loaded = process.part._loaded
    await heir.run(lambda: heir.part.phase is Phase.STOPPED)
    assert await gaps(world) == []


async def test_a_jump_is_read_again_and_a_real_gap_stops_the_partition() -> None:
    world = World(LOG)
    process = Process(world)
    process.part.start()
    await process.run(lambda: process.part.phase is Phase.RUNNING)
    process.position += 2  # two messages were lost between the fetch and us
    await process.finish()
    await same_as(world, LOG)

    class Hole(Process):
        """The broker has lost offsets 1 and 2 and gives what comes next."""

        def fetch(self) -> bool:
            self.position = 3 if self.position in (1, 2) else self.position
            return super().fetch()

    world = World(LOG)
    hole = Hole(world, chunk=1)
    await hole.run(lambda: hole.part.phase is Phase.STOPPED)
    assert "ledger gap" in hole.part.problem
    assert hole.held


async def test_a_step_that_raises_stops_the_partition_and_skips_nothing() -> None:
    poison = ledger.encode_records(
        Kind.FACTS,
        [Fact(record_id="x", effective_at=0, subject=1, entity="broken")],
        key_id="k",
        generation="g1",
    )
    world = World([*LOG[:3], *poison, *LOG[3:]])
    process = Process(world, chunk=1)
    await process.run(lambda: process.part.phase is Phase.STOPPED)
    assert "Broken" in process.part.problem
    assert world.committed is not None
    assert world.committed <= 3
    assert max(int(dict(m.headers)["safehold-cause"].split(b"/")[2]) for m in world.said) < 3


@pytest.mark.parametrize("value", [b"", b"not a frame", LOG[0][:-1]])
async def test_a_damaged_frame_stops_the_partition(value: bytes) -> None:
    world = World([LOG[0], value, LOG[1]])
    process = Process(world)
    await process.run(lambda: process.part.phase is Phase.STOPPED)


async def test_a_broker_or_store_that_is_away_is_waited_for() -> None:
    world = World(LOG)
    process = Process(world)
    process.refuse = KafkaError("gone")
    claim, failures = process.store.claim, [StoreUnavailable("away"), StoreUnavailable("away")]

    async def flaky(partition: int) -> int:
        if failures:
            raise failures.pop()
        return await claim(partition)

    process.store.claim = flaky  # type: ignore[method-assign]
    await process.finish()
    await same_as(world, LOG)


async def test_parked_and_resumed_it_goes_on_with_its_memory() -> None:
    world = World(LOG[:4])
    process = Process(world, flush_seconds=3600.0)
    await process.run(lambda: process.progress.applied(0) == 3)
    await process.part.park()
    assert process.part.phase is Phase.PARKED
    assert world.committed == 4
    state = process.part._state
    world.log = LOG
    assert await process.part.resume()
    await process.run(lambda: process.progress.applied(0) == len(LOG) - 1)
    assert process.part._state is state
    await process.part.park()
    await process.part.drop()
    await same_as(world, LOG)


async def test_parked_and_given_to_another_it_does_not_resume() -> None:
    world = World(LOG[:4])
    process = Process(world)
    await process.catch_up()
    await process.part.park()
    world.log = LOG
    await Process(world).finish()
    assert not await process.part.resume()
    await process.part.drop()
    await same_as(world, LOG)


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_HIGH", 100)
    monkeypatch.setattr(module, "QUEUE_LOW", 50)
    world = World(LOG)
    process = Process(world)
    process.part.start()
    await process.run(lambda: process.part.phase is Phase.RUNNING)
    assert process.fetch()
    assert process.held
    await process.finish()
    await same_as(world, LOG)
