"""The determinism contract: the same records give the same final set of bodies, whatever happened on the way.

The reference is one step over all records in canonical order on one partition. Every other run must end with
the same latest bodies that are not withdrawn, byte for byte, and with counters that add up to the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings

from detectors.model import DAY
from tests.core.driver import SETTINGS, Died, Run, chances, difference, run
from tests.core.strategies import (
    WITHOUT_SHRINKING,
    Entry,
    Mix,
    arrival,
    in_order,
    picture,
    seeds,
    smallest,
    world,
)

SIZES = (1, 2, 7, 10**9)
Way = Callable[[Sequence[Entry]], Run]


def counted(one: Run, other: Run) -> list[dict[str, int]]:
    """The counters of two runs that no order may change.

    Which of two copies is the repeat depends on what came first; and what came before an account was found to be a hub
    was judged, what came after is counted there.
    """
    both = [one.totals(), other.totals()]
    unsure = ["duplicate", "conflict"]
    if any(totals["hub"] for totals in both):
        unsure += ["judged", "hub"]
    return [
        {name: n for name, n in totals.items() if name not in unsure}
        | {"sum": sum(totals[n] for n in unsure)}
        for totals in both
    ]


def problem(entries: Sequence[Entry], way: Way, reference: Run | None = None) -> str:
    """How a run differs from the reference; empty = it does not."""
    expected, got = reference or run(in_order(entries)), way(entries)
    if expected.published.bodies() != got.published.bodies():
        return difference(expected.published.bodies(), got.published.bodies())
    if expected.published.listed != got.published.listed:
        return f"listed {expected.published.listed} and {got.published.listed}"
    one, other = counted(expected, got)
    if one != other:
        return f"counters {one} and {other}"
    return ""


def hold(seed: int, entries: Sequence[Entry], way: Way, about: str, reference: Run | None = None) -> None:
    """Compare a run with the reference; shrink and draw what differs."""
    if not problem(entries, way, reference):
        return
    few = smallest(entries, lambda some: bool(problem(some, way)), tries=250)
    pytest.fail(f"seed {seed}, {about}\n{picture(few)}\n{problem(few, way)}", pytrace=False)


@settings(phases=WITHOUT_SHRINKING, max_examples=20)
@given(seed=seeds)
def test_any_order_of_arrival_and_any_batches(seed: int) -> None:
    """Within the lateness; frames of 1, 2, 7 and all rows; steps of 1, 2, 7 and all frames."""
    rng = random.Random(seed)
    entries = arrival(world(seed, Mix(accounts=2, configs=rng.random() < 0.3)).entries, rng)
    rows, frames = rng.choice(SIZES), rng.choice(SIZES)
    hold(
        seed,
        entries,
        lambda some: run(some, rows_per_frame=rows, frames_per_step=frames),
        f"{rows} rows a frame, {frames} frames a step",
    )


@pytest.mark.slow
@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_long_streams(seed: int) -> None:
    """Accounts that live for years: closing, dropping and lapsing happen while they run."""
    rng = random.Random(seed)
    entries = arrival(world(seed, Mix(accounts=1, scenes=60)).entries, rng)
    rows, frames = rng.choice(SIZES[:3]), rng.choice(SIZES[:3])
    hold(
        seed,
        entries,
        lambda some: run(some, rows_per_frame=rows, frames_per_step=frames),
        f"{rows} rows a frame, {frames} frames a step",
    )


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_partition_counts(seed: int) -> None:
    """1, 4 and 12 partitions."""
    rng = random.Random(seed)
    entries = arrival(world(seed, Mix(accounts=5, scenes=6, configs=True)).entries, rng)
    for partitions in (1, 4, 12):
        hold(
            seed,
            entries,
            lambda some, partitions=partitions: run(
                some, partitions=partitions, rows_per_frame=7, frames_per_step=3
            ),
            f"{partitions} partitions",
        )


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_redelivery_changes_nothing(seed: int) -> None:
    """Every third leg comes again under a new coordinate: no body changes, each copy is counted once."""
    rng = random.Random(seed)
    entries = world(seed, Mix(accounts=2, conflicts=0.0)).entries
    copies = [entry for entry in entries if entry.leg is not None and rng.random() < 0.3]
    once, twice = (
        run(in_order(entries)),
        run(arrival([*entries, *copies], rng), rows_per_frame=5, frames_per_step=2),
    )
    assert difference(once.published.bodies(), twice.published.bodies()).count("\n") == 0
    before, after = once.totals(), twice.totals()
    assert after["duplicate"] == before["duplicate"] + len(copies)
    assert after["judged"] == before["judged"]


@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_crash_and_restart_anywhere(seed: int) -> None:
    """Killed before publishing and its acks, between two chunks of blobs, before control, around the head."""
    rng = random.Random(seed)
    entries = arrival(
        world(seed, Mix(accounts=3, scenes=rng.choice((8, 8, 30)), configs=rng.random() < 0.3)).entries, rng
    )
    partitions, rows, every = rng.choice((1, 4)), rng.choice((1, 2, 7)), rng.choice((1, 3, 10))
    control_first, overlapping = rng.random() < 0.5, rng.random() < 0.7

    def way(some: Sequence[Entry]) -> Run:
        chance = random.Random(seed)
        return run(
            some,
            partitions=partitions,
            rows_per_frame=rows,
            frames_per_step=5,
            flush_every=every,
            deadly=chances(chance, 0.03),
            control_first=control_first,
            rng=chance,
            meanwhile=chance if overlapping else None,
        )

    hold(
        seed,
        entries,
        way,
        f"{partitions} partitions, {rows} rows a frame, a flush every {every} steps, {control_first=}, {overlapping=}",
    )


@pytest.mark.slow
@settings(phases=WITHOUT_SHRINKING, max_examples=3)
@given(seed=seeds)
def test_a_crash_at_each_point(seed: int) -> None:
    """One short stream, killed once before each durable write it makes, one after the other."""
    rng = random.Random(seed)
    entries = arrival(world(seed, Mix(accounts=2, scenes=3, months=False)).entries, rng)
    control_first, overlapping = rng.random() < 0.5, rng.random() < 0.5

    def killed_at(some: Sequence[Entry], point: int) -> tuple[Run, bool]:
        passed = 0

        def deadly(_: str) -> None:
            nonlocal passed
            passed += 1
            if passed == point:
                raise Died

        out = run(
            some,
            rows_per_frame=3,
            frames_per_step=2,
            flush_every=2,
            deadly=deadly,
            control_first=control_first,
            meanwhile=random.Random(seed) if overlapping else None,
        )
        return out, passed >= point

    reference = run(in_order(entries))
    point, more = 0, True
    while more:
        point += 1
        last, more = killed_at(entries, point)
        hold(
            seed,
            entries,
            lambda some, point=point, last=last: last if some is entries else killed_at(some, point)[0],
            f"killed at write {point}, {control_first=}, {overlapping=}",
            reference,
        )
    assert point > 10


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_returns_that_come_weeks_later(seed: int) -> None:
    """A direct debit is taken back after 8 weeks, a card payment after months: closed or not, the answer is the same."""
    rng = random.Random(seed)
    mix = Mix(accounts=1, scenes=25, returns=0.2, returned_after=60 * DAY)
    entries = arrival(world(seed, mix).entries, rng)

    def after_every_flush(what: str) -> None:
        if what == "flushed":
            raise Died

    def way(some: Sequence[Entry]) -> Run:
        return run(some, rows_per_frame=2, frames_per_step=1, flush_every=1, deadly=after_every_flush)

    hold(seed, entries, way, "started again after every frame")


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_returns_beside_hubs(seed: int) -> None:
    """Returns of all ages around a dense bucket, in any order of arrival, closed after every frame."""
    rng = random.Random(seed)
    mix = Mix(accounts=2, scenes=15, returns=0.3, returned_after=20 * DAY, burst=40, conflicts=0.0)
    entries = arrival(world(seed, mix).entries, rng)
    fold = msgspec.structs.replace(SETTINGS, hub_bucket_legs=rng.choice((16, 24)))

    rows = rng.choice((1, 3))

    def differs(some: Sequence[Entry]) -> str:
        one = run(in_order(some), settings=fold)
        return problem(
            some, lambda them: run(them, rows_per_frame=rows, frames_per_step=1, settings=fold), one
        )

    if differs(entries):
        few = smallest(entries, lambda some: bool(differs(some)), tries=250)
        pytest.fail(f"seed {seed}\n{picture(few)}\n{differs(few)}", pytrace=False)
