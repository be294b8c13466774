"""What stands in the place of a frame that two people set aside: counted, never judged, named where it is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.model import COUNT, DAY, HOUR, Frame, Kind, Quarantine, QuarantinedCount, QuarantinedLeg
from detectors.state import COUNTERS, SetAside, decode_head
from detectors.step import StepResult
from streams.balance import Balance, add_up, difference
from tests.core.driver import SETTINGS
from tests.core.scenes import ACCOUNT, A, Worker, credit, crowd
from tests.core.strategies import START

SOURCE = "s/0"


def aside(
    worker: Worker, *coordinates: int, at: int = 0, subject: int = ACCOUNT, **more: object
) -> StepResult:
    """Set aside a frame of legs with these coordinates."""
    values: dict[str, object] = {
        "record_id": f"g1/0/{worker.offset}",
        "effective_at": START,
        "by": ("Ada", "Ben"),
        "reason": "r",
        "digest": "d",
        "kind": "legs",
        "n": len(coordinates),
        "sources": (SOURCE,),
        "legs": tuple(QuarantinedLeg(0, c << 20, START // DAY) for c in coordinates),
        "accounts": ((subject, START + at, START + at),),
    }
    worker.coordinate = max([worker.coordinate, *(c + 1 for c in coordinates)])
    record = Quarantine(**(values | more))  # type: ignore[arg-type]
    return worker._step(Frame(kind=Kind.QUARANTINE, offset=worker.offset, records=(record,)))


def counts(accepted: int, no_leg: int = 0, coordinate: int = 0) -> QuarantinedCount:
    return QuarantinedCount(coordinate, 0, START // DAY, accepted, 0, 0, no_leg)


def test_legs_that_are_set_aside_are_a_term_of_the_balance() -> None:
    worker = Worker()
    worker.legs(*crowd(0, 3))
    result = aside(worker, 3, 4, 5)
    totals = worker.state.totals()
    assert result.legs == {"quarantined": 3}
    assert (totals["judged"], totals["quarantined"]) == (3, 3)
    aside(worker, kind="counts", counts=(counts(3),), accounts=())
    (sums,) = add_up([worker.state.head]).values()
    assert sums["accepted"] == 3
    assert difference(sums) == ""


def settled(worker: Worker) -> tuple[int, int, int]:
    totals = worker.state.totals()
    return totals["judged"], totals["quarantined"], totals["redelivered"]


def test_a_copy_of_what_was_set_aside_is_judged_and_a_copy_that_is_set_aside_is_redelivered() -> None:
    #   intake sends again what it had not committed: the balance must close whichever copy was set aside
    worker = Worker()
    aside(worker, 0, 1)
    aside(worker, 0, 1)
    assert settled(worker) == (0, 2, 2)
    worker.restart()
    worker.legs(credit(0, 20, A), credit(1, 20, A), coordinates=[0, 1])
    assert settled(worker) == (2, 0, 2)
    worker.legs(credit(2, 20, A), coordinates=[2])
    aside(worker, 2, 3)
    assert settled(worker) == (3, 1, 3)
    worker.legs(credit(4, 20, A), coordinates=[4])
    worker.legs(credit(3, 20, A), coordinates=[3])  # the source has gone on: it stays set aside
    assert settled(worker) == (4, 1, 4)
    assert worker.state.head.aside == {}


def test_a_frame_of_another_program_does_not_swallow_what_its_source_brings() -> None:
    worker = Worker()
    worker.legs(*crowd(0, 3))
    said = worker.coordinate
    aside(worker, 2**40, kind="legs")
    aside(worker, kind="counts", counts=(counts(0, coordinate=2**60),), accounts=())
    worker.restart()
    worker.legs(*crowd(DAY, 5, first=0x400), coordinates=range(said, said + 5))
    assert settled(worker) == (8, 1, 0)
    tell(worker, 4)
    assert worker.state.totals()["accepted"] == 4


def tell(worker: Worker, accepted: int, coordinate: int = 0) -> None:
    """A good frame of counts."""
    rows = np.zeros(1, COUNT)
    rows["coordinate"], rows["day"], rows["accepted"] = coordinate, START // DAY, accepted
    worker._step(Frame(kind=Kind.COUNTS, offset=worker.offset, sources=(SOURCE,), rows=rows))


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 5), st.booleans(), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_every_leg_and_count_is_counted_once(sent: list[tuple[int, int, bool, bool]]) -> None:
    """Intake goes back by so many legs, and sends so many; any frame may be set aside, and the worker may start again."""
    worker, end = Worker(), 0
    for back, n, bad, restarts in sent:
        first = max(0, end - back)
        some = range(first, first + n)
        end = max(end, first + n)
        told = [counts(1, no_leg=1, coordinate=c) for c in some]
        if bad:
            aside(worker, *some)
            aside(worker, kind="counts", counts=tuple(told), accounts=())
        else:
            worker.legs(*(credit(c, 20, A) for c in some), coordinates=some)
            rows = np.zeros(n, COUNT)
            rows["coordinate"], rows["day"] = list(some), START // DAY
            rows["accepted"] = rows["no_leg"] = 1
            worker._step(Frame(kind=Kind.COUNTS, offset=worker.offset, sources=(SOURCE,), rows=rows))
        if restarts:
            worker.restart()
    (sums,) = add_up([worker.state.head]).values()
    assert sums["accepted"] == sums["judged"] + sums["quarantined"] == end
    assert difference(sums) == ""


@pytest.mark.parametrize("known", [True, False])
def test_recommendations_of_the_accounts_say_so(known: bool) -> None:
    worker = Worker()
    legs = crowd(0, 3)
    if known:  # a body that stands is said again with its limit
        worker.legs(*legs)
        assert "records-quarantined" not in codes(worker)
    aside(worker, 7, at=-HOUR)
    if not known:
        worker.legs(*legs)
    assert "records-quarantined" in codes(worker)
    worker.restart()
    worker.legs(credit(HOUR, 20, 0x777))
    assert "records-quarantined" in codes(worker)


def test_recommendations_of_others_do_not_change() -> None:
    worker = Worker()
    worker.legs(*crowd(0, 3))
    before = worker.bodies()
    assert aside(worker, 7, subject=ACCOUNT + 1).outputs == []
    assert worker.bodies() == before


@pytest.mark.parametrize("at", [3 * HOUR, -SETTINGS.hold - HOUR])
def test_only_while_it_can_be_missed(at: int) -> None:
    #   dated after the leg, or longer before it than a measure looks back
    worker = Worker()
    aside(worker, 7, at=at)
    worker.legs(*crowd(0, 3))
    assert "records-quarantined" not in codes(worker)


def codes(worker: Worker) -> set[str]:
    (body, *_) = worker.bodies()
    return {limit["code"] for limit in body["limits"]}


def test_restarts_change_nothing() -> None:
    legs, ends = crowd(0, 3), []
    for restarts in (False, True):
        worker = Worker()
        for number, one in enumerate(legs):
            if restarts:
                worker.restart()
            worker.legs(one)
            aside(worker, worker.coordinate, at=number)
        if restarts:
            worker.restart()
        ends.append((worker.published.bodies(), worker.state.pack_head(), worker.state.set_aside))
    assert ends[0] == ends[1]


def test_a_day_that_stays_broken_names_the_frame() -> None:
    worker = Worker()
    worker.legs(*crowd(0, 3))
    aside(worker, legs=(), n=4, unread=4, accounts=())
    aside(worker, kind="counts", counts=(counts(3),), accounts=())
    balance = Balance(settled=0.0)
    heads = {0: worker.state.head}
    (day,) = balance.look(heads, {}, 1.0)
    assert "frame 1 of ledger partition 0 with 4 rows" in balance.broken[day]
    assert day == (SOURCE, START // DAY)


def test_a_frame_of_which_nothing_is_known_is_named_too() -> None:
    worker = Worker()
    aside(worker, kind="", legs=(), sources=(), accounts=())
    aside(worker, kind="counts", counts=(counts(1),), accounts=())
    balance = Balance(settled=0.0)
    (day,) = balance.look({0: worker.state.head}, {}, 1.0)
    assert "of which nothing is known" in balance.broken[day]
    assert worker.state.head.quarantined[0] == SetAside(0, "", 0, 0, ())


def test_a_head_from_before_this_counter_is_loaded() -> None:
    worker = Worker()
    worker.legs(*crowd(0, 3))
    for days in worker.state.head.counters.values():
        for row in days.values():
            del row[-1]
    blob = worker.state.pack_head()
    (days,) = decode_head(blob).counters.values()
    assert all(len(row) == len(COUNTERS) for row in days.values())
    worker.state.load_head(blob)
    aside(worker, 7)
    assert worker.state.totals()["quarantined"] == 1
