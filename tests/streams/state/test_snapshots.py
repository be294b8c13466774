"""Snapshots: what is taken is what is restored, a torn or damaged one is never used, a gap is never hidden."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streams.state.base import FenceLost, StateStore, StoreMeta, flush_accounts
from streams.state.memory import MemoryData, MemoryStore
from streams.state.snapshots import Manifest, SnapshotError, SnapshotGap, SnapshotMoved, Snapshots
from tests.streams.state.backends import META, Backend, accounts_of, opened, some_accounts, stream

STEPS = range(1, 8)


async def fill(store: StateStore, applied: int, *, partition: int = 3, accounts: int = 2_500) -> int:
    epoch = await store.claim(partition)
    await store.clear_partition(partition, epoch)
    await flush_accounts(store, partition, epoch, some_accounts(accounts, first=applied))
    await store.write_control(partition, epoch, b"control %d" % applied)
    await store.write_head(partition, epoch, None, applied, b"head %d" % applied)
    return epoch


async def save(snapshots: Snapshots, applied: int, *, accounts: int = 40) -> Manifest:
    chunks = [some_accounts(accounts, first=applied)]
    return await snapshots.write(3, applied, b"head %d" % applied, b"control", stream(chunks))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_what_was_taken_is_restored_into_another_store(
    backend: Backend, store: StateStore, tmp_path: Path
) -> None:
    epoch = await fill(store, 100)
    taken = await Snapshots(tmp_path, META).take(3, 100, store, epoch)
    assert (taken.partition, taken.applied, taken.accounts) == (3, 100, 2_500)
    backend.lose_everything()
    fresh = await opened(backend)
    done = await Snapshots(tmp_path, META).restore(3, fresh, log_start=101)
    assert (done.manifest, done.skipped, done.gap) == (taken, (), None)
    assert await accounts_of(fresh, 3) == dict(some_accounts(2_500, first=100))
    assert (await fresh.load_head(3), await fresh.load_control(3)) == (b"head 100", b"control 100")
    await fresh.write_head(3, done.epoch, 100, 101, b"on it goes")
    await fresh.close()


async def test_restoring_replaces_what_was_there(store: StateStore, tmp_path: Path) -> None:
    epoch = await fill(store, 100)
    await Snapshots(tmp_path, META).take(3, 100, store, epoch)
    await fill(store, 5_000, accounts=3_000)
    await Snapshots(tmp_path, META).restore(3, store, log_start=0)
    assert await accounts_of(store, 3) == dict(some_accounts(2_500, first=100))
    assert await store.load_head(3) == b"head 100"


async def test_restoring_under_an_epoch_that_the_caller_claimed(store: StateStore, tmp_path: Path) -> None:
    await save(Snapshots(tmp_path, META), 100)
    epoch = await store.claim(3)
    done = await Snapshots(tmp_path, META).restore(3, store, log_start=0, epoch=epoch)
    assert done.epoch == epoch
    await store.write_head(3, epoch, 100, 101, b"on it goes")


async def test_a_partition_without_control_or_accounts(tmp_path: Path) -> None:
    store = MemoryStore(META)
    epoch = await store.claim(3)
    await store.write_head(3, epoch, None, 0, b"")
    await Snapshots(tmp_path, META).take(3, 0, store, epoch)
    fresh = MemoryStore(META)
    await Snapshots(tmp_path, META).restore(3, fresh, log_start=1)
    assert (await fresh.load_head(3), await fresh.load_control(3), await accounts_of(fresh, 3)) == (
        b"",
        None,
        {},
    )


async def test_nothing_to_take_and_nothing_to_restore_are_said(store: StateStore, tmp_path: Path) -> None:
    epoch = await store.claim(3)
    with pytest.raises(SnapshotError, match="no head yet"):
        await Snapshots(tmp_path, META).take(3, 0, store, epoch)
    with pytest.raises(SnapshotError, match="there is none"):
        await Snapshots(tmp_path, META).restore(3, store, log_start=0)
    await store.write_control(3, epoch, b"untouched by the refusal")


async def test_a_partition_that_moves_meanwhile_gives_no_snapshot(
    backend: Backend, store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = await fill(store, 100)
    load = store.load_accounts

    async def moving(partition: int):  # type: ignore[no-untyped-def]
        async for chunk in load(partition):
            yield chunk
        await store.write_head(3, epoch, 100, 101, b"moved")

    monkeypatch.setattr(store, "load_accounts", moving)
    with pytest.raises(SnapshotMoved):
        await Snapshots(tmp_path, META).take(3, 100, store, epoch)
    monkeypatch.undo()
    assert files(tmp_path) == []
    other = await opened(backend)
    await other.claim(3)
    with pytest.raises(FenceLost):
        await Snapshots(tmp_path, META).take(3, 101, store, epoch)
    assert files(tmp_path) == []
    await other.close()


async def test_three_are_kept(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, META)
    for applied in (5, 10, 99, 100, 1_000):
        await save(snapshots, applied)
    assert [manifest.applied for manifest in snapshots.list(3)] == [1_000, 100, 99]
    assert len(files(tmp_path)) == 6


async def test_the_one_just_written_is_kept_although_damaged_ones_are_newer(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, META)
    for applied in (100, 200, 300):
        await save(snapshots, applied)
        damage(data_of(tmp_path, applied))
    await save(snapshots, 50)
    assert snapshots.newest(3)[0].applied == 50


async def test_a_whole_snapshot_of_that_offset_is_not_written_again(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, META)
    await save(snapshots, 100)
    before = data_of(tmp_path, 100).stat().st_mtime_ns
    await save(snapshots, 100)
    assert data_of(tmp_path, 100).stat().st_mtime_ns == before
    damage(data_of(tmp_path, 100))
    await save(snapshots, 100)
    assert snapshots.newest(3)[2] == ()


# -- damage ---------------------------------------------------------------------------------------------------------------


def data_of(folder: Path, applied: int) -> Path:
    return folder / META.generation / "p3" / f"{applied:020}.snap"


def damage(path: Path, *, at: int = 200) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def last_byte(path: Path) -> None:
    damage(path, at=-1)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


def bad_manifest(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


def swapped(path: Path) -> None:
    older = path.with_name(f"{100:020}.snap")
    path.write_bytes(older.read_bytes())
    path.with_suffix(".json").write_bytes(older.with_suffix(".json").read_bytes())


@pytest.mark.parametrize("harm", [damage, last_byte, cut, longer, empty, gone, bad_manifest, swapped])
async def test_a_damaged_snapshot_is_skipped_by_name(tmp_path: Path, harm: object) -> None:
    snapshots = Snapshots(tmp_path, META)
    await save(snapshots, 100)
    await save(snapshots, 200)
    harm(data_of(tmp_path, 200))  # type: ignore[operator]
    store = MemoryStore(META)
    done = await snapshots.restore(3, store, log_start=0)
    assert done.manifest.applied == 100
    assert len(done.skipped) == 1
    assert done.skipped[0].startswith(f"{200:020}: its ")
    assert await accounts_of(store, 3) == dict(some_accounts(40, first=100))


async def test_when_all_are_damaged_each_is_named(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, META)
    for applied in (100, 200):
        await save(snapshots, applied)
        damage(data_of(tmp_path, applied))
    with pytest.raises(SnapshotError, match=f"{200:020}: .*{100:020}: "):
        snapshots.newest(3)


@pytest.mark.parametrize("field", ["key_id", "partitions", "layout"])
async def test_a_snapshot_of_something_else_is_not_used(tmp_path: Path, field: str) -> None:
    await save(Snapshots(tmp_path, META), 100)
    changed = {"key_id": "k9", "partitions": 5, "layout": 7}[field]
    meta = StoreMeta(**({"partitions": 12, "key_id": "k1", "generation": "g1"} | {field: changed}))  # type: ignore[arg-type]
    with pytest.raises(SnapshotError, match="this worker"):
        Snapshots(tmp_path, meta).newest(3)


async def test_generations_do_not_push_each_other_out(tmp_path: Path) -> None:
    for applied in (100, 200, 300):
        await save(Snapshots(tmp_path, META), applied)
    next_generation = Snapshots(tmp_path, StoreMeta(partitions=12, key_id="k1", generation="g2"))
    await save(next_generation, 5)
    assert next_generation.newest(3)[0].applied == 5
    assert Snapshots(tmp_path, META).newest(3)[0].applied == 300


# -- gaps -----------------------------------------------------------------------------------------------------------------

#   snapshot ends at 100      ledger holds
#   ────────────────────┤100  ├101 …           no gap
#   ────────────────────┤100        ├102 …     101 is gone


@pytest.mark.parametrize("log_start", [0, 50, 100, 101])
async def test_a_ledger_that_reaches_back_far_enough(tmp_path: Path, log_start: int) -> None:
    snapshots = Snapshots(tmp_path, META)
    await save(snapshots, 100)
    assert (await snapshots.restore(3, MemoryStore(META), log_start=log_start)).gap is None


async def test_a_ledger_that_begins_later_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, META)
    await save(snapshots, 100)
    data = MemoryData()
    store = MemoryStore(META, data)
    epoch = await store.claim(3)
    await store.write_head(3, epoch, None, 7, b"before")
    with pytest.raises(SnapshotGap, match="1 records are gone") as refused:
        await snapshots.restore(3, store, log_start=102)
    assert refused.value.missing == (101, 101)
    await store.confirm(3, epoch)
    assert await store.load_head(3) == b"before"
    done = await snapshots.restore(3, store, log_start=120, accept_gap=True)
    assert done.gap == (101, 119)
    assert await store.load_head(3) == b"head 100"


async def test_the_gap_is_measured_from_the_snapshot_that_is_used(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, META)
    await save(snapshots, 100)
    await save(snapshots, 200)
    damage(data_of(tmp_path, 200))
    with pytest.raises(SnapshotGap):
        await snapshots.restore(3, MemoryStore(META), log_start=150)


# -- crashes --------------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from streams.state.snapshots import Snapshots
from tests.streams.state.backends import META, some_accounts

step = int(sys.argv[2])

def die(reached):
    if reached == step:
        os.kill(os.getpid(), signal.SIGKILL)

async def accounts():
    yield some_accounts(40, first=200)[:20]
    die(0)
    yield some_accounts(40, first=200)[20:]

snapshots = Snapshots(Path(sys.argv[1]), META, at_step=die)
asyncio.run(snapshots.write(3, 200, b"head 200", b"control", accounts()))
"""


@pytest.mark.parametrize("step", [0, *STEPS])
async def test_killed_after_any_step_a_good_snapshot_is_there(
    tmp_path: Path, checkout: Path, step: int
) -> None:
    snapshots = Snapshots(tmp_path, META)
    for applied in (70, 80, 90, 100):
        await save(snapshots, applied)
    died = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), str(step)], cwd=checkout, check=False)
    assert died.returncode == -signal.SIGKILL
    store = MemoryStore(META)
    done = await snapshots.restore(3, store, log_start=0)
    whole = step >= 5
    assert done.skipped == ()
    assert done.manifest.applied == (200 if whole else 100)
    assert await accounts_of(store, 3) == dict(some_accounts(40, first=done.manifest.applied))
    assert len(snapshots.list(3)) >= 3
    await save(snapshots, 200)
    await save(snapshots, 300)
    assert [manifest.applied for manifest in snapshots.list(3)] == [300, 200, 100]
    assert len(files(tmp_path)) == 6, "what the crash left was removed"


@pytest.mark.parametrize("writes", range(1, 5))
async def test_a_restore_that_dies_leaves_no_head_and_can_be_done_again(tmp_path: Path, writes: int) -> None:
    snapshots = Snapshots(tmp_path, META)
    await save(snapshots, 100, accounts=600)
    data = MemoryData()
    whole = MemoryStore(META, data)
    epoch = await whole.claim(3)
    await whole.write_accounts(3, epoch, [(1, b"of an older life")])
    await whole.write_head(3, epoch, None, 7, b"before")

    class Dying(MemoryStore):
        done = 0

        def _written(self, partition: int, record: object) -> None:
            super()._written(partition, record)  # type: ignore[arg-type]
            self.done += 1
            if self.done == writes:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        await snapshots.restore(3, Dying(META, data), log_start=0)
    assert await whole.load_head(3) is None
    await snapshots.restore(3, whole, log_start=0)
    assert await accounts_of(whole, 3) == dict(some_accounts(600, first=100))
    assert await whole.load_head(3) == b"head 100"
