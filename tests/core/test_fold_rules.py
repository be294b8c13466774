"""Rules of order, lateness and what a leg is. The answers are worked out by hand, the timelines drawn."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given, settings

from detectors.config import demo_config
from detectors.model import (
    DAY,
    HOUR,
    PartyClass,
)
from detectors.settings import FoldSettings
from detectors.step import Listed, Recommendation, Withdrawal
from tests.core.driver import (
    SETTINGS,
    Died,
    difference,
    measured,
    run,
)
from tests.core.scenes import (
    A,
    B,
    C,
    U,
    Worker,
    changed,
    credit,
    crowd,
    debit,
    measure_of,
    returned,
)
from tests.core.strategies import (
    START,
    WITHOUT_SHRINKING,
    Mix,
    arrival,
    in_order,
    seeds,
    world,
)
from tests.core.twin_rows import Leg


def late_scene(worker: Worker, late: Leg | None) -> Leg:
    """d 0 · 20 · 40 (closes) · `late` · a payment of A on d 41."""
    worker.legs(credit(0, 1, C), debit(0, 1, C))
    worker.legs(credit(20 * DAY, 1, C))
    worker.legs(credit(40 * DAY, 1, C))
    worker.restart()
    worker.legs(credit(40 * DAY + HOUR, 1, C))
    worker.restart()
    if late is not None:
        worker.legs(late)
    last = credit(41 * DAY, 1, A)
    worker.legs(last)
    return last


def test_a_leg_later_than_the_window_enters_the_profile_and_is_listed() -> None:
    #   d 0    20    40    41
    #   in C   C     C     A          boundary: 40 d - S = 32 d 18 h
    #            ^ A on d 5 comes after d 40: late, listed, and A is no first-time payer on d 41
    for late, first in ((None, 2), (credit(5 * DAY, 1, A), 1)):
        worker = Worker()
        with measured() as seen:
            last = late_scene(worker, late)
        m = measure_of(last, seen)
        assert m["payers"] == 2
        assert m["payers_first"] == first - 1
        listed = worker.outputs(Listed)
        assert [(o.reason, o.leg, o.time) for o in listed] == (
            [] if late is None else [("late", late.leg, late.time)]
        )
        assert worker.state.totals()["late"] == len(listed)


def test_a_late_return_of_an_unknown_leg_enters_no_profile() -> None:
    #   as above, but what comes late is a return: it counts nowhere
    worker = Worker()
    with measured() as seen:
        last = late_scene(worker, returned(credit(5 * DAY, 1, A)))
    assert measure_of(last, seen)["payers_first"] == 1


def test_a_late_leg_that_is_ignored_makes_nobody_known() -> None:
    #   as above, but what comes late is a leg of class OWN with A: relationships know legs that are not ignored
    worker = Worker()
    with measured() as seen:
        last = late_scene(worker, credit(5 * DAY, 1, A, party_class=PartyClass.OWN))
    assert measure_of(last, seen)["payers_first"] == 1


def test_within_the_lateness_nothing_is_late() -> None:
    #   a leg exactly L behind the greatest time before it is placed
    worker = Worker()
    worker.legs(credit(40 * DAY, 1, C))
    worker.restart()
    worker.legs(credit(40 * DAY, 1, C))
    worker.restart()
    result = worker.legs(credit(40 * DAY - SETTINGS.lateness, 1, A))
    assert result.legs == {"judged": 1}


def test_equal_times_are_ordered_by_id() -> None:
    #   in 400·A with id 2n+1, out 400·B at the same time: after it when its id is greater, before it when smaller
    for offset, episodes in ((1, 1), (-1, 0)):
        base = 1_000_000
        into = Leg(leg=base << 1 | 1, time=START, amount=400 * U, party=A)
        out = Leg(leg=(base + offset) << 1, time=START, amount=400 * U, party=B)
        for order in ((into, out), (out, into)):
            worker = Worker()
            with measured() as seen:
                worker.legs(order[0])
                worker.legs(order[1])
            last = max(order, key=lambda row: row.leg)
            assert measure_of(last, seen)["pass_episodes"] == episodes


@pytest.mark.slow
@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_closing_at_every_step_changes_nothing(seed: int) -> None:
    """A worker that starts again after every frame closes at every insertion; one that never does closes rarely."""
    rng = random.Random(seed)
    entries = arrival(world(seed, Mix(accounts=1, scenes=30)).entries, rng)

    def after_every_flush(what: str) -> None:
        if what == "flushed":
            raise Died

    often = run(entries, rows_per_frame=3, frames_per_step=1, flush_every=1, deadly=after_every_flush)
    never_ = run(in_order(entries))
    assert often.published.bodies() == never_.published.bodies(), (
        f"seed {seed}\n{difference(never_.published.bodies(), often.published.bodies())}"
    )


def test_k_cuts_old_rows_only() -> None:
    #   K = 16, S = 7 d 6 h
    #   d 0              8          10
    #   in 20·own        40·own     e         of the twenty old rows sixteen stay, the forty young ones all stay
    own = {"party_class": PartyClass.OWN}
    old = [credit(i * HOUR, 1, A, **own) for i in range(20)]
    young = [credit(8 * DAY + i * HOUR // 2, 1, A, **own) for i in range(40)]
    last = credit(10 * DAY, 1, B)
    worker = Worker()
    with measured() as seen:
        worker.legs(*old)
        worker.legs(*young)
        worker.restart()
        worker.legs(last)
    assert measure_of(last, seen)["own_legs"] == 16 + 40


def test_one_sweep_a_frame() -> None:
    #   a frame of 90 legs that belong before 90 others: each of the 180 is judged once
    worker = Worker()
    first = [credit(3 * HOUR + i, 1, A) for i in range(90)]
    before = [credit(i, 1, A) for i in range(90)]
    assert worker.legs(*first).judged == 90
    assert worker.legs(*before).judged == 180


def test_short_history_never_raises_load() -> None:
    #   twelve new payers on the first day of an account of which nothing is known: nothing can be said of newness
    fold = FoldSettings(keep=16)
    worker = Worker(fold, demo_config())
    with measured() as seen:
        legs = crowd(0, 12)
        worker.legs(*legs)
    m = measure_of(legs[-1], seen)
    assert m["payers"] == 12
    assert m["payers_first"] == m["collect_payers"] == -1
    assert worker.bodies() == []


@pytest.mark.parametrize("after", [0, HOUR, 3 * DAY])
def test_a_return_takes_its_leg_out_whatever_came_first(after: int) -> None:
    #   in A B C  (three payers: a recommendation);  C comes back
    legs = crowd(0, 3)
    back = returned(legs[2], after)
    ends = []
    for order in ([*legs, back], [legs[0], legs[1], back, legs[2]], [back, *reversed(legs)]):
        worker = Worker()
        for one in order:
            worker.legs(one)
        ends.append(worker.published.bodies())
        assert worker.bodies() == []
        totals = worker.state.totals()
        assert totals["judged"] == 4
        assert totals["late"] == totals["duplicate"] == totals["conflict"] == 0
    assert ends[0] == ends[1] == ends[2]


def test_a_return_withdraws_what_it_had_raised() -> None:
    legs = crowd(0, 3)
    worker = Worker()
    worker.legs(*legs)
    raised = worker.outputs(Recommendation)
    assert raised
    worker.legs(returned(legs[2], HOUR))
    withdrawn = worker.outputs(Withdrawal)
    assert {o.recommendation_id for o in withdrawn} == {o.body.recommendation_id for o in raised}
    assert withdrawn[0].cause > raised[-1].cause


@pytest.mark.parametrize(
    "other",
    [{"amount": 30 * U}, {"time": START - HOUR}, {"time": START + HOUR}, {"party": 0x99}, {"party": 0x1FF}],
)
def test_the_smaller_of_two_contents_stays_and_the_other_is_listed(other: dict[str, int]) -> None:
    legs = crowd(0, 3)
    twin = changed(legs[0], **other)
    ends = []
    for order in permutations([legs[0], twin]):
        worker = Worker()
        for one in (*order, *legs[1:]):
            worker.legs(one)
        ends.append(worker.published.bodies())
        listed = worker.outputs(Listed)
        assert [(o.reason, o.leg) for o in listed] == [("conflict", legs[0].leg)]
        loser = max([legs[0], twin], key=lambda one: one.content)
        assert listed[0].time == loser.time
        assert worker.state.totals()["conflict"] == 1
    assert ends[0] == ends[1], difference(*ends)


def test_first_leg_of_a_conflict_is_that_of_the_content_that_stays() -> None:
    #   history starts at the first leg, which a smaller content moves back by an hour, whatever came first
    base = credit(HOUR, 1, A)
    earlier = changed(base, time=START)
    last = credit(2 * HOUR, 1, B)
    for order in permutations([base, earlier]):
        worker = Worker(FoldSettings(keep=16))
        with measured() as seen:
            for one in (*order, last):
                worker.legs(one)
        assert measure_of(last, seen)["history"] == 2 * HOUR


def test_a_return_weeks_after_its_leg_does_not_depend_on_when_it_was_closed() -> None:
    #   d 0     14    28        29    30
    #   in A    C     return    A     B          whether A is new on d 29 must not hang on when d 0 was closed
    first = credit(0, 1, A)
    items = [
        first,
        credit(14 * DAY, 1, C),
        returned(first, 28 * DAY),
        credit(29 * DAY, 1, A),
        credit(30 * DAY, 1, B),
    ]
    ends, listed = [], []
    for closing in (False, True):
        worker = Worker()
        with measured() as seen:
            if closing:
                for one in items:
                    worker.legs(one)
                    worker.restart()
            else:  # one frame: nothing can be closed before all of it is judged
                worker.legs(*items)
        ends.append([measure_of(one, seen) for one in items[3:]])
        listed.append(worker.published.listed)
    assert ends[0] == ends[1]
    assert listed[0] == listed[1]
