"""The contract of a state store, on every implementation of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from streams.state.base import (
    MAX_CHUNK,
    FenceLost,
    FlagEntry,
    MemberHeld,
    MemberLost,
    RecommendationEntry,
    StateStore,
    StoreMeta,
    StoreRefused,
    chunked,
    flush_accounts,
    take_member,
)
from tests.streams.state.backends import META, Backend, accounts_of, opened, some_accounts

BIG = 2**64 - 1

# -- what is written is what is read ------------------------------------------------------------------------------------


async def test_a_new_partition_is_empty(store: StateStore) -> None:
    assert await store.load_head(3) is None
    assert await store.load_control(3) is None
    assert await accounts_of(store, 3) == {}


async def test_everything_comes_back_byte_for_byte(store: StateStore, other: StateStore) -> None:
    epoch = await store.claim(3)
    awkward = {0: b"\x00", 1: bytes(range(256)), BIG: b"\xff" * 70_000, 2**63: b"1 2\n"}
    await store.write_accounts(3, epoch, list(awkward.items()))
    await store.write_control(3, epoch, b"control\x00\xff")
    await store.write_head(3, epoch, None, 41, b"head\x00\xff")
    assert await other.load_head(3) == b"head\x00\xff"
    assert await other.load_control(3) == b"control\x00\xff"
    assert await accounts_of(other, 3) == awkward


async def test_many_accounts_are_written_in_chunks_and_loaded_once_each(store: StateStore) -> None:
    epoch = await store.claim(0)
    accounts = dict(some_accounts(5_000))
    assert await flush_accounts(store, 0, epoch, accounts.items()) == 10
    assert await accounts_of(store, 0) == accounts


async def test_an_empty_blob_removes_the_account(store: StateStore) -> None:
    epoch = await store.claim(0)
    await store.write_accounts(0, epoch, [(1, b"a"), (2, b"b"), (3, b"c")])
    await store.write_accounts(0, epoch, [(1, b""), (2, b"bb"), (9, b"")])
    assert await accounts_of(store, 0) == {2: b"bb", 3: b"c"}


async def test_an_empty_chunk_and_a_later_value_of_one_subject(store: StateStore) -> None:
    epoch = await store.claim(0)
    await store.write_accounts(0, epoch, [])
    await store.write_accounts(0, epoch, [(1, b"old"), (1, b"new")])
    assert await accounts_of(store, 0) == {1: b"new"}


async def test_a_chunk_has_a_limit(store: StateStore) -> None:
    epoch = await store.claim(0)
    await store.write_accounts(0, epoch, some_accounts(MAX_CHUNK))
    with pytest.raises(ValueError, match="at most 500"):
        await store.write_accounts(0, epoch, some_accounts(MAX_CHUNK + 1))
    await store.write_accounts(0, epoch, [(1, b"still ours")])


async def test_partitions_do_not_touch_each_other(store: StateStore) -> None:
    one, two = await store.claim(1), await store.claim(11)
    await store.write_accounts(1, one, [(7, b"one")])
    await store.write_accounts(11, two, [(7, b"eleven")])
    await store.write_head(1, one, None, 5, b"h1")
    assert await store.load_head(11) is None
    assert (await accounts_of(store, 1), await accounts_of(store, 11)) == ({7: b"one"}, {7: b"eleven"})


async def test_clearing_forgets_a_partition_and_nothing_else(store: StateStore) -> None:
    one, two = await store.claim(1), await store.claim(2)
    for partition, epoch in ((1, one), (2, two)):
        await flush_accounts(store, partition, epoch, some_accounts(1_200))
        await store.write_control(partition, epoch, b"c")
        await store.put_recommendations(partition, epoch, [entry("r", partition=partition)])
        await store.write_head(partition, epoch, None, 1, b"h")
    await store.clear_partition(1, one)
    assert (await store.load_head(1), await store.load_control(1), await accounts_of(store, 1)) == (
        None,
        None,
        {},
    )
    assert await store.list_recommendations(partition=1) == []
    assert (await store.load_head(2), len(await accounts_of(store, 2))) == (b"h", 1_200)
    await store.write_head(1, one, None, 0, b"again")


# -- the fence ------------------------------------------------------------------------------------------------------------


async def test_epochs_only_grow_also_when_the_store_forgot_them(backend: Backend, store: StateStore) -> None:
    epochs = [await store.claim(0), await store.claim(0)]
    mark = backend.mark()
    epochs.append(await store.claim(0))
    backend.lose_since(mark)
    while time.time() * 1000 < epochs[-1] + 1:  # three claims in one millisecond are ahead of the clock
        await asyncio.sleep(0)
    epochs.append(await store.claim(0))
    assert epochs == sorted(set(epochs))


async def test_every_write_of_a_replaced_owner_is_refused(store: StateStore, other: StateStore) -> None:
    old = await store.claim(4)
    await store.write_accounts(4, old, [(1, b"mine")])
    await store.write_head(4, old, None, 10, b"h10")
    new = await other.claim(4)
    for write in (
        lambda: store.write_accounts(4, old, [(1, b"zombie")]),
        lambda: store.write_control(4, old, b"zombie"),
        lambda: store.write_head(4, old, 10, 11, b"zombie"),
        lambda: store.put_recommendations(4, old, [entry("zombie")]),
        lambda: store.clear_partition(4, old),
        lambda: store.confirm(4, old),
    ):
        with pytest.raises(FenceLost) as lost:
            await write()
        assert lost.value.partition == 4
    await other.confirm(4, new)
    assert await accounts_of(other, 4) == {1: b"mine"}
    assert (await other.load_head(4), await other.load_control(4)) == (b"h10", None)
    assert await other.get_recommendation("zombie") is None
    await other.write_head(4, new, 10, 11, b"h11")


async def test_an_epoch_that_another_worker_claimed_is_not_mine(store: StateStore, other: StateStore) -> None:
    epoch = await other.claim(4)
    with pytest.raises(FenceLost):
        await store.write_accounts(4, epoch, [(1, b"x")])


async def test_an_old_epoch_of_my_own_is_refused(store: StateStore) -> None:
    old = await store.claim(4)
    await store.claim(4)
    with pytest.raises(FenceLost):
        await store.write_accounts(4, old, [(1, b"x")])


@pytest.mark.parametrize(("stored", "expected"), [(None, 3), (7, None), (7, 6), (7, 8), (7, 0)])
async def test_the_head_needs_the_expected_applied_offset(
    store: StateStore, stored: int | None, expected: int | None
) -> None:
    epoch = await store.claim(0)
    if stored is not None:
        await store.write_head(0, epoch, None, stored, b"there")
    with pytest.raises(FenceLost, match="applied"):
        await store.write_head(0, epoch, expected, 9, b"wrong")
    assert await store.load_head(0) == (None if stored is None else b"there")
    epoch = await store.claim(0)
    await store.write_head(0, epoch, stored, 9, b"right")
    assert await store.load_head(0) == b"right"


async def test_applied_offset_zero_is_not_no_head(store: StateStore) -> None:
    epoch = await store.claim(0)
    await store.write_head(0, epoch, None, 0, b"zero")
    with pytest.raises(FenceLost):
        await store.write_head(0, epoch, None, 1, b"wrong")
    epoch = await store.claim(0)
    await store.write_head(0, epoch, 0, 2**62, b"far")
    epoch = await store.claim(0)
    await store.write_head(0, epoch, 2**62, 2**62 + 1, b"one further")
    assert await store.load_head(0) == b"one further"


async def test_a_store_that_lost_everything_refuses_the_next_write(
    backend: Backend, store: StateStore
) -> None:
    epoch = await store.claim(0)
    await store.write_head(0, epoch, None, 10, b"h10")
    backend.lose_everything()
    with pytest.raises(FenceLost):
        await store.write_accounts(0, epoch, [(1, b"x")])
    assert await accounts_of(store, 0) == {}


#   flush 1: accounts, head 10      flush 2: accounts ..., head 20
#   ───────────────────────┬────────────┬──────────┬─────────────▶ writes
#                          └ mark       └ chunk 1  └ loss: back to the mark
@pytest.mark.parametrize("before_the_loss", ["nothing", "chunk", "chunk and control", "all"])
async def test_a_store_that_lost_its_last_second_refuses_the_next_write(
    backend: Backend, store: StateStore, before_the_loss: str
) -> None:
    epoch = await store.claim(0)
    await store.write_accounts(0, epoch, [(1, b"at 10"), (2, b"at 10")])
    mark = backend.mark()
    await store.write_head(0, epoch, None, 10, b"h10")
    if before_the_loss != "nothing":
        await store.write_accounts(0, epoch, [(1, b"at 20")])
    if before_the_loss in ("chunk and control", "all"):
        await store.write_control(0, epoch, b"at 20")
    if before_the_loss == "all":
        await store.write_head(0, epoch, 10, 20, b"h20")
    backend.lose_since(mark)
    with pytest.raises(FenceLost):
        await store.write_accounts(0, epoch, [(2, b"at 30")])
    with pytest.raises(FenceLost):
        await store.write_head(0, epoch, 10, 20, b"h20")
    assert (await store.load_head(0), await accounts_of(store, 0)) == (None, {1: b"at 10", 2: b"at 10"})


async def test_a_loss_between_two_chunks_of_one_flush_is_seen(backend: Backend, store: StateStore) -> None:
    # The head's own compare would not see this: the stored applied offset is the expected one before and after the loss.
    epoch = await store.claim(0)
    await store.write_head(0, epoch, None, 10, b"h10")
    mark = backend.mark()
    await store.write_accounts(0, epoch, [(1, b"at 20")])
    backend.lose_since(mark)
    with pytest.raises(FenceLost):
        await store.write_accounts(0, epoch, [(2, b"at 20")])
    with pytest.raises(FenceLost):
        await store.write_head(0, epoch, 10, 20, b"h20")
    assert await store.load_head(0) == b"h10"


async def test_a_claim_after_a_loss_makes_the_worker_well_again(backend: Backend, store: StateStore) -> None:
    epoch = await store.claim(0)
    mark = backend.mark()
    await store.write_head(0, epoch, None, 10, b"h10")
    backend.lose_since(mark)
    with pytest.raises(FenceLost):
        await store.confirm(0, epoch)
    epoch = await store.claim(0)
    await store.write_head(0, epoch, None, 10, b"h10")
    await store.confirm(0, epoch)


async def test_a_zombie_that_flushes_while_the_partition_moves(store: StateStore, other: StateStore) -> None:
    old = await store.claim(0)
    await store.write_head(0, old, None, 0, b"0")
    blobs = dict(some_accounts(3_000))

    async def zombie() -> int:
        written = 0
        for chunk in chunked(blobs.items()):
            try:
                await store.write_accounts(0, old, chunk)
            except FenceLost:
                break
            written += len(chunk)
            await asyncio.sleep(0)
        with pytest.raises(FenceLost):
            await store.write_head(0, old, 0, 1, b"zombie")
        return written

    async def successor() -> tuple[dict[int, bytes], int]:
        await asyncio.sleep(0)
        epoch = await other.claim(0)
        seen = await accounts_of(other, 0)
        await other.write_head(0, epoch, 0, 2, b"successor")
        return seen, epoch

    written, (seen, epoch) = await asyncio.gather(zombie(), successor())
    assert len(seen) == written < 3_000, "what the successor loaded is what was ever written"
    assert await accounts_of(other, 0) == seen
    assert await other.load_head(0) == b"successor"
    await other.confirm(0, epoch)


async def test_many_claims_at_once_leave_one_owner(backend: Backend) -> None:
    workers = [await opened(backend) for _ in range(8)]
    epochs = await asyncio.gather(*(worker.claim(0) for worker in workers))
    assert len(set(epochs)) == 8

    async def write(worker: StateStore, epoch: int) -> bool:
        try:
            await worker.write_head(0, epoch, None, epoch, str(epoch).encode())
        except FenceLost:
            return False
        return True

    won = await asyncio.gather(*(write(worker, epoch) for worker, epoch in zip(workers, epochs, strict=True)))
    assert [epoch for epoch, yes in zip(epochs, won, strict=True) if yes] == [max(epochs)]
    for worker in workers:
        await worker.close()


async def test_writes_of_one_partition_called_at_once_are_all_applied(store: StateStore) -> None:
    epoch = await store.claim(0)
    accounts = some_accounts(2_000)
    await asyncio.gather(
        *(store.write_accounts(0, epoch, chunk) for chunk in chunked(accounts)),
        store.write_control(0, epoch, b"c"),
    )
    await store.write_head(0, epoch, None, 1, b"h")
    assert await accounts_of(store, 0) == dict(accounts)


# -- what the state belongs to ------------------------------------------------------------------------------------------


async def test_the_first_check_writes_and_later_ones_compare(backend: Backend) -> None:
    await (await opened(backend)).check()
    await (await opened(backend)).check()


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (StoreMeta(partitions=13, key_id="k1", generation="g1"), ["ledger partitions"]),
        (StoreMeta(partitions=12, key_id="k2", generation="g1"), ["pseudonym key"]),
        (StoreMeta(partitions=12, key_id="k1", generation="g2"), ["ledger generation"]),
        (StoreMeta(partitions=12, key_id="k1", generation="g1", layout=99), ["state layout"]),
        (StoreMeta(partitions=1, key_id="x", generation="g0"), ["partitions", "key", "generation"]),
    ],
)
async def test_state_of_something_else_is_refused(
    backend: Backend, meta: StoreMeta, words: list[str]
) -> None:
    await (await opened(backend)).check()
    stranger = await opened(backend, meta)
    with pytest.raises(StoreRefused) as refused:
        await stranger.check()
    assert len(refused.value.problems) == len(words)
    for word, problem in zip(words, refused.value.problems, strict=True):
        assert word in problem
    await (await opened(backend)).check()


async def test_two_first_checks_agree_on_one(backend: Backend) -> None:
    metas = [META, StoreMeta(partitions=6, key_id="k1", generation="g1")]
    stores = [await opened(backend, meta) for meta in metas]
    outcomes = await asyncio.gather(*(store.check() for store in stores), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "StoreRefused"]


# -- for people -----------------------------------------------------------------------------------------------------------


def entry(
    name: str, *, at: int = 1, cause: tuple[int, int] = (0, 0), partition: int = 4, withdrawn: bool = False
) -> RecommendationEntry:
    return RecommendationEntry(
        id=name,
        partition=partition,
        subject=BIG,
        event_time=at,
        offset=cause[0],
        index=cause[1],
        action="monitor",
        mode="observe",
        withdrawn=withdrawn,
        body=b'{"a":1}\n\x00',
    )


async def test_recommendations_newest_first_over_partitions(store: StateStore, other: StateStore) -> None:
    now = 1_760_000_000_000_000
    for partition in (0, 7):
        epoch = await store.claim(partition)
        await store.put_recommendations(
            partition, epoch, [entry(f"{partition}-{i}", at=now + i, partition=partition) for i in range(20)]
        )
    found = await other.list_recommendations(limit=5)
    assert [item.id for item in found] == ["7-19", "0-19", "7-18", "0-18", "7-17"]
    assert found[0] == entry("7-19", at=now + 19, partition=7)
    assert len(await other.list_recommendations(partition=7)) == 20
    assert await other.get_recommendation("0-3") == entry("0-3", at=now + 3, partition=0)
    assert await other.get_recommendation("none") is None


async def test_the_greatest_cause_of_an_id_stays(store: StateStore) -> None:
    epoch = await store.claim(4)
    for cause, at in (((9, 2), 50), ((9, 1), 10), ((8, 7), 20), ((10, 0), 30), ((10, 0), 40)):
        await store.put_recommendations(4, epoch, [entry("r", at=at, cause=cause)])
    assert await store.list_recommendations() == [entry("r", at=40, cause=(10, 0))]


async def test_withdrawn_ones_are_listed_only_when_asked_for(store: StateStore) -> None:
    epoch = await store.claim(4)
    await store.put_recommendations(
        4, epoch, [entry(f"{i:02}", at=i, withdrawn=i % 10 != 0) for i in range(50)]
    )
    assert [item.id for item in await store.list_recommendations(limit=3)] == ["40", "30", "20"]
    assert [item.id for item in await store.list_recommendations(limit=3, withdrawn=True)] == [
        "49",
        "48",
        "47",
    ]
    found = await store.get_recommendation("41")
    assert found is not None
    assert found.withdrawn


async def test_of_one_flag_the_latest_state_stays(store: StateStore, other: StateStore) -> None:
    def flag(name: str, at: int, record: str, state: str, party: int = 5) -> FlagEntry:
        return FlagEntry(
            flag_id=name, party=party, state=state, effective_at=at, record_id=record, body=b"\x00"
        )

    last = flag("f1", 30, "b", "withdrawn")
    for entry_ in (
        flag("f1", 10, "z", "proposed"),
        last,
        flag("f1", 30, "a", "disputed"),
        flag("f1", 20, "c", "confirmed"),
    ):
        await store.put_flag(entry_)
    await asyncio.gather(*(store.put_flag(flag("f0", i, "r", "confirmed", BIG)) for i in range(10)))
    assert await other.list_flags() == [flag("f0", 9, "r", "confirmed", BIG), last]
    assert await other.list_flags(party=5) == [last]
    alike = flag(
        "f1", 20, "c", "confirmed", party=6
    )  # another partner's flag of another account, with the same id
    await store.put_flag(alike)
    assert await other.list_flags(party=6) == [alike]
    assert [entry_ for entry_ in await other.list_flags() if entry_.flag_id == "f1"] == [last, alike]


# -- one process per static member id -------------------------------------------------------------------------------------


async def test_one_member_id_one_process(store: StateStore, other: StateStore) -> None:
    token = await store.acquire_member("worker-0", 30)
    with pytest.raises(MemberHeld) as held:
        await other.acquire_member("worker-0", 30)
    assert 0 < held.value.remaining <= 30
    await other.acquire_member("worker-1", 30)
    await store.renew_member("worker-0", token, 30)
    await other.release_member("worker-0", "not the token")
    await store.renew_member("worker-0", token, 30)
    await store.release_member("worker-0", token)
    with pytest.raises(MemberLost):
        await store.renew_member("worker-0", token, 30)
    await other.acquire_member("worker-0", 30)


async def test_what_a_killed_process_left_is_taken_when_it_ends(store: StateStore, other: StateStore) -> None:
    old = await store.acquire_member("worker-0", 0.3)
    token = await take_member(other, "worker-0", 30, patience=5)
    with pytest.raises(MemberLost):
        await store.renew_member("worker-0", old, 30)
    await other.renew_member("worker-0", token, 30)


async def test_a_process_that_renews_is_not_pushed_out(store: StateStore, other: StateStore) -> None:
    token = await store.acquire_member("worker-0", 0.5)
    waiting = asyncio.create_task(take_member(other, "worker-0", 30, patience=0.8))
    while not waiting.done():
        await store.renew_member("worker-0", token, 0.5)
        await asyncio.wait([waiting], timeout=0.1)
    with pytest.raises(MemberHeld):
        await waiting


async def test_a_lost_store_loses_the_lock_too(backend: Backend, store: StateStore) -> None:
    token = await store.acquire_member("worker-0", 30)
    backend.lose_everything()
    with pytest.raises(MemberLost):
        await store.renew_member("worker-0", token, 30)
