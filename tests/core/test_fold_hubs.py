"""Rules of accounts that are too dense to judge. The answers are worked out by hand, the timelines drawn."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings

from detectors.model import (
    DAY,
    HOUR,
    Baselines,
)
from tests.core.driver import (
    difference,
    run,
)
from tests.core.scenes import (
    DENSE,
    A,
    B,
    Worker,
    changed,
    credit,
    crowd,
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


def test_a_return_dated_inside_a_hub_still_takes_out_a_leg_from_before_it() -> None:
    #   three payers on d 0: a recommendation       | 16 legs: a hub |
    #   one of them is returned during or after the dense bucket, and the return may come before the bucket is dense
    legs = crowd(BUCKET - 2 * DAY, 3)
    dense = [credit(BUCKET + i, 1, A) for i in range(16)]
    for after in (2 * DAY + HOUR, 5 * DAY):
        back = returned(legs[2], after)
        ends = []
        for order in ([*legs, back, *dense], [*legs, *dense, back]):
            worker = Worker(DENSE)
            for one in order:
                worker.legs(one)
            ends.append(worker.published.bodies())
        assert ends[0] == ends[1], difference(*ends)
        assert len(ends[0]) == 1


def test_the_mark_of_a_return_survives_a_hub_that_cuts_it() -> None:
    #   the return (dated inside the dense bucket) comes first, then the bucket becomes dense, then the leg from before it
    legs = crowd(BUCKET - 2 * HOUR, 3)
    back = returned(legs[2], 2 * HOUR)
    dense = [credit(BUCKET + i, 1, A) for i in range(16)]
    ends = []
    for order in ([*legs, back, *dense], [back, *dense, *legs], [*dense, back, *legs]):
        worker = Worker(DENSE)
        for one in order:
            worker.legs(one)
        ends.append(worker.published.bodies())
    assert ends[0] == ends[1], difference(ends[0], ends[1])
    assert ends[0] == ends[2], difference(ends[0], ends[2])
