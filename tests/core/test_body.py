"""The body of a recommendation: complete, canonical, cited, and honest about what would change it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.body import (
    Body,
    Context,
    assemble,
    body_bytes,
    body_digest,
    explain_leg,
    recommendation_id,
    still_here,
    too_dense,
    transaction_id,
)
from detectors.catalogue import ALL, IDS, POSITION
from detectors.config import Config, EntityConfig, demo_config
from detectors.model import ACTION_NAMES, DAY, HOUR, AccountKind, Action, Fact, Family, Mode, Side
from detectors.scoring import plan, score
from detectors.sections import POINT
from detectors.spec import MAX_EVIDENCE, AccountView
from detectors.typologies import TOO_DENSE
from tests.checks.cases import START, SUBJECT, Case, legs_of, party_id
from tests.core.strategies import LATENESS
from tests.core.twin_rows import Leg

RING = [
    "12 x +0h every 1h in 400.00 u from V{i} personal",
    "11 x +1h every 1h out 380.00 u to B{i} personal",
]
CONFIG = demo_config()
EURO = 5 << 10 | 21 << 5 | 18
"""Packed currency code of EUR."""


def account(
    rows: list[str] | list[Leg], *, opened: int = START - 20 * DAY, known: int = START - 400 * DAY
) -> Case:
    """An account as a case, judged at its last leg."""
    legs = rows if rows and isinstance(rows[0], Leg) else legs_of([str(row) for row in rows])
    fact = Fact(
        record_id="f", effective_at=START - 3_000 * DAY, subject=SUBJECT, opened=opened, observed_since=known
    )
    return Case(
        detector="fan-in", id="body", legs=legs, facts=[fact], flags=[], params={}, expect="", expect_low="",
        strength=None, seen={}, boundary=[], at_most=None,
    )  # fmt: skip


def body_of(
    case: Case, *, config: Config = CONFIG, kind: AccountKind = AccountKind.PERSONAL, bank: str = "north"
) -> Body | None:
    """What is recommended at the last leg, or None."""
    case = replace(case, config=config)
    verdict, high, low = case.verdict()
    arrays = plan(config)
    high_view, low_view = case.view("high"), case.view("low")
    scores = score(
        high[None, :], low[None, :], arrays,
        sends=np.array([high_view.measure("flagged_out") > high_view.measure("flagged_in")]),
        child=np.array([kind == AccountKind.YOUTH]),
        max_action=np.array([ACTION_NAMES.index(config.for_entity(bank).max_action)], np.int8),
    )  # fmt: skip
    verdict = scores.verdict(0)
    if verdict.action == Action.NONE:
        return None
    return assemble(
        subject=SUBJECT,
        bank=bank,
        account_kind=kind,
        verdict_action=verdict.action,
        typology=verdict.typology,
        recommendation_id=recommendation_id(SUBJECT, verdict.typology, case.legs[-1].time // (7 * DAY)),
        continues="",
        high=high,
        low=low,
        views=(high_view, low_view),
        currency=np.full(high_view.hi, EURO),
        config=config,
        config_version=config.version,
        config_digest=config.digest(engine="0", tzdata="0"),
    )


def ring() -> Body:
    found = body_of(account(RING))
    assert found is not None
    return found


def test_a_ring_in_full() -> None:
    body = ring()
    assert body.action == "freeze"
    assert body.typology == "money-mule-network"
    assert body.role == "mule"
    assert {gate.need for gate in body.gate_evidence} == {"core", "support"}
    assert all(len(gate.indicators) >= gate.at_least for gate in body.gate_evidence)
    assert [r.indicator for r in body.reasons][:2] == ["rapid-pass-through", "victim-collection-account"]
    assert [r.points for r in body.reasons] == sorted((r.points for r in body.reasons), reverse=True)
    assert sum(body.points_by_family.values()) == body.points_low == body.points_high
    assert body.currency == "EUR"
    assert body.subject_account == f"{SUBJECT:016x}"
    assert body.event_time == START + 11 * HOUR
    assert body.expires_at == body.event_time + CONFIG.durations["freeze"]
    assert body.essential_carve_out.keep
    assert body.disclosure_class == "investigator-only"
    assert sum(h.share for h in body.role_hypotheses) <= 1_000_000
    assert body.reasons[0].plain_sentence.startswith("10 credits of 300.00 u or more went out again")


def test_every_field_is_there_and_survives_json() -> None:
    body = ring()
    raw = body_bytes(body)
    assert msgspec.json.decode(raw, type=Body) == body
    tree = msgspec.json.decode(raw)
    assert set(tree) == {f.name for f in msgspec.structs.fields(Body)}
    for name in tree:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({key: value for key, value in tree.items() if key != name}, Body)
    assert msgspec.json.encode(tree, order="sorted") == raw


def test_every_payment_that_is_named_has_its_day_and_amount() -> None:
    body = ring()
    named = {tx_id for reason in (*body.reasons, *body.mitigators) for tx_id in reason.tx_ids}
    assert {payment.tx_id for payment in body.payments} == named
    assert [payment.time for payment in body.payments] == sorted(payment.time for payment in body.payments)
    assert {(p.side, p.amount, p.currency, p.precision) for p in body.payments} == {
        ("credit", 40_000, "EUR", "exact"),
        ("debit", 38_000, "EUR", "exact"),
    }
    assert body.time_precision == "exact"


def test_the_nearest_threshold_is_said_in_words() -> None:
    (nearest,) = [c for c in ring().what_would_change_this if c.kind == "nearest-threshold"]
    assert "_" not in nearest.text
    assert " is closest to its threshold, " in nearest.text


def floats(tree: object) -> bool:
    """Whether a value holds a float anywhere."""
    if isinstance(tree, dict):
        return any(floats(value) for value in tree.values())
    if isinstance(tree, list):
        return any(floats(value) for value in tree)
    return isinstance(tree, float)


def test_no_float_anywhere() -> None:
    assert not floats(msgspec.json.decode(body_bytes(ring())))


def test_a_recommendation_must_end_and_must_cite() -> None:
    body = ring()
    with pytest.raises(ValueError, match="expire"):
        msgspec.structs.replace(body, expires_at=body.event_time).__post_init__()
    uncited = msgspec.structs.replace(body.reasons[0], tx_ids=())
    with pytest.raises(ValueError, match="transactions"):
        msgspec.structs.replace(body, reasons=(uncited,)).__post_init__()
    with pytest.raises(ValueError, match="transactions"):
        msgspec.structs.replace(body, reasons=()).__post_init__()


def test_ids() -> None:
    one = recommendation_id(1, "money-mule-network", 5)
    assert len(one) == 32
    assert one == recommendation_id(1, "money-mule-network", 5)
    others = {recommendation_id(2, "money-mule-network", 5), recommendation_id(1, "x", 5),
              recommendation_id(1, "money-mule-network", -5), recommendation_id(2**64 - 1, "money-mule-network", 5)}  # fmt: skip
    assert len(others | {one}) == 5
    assert transaction_id(0xAB | 1) == transaction_id(0xAB & ~1) == "00000000000000aa"


def test_transactions_are_those_of_the_account_whatever_the_side() -> None:
    case = account(RING)
    mine = {transaction_id(leg.leg) for leg in case.legs}
    for reason in ring().reasons:
        assert set(reason.tx_ids) <= mine
        assert len(set(reason.tx_ids)) == len(reason.tx_ids)
        assert not reason.truncated


def test_long_evidence_is_cut_to_the_newest_and_says_so() -> None:
    many = account(
        [
            "150 x -6d every 1h in 400.00 u from V{i} personal",
            "150 x -6d+30min every 1h out 390.00 u to B{i} personal",
        ]
    )
    body = body_of(many)
    assert body is not None
    reason = body.reasons[0]
    assert reason.truncated
    assert len(reason.tx_ids) == MAX_EVIDENCE
    assert reason.tx_ids[-1] == transaction_id(many.legs[-1].leg)


def test_amount_limit_is_what_is_left_of_the_evidence() -> None:
    body = ring()
    assert body.amount_limit == 12 * 40_000 - 11 * 38_000
    stayed = body_of(account([*RING, "+12h in 400.00 u from V13 personal"]))
    assert stayed is not None
    assert stayed.amount_limit == 13 * 40_000 - 11 * 38_000
    gone = body_of(account([*RING, "+11h+30min out 620.00 u to B12 personal"]))
    assert gone is not None
    assert gone.amount_limit == 0
    assert "nothing-left" in {limit.code for limit in gone.limits}


def test_money_of_before_is_first_out() -> None:
    view = account(
        [
            "+0h in 100.00 u from SALARY employer",
            "+1h in 50.00 u from A1 personal",
            "+2h out 120.00 u to B1 personal",
        ]
    ).view()
    assert still_here(view, {1}) == 30_00
    assert still_here(view, {0}) == 0


@pytest.mark.parametrize(
    ("bank", "action"), [("north", "freeze"), ("south", "monitor"), ("west", "hold-and-review")]
)
def test_a_banks_greatest_action(bank: str, action: str) -> None:
    entities = {name: EntityConfig(mode=Mode.ADVISE, max_action=most) for name, most in
                (("south", "monitor"), ("west", "hold-and-review"))}  # fmt: skip
    body = body_of(account(RING), config=msgspec.structs.replace(CONFIG, entities=entities), bank=bank)
    assert body is not None
    assert body.action == action
    assert (body.amount_limit == 0) == (action == "monitor")
    assert body.proposed_duration == CONFIG.durations[action]


def test_a_childs_account_is_safeguarded_and_nothing_of_it_is_held() -> None:
    body = body_of(account(RING), kind=AccountKind.YOUTH)
    assert body is not None
    assert body.action == "safeguard-first"
    assert body.amount_limit == 0


def test_unknown_kinds_are_told() -> None:
    rows = ["12 x +0h every 1h in 400.00 u from V{i} unknown", *RING[1:]]
    body = body_of(account(rows))
    assert body is not None
    assert body.action == "monitor"
    assert body.reading == "high"
    assert body.points_low < body.points_high
    assert "unknown-counterparties" in {limit.code for limit in body.limits}
    assert "unknown-counterparties" in {change.kind for change in body.what_would_change_this}


def test_not_computable_is_told_and_never_zero() -> None:
    body = body_of(account(RING, opened=START - 900 * DAY, known=START - 5 * DAY))
    assert body is not None
    assert {n.reason for n in body.not_computable} == {"history_too_short"}
    assert "fan-in" in {n.indicator for n in body.not_computable}


def test_mitigators_are_shown() -> None:
    rows = ["7 x -210d every 30d out 500.00 u to LANDLORD personal", "-1h in 20.00 u from MINE own", *RING,
            "+11h+30min out 20.00 u to LANDLORD personal"]  # fmt: skip
    body = body_of(account(rows, opened=START - 20 * DAY))
    assert body is not None
    assert {m.indicator for m in body.mitigators} == {"regular-relationship", "own-account-or-household"}
    assert body.points_by_family[Family.MITIGATOR.value] == -2 * POINT


def test_a_detector_that_cannot_explain_is_contained(monkeypatch: pytest.MonkeyPatch) -> None:
    def sour(view: AccountView, p: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ALL[POSITION["rapid-pass-through"]], "explain", sour)
    body = ring()
    assert body.action == "freeze"
    assert [(x.code, x.indicator) for x in body.limits if x.code == "detector-error"] == [
        ("detector-error", "rapid-pass-through")
    ]
    reason = next(r for r in body.reasons if r.indicator == "rapid-pass-through")
    assert reason.tx_ids == (body.trigger_tx,)
    assert reason.observed[0].value == 10


def test_a_verdict_that_does_not_fit_is_refused() -> None:
    case = account(RING)
    verdict, high, low = case.verdict()
    with pytest.raises(ValueError, match="judged as monitor"):
        assemble(
            subject=1, bank="", account_kind=AccountKind.PERSONAL, verdict_action=Action.MONITOR, typology=verdict.typology,
            recommendation_id="", continues="", high=high, low=low, views=(case.view("high"), case.view("low")),
            currency=np.full(len(case.legs), EURO), config=CONFIG, config_version="", config_digest="",
        )  # fmt: skip


def test_too_dense() -> None:
    body = too_dense(
        subject=1, bank="north", since=START, bucket_minutes=LATENESS // 60_000_000, bucket_legs=200, counterparties=400,
        recommendation_id="x", continues="", config=CONFIG, config_version="v", config_digest="d",
    )  # fmt: skip
    assert (body.action, body.typology, body.amount_limit) == ("monitor", TOO_DENSE, 0)
    assert msgspec.json.decode(body_bytes(body), type=Body) == body


@st.composite
def streams(draw: st.DrawFn) -> Case:
    """Busy accounts: enough money through a few hands to come to something."""
    n = draw(st.integers(4, 40))
    legs = []
    for i in range(n):
        side = draw(st.integers(0, 1)) if i else 1
        legs.append(
            Leg(
                leg=(i + 1) * 2 + side,
                time=START + draw(st.integers(0, 6 * 24)) * HOUR,
                amount=draw(st.sampled_from([30_000, 40_000, 85_000, 900_000])),
                party=party_id(f"{'AB'[side]}{draw(st.integers(0, 30))}"),
                party_class=draw(st.sampled_from([0, 1, 1, 1, 9, 11])),
            )
        )
    return account(
        sorted(legs, key=lambda leg: leg.order), opened=START - draw(st.sampled_from([10, 100, 900])) * DAY
    )


@settings(max_examples=150, deadline=None)
@given(streams())
def test_laws(case: Case) -> None:
    body = body_of(case)
    if body is None:
        return
    again = body_of(case)
    assert again is not None
    assert body_bytes(again) == body_bytes(body)
    assert body_digest(again) == body_digest(body)
    mine = {transaction_id(leg.leg) for leg in case.legs}
    credits = sum(leg.amount for leg in case.legs if leg.side == Side.CREDIT)
    assert 0 <= body.amount_limit <= credits
    for reason in (*body.reasons, *body.mitigators):
        assert set(reason.tx_ids) <= mine
        assert reason.window_from <= reason.window_to == body.event_time
        assert "{" not in reason.plain_sentence
    assert sum(body.points_by_family.values()) in (body.points_low, body.points_high) or body.mitigators
    assert not floats(msgspec.json.decode(body_bytes(body)))


@settings(max_examples=60, deadline=None)
@given(streams())
def test_counterfactuals_are_true(case: Case) -> None:
    """Scored again without each reason, the account comes to what the body said."""
    body = body_of(case)
    if body is None:
        return
    said = {c.indicator: c.action for c in body.what_would_change_this if c.kind == "without-reason"}
    _, high, low = case.verdict()
    for reason in body.reasons:
        changed = [x.copy()[None, :] for x in (high, low)]
        for x in changed:
            x[0, POSITION[reason.indicator]] = 0
        then = score(
            changed[0], changed[1], plan(CONFIG), sends=np.zeros(1, bool), child=np.zeros(1, bool)
        ).verdict(0)
        assert ACTION_NAMES[then.action] == said.get(reason.indicator, body.action)


def test_explain_leg_takes_a_context() -> None:
    case = account(RING)
    verdict, high, low = case.verdict()
    context = Context(
        subject=SUBJECT, bank="", currency="EUR", same_currency=None, recommendation_id="r", continues="before",
        config_version="v", config_digest="d", engine_version="0", child=False, sends=False, max_action=Action.FREEZE, late=True,
    )  # fmt: skip
    body = explain_leg(case.view(verdict.reading), high, low, verdict, plan(CONFIG), context)
    assert body.continues == "before"
    assert "late" in {limit.code for limit in body.limits}
    assert {r.indicator for r in body.reasons} <= set(IDS)
