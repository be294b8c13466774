"""Rules of dated records: flags, facts, configurations. The answers are worked out by hand, the timelines drawn."""

from __future__ import annotations

import random
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.config import Config, demo_config
from detectors.model import (
    DAY,
    ConfigRecord,
    Fact,
    Flag,
    FlagState,
)
from tests.core import twin_rows
from tests.core.driver import (
    SETTINGS,
    measured,
)
from tests.core.scenes import (
    ACCOUNT,
    A,
    B,
    U,
    Worker,
    credit,
    crowd,
    measure_of,
)
from tests.core.strategies import (
    START,
)
from tests.core.twin_rows import Leg


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


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_new_and_regular_follow_the_configuration_in_force_at_each_leg(rng: random.Random) -> None:
    """A published change of `measures` holds from its date on, in any order of arrival, as the twin works it out."""
    numbers = [
        {
            "first_time_gap": rng.choice([30, 40, 90]),
            "regular_payments": rng.choice([2, 3, 4]),
            "regular_spread": rng.choice([14, 20]),
        }
        for _ in range(3)
    ]
    configs = [
        msgspec.structs.replace(demo_config(), version=f"c{n}", measures=demo_config().measures | changed)
        for n, changed in enumerate(numbers)
    ]
    #   d 0   c0       20..60: c1      ..100: c2       payments of two people all the way
    dates = [-(10**6), *sorted(rng.randrange(20, 100) for _ in range(2))]
    legs = [
        credit(day * DAY + n, 50, rng.choice([A, B]))
        for n, day in enumerate(sorted(rng.choices(range(130), k=14)))
    ]
    records = [config_record(date * DAY, c) for date, c in zip(dates[1:], configs[1:], strict=True)]
    found = []
    for late in (0, 5 * DAY):  # a configuration that comes late still finds its legs open
        items: list[tuple[int, Leg | ConfigRecord]] = [(leg.time, leg) for leg in legs]
        items += [(record.effective_at + late, record) for record in records]
        items.sort(key=lambda item: item[0])
        worker = Worker(config=configs[0])
        with measured() as seen:
            for _, item in items:
                worker.legs(item) if isinstance(item, Leg) else worker.say(item)
        found.append([measure_of(one, seen) for one in legs])
    for n, one in enumerate(legs):
        day = (one.time - START) // DAY
        force = numbers[max(k for k in range(3) if dates[k] <= day)]
        twin = twin_rows.Settings(
            first_time_gap_days=force["first_time_gap"],
            regular_payments=force["regular_payments"],
            regular_spread_days=force["regular_spread"],
        )
        earlier = [leg for leg in legs[: n + 1] if leg.party == one.party]
        tenure = day - (earlier[0].time - START) // DAY if twin_rows.regular(earlier, one, twin) else 0
        assert [measures[n]["tenure_days"] for measures in found] == [tenure, tenure]
