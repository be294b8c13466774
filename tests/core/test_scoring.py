"""Scoring: families, caps, both readings, gates, roles, the ladder."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.catalogue import IDS, POSITION, SPECS
from detectors.config import Config, demo_config
from detectors.model import PPM, AccountKind, Action, Customer, Fact, Family, Role
from detectors.roles import CODE, ROLES, child_possible
from detectors.scoring import FALLBACK_INDEX, Plan, Scores, plan, read, score
from detectors.sections import POINT
from detectors.typologies import NAMES, TYPOLOGIES

PLAN = plan(demo_config())
DETECTORS = len(IDS)
MULE = NAMES.index("money-mule-network")

RING = {
    "rapid-pass-through": PPM,
    "new-account-velocity": PPM,
    "gather-scatter": PPM,
    "victim-collection-account": PPM,
}
"""Four families, 14 points, both needs of the gate, strong indicators."""

strength = st.one_of(st.just(0), st.integers(-4, -1), st.integers(1, PPM))
rows = st.lists(st.lists(strength, min_size=DETECTORS, max_size=DETECTORS), min_size=1, max_size=6)


def strengths(**values: int) -> np.ndarray:
    """One leg's strengths."""
    row = np.zeros((1, DETECTORS), np.int64)
    for name, value in values.items():
        row[0, POSITION[name.replace("_", "-")]] = value
    return row


def of(values: dict[str, int]) -> np.ndarray:
    return strengths(**{name.replace("-", "_"): value for name, value in values.items()})


def judge(
    high: np.ndarray,
    low: np.ndarray | None = None,
    *,
    sends: bool = False,
    child: bool = False,
    arrays: Plan = PLAN,
) -> Scores:
    low = high if low is None else low
    return score(high, low, arrays, sends=np.full(len(high), sends), child=np.full(len(high), child))


def configured(**scoring: int) -> Config:
    config = demo_config()
    return msgspec.structs.replace(config, scoring=config.scoring | scoring)


def test_a_ring_is_frozen() -> None:
    s = judge(of(RING))
    assert s.action[0] == Action.FREEZE
    assert s.typology[0] == MULE
    assert s.total_low[0] == s.total_high[0] == 14 * POINT
    assert ROLES[s.role[0]] == Role.MULE


@pytest.mark.parametrize("name", [spec.id for spec in SPECS if spec.points > 0])
def test_a_single_indicator_never_exceeds_monitor(name: str) -> None:
    lax = plan(configured(monitor=1, hold=1, freeze=1, counts_from=1))
    assert judge(of({name: PPM})).action[0] <= Action.MONITOR
    assert judge(of({name: PPM}), arrays=lax).action[0] == Action.MONITOR


@pytest.mark.parametrize(
    ("without", "action"),
    [
        ("rapid-pass-through", Action.HOLD_AND_REVIEW),  # 10 points
        ("new-account-velocity", Action.HOLD_AND_REVIEW),  # 12 points, but no support: the gate is shut
        ("gather-scatter", Action.HOLD_AND_REVIEW),
        ("victim-collection-account", Action.HOLD_AND_REVIEW),
    ],
)
def test_a_freeze_needs_everything(without: str, action: Action) -> None:
    s = judge(of({name: value for name, value in RING.items() if name != without}))
    assert s.action[0] == action


def test_without_its_gate_a_pattern_has_no_name() -> None:
    s = judge(of({name: value for name, value in RING.items() if name != "new-account-velocity"}))
    assert s.typology[0] == FALLBACK_INDEX
    assert NAMES[FALLBACK_INDEX] == "unattributed-laundering"


def test_exactly_at_each_rung_and_one_millionth_below() -> None:
    """Points are strength times base: 1 ppm of a base of 1..4 is the smallest step."""
    at = of({"rapid-pass-through": PPM})
    assert judge(at).action[0] == Action.MONITOR
    assert judge(of({"rapid-pass-through": PPM - 1})).action[0] == Action.NONE
    held = {"rapid-pass-through": PPM, "gather-scatter": PPM}
    assert judge(of(held)).action[0] == Action.HOLD_AND_REVIEW
    assert judge(of(held | {"gather-scatter": PPM - 1})).action[0] == Action.MONITOR
    frozen = {
        "rapid-pass-through": PPM,
        "gather-scatter": PPM,
        "victim-collection-account": PPM // 2,
        "dormant-reactivation": PPM,
    }
    assert judge(of(frozen)).total_low[0] == 12 * POINT
    assert judge(of(frozen)).action[0] == Action.FREEZE
    assert judge(of(frozen | {"victim-collection-account": PPM // 2 - 1})).action[0] == Action.HOLD_AND_REVIEW


def test_a_freeze_needs_a_strong_indicator() -> None:
    weak = dict.fromkeys(
        ("rapid-pass-through", "gather-scatter", "victim-collection-account", "structuring"), PPM * 74 // 100
    )
    weak |= {"new-account-velocity": PPM, "fan-in": PPM, "rapid-cash-out": PPM}
    assert judge(of(weak)).total_low[0] >= 12 * POINT
    assert judge(of(weak)).action[0] == Action.HOLD_AND_REVIEW
    assert judge(of(weak | {"gather-scatter": PPM * 3 // 4})).action[0] == Action.FREEZE


def test_points_of_a_family_are_capped() -> None:
    flow = of({"rapid-pass-through": PPM, "rapid-cash-out": PPM})
    shape = of({"gather-scatter": PPM, "fan-in": PPM, "fan-out": PPM})
    assert judge(flow).total_low[0] == 6 * POINT
    assert judge(shape).total_low[0] == 6 * POINT  # 8 without the cap
    assert judge(shape).action[0] == Action.MONITOR  # one family


def test_a_trace_of_an_indicator_opens_no_gate() -> None:
    values = {name: value for name, value in RING.items() if name != "new-account-velocity"}
    trace = values | {"new-account-velocity": PPM // 4 - 1}  # just under half a point
    assert judge(of(trace)).action[0] == Action.HOLD_AND_REVIEW
    assert judge(of(values | {"new-account-velocity": PPM // 4})).action[0] == Action.FREEZE


def test_a_mitigator_takes_points_and_never_below_zero() -> None:
    assert judge(of(RING | {"regular-relationship": PPM})).total_low[0] == 12 * POINT
    assert judge(of({"fan-in": PPM // 2, "regular-relationship": PPM})).total_low[0] == 0
    assert judge(of(RING | {"own-account-or-household": PPM})).total_low[0] == 14 * POINT
    assert judge(of({"regular-relationship": PPM})).action[0] == Action.NONE


def test_readings() -> None:
    """High alone is watched; a hold must hold in both."""
    high, none = of(RING), of({})
    s = judge(high, none)
    assert s.action[0] == Action.MONITOR
    assert (s.total_low[0], s.total_high[0]) == (0, 14 * POINT)
    assert s.reading[0] == 1
    half = of({"rapid-pass-through": PPM, "gather-scatter": PPM})
    s = judge(high, half)
    assert s.action[0] == Action.HOLD_AND_REVIEW
    assert s.reading[0] == 0
    assert judge(half, high).action[0] == Action.HOLD_AND_REVIEW


def test_a_payer_is_safeguarded() -> None:
    values = {
        "flagged-counterparty": PPM // 2,
        "structuring": PPM,
        "fan-out": PPM,
        "dormant-reactivation": PPM,
    }
    s = judge(of(values), sends=True)
    assert judge(of(values)).action[0] == Action.HOLD_AND_REVIEW
    assert s.action[0] == Action.SAFEGUARD_FIRST
    assert ROLES[s.role[0]] == Role.PAYER


def test_who_passes_money_on_to_a_flagged_account_is_no_payer() -> None:
    s = judge(of(RING | {"flagged-counterparty": PPM // 2}), sends=True)
    assert ROLES[s.role[0]] == Role.MULE
    assert s.action[0] == Action.FREEZE


def test_a_possible_child_is_safeguarded_and_only_instead_of_a_hold() -> None:
    assert judge(of(RING), child=True).action[0] == Action.SAFEGUARD_FIRST
    assert judge(of({"rapid-pass-through": PPM}), child=True).action[0] == Action.MONITOR
    youth = Fact(record_id="a", effective_at=0, subject=1, kind=AccountKind.YOUTH)
    minor = Fact(record_id="a", effective_at=0, subject=1, customers=(Customer(customer=3, role="minor"),))
    assert child_possible(youth)
    assert child_possible(minor)
    assert not child_possible(Fact(record_id="a", effective_at=0, subject=1))
    assert not child_possible(None)


@pytest.mark.parametrize("greatest", [Action.NONE, Action.MONITOR, Action.HOLD_AND_REVIEW, Action.FREEZE])
def test_the_greatest_action_of_a_bank(greatest: Action) -> None:
    high = of(RING)
    no = np.zeros(1, bool)
    s = score(high, high, PLAN, sends=no, child=no, max_action=np.array([greatest], np.int8))
    assert s.action[0] == greatest
    assert s.ladder[0] == Action.FREEZE
    s = score(high, high, PLAN, sends=no, child=~no, max_action=np.array([greatest], np.int8))
    assert s.action[0] == (Action.SAFEGUARD_FIRST if greatest >= Action.HOLD_AND_REVIEW else greatest)


@pytest.mark.parametrize("state", ["shadow", "disabled"])
def test_only_live_detectors_give_points(state: str) -> None:
    config = demo_config()
    detector = msgspec.structs.replace(config.detectors["rapid-pass-through"], state=state)
    arrays = plan(
        msgspec.structs.replace(config, detectors=config.detectors | {"rapid-pass-through": detector})
    )
    assert judge(of(RING), arrays=arrays).total_high[0] == 10 * POINT
    assert judge(of({"rapid-pass-through": PPM}), arrays=arrays).action[0] == Action.NONE


@given(rows, rows, st.booleans(), st.booleans())
def test_rows_do_not_see_each_other(
    first: list[list[int]], second: list[list[int]], sends: bool, child: bool
) -> None:
    n = min(len(first), len(second))
    high, low = np.array(first[:n], np.int64), np.array(second[:n], np.int64)
    whole = judge(high, low, sends=sends, child=child)
    for row in range(n):
        alone = judge(high[row : row + 1], low[row : row + 1], sends=sends, child=child)
        assert alone.verdict(0) == whole.verdict(row)


@given(rows, rows)
def test_the_laws_of_the_ladder(first: list[list[int]], second: list[list[int]]) -> None:
    n = min(len(first), len(second))
    high, low = np.array(first[:n], np.int64), np.array(second[:n], np.int64)
    s = judge(high, low)
    readings = [read(x, PLAN) for x in (high, low)]
    totals = [r.total for r in readings]
    assert (s.total_low == np.minimum(*totals)).all()
    assert (s.total_high == np.maximum(*totals)).all()
    assert ((s.action >= Action.MONITOR) == (s.total_high >= 4 * POINT)).all() or (
        s.total_high >= 8 * POINT
    ).any()
    for reading in readings:
        assert (reading.by_family <= PLAN.caps).all()
        held = s.ladder >= Action.HOLD_AND_REVIEW
        assert (reading.total[held] >= 8 * POINT).all()
        assert (reading.families[held] >= 2).all()
        frozen = s.ladder == Action.FREEZE
        assert (reading.total[frozen] >= 12 * POINT).all()
        assert (reading.families[frozen] >= 3).all()
        assert reading.strong[frozen].all()
        assert reading.gates[frozen].any(axis=1).all()
    assert (s.role[s.action == Action.FREEZE] != CODE[Role.LIKELY_VICTIM]).all()
    assert ((s.confidence >= 0) & (s.confidence <= PPM)).all()


@given(st.lists(strength, min_size=DETECTORS, max_size=DETECTORS), st.integers(0, DETECTORS - 1))
def test_less_strength_never_means_more_points(row: list[int], column: int) -> None:
    if SPECS[column].family == Family.MITIGATOR:
        return
    before = np.array([row], np.int64)
    after = before.copy()
    after[0, column] = 0
    assert judge(after).total_low[0] <= judge(before).total_low[0]
    assert judge(after).ladder[0] <= judge(before).ladder[0]


def test_every_indicator_of_a_gate_exists() -> None:
    for typology in TYPOLOGIES:
        named = {name for need in typology.needs for name in need.indicators} | set(typology.weights)
        assert named <= set(IDS)
        for need in typology.needs:
            members = [s for s in SPECS if s.id in need.indicators or s.family in need.families]
            assert len(members) >= need.at_least
