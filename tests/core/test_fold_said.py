"""Rules of the recommendation as a value. The answers are worked out by hand, the timelines drawn."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings

from detectors import body as bodies
from detectors import judging
from detectors.model import (
    HOUR,
    LEG,
    Frame,
    Kind,
)
from detectors.step import Recommendation, step
from tests.core.driver import (
    SETTINGS,
    sharp_config,
)
from tests.core.frames import leg_row
from tests.core.scenes import (
    ACCOUNT,
    D,
    Worker,
    credit,
    crowd,
)
from tests.core.strategies import START, WITHOUT_SHRINKING, Entry, Mix, in_order, seeds, world


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


def test_a_body_is_put_together_again_only_when_its_leg_is_judged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    #   monitor at the third payer; the fourth and fifth leave it alone, a leg from before it does not
    legs = crowd((START // SETTINGS.bucket + 1) * SETTINGS.bucket - START + HOUR, 6)
    put_together: list[int] = []
    real = judging.explain

    def noting(state, slot, standing, *rest):
        put_together.append(standing.time)
        return real(state, slot, standing, *rest)

    monkeypatch.setattr(judging, "explain", noting)
    worker = Worker(config=sharp_config(hold=50_000_000, freeze=60_000_000))
    worker.legs(*legs[1:4])
    assert put_together == [legs[3].time]
    worker.legs(legs[4])
    worker.legs(legs[5])
    assert put_together == [legs[3].time]
    worker.legs(legs[0])
    assert put_together == [legs[3].time, legs[2].time]
    assert [body["event_time"] for body in worker.bodies()] == [legs[2].time]


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
