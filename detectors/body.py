"""The body of a recommendation: a pure function of the records, with everything a reviewer must be told.

Whatever comes from clocks, people and chains (created, revision, review, legal clock, helplines, audit) is the envelope, and
belongs to the publisher and the desk. Points are millionths, shares and strengths ppm, times µs UTC, durations µs, money u-cents
except `amount_limit`, which is in minor units of `currency`. Ids are hexadecimal.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.catalogue import ALL, IDS, SPECS
from detectors.config import Config
from detectors.evidence import evidence
from detectors.model import (
    ACTION_NAMES,
    ENGINE_VERSION,
    MINUTE,
    PPM,
    AccountKind,
    Action,
    Family,
    PartyClass,
    Role,
    Side,
    Stage,
    TimePrecision,
)
from detectors.render import points as say_points
from detectors.render import sentence
from detectors.roles import ROLES, payers, role_shares
from detectors.scoring import FAMILIES, Plan, Reading, Verdict, plan, read, score
from detectors.sections import ESSENTIAL_KINDS
from detectors.spec import (
    DETECTOR_ERROR,
    MAX_EVIDENCE,
    MEASURE_KIND,
    MEASURE_TEXT,
    NOT_COMPUTABLE,
    AccountView,
    Evidence,
    Ints,
    Observed,
)
from detectors.typologies import FALLBACK_TITLE, TOO_DENSE, TYPOLOGIES
from detectors.units import say
from detectors.window import currency_name

DISCLOSURE: Final = "investigator-only"
"""Tipping-off label: only an approved template may ever reach the customer, and only from the bank."""


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value; `threshold` is null where it is compared with nothing."""

    measure: str
    value: int
    unit: str
    threshold: int | None
    parameter: str


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One indicator that was found, or one mitigator."""

    indicator: str
    title: str
    family: str
    stage: str
    points: int
    strength: int
    observed: tuple[Value, ...]
    threshold: int | None
    threshold_provenance: str
    baseline: tuple[Value, ...]
    window_from: int
    window_to: int
    tx_ids: tuple[str, ...]
    truncated: bool
    plain_sentence: str


class Cited(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that a reason or a mitigator rests on, seen from the account."""

    tx_id: str
    side: str
    time: int
    precision: str  # exact, minute, hour, day: how finely the time is known
    amount: int
    currency: str


class GateEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One need of the named pattern, and what met it."""

    need: str
    text: str
    at_least: int
    indicators: tuple[str, ...]


class RoleHypothesis(msgspec.Struct, frozen=True, kw_only=True):
    """A role and the share of the hints that point to it."""

    role: str
    share: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What would change the answer: `kind` without-reason, margin, nearest-threshold, or unknown-counterparties."""

    kind: str
    indicator: str
    action: str  # the action that would then remain
    points: int  # that would then remain, or by which the action is reached
    text: str


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What is not known, or must be ruled out."""

    code: str
    indicator: str
    text: str


class NotComputable(msgspec.Struct, frozen=True, kw_only=True):
    """An indicator that could not be computed. It is not zero."""

    indicator: str
    reason: str


class Carve(msgspec.Struct, frozen=True, kw_only=True):
    """What stays reachable whatever is held."""

    amount_u: int
    days: int
    keep: tuple[str, ...]


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What Safehold recommends to a bank, and why. Every field is always there."""

    recommendation_id: str
    subject_account: str
    bank: str
    event_time: int
    time_precision: str
    trigger_tx: str
    trigger_side: str
    action: str
    amount_limit: int
    currency: str
    essential_carve_out: Carve
    typology: str
    typology_title: str
    gate_evidence: tuple[GateEvidence, ...]
    role: str
    role_confidence: int
    role_hypotheses: tuple[RoleHypothesis, ...]
    reading: str
    points_low: int
    points_high: int
    points_by_family: dict[str, int]
    reasons: tuple[Reason, ...]
    mitigators: tuple[Reason, ...]
    payments: tuple[Cited, ...]  # of reasons and mitigators, oldest first
    what_would_change_this: tuple[Change, ...]
    limits: tuple[Limit, ...]
    not_computable: tuple[NotComputable, ...]
    disclosure_class: str
    proposed_duration: int
    expires_at: int
    continues: str
    config_version: str
    config_digest: str
    engine_version: str

    def __post_init__(self) -> None:
        if self.expires_at <= self.event_time:
            raise ValueError("a recommendation must expire after its event")
        cited = self.typology == TOO_DENSE or all(reason.tx_ids for reason in self.reasons)
        if not self.reasons or not cited:
            raise ValueError(
                "a recommendation must name the transactions of every reason that carries points"
            )


MISSING = {
    "records-lost": "Records of the ledger were lost around this time and the gap was accepted: payments may be missing.",
    "records-quarantined": "A ledger frame with records of this account was set aside by two people: payments may be missing.",
}
"""What the fold knows to be missing, and what a recommendation says of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the fold knows of the judged leg besides its view."""

    subject: int
    bank: str
    currency: str
    same_currency: NDArray[np.bool_] | None  # rows of the view in that currency; None = all
    recommendation_id: str
    continues: str  # id of the recommendation of the adjacent bucket, or empty
    config_version: str
    config_digest: str
    engine_version: str
    child: bool
    sends: bool
    max_action: int
    late: bool = False
    missing: tuple[str, ...] = ()
    currencies: NDArray[np.int64] | None = None  # packed codes of the view's rows; None = all in `currency`


def recommendation_id(subject: int, typology: str, bucket: int) -> str:
    """Deterministic id: one recommendation an account, pattern and bucket."""
    key = subject.to_bytes(8, "little") + bucket.to_bytes(8, "little", signed=True) + typology.encode()
    return blake2b(key, digest_size=16, person=b"safehold-rec").hexdigest()


def body_bytes(body: Body) -> bytes:
    """Canonical JSON."""
    return msgspec.json.encode(body, order="sorted")


def body_digest(body: Body) -> str:
    """Digest of the canonical bytes."""
    return blake2b(body_bytes(body), digest_size=16).hexdigest()


def transaction_id(leg: int) -> str:
    """The transaction of a leg: both sides name the same."""
    return f"{leg & ~1:016x}"


def still_here(view: AccountView, credits: set[int]) -> int:
    """Minor units of these credits that are still in the account, first in first out over all visible rows.

    Credits in another currency than the judged leg's are the caller's to leave out.
    """
    queue: deque[list[int]] = deque()  # [row, u-cents left]
    own, u, credit = view.amount.tolist(), view.amount_u.tolist(), (view.side == Side.CREDIT).tolist()
    for row in range(view.hi):
        amount = u[row]
        if credit[row]:
            queue.append([row, amount])
            continue
        while queue and amount > 0:
            part = min(queue[0][1], amount)
            amount -= part
            queue[0][1] -= part
            if queue[0][1] == 0:
                queue.popleft()
    return sum(left * own[row] // u[row] for row, left in queue if row in credits and left > 0)


def _values(observed: tuple[Observed, ...]) -> tuple[Value, ...]:
    return tuple(
        Value(measure=o.measure, value=o.value, unit=o.unit.value, threshold=o.threshold, parameter=o.param)
        for o in observed
    )


def _explain(column: int, view: AccountView, plan: Plan) -> tuple[Evidence, bool]:
    """Evidence, and whether the detector gave it. One that raises is contained: the measures and the leg itself stay."""
    spec, params = SPECS[column], plan.params[column]
    try:
        found = ALL[column].explain(view, params)
        if found.rows or spec.family == Family.MITIGATOR:
            return found, True
    except Exception:  # noqa: BLE001 - shown in the limits, where the caller counts it
        pass
    return evidence(
        view, spec, params, window=0, compared=[(name, "") for name in spec.measures], rows=[view.hi - 1]
    ), False


def _reason(column: int, points: int, strength: int, seen: Evidence, view: AccountView, plan: Plan) -> Reason:
    spec, params = SPECS[column], plan.params[column]
    first = next((o for o in seen.observed if o.threshold is not None), seen.observed[0])
    legs = view.leg[list(seen.rows)].tolist()
    transactions = list(dict.fromkeys(transaction_id(leg) for leg in legs))
    return Reason(
        indicator=spec.id,
        title=spec.title,
        family=spec.family.value,
        stage=spec.stage.value,
        points=points,
        strength=strength,
        observed=_values(seen.observed),
        threshold=first.threshold,
        threshold_provenance=first.tag.value if first.tag is not None else "",
        baseline=_values(seen.baseline),
        window_from=seen.window_from,
        window_to=seen.window_to,
        tx_ids=tuple(transactions[-MAX_EVIDENCE:]),
        truncated=len(transactions) > MAX_EVIDENCE,
        plain_sentence=sentence(spec, seen.observed, params),
    )


def _cited(reasons: tuple[Reason, ...], view: AccountView, context: Context) -> tuple[Cited, ...]:
    """Day and amount of each payment that is named. What is with a protected account is never displayed."""
    named = {tx_id for reason in reasons for tx_id in reason.tx_ids}
    found = []
    for row, leg in enumerate(view.leg.tolist()):
        if transaction_id(leg) in named and view.party_class[row] != PartyClass.SENSITIVE:
            code = None if context.currencies is None else int(context.currencies[row])
            found.append(
                Cited(
                    tx_id=transaction_id(leg),
                    side=Side(leg & 1).name.lower(),
                    time=int(view.time[row]),
                    precision=TimePrecision(int(view.precision[row])).name.lower(),
                    amount=int(view.amount[row]),
                    currency=context.currency if code is None else currency_name(code),
                )
            )
    return tuple(found)


def _rescore(high: Ints, low: Ints, plan: Plan, context: Context) -> list[Verdict]:
    n = len(high)
    scores = score(
        high,
        low,
        plan,
        sends=np.full(n, context.sends),
        child=np.full(n, context.child),
        max_action=np.full(n, context.max_action, np.int8),
    )
    return [scores.verdict(row) for row in range(n)]


def _changes(
    high: Ints,
    low: Ints,
    columns: list[int],
    verdict: Verdict,
    seen: dict[int, Evidence],
    plan: Plan,
    context: Context,
) -> tuple[Change, ...]:
    """Counterfactuals: each reason taken away, the margin in points, the nearest threshold, the other reading."""
    found: list[Change] = []
    without_high, without_low = np.tile(high, (len(columns), 1)), np.tile(low, (len(columns), 1))
    for row, column in enumerate(columns):
        without_high[row, column] = without_low[row, column] = 0
    for column, then in zip(columns, _rescore(without_high, without_low, plan, context), strict=True):
        if then.action != verdict.action:
            total = then.total_low if verdict.action >= Action.HOLD_AND_REVIEW else then.total_high
            found.append(
                Change(
                    kind="without-reason",
                    indicator=IDS[column],
                    action=ACTION_NAMES[then.action],
                    points=total,
                    text=f"Without {SPECS[column].title.lower()}: {ACTION_NAMES[then.action]}, {say_points(total)} points.",
                )
            )
    s = plan.scoring
    reached = {Action.MONITOR: s.monitor, Action.HOLD_AND_REVIEW: s.hold, Action.FREEZE: s.freeze}
    needed = reached.get(verdict.action, s.hold)
    total = verdict.total_high if verdict.action == Action.MONITOR else verdict.total_low
    found.append(
        Change(
            kind="margin",
            indicator="",
            action=ACTION_NAMES[verdict.action],
            points=total - needed,
            text=f"{say_points(total - needed)} points above the {say_points(needed)} that this action needs.",
        )
    )
    found.extend(_nearest(columns, seen))
    if verdict.total_low != verdict.total_high:
        found.append(
            Change(
                kind="unknown-counterparties",
                indicator="",
                action="",
                points=verdict.total_high - verdict.total_low,
                text="Knowing the kind of every counterparty would settle the points between "
                f"{say_points(verdict.total_low)} and {say_points(verdict.total_high)}.",
            )
        )
    return tuple(found)


def _nearest(columns: list[int], seen: dict[int, Evidence]) -> list[Change]:
    """The observed value that stands closest to its threshold, measured in parts of the threshold."""
    best: tuple[int, int, Observed] | None = None
    for column in columns:
        for item in seen[column].observed:
            if item.threshold is None or item.threshold <= 0 or item.value < 0:
                continue
            slack = abs(item.value - item.threshold) * PPM // item.threshold
            if best is None or slack < best[0]:
                best = (slack, column, item)
    if best is None:
        return []
    _, column, item = best
    assert item.threshold is not None
    return [
        Change(
            kind="nearest-threshold",
            indicator=IDS[column],
            action="",
            points=0,
            text=f"{SPECS[column].title}: {MEASURE_TEXT[item.measure]} is closest to its threshold, "
            f"{say(MEASURE_KIND[item.measure], item.value)} against {say(MEASURE_KIND[item.measure], item.threshold)}.",
        )
    ]


def _limits(
    columns: list[int],
    view: AccountView,
    verdict: Verdict,
    context: Context,
    here: int,
    failed: tuple[str, ...],
) -> tuple[Limit, ...]:
    found: list[Limit] = []

    def add(code: str, indicator: str, text: str) -> None:
        found.append(Limit(code=code, indicator=indicator, text=text))

    unknown = view.measure("unknown_legs")
    if unknown > 0:
        add(
            "unknown-counterparties",
            "",
            f"{unknown} counterparties' kind is unknown: scored as people and as not, "
            f"{say_points(verdict.total_low)} to {say_points(verdict.total_high)} points.",
        )
    if verdict.action in (Action.HOLD_AND_REVIEW, Action.FREEZE) and here == 0:
        add("nothing-left", "", "None of the money named here was left in the account at this payment.")
    if context.late:
        add("late", "", "The payment came later than the feed's lateness allows.")
    for code in context.missing:
        add(code, "", MISSING[code])
    for detector in failed:
        add("detector-error", detector, "This detector failed here; its indicator is not known.")
    for column in columns:
        for look_alike in SPECS[column].look_alikes:
            add("look-alike", IDS[column], look_alike.text)
    for typology in TYPOLOGIES:
        if typology.id == verdict.typology:
            for text in typology.look_alikes:
                add("look-alike", typology.id, text)
    return tuple(found)


def _gate_evidence(verdict: Verdict, reading: Reading, plan: Plan) -> tuple[str, tuple[GateEvidence, ...]]:
    for index, typology in enumerate(TYPOLOGIES):
        if typology.id == verdict.typology:
            return typology.title, tuple(
                GateEvidence(
                    need=need.name,
                    text=need.text,
                    at_least=gate.at_least,
                    indicators=tuple(
                        IDS[c] for c in np.flatnonzero(gate.columns & reading.present[0]).tolist()
                    ),
                )
                for need, gate in zip(typology.needs, plan.gates[index], strict=True)
            )
    return FALLBACK_TITLE, ()


def explain_leg(
    view: AccountView, high: Ints, low: Ints, verdict: Verdict, plan: Plan, context: Context
) -> Body:
    """The body for a judged leg whose verdict is at least `monitor`.

    `view` is of the reading that the verdict speaks of; `high` and `low` are the leg's strengths (D,) in both.
    """
    spoken = high if verdict.reading == "high" else low
    reading = read(spoken[None, :], plan)
    gained = reading.points[0]
    for_it = [c for c in np.flatnonzero(gained > 0).tolist() if plan.positive[c]]
    for_it.sort(key=lambda c: (-int(gained[c]), c))
    against = [
        c
        for c in np.flatnonzero(spoken > 0).tolist()
        if SPECS[c].family == Family.MITIGATOR and plan.judged[c]
    ]
    explained = {c: _explain(c, view, plan) for c in (*for_it, *against)}
    seen = {c: found for c, (found, _) in explained.items()}
    failed = tuple(IDS[c] for c, (_, ok) in explained.items() if not ok)
    failed += tuple(
        IDS[c] for c in np.flatnonzero((high == DETECTOR_ERROR) | (low == DETECTOR_ERROR)).tolist()
    )
    credits = {row for c in for_it for row in seen[c].rows} & set(
        np.flatnonzero(view.side == int(Side.CREDIT)).tolist()
    )
    if context.same_currency is not None:
        credits = {row for row in credits if context.same_currency[row]}
    holds = verdict.action in (Action.HOLD_AND_REVIEW, Action.FREEZE)
    here = still_here(view, credits) if holds else 0
    action = ACTION_NAMES[verdict.action]
    duration = plan.config.durations[action]
    title, gate = _gate_evidence(verdict, reading, plan)
    pays = payers(reading.present, np.array([context.sends]), plan.roles)
    shares = role_shares(np.where(plan.positive, reading.points, 0), pays, plan.roles)[0]
    by_family = {
        name.value: int(reading.by_family[0, i]) for i, name in enumerate(FAMILIES) if reading.by_family[0, i]
    }
    taken = sum(int(gained[c]) for c in against)
    if against:
        by_family[Family.MITIGATOR.value] = taken
    trigger = int(view.leg[-1])
    reasons, mitigators = (
        tuple(_reason(c, int(gained[c]), int(spoken[c]), seen[c], view, plan) for c in columns)
        for columns in (for_it, against)
    )
    return Body(
        recommendation_id=context.recommendation_id,
        subject_account=f"{context.subject:016x}",
        bank=context.bank,
        event_time=view.now,
        time_precision=TimePrecision(int(view.precision[-1])).name.lower(),
        trigger_tx=transaction_id(trigger),
        trigger_side=Side(trigger & 1).name.lower(),
        action=action,
        amount_limit=here,
        currency=context.currency,
        essential_carve_out=Carve(amount_u=plan.config.essentials["amount"], days=30, keep=ESSENTIAL_KINDS),
        typology=verdict.typology,
        typology_title=title,
        gate_evidence=gate,
        role=verdict.role.value,
        role_confidence=verdict.confidence,
        role_hypotheses=tuple(
            RoleHypothesis(role=ROLES[i].value, share=int(shares[i]))
            for i in sorted(np.flatnonzero(shares).tolist(), key=lambda i: (-int(shares[i]), i))
        ),
        reading=verdict.reading,
        points_low=verdict.total_low,
        points_high=verdict.total_high,
        points_by_family=by_family,
        reasons=reasons,
        mitigators=mitigators,
        payments=_cited((*reasons, *mitigators), view, context),
        what_would_change_this=_changes(high, low, for_it, verdict, seen, plan, context),
        limits=_limits(for_it, view, verdict, context, here, failed),
        not_computable=tuple(
            NotComputable(indicator=IDS[c], reason=NOT_COMPUTABLE.get(int(spoken[c]), "unknown"))
            for c in np.flatnonzero(spoken < 0).tolist()
            if plan.judged[c]
        ),
        disclosure_class=DISCLOSURE,
        proposed_duration=duration,
        expires_at=view.now + duration,
        continues=context.continues,
        config_version=context.config_version,
        config_digest=context.config_digest,
        engine_version=context.engine_version,
    )


def assemble(
    *,
    subject: int,
    bank: str,
    account_kind: AccountKind,
    verdict_action: Action,
    typology: str,
    recommendation_id: str,
    continues: str,
    high: Ints,
    low: Ints,
    views: tuple[AccountView, ...],  # high, low
    currency: NDArray[np.int64],  # packed codes of the rows
    config: Config,
    config_version: str,
    config_digest: str,
    late: bool = False,
    missing: tuple[str, ...] = (),  # codes of `MISSING` that hold for this leg
    arrays: Plan | None = None,  # of the configuration, where the caller has them
) -> Body:
    """The body for a leg that was judged: scores it once more, alone, and explains what it came to."""
    context = Context(
        subject=subject,
        bank=bank,
        currency=currency_name(int(currency[-1])),
        same_currency=np.asarray(currency == currency[-1]),
        recommendation_id=recommendation_id,
        continues=continues,
        config_version=config_version,
        config_digest=config_digest,
        engine_version=ENGINE_VERSION,
        child=account_kind == AccountKind.YOUTH,
        sends=views[0].measure("flagged_out") > views[0].measure("flagged_in"),
        max_action=ACTION_NAMES.index(config.for_entity(bank).max_action),
        late=late,
        missing=missing,
        currencies=currency,
    )
    arrays = plan(config) if arrays is None else arrays
    verdict = _rescore(high[None, :], low[None, :], arrays, context)[0]
    if verdict.action != verdict_action or verdict.typology != typology:
        raise ValueError(
            f"judged as {ACTION_NAMES[verdict_action]} {typology}, explained as {ACTION_NAMES[verdict.action]} {verdict.typology}"
        )
    view = views[0] if verdict.reading == "high" else views[1]
    return explain_leg(view, high, low, verdict, arrays, context)


def too_dense(
    *,
    subject: int,
    bank: str,
    since: int,
    bucket_minutes: int,
    bucket_legs: int,
    counterparties: int,
    recommendation_id: str,
    continues: str,
    config: Config,
    config_version: str,
    config_digest: str,
) -> Body:
    """The one `monitor` of an account with so much traffic that it is counted instead of judged."""
    duration = config.durations["monitor"]
    limits = (
        Limit(code="too-dense", indicator="", text="No indicator is computed for this account from here on."),
        Limit(
            code="look-alike",
            indicator=TOO_DENSE,
            text="A business account, or a payment firm, booked as a person's.",
        ),
    )
    reason = Reason(
        indicator=TOO_DENSE,
        title="Too dense to judge exactly",
        family=Family.SHAPE.value,
        stage=Stage.PROFIT_LAUNDER.value,
        points=0,
        strength=0,
        observed=(),
        threshold=bucket_legs,
        threshold_provenance="baselines",
        baseline=(),
        window_from=since,
        window_to=since + bucket_minutes * MINUTE,
        tx_ids=(),
        truncated=True,
        plain_sentence=f"At least {bucket_legs} payments within {bucket_minutes} minutes, or {counterparties} counterparties: "
        "too many for an exact judgement. For a person's account that is a reason to look.",
    )
    return Body(
        recommendation_id=recommendation_id,
        subject_account=f"{subject:016x}",
        bank=bank,
        event_time=since,
        time_precision="exact",
        trigger_tx="",
        trigger_side="",
        action=ACTION_NAMES[Action.MONITOR],
        amount_limit=0,
        currency="",
        essential_carve_out=Carve(amount_u=config.essentials["amount"], days=30, keep=ESSENTIAL_KINDS),
        typology=TOO_DENSE,
        typology_title=reason.title,
        gate_evidence=(),
        role=Role.UNKNOWN.value,
        role_confidence=0,
        role_hypotheses=(),
        reading="low",
        points_low=0,
        points_high=0,
        points_by_family={},
        reasons=(reason,),
        mitigators=(),
        payments=(),
        what_would_change_this=(),
        limits=limits,
        not_computable=(),
        disclosure_class=DISCLOSURE,
        proposed_duration=duration,
        expires_at=since + duration,
        continues=continues,
        config_version=config_version,
        config_digest=config_digest,
        engine_version=ENGINE_VERSION,
    )
