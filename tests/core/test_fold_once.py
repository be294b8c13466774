"""Rules of exactly once, of the balance, and of what survives a restart."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings

from detectors import catalogue
from detectors.model import (
    COUNT,
    LEG,
    Frame,
    Kind,
)
from detectors.step import Cause, Recommendation, step
from tests.core.driver import (
    SETTINGS,
    run,
    start,
)
from tests.core.frames import leg_row
from tests.core.scenes import (
    ACCOUNT,
    DENSE,
    Worker,
    crowd,
    returned,
)
from tests.core.strategies import WITHOUT_SHRINKING, Entry, Mix, arrival, in_order, seeds, world


def test_a_source_coordinate_that_was_seen_is_dropped() -> None:
    legs = crowd(0, 4)
    worker = Worker()
    worker.legs(*legs[:2], coordinates=(5, 6))
    again = worker.legs(*legs[:2], coordinates=(5, 6))
    assert again.legs == {"redelivered": 2}
    assert worker.legs(*legs[2:], coordinates=(6, 7)).legs == {"redelivered": 1, "judged": 1}
    worker.restart()
    assert worker.legs(legs[3], coordinates=(7,)).legs == {"redelivered": 1}
    totals = worker.state.totals()
    assert (totals["judged"], totals["redelivered"], totals["duplicate"]) == (3, 4, 0)


def test_an_account_skips_what_it_has_applied_and_counts_it_once() -> None:
    #   frames 0 1 2; the account was flushed after 2, the head after 0
    worker = Worker()
    legs = crowd(0, 3)
    worker.legs(legs[0])
    worker.restart()
    worker.legs(legs[1])
    worker.legs(legs[2])
    subjects = worker.state.touched()
    worker.store.blobs.update(zip(subjects.tolist(), worker.state.pack(subjects), strict=True))
    state = start(worker.store, 0, 1, SETTINGS, worker.config)
    assert state.head.applied == 0
    rows = [np.array([leg_row(Entry(x.time, ACCOUNT, leg=x), i << 20)], LEG) for i, x in enumerate(legs)]
    frames = [Frame(kind=Kind.LEGS, offset=i, sources=("s/0",), rows=rows[i]) for i in (1, 2)]
    result = step(state, frames)
    assert result.legs == {"skipped": 2}
    assert [o for o in result.outputs if isinstance(o, Recommendation)] == []
    assert state.totals()["judged"] == 3


def test_causes_rise() -> None:
    out = run(in_order(world(7, Mix(accounts=2)).entries), rows_per_frame=2)
    assert out.published.said > 3
    worker = Worker()
    for one in crowd(0, 6):
        worker.legs(one)
    worker.legs(returned(crowd(0, 1)[0]))
    causes = [o.cause for result in worker.results for o in result.outputs]
    assert causes == sorted(set(causes))
    assert all(isinstance(cause, Cause) for cause in causes)


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_the_balance(seed: int) -> None:
    """2 x accepted = legs + sides without a leg; legs = judged + late + duplicate + conflict + hub."""
    rng = random.Random(seed)
    entries = arrival(world(seed, Mix(accounts=3, scenes=6, burst=18)).entries, rng)
    fold = rng.choice((SETTINGS, DENSE))
    totals = run(entries, partitions=4, rows_per_frame=5, settings=fold).totals()
    legs = sum(1 for entry in entries if entry.leg is not None)
    assert sum(totals[name] for name in ("judged", "late", "duplicate", "conflict", "hub")) == legs
    assert totals["received"] == totals["accepted"] + totals["rejected"]
    assert 2 * totals["accepted"] == legs + totals["no_leg"]
    assert totals["late"] == 0


def test_counts_are_kept_per_source_and_day_and_not_twice() -> None:
    rows = np.array([(0, 0, 10, 3, 1, 1, 4), (1 << 20, 0, 11, 2, 0, 0, 2), (0, 1, 10, 1, 0, 0, 1)], COUNT)
    worker = Worker()
    for offset in (0, 1):  # the second comes again
        step(worker.state, [Frame(kind=Kind.COUNTS, offset=offset, sources=("a/0", "b/0"), rows=rows)])
    counters = worker.state.head.counters
    assert {source: sorted(days) for source, days in counters.items()} == {"a/0": [10, 11], "b/0": [10]}
    totals = worker.state.totals()
    assert (totals["received"], totals["accepted"], totals["rejected"]) == (7, 6, 1)
    assert (totals["no_effect"], totals["no_leg"]) == (1, 7)


def test_a_detector_that_raises_costs_only_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    legs = crowd(0, 4)
    module = catalogue.ALL[0]
    real = module.screen

    def broken(m, p):
        if (m.time == legs[1].time).any():
            raise ZeroDivisionError
        return real(m, p)

    monkeypatch.setattr(module, "screen", broken)
    worker = Worker()
    assert worker.legs(*legs).errors == {module.SPEC.id: 1}
    broken_run = worker.bodies()
    monkeypatch.undo()
    healthy = Worker()
    healthy.legs(*legs)
    assert [b["event_time"] for b in healthy.bodies()] == [b["event_time"] for b in broken_run]
