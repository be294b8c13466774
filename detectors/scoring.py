"""Strengths to points, families, a named pattern, a role, and an action. Points are millionths, everything is an integer.

Both readings of unknown counterparties are scored. Either one may put an account on the watch-list; a hold or a freeze must
hold in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.catalogue import ALL, IDS, SPECS
from detectors.config import Config
from detectors.model import ACTION_NAMES, Action, Family, Role
from detectors.roles import CODE, ROLES, RoleTables, role_tables, roles
from detectors.spec import DETECTOR_ERROR, Bools, Ints, Measures, Params
from detectors.typologies import FALLBACK, NAMES, TYPOLOGIES

FAMILIES: Final[tuple[Family, ...]] = tuple(family for family in Family if family != Family.MITIGATOR)
FALLBACK_INDEX: Final = NAMES.index(FALLBACK)
LOW, HIGH = 0, 1
READINGS: Final = ("low", "high")

Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class GateNeed:
    """One need of a gate, over the columns of the strengths."""

    name: str
    columns: Bools
    at_least: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration as arrays, made once per configuration by `plan`."""

    config: Config
    params: tuple[Params, ...]  # (D,)
    judged: Bools  # (D,) live or shadow
    scoring: Params
    points: Ints  # (D,) points at full strength; 0 unless live
    positive: Bools  # (D,) live, and not a mitigator
    family: Ints  # (D, families) 1 where the indicator is of that family
    caps: Ints  # (families,)
    gates: tuple[tuple[GateNeed, ...], ...]
    weights: tuple[Ints, ...]
    roles: RoleTables
    max_action: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading scored, by row."""

    points: Ints  # (n, D) of each indicator; mitigators negative
    present: Bools  # (n, D)
    by_family: Ints  # (n, families), capped
    total: Ints
    families: Ints
    strong: Bools
    gates: Bools  # (n, typologies)


@dataclass(frozen=True, slots=True)
class Scores:
    """What n judged legs came to. Rows without any strength are all zero, with the role unknown."""

    action: Codes  # Action, after role and cap
    ladder: Codes  # Action by points alone, before role and cap
    typology: Codes  # index into typologies.NAMES
    role: Codes  # index into roles.ROLES
    confidence: Ints  # of the role, ppm
    reading: Codes  # which reading the answer speaks of: 0 low, 1 high
    total_low: Ints
    total_high: Ints

    def verdict(self, row: int) -> Verdict:
        """One leg's scores as plain values."""
        return Verdict(
            action=Action(int(self.action[row])),
            typology=NAMES[int(self.typology[row])],
            role=ROLES[int(self.role[row])],
            confidence=int(self.confidence[row]),
            reading=READINGS[int(self.reading[row])],
            total_low=int(self.total_low[row]),
            total_high=int(self.total_high[row]),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one leg came to."""

    action: Action
    typology: str
    role: Role
    confidence: int
    reading: str
    total_low: int
    total_high: int


def plan(config: Config) -> Plan:
    """The arrays of a configuration."""
    live = np.array([config.state(name) == "live" for name in IDS])
    base = np.array([spec.points for spec in SPECS], np.int64)
    mitigates = np.array([spec.family == Family.MITIGATOR for spec in SPECS])
    family = np.array([[spec.family == name for name in FAMILIES] for spec in SPECS], np.int64)
    scoring = Params(config.scoring)
    caps = np.array(
        [
            min(scoring.corridor_cap, scoring.family_cap) if name == Family.CORRIDOR else scoring.family_cap
            for name in FAMILIES
        ],
        np.int64,
    )
    gates, weights = [], []
    for typology in TYPOLOGIES:
        chosen = config.typologies[typology.id]
        gates.append(
            tuple(
                GateNeed(
                    name=need.name,
                    columns=np.array([s.id in need.indicators or s.family in need.families for s in SPECS]),
                    at_least=chosen.needs.get(need.name, need.at_least),
                )
                for need in typology.needs
            )
        )
        weights.append(np.array([chosen.weights.get(name, 0) for name in IDS], np.int64))
    return Plan(
        config=config,
        params=tuple(config.params(name) for name in IDS),
        judged=np.array([config.state(name) != "disabled" for name in IDS]),
        scoring=scoring,
        points=np.where(live, base, 0),
        positive=live & ~mitigates,
        family=family,
        caps=caps,
        gates=tuple(gates),
        weights=tuple(weights),
        roles=role_tables(),
        max_action=ACTION_NAMES.index(config.max_action),
    )


def read(strengths: Ints, plan: Plan) -> Reading:
    """Score one reading. Negative strengths (not computable) give nothing."""
    points = np.maximum(strengths, 0) * plan.points
    positive = np.where(plan.positive, points, 0)
    present = positive >= plan.scoring.counts_from
    by_family = np.minimum(positive @ plan.family, plan.caps)
    against = (points - positive).sum(axis=1)
    gates = np.ones((len(points), len(TYPOLOGIES)), bool)
    for index, needs in enumerate(plan.gates):
        for need in needs:
            gates[:, index] &= present[:, need.columns].sum(axis=1) >= need.at_least
    return Reading(
        points=points,
        present=present,
        by_family=by_family,
        total=np.maximum(by_family.sum(axis=1) + against, 0),
        families=(by_family >= plan.scoring.counts_from).sum(axis=1),
        strong=np.any(positive >= plan.scoring.strong_from, axis=1),
        gates=gates,
    )


def rungs(reading: Reading, plan: Plan) -> Ints:
    """Hold or freeze in this reading, else none."""
    s = plan.scoring
    hold = (
        (reading.total >= s.hold) & (reading.families >= s.hold_families) & (reading.present.sum(axis=1) >= 2)
    )
    freeze = (
        hold
        & (reading.total >= s.freeze)
        & (reading.families >= s.freeze_families)
        & reading.strong
        & reading.gates.any(axis=1)
    )
    return np.where(freeze, int(Action.FREEZE), np.where(hold, int(Action.HOLD_AND_REVIEW), int(Action.NONE)))


def name_patterns(reading: Reading, plan: Plan) -> Codes:
    """The pattern whose gate holds and whose evidence is heaviest, else the fallback."""
    named = np.full(len(reading.total), FALLBACK_INDEX, np.int8)
    best = np.full(len(reading.total), -1, np.int64)
    positive = np.where(plan.positive, reading.points, 0)
    for index, weights in enumerate(plan.weights):
        weight = positive @ weights
        wins = reading.gates[:, index] & (weight > best)
        named[wins] = index
        best = np.where(wins, weight, best)
    return named


def screen_all(m: Measures, plan: Plan) -> tuple[Ints, list[tuple[str, str]]]:
    """Strengths (n, D) of one reading, and what went wrong: `(detector, error)` for each leg that a detector raised on.

    A detector that raises costs only the legs that it raises on, whatever else stands in the batch.
    """
    strengths = np.zeros((len(m), len(ALL)), np.int64)
    errors: list[tuple[str, str]] = []
    for column, module in enumerate(ALL):
        if not plan.judged[column]:
            continue
        spec, params = SPECS[column], plan.params[column]
        try:
            strengths[:, column] = module.screen(m, params)
        except Exception:  # noqa: BLE001 - the detector is the suspect: try its legs one by one
            for row in range(len(m)):
                try:
                    strengths[row, column] = module.screen(m.rows(row, row + 1), params)[0]
                except Exception as error:  # noqa: BLE001 - reported to the caller, who counts and shows it
                    strengths[row, column] = DETECTOR_ERROR
                    errors.append((spec.id, type(error).__name__))
        if spec.trigger is not None:
            strengths[:, column] = np.where(m.side == spec.trigger, strengths[:, column], 0)
    return strengths, errors


def _pick(choose: Bools, first: Reading, second: Reading) -> Reading:
    """By row, `first` where `choose`, else `second`."""
    column = choose[:, None]
    return Reading(
        points=np.where(column, first.points, second.points),
        present=np.where(column, first.present, second.present),
        by_family=np.where(column, first.by_family, second.by_family),
        total=np.where(choose, first.total, second.total),
        families=np.where(choose, first.families, second.families),
        strong=np.where(choose, first.strong, second.strong),
        gates=np.where(column, first.gates, second.gates),
    )


def score(
    high: Ints,
    low: Ints,
    plan: Plan,
    *,
    sends: Bools,
    child: Bools,
    max_action: Codes | None = None,
) -> Scores:
    """Score n legs from their strengths in both readings, each (n, D) in the order of the catalogue.

    `sends`: more was sent to flagged accounts than received (`roles.mostly_sends` of the high reading). `child`: a child may
    be the holder (`roles.child_possible`). `max_action`: greatest action for each leg's bank, else the configuration's.
    """
    n = len(high)
    action, ladder = np.zeros(n, np.int8), np.zeros(n, np.int8)
    typology = np.full(n, FALLBACK_INDEX, np.int8)
    role, reading = np.full(n, CODE[Role.UNKNOWN], np.int8), np.zeros(n, np.int8)
    confidence, total_low, total_high = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    active = ((high > 0) | (low > 0)) & plan.positive
    rows = np.flatnonzero(active.any(axis=1))
    if len(rows):
        upper, lower = read(high[rows], plan), read(low[rows], plan)
        rung = np.minimum(rungs(upper, plan), rungs(lower, plan))
        watched = np.maximum(upper.total, lower.total) >= plan.scoring.monitor
        rung = np.where(rung > 0, rung, np.where(watched, int(Action.MONITOR), int(Action.NONE)))
        held = rung >= int(Action.HOLD_AND_REVIEW)
        use_high = np.where(held, upper.total < lower.total, upper.total >= lower.total)
        spoken = _pick(use_high, upper, lower)
        who, sure = roles(
            np.where(plan.positive, spoken.points, 0),
            spoken.present,
            sends[rows],
            plan.roles,
            plan.scoring.role_share,
        )
        cap = np.full(len(rows), plan.max_action, np.int64) if max_action is None else max_action[rows]
        capped = np.minimum(rung, cap)
        protect = child[rows] | (who == CODE[Role.PAYER]) | (who == CODE[Role.LIKELY_VICTIM])
        protect &= capped >= int(Action.HOLD_AND_REVIEW)
        ladder[rows] = rung
        action[rows] = np.where(protect, int(Action.SAFEGUARD_FIRST), capped)
        typology[rows] = name_patterns(spoken, plan)
        role[rows], confidence[rows], reading[rows] = who, sure, use_high
        total_low[rows], total_high[rows] = (
            np.minimum(upper.total, lower.total),
            np.maximum(upper.total, lower.total),
        )
    return Scores(
        action=action,
        ladder=ladder,
        typology=typology,
        role=role,
        confidence=confidence,
        reading=reading,
        total_low=total_low,
        total_high=total_high,
    )
