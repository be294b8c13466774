"""Accepted gaps: records that are lost leave accounts without the history before them, and say so."""

from __future__ import annotations

import dataclasses

import pytest

from detectors.model import DAY, HOUR, Fact
from detectors.settings import FoldSettings
from detectors.state import ALWAYS, Gap
from detectors.step import NEVER
from tests.core.driver import measured
from tests.core.scenes import ACCOUNT, A, Worker, credit, crowd, debit, measure_of
from tests.core.strategies import START

YEARS = FoldSettings(keep=16, observed_since=START - 1000 * DAY)
L = YEARS.lateness


def with_gap(*, front: int = 10 * DAY) -> Worker:
    """An account that was seen until `front`; then five ledger records are lost."""
    worker = Worker(YEARS)
    worker.legs(credit(front, 20, A))
    worker.state.accept_gap(worker.offset + 5)
    worker.offset += 5
    return worker


def test_history_begins_a_lateness_after_the_first_leg_that_follows() -> None:
    worker = with_gap()
    (gap,) = worker.state.head.gaps
    assert gap == Gap(1, 5, START + 10 * DAY - L, ALWAYS)
    assert worker.state.head.applied == 5
    worker.say(Fact(record_id="f", effective_at=START, subject=ACCOUNT))  # not a leg: it waits on
    assert gap.history_from == ALWAYS
    worker.legs(credit(20 * DAY, 20, A), credit(12 * DAY, 20, A))
    assert gap.history_from == START + 20 * DAY + L
    worker.legs(credit(30 * DAY, 20, A))
    assert gap.history_from == START + 20 * DAY + L


def test_a_leg_that_came_before_is_not_the_first_one() -> None:
    #   what intake sends again after its own restart is older than what was lost
    worker = with_gap()
    worker.legs(credit(0, 20, A), credit(20 * DAY, 20, A), coordinates=[0, 7])
    assert worker.state.head.gaps[0].history_from == START + 20 * DAY + L


def test_nothing_is_new_after_a_gap_until_its_history_is_long_enough() -> None:
    worker = with_gap()
    with measured() as seen:
        soon, later = crowd(20 * DAY, 12), crowd(20 * DAY + L + 30 * DAY, 1, first=0x300)
        worker.legs(*soon)
        worker.legs(*later)
    m = measure_of(soon[-1], seen)
    assert m["history"] == 0
    assert m["payers"] == 12
    assert m["payers_first"] == m["collect_payers"] == -1
    assert measure_of(later[0], seen)["payers_first"] >= 0
    without = Worker(YEARS)
    with measured() as seen:
        without.legs(*soon)
    assert measure_of(soon[-1], seen)["payers_first"] == 12


def test_what_was_judged_before_the_loss_stays_as_it_was() -> None:
    #   a flag, a correction or a late record makes an old leg be judged again: what was lost is younger than that leg
    worker = Worker(YEARS)
    legs = crowd(0, 12)
    worker.legs(*legs)
    worker.legs(credit(10 * DAY, 20, A))
    before = worker.bodies()
    assert before
    worker.state.accept_gap(worker.offset + 5)
    worker.offset += 5
    with measured() as seen:
        worker.say(Fact(record_id="f", effective_at=START - DAY, subject=ACCOUNT))
        worker.legs(credit(5 * DAY - HOUR, 20, A))
    assert measure_of(legs[-1], seen)["payers_first"] == 12
    assert [body["recommendation_id"] for body in worker.bodies()] == [
        body["recommendation_id"] for body in before
    ]


@pytest.mark.parametrize(("opened", "unlimited"), [(12, False), (20, False), (21, True), (40, True)])
def test_only_an_account_opened_after_the_gap_has_all_its_history(opened: int, unlimited: bool) -> None:
    worker = with_gap()
    worker.say(Fact(record_id="f", effective_at=START, subject=ACCOUNT, opened=START + opened * DAY))
    one = credit(41 * DAY, 20, A)
    with measured() as seen:
        worker.legs(credit(20 * DAY, 20, A))
        worker.legs(one)
    assert (measure_of(one, seen)["history"] == ALWAYS) is unlimited


def test_an_account_is_not_called_dormant_for_what_was_lost() -> None:
    worker = Worker(YEARS)
    worker.legs(debit(0, 20, A))
    worker.legs(credit(1 * DAY, 20, A))
    worker.state.accept_gap(10)
    worker.offset = 10
    woke = credit(200 * DAY, 20, A)
    with measured() as seen:
        worker.legs(woke)
    assert measure_of(woke, seen)["quiet_days"] == 0
    later = credit(300 * DAY, 20, A)
    with measured() as seen:
        worker.legs(later)
    assert measure_of(later, seen)["quiet_days"] == 99


def test_recommendations_near_a_gap_name_it() -> None:
    worker = with_gap()
    worker.legs(credit(20 * DAY, 20, A))
    worker.legs(*crowd(20 * DAY + L + 31 * DAY, 3))
    (body,) = worker.bodies()
    assert "records-lost" in {limit["code"] for limit in body["limits"]}
    far = START + 20 * DAY + L + YEARS.hold
    assert worker.state.records_lost(far - 1)
    assert not worker.state.records_lost(far)
    assert not worker.state.records_lost(START + 10 * DAY - L - 1)


def test_gaps_are_in_the_head_and_a_restart_changes_nothing() -> None:
    legs = crowd(20 * DAY, 12)
    ends = []
    for restarts in (False, True):
        worker = with_gap()
        for one in legs:
            if restarts:
                worker.restart()
            worker.legs(dataclasses.replace(one))
        ends.append((worker.published.bodies(), worker.state.head.gaps, worker.state.pack_head()))
    assert ends[0] == ends[1]


def test_a_second_gap_before_any_leg_waits_with_the_first() -> None:
    worker = with_gap()
    worker.state.accept_gap(worker.offset + 3)
    worker.offset += 3
    worker.legs(credit(20 * DAY, 20, A))
    assert [gap.history_from for gap in worker.state.head.gaps] == [START + 20 * DAY + L] * 2


def test_an_empty_state_has_lost_everything_before() -> None:
    worker = Worker(YEARS)
    worker.state.accept_gap(4)
    worker.offset = 4
    one = credit(0, 20, A)
    with measured() as seen:
        worker.legs(one)
    assert worker.state.head.gaps == [Gap(0, 3, NEVER, START + L)]
    assert measure_of(one, seen)["history"] == 0


def test_where_nothing_is_lost_there_is_no_gap_to_accept() -> None:
    worker = Worker(YEARS)
    with pytest.raises(ValueError, match="nothing is lost"):
        worker.state.accept_gap(0)
