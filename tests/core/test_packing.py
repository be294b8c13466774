"""Accounts as bytes: every value survives, the fold goes on as if nothing had happened, and damage is noticed."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import packing
from detectors.model import DAY, HOUR, Fact
from detectors.packing import STATE_LAYOUT
from detectors.state import COUNTERS, EARLIER, KEPT_DAYS, Case, LayoutMismatch, PartitionState
from detectors.step import new_state, step
from detectors.window import ACCOUNT, ALWAYS, FACT, NEVER, PARTY, ROW
from tests.core.driver import SETTINGS, Published, Store, difference, flush, never, run, sharp_config, start
from tests.core.frames import ledger
from tests.core.scenes import ACCOUNT as SUBJECT
from tests.core.scenes import Worker, credit, crowd
from tests.core.strategies import WITHOUT_SHRINKING, Mix, arrival, seeds, world

SCRATCH = {"off", "poff", "cap", "pcap", "mark", "seen", "changed"}
"""Fields of an account that only say where it stands in memory, and which step came last."""

EDGES = (NEVER, ALWAYS, 0, 1, -1, -(10**15), 253_402_300_799_999_999, 1_700_000_000_000_000)
BANKS = ["", "demo-bank", "north", "südbank", "x" * 300]


def any_state(seed: int, accounts: int, most: int = 40) -> PartitionState:
    """Accounts whose every field has a value of its whole range, whether the fold can come to it or not."""
    rng = np.random.default_rng(seed)
    state = new_state(0, 1, SETTINGS, sharp_config(), capacity=16)
    for bank in BANKS[1:]:
        state.bank(bank)
    for subject in np.unique(rng.integers(1, 2**63, accounts, np.uint64)).tolist():
        slot = state.slot(subject, create=True)
        n, m = int(rng.integers(0, most)), int(rng.integers(0, most))
        offset, party_offset = int(state.pool[0]), int(state.ppool[0])
        _account(state, rng, slot, n, m)
        if len(state.rows) < offset + n:
            state.grow_rows(n)
        if len(state.parties) < party_offset + m:
            state.grow_parties(m)
        state.pool[0] += n
        state.ppool[0] += m
        state.acc["off"][slot], state.acc["poff"][slot] = offset, party_offset
        rows = rng.integers(0, 256, n * ROW.itemsize, np.uint8).view(ROW)
        rows["time"] = np.sort(rng.integers(-(2**55), 2**55, n))
        rows["a"] = np.where(
            rng.random(n) < 0.5, rows["a"], (rows["a"] & ~np.uint64(0xFFFFFF)) | np.uint64(7)
        )
        rows["b"] = np.where(rng.random(n) < 0.5, rows["b"], rows["a"])
        state.rows[offset : offset + n] = rows
        parties = rng.integers(0, 256, m * PARTY.itemsize, np.uint8).view(PARTY)
        for name in PARTY.names or ():
            if name != "party":
                parties[name] = np.where(rng.random(m) < 0.5, parties[name], 0)
        state.parties[party_offset : party_offset + m] = parties
        if rng.random() < 0.3:
            _facts(state, rng, slot)
        if rng.random() < 0.3:
            state.case(slot)
            state.cases[slot] = Case()
    return state


def _account(state: PartitionState, rng: np.random.Generator, slot: int, n: int, m: int) -> None:
    acc = state.acc
    for name in ("clock", "swept", "boundary", "hold", "first", "gone_debit", "hub"):
        acc[name][slot] = int(rng.choice(EDGES))
    acc["applied"][slot] = int(rng.integers(-1, 2**40))
    acc["len"][slot], acc["cap"][slot] = n, n
    acc["plen"][slot], acc["pcap"][slot] = m, m
    acc["closed"][slot] = int(rng.integers(0, n + 1))
    acc["month"][slot] = int(rng.integers(-(2**31), 2**31))
    acc["bank"][slot] = int(rng.integers(0, len(BANKS)))
    for name in ("credits", "debits"):
        acc[name][slot] = rng.integers(-(2**62), 2**62, acc[name].shape[1]) >> rng.integers(0, 62)


def _facts(state: PartitionState, rng: np.random.Generator, slot: int) -> None:
    for number in range(int(rng.integers(1, 4))):
        fact = Fact(
            record_id=f"r{number}",
            effective_at=int(rng.integers(0, 10**15)),
            subject=0,
            entity=str(rng.choice(BANKS)),
            opened=None if rng.random() < 0.5 else int(rng.integers(-(10**15), 10**15)),
            household=tuple(rng.integers(0, 2**63, int(rng.integers(0, 5)), np.uint64).tolist()),
        )
        state.add_fact(slot, fact, int(rng.integers(0, 2**63)))


def loaded(subjects: np.ndarray, blobs: list[bytes], pieces: int = 3) -> PartitionState:
    """Another state that holds these accounts."""
    state = new_state(0, 1, SETTINGS, sharp_config(), capacity=16)
    state.head.applied = 2**62  # nothing is ahead
    for some in np.array_split(np.arange(len(blobs)), pieces):
        state.load_many(subjects[some].tolist(), [blobs[i] for i in some.tolist()])
    return state


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), accounts=st.integers(1, 30))
def test_every_value_survives_and_packs_to_the_same_bytes(seed: int, accounts: int) -> None:
    state = any_state(seed, accounts)
    subjects = state.acc["subject"][: state.n_acc].copy()
    blobs = state.pack(subjects)
    assert all(len(blob) % 8 == 0 for blob in blobs)
    again = loaded(subjects, blobs)
    assert again.pack(subjects) == blobs
    assert again.cases.keys() == state.cases.keys()
    for slot in range(state.n_acc):
        assert fields(again, slot) == fields(state, slot)


def fields(state: PartitionState, slot: int) -> dict:
    """Everything that is known of an account, wherever it stands."""
    acc = state.acc[slot]
    off, poff = int(acc["off"]), int(acc["poff"])
    chain = state.facts[state.fact_chain(slot)]
    return {
        "account": [acc[name].tolist() for name in ACCOUNT.names if name not in SCRATCH | {"fact", "bank"}],
        "bank": state.banks[int(acc["bank"])],
        "rows": state.rows[off : off + int(acc["len"])].tobytes(),
        "parties": state.parties[poff : poff + int(acc["plen"])].tobytes(),
        "facts": [
            [fact[name].item() for name in FACT.names if name not in ("hoff", "prev", "bank")]
            for fact in chain
        ],
        "banks": [state.banks[int(fact["bank"])] for fact in chain],
        "homes": [state.household[f["hoff"] : f["hoff"] + f["hlen"]].tolist() for f in chain],
    }


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_what_the_fold_made_survives_and_goes_on_equal(seed: int) -> None:
    """Blobs, head and control survive a round trip, and the rest of the stream gives the same bodies and counters."""
    rng = random.Random(seed)
    entries = arrival(world(seed, Mix(accounts=3, scenes=10, configs=rng.random() < 0.3)).entries, rng)
    (frames,) = ledger(entries, 1, 4).frames
    half = len(frames) // 2
    state, said = new_state(0, 1, SETTINGS, sharp_config()), Published()
    said.take(step(state, frames[:half]).outputs)
    subjects, store = np.sort(state.touched()), Store()
    flush(state, store, never)
    again = start(store, 0, 1, SETTINGS, sharp_config())
    assert again.pack(subjects) == state.pack(subjects), f"seed {seed}"
    assert (again.pack_head(), again.pack_control()) == (store.head, state.pack_control())
    other = Published(dict(said.latest), set(said.listed))
    said.take(step(state, frames[half:]).outputs)
    other.take(step(again, frames[half:]).outputs)
    assert said.bodies() == other.bodies(), f"seed {seed}\n{difference(said.bodies(), other.bodies())}"
    # The bytes may differ by now: what is loaded has less room and closes earlier, which changes no value.
    assert state.totals() == again.totals()


def test_every_field_of_an_account_is_packed_or_scratch() -> None:
    """Whoever adds a field to `ACCOUNT` says which of both it is."""
    packed = {
        "subject", "len", "plen", "closed", "fact", "clock", "swept", "boundary", "hold", "applied", "first", "gone_debit", "hub",
        "month", "bank", "cased", "credits", "debits",
    }  # fmt: skip
    assert set(ACCOUNT.names or ()) == packed | SCRATCH
    assert (ROW.names, ROW.itemsize) == (("time", "leg", "party", "a", "b"), 40)
    assert (PARTY.itemsize, FACT.itemsize) == (24, 64)


def test_an_account_larger_than_the_scratch_is_packed() -> None:
    state = any_state(5, 2, most=60_000)
    state.acc["len"][0] = state.acc["closed"][0] = 0
    subjects = state.acc["subject"][: state.n_acc].copy()
    assert loaded(subjects, state.pack(subjects)).pack(subjects) == state.pack(subjects)


def test_another_layout_refuses_and_damage_is_noticed() -> None:
    state = any_state(3, 12)
    subjects = state.acc["subject"][: state.n_acc].copy()
    blobs = state.pack(subjects)
    foreign = (STATE_LAYOUT + 1).to_bytes(2, "little") + blobs[0][2:]
    with pytest.raises(LayoutMismatch, match=f"layout {STATE_LAYOUT + 1}"):
        loaded(subjects[:1], [foreign])
    for blob in (b"", blobs[0][:8], blobs[0][:-1], blobs[0] + b"\0"):
        with pytest.raises(ValueError, match=f"{int(subjects[0]):016x} is damaged"):
            loaded(subjects[:1], [blob])


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 50),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=4),
)
def test_damaged_bytes_never_reach_beyond_their_account(seed: int, places: list[tuple[int, int]]) -> None:
    """Whatever is wrong in a blob: it raises, or gives other values; its neighbours are what they were."""
    state = any_state(seed, 3)
    subjects = state.acc["subject"][: state.n_acc].copy()
    blobs = state.pack(subjects)
    harmed = bytearray(blobs[1])
    for place, bits in places:
        harmed[place % len(harmed)] ^= bits
    try:
        again = loaded(subjects, [blobs[0], bytes(harmed), blobs[2]], pieces=1)
    except (ValueError, LayoutMismatch):
        return
    assert again.pack(subjects[[0, 2]]) == [blobs[0], blobs[2]]


def test_an_unknown_subject_cannot_be_packed() -> None:
    with pytest.raises(KeyError):
        any_state(1, 2).pack(np.array([1], np.uint64))


def test_counts_of_an_account_that_is_ahead_are_packed_with_it_again() -> None:
    """A decision changes an account that waits for its head: its blob must not lose what the head has not taken over."""
    worker = Worker()
    worker.legs(*crowd(0, 2))
    subjects = worker.state.touched()
    blobs = worker.state.pack(subjects)
    state = start(Store(dict(zip(subjects.tolist(), blobs, strict=True))), 0, 1, SETTINGS, worker.config)
    assert state.ahead
    assert state.pack(subjects) == blobs


def test_counts_name_each_source_once() -> None:
    worker = Worker()
    worker.legs(*crowd(0, 3))
    worker.legs(credit(40 * DAY, 5, 1))
    (blob,) = worker.state.pack(np.array([SUBJECT], np.uint64))
    assert blob.count(b"s/0") == 1
    state = start(Store({SUBJECT: blob}), 0, 1, SETTINGS, worker.config)
    ((applied, _, counts),) = state.ahead
    assert applied == 1
    assert sum(n for _, _, _, n in counts) == 4
    assert {source for source, _, _, _ in counts} == {"s/0"}
    with pytest.raises(ValueError, match="cut off"):
        packing.counts_at(b"\x05\x04s/", 0)


def test_arenas_are_made_at_once_when_it_is_known_how_many_accounts_come() -> None:
    state = any_state(9, 2_000)
    subjects = state.acc["subject"][: state.n_acc].copy()
    blobs = state.pack(subjects)
    again = new_state(0, 1, SETTINGS, sharp_config(), capacity=16)
    again.load_head(state.pack_head())
    assert again.head.accounts == len(subjects)
    sizes, row_sizes = set(), set()
    for some in np.array_split(np.arange(len(blobs)), 20):
        again.load_many(subjects[some].tolist(), [blobs[i] for i in some.tolist()])
        sizes.add(len(again.acc))
        row_sizes.add(len(again.rows))
    assert len(sizes) == 1
    assert len(row_sizes) <= 5, "by a quarter each time it would be more than ten"
    assert len(again.rows) < 1.3 * again.pool[0]


@settings(max_examples=30, deadline=None)
@given(days=st.lists(st.integers(0, 600), min_size=1, max_size=900), seed=st.integers(0, 2**32))
def test_old_days_are_one_sum_in_whatever_order_they_come(days: list[int], seed: int) -> None:
    one, other = (new_state(0, 1, SETTINGS, sharp_config()) for _ in range(2))
    for day in days:
        one.count("a/0", day, day % len(COUNTERS), 1)
    for day in random.Random(seed).sample(days, len(days)):
        other.count("a/0", day, day % len(COUNTERS), 1)
    assert one.head.counters == other.head.counters
    assert sum(one.totals().values()) == len(days)
    kept = set(one.head.counters["a/0"]) - {EARLIER}
    assert kept == set(sorted(set(days))[-KEPT_DAYS:])


def test_a_long_life_keeps_a_bounded_head() -> None:
    state = new_state(0, 1, SETTINGS, sharp_config())
    for day in range(5 * KEPT_DAYS):
        state.count("a/0", day, COUNTERS.index("received"), 2)
        state.count("a/0", day, COUNTERS.index("accepted"), 2)
    assert len(state.head.counters["a/0"]) == KEPT_DAYS + 1
    assert state.totals()["received"] == state.totals()["accepted"] == 10 * KEPT_DAYS
    again = new_state(0, 1, SETTINGS, sharp_config())
    again.load_head(state.pack_head())
    assert again.totals() == state.totals()


def test_a_flush_is_split_where_it_was_packed() -> None:
    """What is judged after packing is in the next flush, also where the same account is concerned."""
    worker = Worker()
    worker.legs(*crowd(0, 2))
    first = worker.state.pack(worker.state.touched())
    head = worker.state.pack_head()
    worker.state.mark_flushed()
    assert len(worker.state.touched()) == 0
    worker.legs(credit(HOUR, 5, 1))
    worker.store = Store({SUBJECT: first[0]}, None, head)
    counted = {name: n for name, n in run([]).totals().items() if n}
    assert counted == {}
    state = start(worker.store, 0, 1, SETTINGS, worker.config)
    assert state.totals()["judged"] == 2
    (later,) = worker.state.pack(worker.state.touched())
    state = start(Store({SUBJECT: later}, None, head), 0, 1, SETTINGS, worker.config)
    ((_, _, counts),) = state.ahead
    assert sum(n for _, _, _, n in counts) == 1
