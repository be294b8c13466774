"""One test a rule of the fold, with the answer worked out by hand and the timeline drawn above it."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from itertools import count, permutations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from detectors import body as bodies
from detectors import catalogue
from detectors.config import Config, demo_config
from detectors.model import (
    COUNT,
    DAY,
    HOUR,
    LEG,
    Baselines,
    ConfigRecord,
    Control,
    Fact,
    Flag,
    FlagState,
    Frame,
    Kind,
    PartyClass,
    Status,
)
from detectors.settings import FoldSettings
from detectors.state import AccountImage
from detectors.step import Cause, Listed, Recommendation, StepResult, Withdrawal, step
from detectors.window import ACCOUNT as ACCOUNT_ROW
from detectors.window import FACT
from tests.core.driver import (
    SETTINGS,
    Died,
    Published,
    Store,
    by_name,
    difference,
    flush,
    measured,
    never,
    run,
    sharp_config,
    start,
)
from tests.core.strategies import (
    START,
    WITHOUT_SHRINKING,
    Entry,
    Mix,
    arrival,
    in_order,
    leg_row,
    seeds,
    world,
)
from tests.core.twin_rows import Leg

U = 100
ACCOUNT = 0xACC0
A, B, C, D, E = 0xA, 0xB, 0xC, 0xD, 0xE
_ids = count(1_000)


def leg(side: int, at: int, u: int, party: int, **more: int) -> Leg:
    """One leg at START + `at`; ids grow in the order of writing."""
    more.setdefault("party_class", PartyClass.PERSONAL)
    return Leg(leg=next(_ids) << 1 | side, time=START + at, amount=u * U, party=party, **more)


def credit(at: int, u: int, party: int, **more: int) -> Leg:
    """Money in."""
    return leg(1, at, u, party, **more)


def debit(at: int, u: int, party: int, **more: int) -> Leg:
    """Money out."""
    return leg(0, at, u, party, **more)


def crowd(at: int, n: int, first: int = 0x100) -> list[Leg]:
    """`n` people pay in, a minute apart: three of them are enough for a recommendation."""
    return [credit(at + i * 60_000_000, 20, first + i) for i in range(n)]


def returned(original: Leg, after: int = 0) -> Leg:
    """The return of a leg."""
    return changed(original, status=Status.RETURNED, time=original.time + after)


def changed(original: Leg, **changes: int) -> Leg:
    """A copy of a leg with some fields changed."""
    return dataclasses.replace(original, **changes)


class Worker:
    """One partition, fed frame by frame; it can be killed and started again between any two."""

    def __init__(self, fold: FoldSettings = SETTINGS, config: Config | None = None) -> None:
        self.fold = fold
        self.config = config or sharp_config()
        self.store = Store()
        self.state = start(self.store, 0, 1, fold, self.config)
        self.published = Published()
        self.results: list[StepResult] = []
        self.coordinate = 0
        self.offset = 0

    def legs(
        self, *legs: Leg, coordinates: Sequence[int] | None = None, subject: int = ACCOUNT
    ) -> StepResult:
        """A frame of legs, each from a source message of its own."""
        if coordinates is None:
            coordinates = range(self.coordinate, self.coordinate + len(legs))
            self.coordinate += len(legs)
        rows = [
            leg_row(Entry(one.time, subject, leg=one), c << 20)
            for one, c in zip(legs, coordinates, strict=True)
        ]
        return self._step(
            Frame(kind=Kind.LEGS, offset=self.offset, sources=("s/0",), rows=np.array(rows, LEG))
        )

    def say(self, *records: Control) -> StepResult:
        """A frame of control records."""
        kind = Entry(0, control=records[0]).kind
        return self._step(Frame(kind=kind, offset=self.offset, records=records))

    def _step(self, frame: Frame) -> StepResult:
        self.offset += 1
        result = step(self.state, [frame])
        self.published.take(result.outputs)
        self.results.append(result)
        return result

    def restart(self) -> None:
        """Flush everything, die, start again. What is loaded has no room to spare, so the next leg closes."""
        flush(self.state, self.store, never)
        self.state = start(self.store, 0, 1, self.fold, self.config)

    def bodies(self) -> list[dict]:
        """The final set, by event time."""
        found = [json.loads(body) for _, body in self.published.bodies().values()]
        return sorted(found, key=lambda body: (body["event_time"], body["typology"]))

    def outputs(self, kind: type) -> list:
        """All outputs of a kind."""
        return [o for result in self.results for o in result.outputs if isinstance(o, kind)]


def measure_of(one: Leg, seen: dict, reading: int = 0, subject: int = ACCOUNT) -> dict[str, int]:
    """The newest measures of a leg."""
    return by_name(seen[subject, one.leg][reading])


# -- 3: time and order -------------------------------------------------------------------------------------------------


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


# -- 2: what is a leg --------------------------------------------------------------------------------------------------


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


# -- hubs --------------------------------------------------------------------------------------------------------------

DENSE = FoldSettings(keep=16, observed_since=START - 400 * DAY, hub_bucket_legs=16, hub_counterparties=1000)
BUCKET = (START // DENSE.lateness + 8) * DENSE.lateness - START


def hub_bodies(worker: Worker) -> list[dict]:
    """The recommendations that say: too dense to judge."""
    return [body for body in worker.bodies() if body["typology"] == "too-dense-to-judge"]


def test_a_dense_bucket_makes_a_hub_from_its_start_on() -> None:
    #   bucket of 6 h   |  15 legs   |  16 legs   |  1 leg
    #                     judged       hub          hub: counted, not judged (sticky)
    worker = Worker(DENSE)
    worker.legs(*[credit(BUCKET - 6 * HOUR + i, 1, A) for i in range(15)])
    worker.legs(*[credit(BUCKET + i, 1, A) for i in range(16)])
    result = worker.legs(credit(BUCKET + 30 * DAY, 1, A))
    assert result.legs == {"hub": 1}
    dense = hub_bodies(worker)
    assert [body["action"] for body in dense] == ["monitor"]
    assert dense[0]["event_time"] == START + BUCKET


def test_buckets_are_aligned_and_not_sliding() -> None:
    #   15 legs before a bucket's end and 15 after it: thirty within an hour, and no hub
    worker = Worker(DENSE)
    worker.legs(
        *[credit(BUCKET - HOUR // 2 + i, 1, A) for i in range(15)],
        *[credit(BUCKET + i, 1, A) for i in range(15)],
    )
    assert hub_bodies(worker) == []
    assert worker.state.totals()["hub"] == 0


def test_copies_do_not_make_a_hub() -> None:
    legs = [credit(BUCKET + i, 1, A) for i in range(15)]
    worker = Worker(DENSE)
    worker.legs(*legs)
    worker.legs(*legs)
    assert worker.state.totals()["duplicate"] == 15
    assert hub_bodies(worker) == []


@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_hubs_do_not_depend_on_the_order(seed: int) -> None:
    """Dense buckets with returns and copies in them, in an order of arrival and in canonical order."""
    rng = random.Random(seed)
    mix = Mix(accounts=2, scenes=6, burst=rng.choice((14, 16, 18, 40)), conflicts=0.0, coarse=0.0)
    entries = world(seed, mix).entries
    expected = run(in_order(entries), settings=DENSE)
    got = run(arrival(entries, rng), settings=DENSE, rows_per_frame=rng.choice((1, 3, 10)))
    assert got.published.bodies() == expected.published.bodies(), (
        f"seed {seed}\n{difference(expected.published.bodies(), got.published.bodies())}"
    )
    for totals in (expected.totals(), got.totals()):
        assert (
            sum(totals[name] for name in ("judged", "late", "duplicate", "conflict", "hub"))
            == totals["accepted"]
        )


def test_a_conflict_makes_the_same_hub_in_both_orders() -> None:
    #   15 legs in a bucket, and one leg with two contents: one in that bucket, a smaller one just before it
    rest = [credit(BUCKET + HOUR + i, 1, A) for i in range(15)]
    inside = credit(BUCKET + HOUR, 1, B)
    before = changed(inside, time=START + BUCKET - 1)
    ends = []
    for order in ([before, inside], [inside, before]):
        worker = Worker(DENSE)
        worker.legs(*rest)
        for one in order:
            worker.legs(one)
        ends.append(len(hub_bodies(worker)))
    assert ends[0] == ends[1]


def test_many_counterparties_make_the_same_hub_in_both_orders() -> None:
    #   16 counterparties, one of whose legs is returned: the return may come first or last
    fold = msgspec.structs.replace(DENSE, hub_bucket_legs=1000, hub_counterparties=16)
    legs = [credit(BUCKET + i * HOUR // 4, 1, 0x200 + i) for i in range(16)]
    back = returned(legs[3])
    ends = []
    for order in ([*legs, back], [back, *legs]):
        worker = Worker(fold)
        for one in order:
            worker.legs(one)
        ends.append(len(hub_bodies(worker)))
    assert ends[0] == ends[1]


def test_hub_limits_come_from_baselines() -> None:
    #   settings allow 1000 legs in a bucket; the baselines in force say 16
    fold = msgspec.structs.replace(DENSE, hub_bucket_legs=1000)
    worker = Worker(fold)
    worker.say(Baselines(record_id="b", effective_at=START, version="1", hub_bucket_legs=16))
    worker.legs(*[credit(BUCKET + i, 1, A) for i in range(16)])
    assert len(hub_bodies(worker)) == 1


# -- dated control records ---------------------------------------------------------------------------------------------


def flag(state: FlagState, at: int, *, expires: int | None = None, name: str = "x", party: int = A) -> Flag:
    """One state of a flag."""
    return Flag(
        record_id=f"{name}-{state}-{at}",
        effective_at=START + at,
        flag_id=name,
        party=party,
        state=state,
        source="partner",
        expires=None if expires is None else START + expires,
    )


OPEN = SETTINGS.open_for


@pytest.mark.parametrize(
    ("records", "counts"),
    [
        ([flag(FlagState.PROPOSED, 0)], 0),
        ([flag(FlagState.CONFIRMED, 10 * DAY)], 1),
        ([flag(FlagState.CONFIRMED, 10 * DAY + 1)], 0),
        ([flag(FlagState.CONFIRMED, 0, expires=10 * DAY)], 0),
        ([flag(FlagState.CONFIRMED, 0, expires=10 * DAY + 1)], 1),
        ([flag(FlagState.CONFIRMED, 0), flag(FlagState.WITHDRAWN, 10 * DAY + OPEN - 1)], 0),
        ([flag(FlagState.CONFIRMED, 0), flag(FlagState.WITHDRAWN, 10 * DAY + OPEN)], 1),
        ([flag(FlagState.CONFIRMED, 0), flag(FlagState.DISPUTED, 11 * DAY)], 0),
        ([flag(FlagState.CONFIRMED, 0), flag(FlagState.EXPIRED, 5 * DAY)], 0),
        (
            [
                flag(FlagState.CONFIRMED, 0),
                flag(FlagState.WITHDRAWN, DAY),
                flag(FlagState.CONFIRMED, 9 * DAY),
            ],
            1,
        ),
        (
            [
                flag(FlagState.CONFIRMED, 0, expires=5 * DAY),
                flag(FlagState.CONFIRMED, 4 * DAY, expires=40 * DAY),
            ],
            1,
        ),
        ([flag(FlagState.CONFIRMED, 0), flag(FlagState.CONFIRMED, 4 * DAY, expires=5 * DAY)], 0),
    ],
)
def test_when_a_flag_counts(records: list[Flag], counts: int) -> None:
    #   d 0 ... 10: e, a payment from the flagged party; records before and after it, known before and after it
    one = credit(10 * DAY, 7, A)
    for known_first in (True, False):
        worker = Worker()
        with measured() as seen:
            if known_first:
                worker.say(*records)
            worker.legs(one)
            if not known_first:
                for record in reversed(records):
                    worker.say(record)
        assert measure_of(one, seen)["flagged_in_n"] == counts, f"{known_first=}"


def test_withdrawing_a_flag_corrects_what_leaned_on_it() -> None:
    #   d 0 confirmed   10 payment of A: raised     20 withdrawn: taken back, and never after O = 30 d
    for withdrawn_at, stands in ((20 * DAY, False), (11 * DAY + OPEN, True)):
        worker = Worker()
        worker.say(flag(FlagState.CONFIRMED, 0))
        worker.legs(credit(10 * DAY, 700, A), credit(10 * DAY + 1, 700, A))
        assert [b["reasons"][0]["indicator"] for b in worker.bodies()] == ["flagged-counterparty"]
        worker.restart()
        worker.say(flag(FlagState.WITHDRAWN, withdrawn_at))
        assert bool(worker.bodies()) == stands


def test_two_flags_in_one_frame_both_count() -> None:
    worker = Worker()
    late, early = credit(10 * DAY, 7, A), credit(2 * DAY, 7, B)
    with measured() as seen:
        worker.legs(early, late)
        worker.say(flag(FlagState.CONFIRMED, 9 * DAY), flag(FlagState.CONFIRMED, 0, name="y", party=B))
    assert measure_of(early, seen)["flagged_in_n"] == 1
    assert measure_of(late, seen)["flagged_in_n"] == 2


def fact(at: int, name: str, **more) -> Fact:
    """A fact of the account."""
    more.setdefault("entity", "bank")
    return Fact(record_id=name, effective_at=START + at, subject=ACCOUNT, **more)


def test_facts_are_in_force_from_their_date_whenever_they_come() -> None:
    #   d 0      3          5             6
    #   fact 1   payment    fact 2        payment       ages 3 and 100 days; the facts come in any order, also last
    first, second = fact(0, "1", opened=START), fact(5 * DAY, "2", opened=START - 94 * DAY)
    one, two = credit(3 * DAY, 1, A), credit(6 * DAY, 1, A)
    for order in permutations([first, second, one, two]):
        worker = Worker()
        with measured() as seen:
            for item in order:
                worker.legs(item) if isinstance(item, Leg) else worker.say(item)
        assert [measure_of(x, seen)["age_days"] for x in (one, two)] == [3, 100]


def test_a_household_is_declared_as_of_each_leg() -> None:
    #   d 1     2              3
    #   in A    declared: A    in A          the payment before the declaration still counts
    one, two = credit(DAY, 1, A), credit(3 * DAY, 1, A)
    worker = Worker()
    with measured() as seen:
        worker.legs(one, two)
        worker.say(fact(2 * DAY, "1", household=(A,)))
    m = measure_of(two, seen)
    assert (m["own_legs"], m["payers"], m["life_credits"]) == (1, 1, U)


def test_the_bank_is_that_of_the_fact_in_force_whatever_came_last() -> None:
    old, new = fact(0, "1", entity="old"), fact(DAY, "2", entity="new")
    routes = []
    for order in permutations([old, new]):
        worker = Worker()
        worker.say(*order)
        worker.legs(*crowd(2 * DAY, 3))
        routes.append([route for route, _ in worker.published.bodies().values()])
    assert routes[0] == routes[1] == ["advise new"]


def config_record(at: int, config: Config) -> ConfigRecord:
    """A configuration in force from `at` on."""
    return ConfigRecord(
        record_id=config.version,
        effective_at=START + at,
        version=config.version,
        digest=f"digest of {config.version}",
        document=config.canonical(),
    )


def test_a_configuration_holds_from_its_date_whenever_it_comes() -> None:
    #   d 1            8                  16
    #   three payers   strict config      three payers: not enough any more
    strict = config_record(8 * DAY, demo_config())
    early, late = crowd(DAY, 3), crowd(16 * DAY, 3, 0x300)
    ends = []
    for items in ([strict, early, late], [early, strict, late], [early, late, strict]):
        worker = Worker()
        for item in items:
            worker.legs(*item) if isinstance(item, list) else worker.say(item)
        ends.append(worker.published.bodies())
        assert [(b["event_time"], b["config_version"]) for b in worker.bodies()] == [(early[2].time, "sharp")]
    assert ends[0] == ends[1] == ends[2]


# -- 4: exactly once ---------------------------------------------------------------------------------------------------


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


# -- 7: the recommendation as a value ----------------------------------------------------------------------------------


def test_a_recommendation_is_named_by_account_typology_and_bucket() -> None:
    #   buckets of 7 d:  | crowd        | crowd     |           | crowd
    #                      first          continues   (nothing)   stands alone
    length = SETTINGS.bucket
    first = (START // length + 1) * length - START
    worker = Worker()
    for i, n in enumerate((0, 1, 3)):
        worker.legs(*crowd(first + n * length + HOUR, 3, 0x400 + 16 * i))
    found = worker.bodies()
    assert len(found) == 3
    buckets = [body["event_time"] // length for body in found]
    assert buckets == [buckets[0], buckets[0] + 1, buckets[0] + 3]
    names = [bodies.recommendation_id(ACCOUNT, found[0]["typology"], bucket) for bucket in buckets]
    assert [body["recommendation_id"] for body in found] == names
    assert [body["continues"] for body in found] == ["", names[0], ""]
    for body in found:
        assert body["expires_at"] == body["event_time"] + body["proposed_duration"]


def test_the_body_is_that_of_the_earliest_leg_with_the_highest_action() -> None:
    #   three payers: monitor at the third; a fourth changes nothing, and a fifth neither
    legs = crowd((START // SETTINGS.bucket + 1) * SETTINGS.bucket - START, 5)
    ends = []
    for order in permutations(range(5)):
        worker = Worker(config=sharp_config(hold=50_000_000, freeze=60_000_000))
        for i in order:
            worker.legs(legs[i])
        ends.append(worker.published.bodies())
        (body,) = worker.bodies()
        assert (body["action"], body["event_time"]) == ("monitor", legs[2].time)
    assert all(end == ends[0] for end in ends)


@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_a_later_leg_takes_the_body_only_with_a_higher_action(seed: int) -> None:
    """Leg by leg in order, nothing taken back: an id keeps the first body of its highest action."""
    mix = Mix(accounts=1, scenes=20, returns=0.0, conflicts=0.0, flags=False, facts=False)
    worker = Worker()
    ladder = ("monitor", "hold-and-review", "freeze", "safeguard-first")
    highest: dict[str, tuple[int, int]] = {}
    subject = 0
    for entry in in_order(world(seed, mix).entries):
        assert entry.leg is not None
        subject = entry.subject
        for output in worker.legs(entry.leg, subject=subject).outputs:
            if isinstance(output, Recommendation):
                rank = ladder.index(output.body.action)
                name = output.body.recommendation_id
                if name not in highest or rank > highest[name][0]:
                    highest[name] = (rank, output.body.event_time)
    for body in worker.bodies():
        rank, at = highest[body["recommendation_id"]]
        assert (ladder.index(body["action"]), body["event_time"]) == (rank, at), f"seed {seed}"


def test_learning_legs_fill_the_state_and_say_nothing() -> None:
    legs = crowd(0, 3)
    worker = Worker()
    rows = np.array([leg_row(Entry(x.time, ACCOUNT, leg=x), i << 20) for i, x in enumerate(legs)], LEG)
    rows["learn"] = 1
    step(worker.state, [Frame(kind=Kind.LEGS, offset=0, sources=("s/0",), rows=rows)])
    worker.offset, worker.coordinate = 1, 3
    assert worker.bodies() == []
    worker.legs(credit(HOUR, 1, D))
    (body,) = worker.bodies()
    assert len(body["reasons"][0]["tx_ids"]) == 4


def test_an_offset_that_does_not_rise_is_refused() -> None:
    worker = Worker()
    worker.legs(*crowd(0, 1))
    with pytest.raises(ValueError, match="not above the applied offset"):
        step(worker.state, [Frame(kind=Kind.LEGS, offset=0, rows=np.zeros(0, LEG))])


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_packing_what_was_loaded_gives_the_same_bytes(seed: int) -> None:
    """A blob, a head and the control records survive a round trip."""
    rng = random.Random(seed)
    out = run(arrival(world(seed, Mix(accounts=3, scenes=10)).entries, rng), rows_per_frame=4)
    state = out.states[0]
    subjects = np.sort(state.touched())
    store = Store(
        dict(zip(subjects.tolist(), state.pack(subjects), strict=True)),
        state.pack_control(),
        state.pack_head(),
    )
    state.mark_flushed()
    again = start(store, 0, 1, SETTINGS, sharp_config())
    for one, other in zip(again.pack(subjects), state.pack(subjects), strict=True):
        assert lasting(one) == lasting(other), f"seed {seed}"
    assert again.pack_head() == store.head
    assert again.pack_control() == store.control


IN_MEMORY = ["off", "poff", "cap", "pcap", "fact", "mark", "seen", "floor", "changed", "dirty_time", "dirty_leg"]


def lasting(blob: bytes) -> list:
    """A blob without what only says where its rows stand in memory, and which step came last."""
    image = msgspec.msgpack.decode(blob, type=AccountImage)
    account = np.frombuffer(image.account, ACCOUNT_ROW).copy()
    for name in IN_MEMORY:
        account[name] = 0
    facts = np.frombuffer(image.facts, FACT).copy()
    facts["hoff"] = facts["prev"] = 0
    fields = msgspec.structs.asdict(image) | {
        "account": account.tobytes(),
        "facts": facts.tobytes(),
        "counts": [],
    }
    return list(fields.items())
