"""Judging: from touched accounts to verdicts, and from one verdict to the body of a recommendation."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from detectors import body as bodies
from detectors import catalogue, measures, scoring, window
from detectors.body import Body
from detectors.config import Config
from detectors.measures import HIGH, LOW, READINGS
from detectors.model import LAYOUT_VERSION, MINUTE, Action
from detectors.scoring import FALLBACK
from detectors.spec import DETECTOR_ERROR, MEASURES, AccountView, Measures
from detectors.state import KINDS, ConfigInForce, PartitionState, Verdict
from detectors.window import ALWAYS

__all__ = ["FALLBACK", "LAYOUT_VERSION", "Judged", "explain", "judge", "strengths", "too_dense"]


class Judged(msgspec.Struct, kw_only=True):
    """What judging the touched accounts gave."""

    items: int = 0
    verdicts: list[tuple[int, Verdict]] = []  # (slot, verdict), an account's in canonical order
    hits: dict[str, np.ndarray] | None = None  # columns of `step.Hits`
    errors: dict[str, int] = {}


def judge(state: PartitionState, touched: np.ndarray) -> Judged:
    """Judge every touched account from its earliest insertion on. `touched` (n,) int32 slots, each once."""
    acc = state.acc
    starts = np.zeros(len(touched), np.int64)
    total = int(window.dirty_positions(acc, state.rows, touched, starts))
    window.derive(acc, state.rows, state.parties, state.facts, state.household, touched, starts, state.fold)
    slots, positions, times = (np.zeros(total, np.int64) for _ in range(3))
    n = int(window.items_of(acc, state.rows, touched, starts, slots, positions, times))
    slots, positions, times = slots[:n], positions[:n], times[:n]
    result = Judged(items=n)
    hits: list[dict[str, np.ndarray]] = []
    for force, group in _by_configuration(state, times):
        mine = slice(None) if group is None else group
        part = _Batch(state, force, slots[mine], positions[mine], times[mine])
        part.run()
        result.verdicts += part.verdicts
        for name, count in part.errors.items():
            result.errors[name] = result.errors.get(name, 0) + count
        if part.hits is not None:
            hits.append(part.hits)
    if hits:
        result.hits = {name: np.concatenate([h[name] for h in hits]) for name in hits[0]}
    # an account that became a hub while it was judged keeps no verdict from there on
    result.verdicts = [(slot, v) for slot, v in result.verdicts if v.time < acc["hub"][slot]]
    return result


def _by_configuration(
    state: PartitionState, times: np.ndarray
) -> Iterator[tuple[tuple[ConfigInForce, int], np.ndarray | None]]:
    """Items grouped by what is in force at them: (configuration, hub limit), and which items (None = all)."""
    if not len(times):
        return
    if len(state.configs) == 1 and len(state.baselines) == 1:
        yield (state.configs[0], _hub_limit(state, 0)), None
        return
    key = state.configs.indices(times) * len(state.baselines) + state.baselines.indices(times)
    for k in np.unique(key).tolist():
        config, baseline = divmod(k, len(state.baselines))
        yield (state.configs[config], _hub_limit(state, baseline)), np.flatnonzero(key == k)


def _hub_limit(state: PartitionState, index: int) -> int:
    baselines = state.baselines[index]
    if baselines is None or baselines.hub_counterparties is None:
        return state.settings.hub_counterparties
    return baselines.hub_counterparties


class _Batch:
    """Items judged under one configuration."""

    def __init__(
        self,
        state: PartitionState,
        force: tuple[ConfigInForce, int],
        slots: np.ndarray,
        positions: np.ndarray,
        times: np.ndarray,
    ) -> None:
        self.state = state
        self.config = force[0].config
        self.params = force[0].measures._replace(hub_counterparties=force[1])
        self.slots = np.ascontiguousarray(slots)
        self.positions = np.ascontiguousarray(positions)
        self.times = times
        self.verdicts: list[tuple[int, Verdict]] = []
        self.errors: dict[str, int] = {}
        self.hits: dict[str, np.ndarray] | None = None

    def run(self) -> None:
        state = self.state
        acc, rows = state.acc, state.rows
        at = acc["off"][self.slots] + self.positions
        judged = rows[at]
        matrix, hubs = measure(state, self.params, self.slots, self.positions)
        for i in np.flatnonzero(hubs).tolist():
            bucket = self.times[i] // state.settings.lateness * state.settings.lateness
            window.cut_hub(acc, rows, int(self.slots[i]), int(bucket))
        high, low, self.errors = strengths(matrix, judged, self.config)
        scores = scoring.score(high, low, self.config, self._kinds())
        said = np.flatnonzero((scores.action >= Action.MONITOR) & ((judged["a"] & window.LEARN_BIT) == 0))
        for i in said.tolist():
            self.verdicts.append(
                (
                    int(self.slots[i]),
                    Verdict(
                        int(self.times[i]),
                        int(judged["leg"][i]),
                        int(scores.action[i]),
                        scores.typology_of(i),
                    ),
                )
            )
        fired = np.argwhere(high.T > 0)
        if len(fired) or self.errors:
            item, detector = fired[:, 0], fired[:, 1]
            self.hits = {
                "subject": acc["subject"][self.slots[item]],
                "leg": judged["leg"][item],
                "time": self.times[item],
                "detector": detector.astype(np.int16),
                "strength": high[detector, item].astype(np.int32),
            }

    def _kinds(self) -> np.ndarray:
        return account_kinds(self.state, self.slots, self.times)


def account_kinds(state: PartitionState, slots: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Number of the `AccountKind` of each item, as of its time; youth where a declared customer is a minor."""
    return window.kinds_of(state.acc, state.facts, slots, times, KINDS.index(KINDS[3]))


def measure(
    state: PartitionState, params: measures.MeasureParams, slots: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Measures (n, READINGS, M) of items, and which of them have too many counterparties (n,)."""
    n = len(slots)
    out = np.empty((n, READINGS, len(MEASURES)), np.int64)
    hubs = np.empty(n, np.uint8)
    party, start, until = state.flags.arrays()
    measures.measure(
        state.acc,
        state.rows,
        state.parties,
        state.facts,
        party,
        start,
        until,
        slots,
        positions,
        out,
        hubs,
        state.fold,
        params,
    )
    measures.tenure(state.acc, state.rows, state.parties, slots, positions, out, state.fold)
    return out, hubs


def strengths(
    matrix: np.ndarray, judged: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Strength of every detector at every item in both readings, (D, n) int64 ppm each, and the legs on which one raised.

    A detector that raises on a batch is asked leg by leg, so that what one leg gets does not depend on its neighbours.
    """
    errors: dict[str, int] = {}
    high = _screen_all(matrix[:, HIGH], judged, config, errors)
    if np.array_equal(matrix[:, HIGH], matrix[:, LOW]):
        return high, high, errors
    return high, _screen_all(matrix[:, LOW], judged, config, {}), errors


def _screen_all(matrix: np.ndarray, judged: np.ndarray, config: Config, errors: dict[str, int]) -> np.ndarray:
    m = _measures(matrix, judged)
    out = np.zeros((len(catalogue.ALL), len(judged)), np.int64)
    for i, module in enumerate(catalogue.ALL):
        if config.state(module.SPEC.id) == "disabled":
            continue
        params = config.params(module.SPEC.id)
        try:
            out[i] = module.screen(m, params)
        except Exception:  # noqa: BLE001 - contained: the leg says which detector could not judge it
            for k in range(len(judged)):
                one = _measures(matrix[k : k + 1], judged[k : k + 1])
                try:
                    out[i, k] = module.screen(one, params)[0]
                except Exception:  # noqa: BLE001
                    out[i, k] = DETECTOR_ERROR
                    errors[module.SPEC.id] = errors.get(module.SPEC.id, 0) + 1
        if module.SPEC.trigger is not None:
            side = (judged["leg"] & np.uint64(1)).astype(np.int64)
            out[i][side != int(module.SPEC.trigger)] = 0
    return out


def _measures(matrix: np.ndarray, judged: np.ndarray) -> Measures:
    c = window.unpack(judged)
    return Measures(
        matrix,
        side=c["side"],
        amount_u=c["amount_u"],
        channel=c["channel"],
        party_class=c["party_class"],
        time=c["time"],
        purpose=c["purpose"],
    )


def explain(
    state: PartitionState, slot: int, verdict: Verdict, recommendation_id: str, continues: str, bank: str
) -> Body:
    """The body of the recommendation that stands on a verdict: everything from the rows visible at its leg."""
    acc = state.acc[slot]
    off, n = int(acc["off"]), int(acc["len"])
    position = int(window.position(state.rows, off, n, verdict.time, np.uint64(verdict.leg)))
    force = state.configs.at(verdict.time)
    limit = _hub_limit(state, state.baselines.index(verdict.time))
    one = np.array([slot], np.int64), np.array([position], np.int64)
    matrix, _ = measure(state, force.measures._replace(hub_counterparties=limit), *one)
    judged = state.rows[off + position : off + position + 1]
    high, low, _ = strengths(matrix, judged, force.config)
    visible = _visible(state, off, position, verdict.time)
    flags = state.flags.counting(verdict.time)
    columns = window.unpack(visible)
    views = tuple(
        AccountView(
            **{name: columns[name] for name in _VIEW_COLUMNS},
            reading=reading,
            measures=matrix[0, index],
            flags=flags,
            passing=force.config.params("rapid-pass-through"),
        )
        for reading, index in (("high", HIGH), ("low", LOW))
    )
    kind = KINDS[int(account_kinds(state, one[0], np.array([verdict.time], np.int64))[0])]
    return bodies.assemble(
        subject=int(acc["subject"]),
        bank=bank,
        account_kind=kind,
        verdict_action=Action(verdict.action),
        typology=verdict.typology,
        recommendation_id=recommendation_id,
        continues=continues,
        high=high[:, 0],
        low=low[:, 0],
        views=views,
        currency=columns["currency_code"],
        config=force.config,
        config_version=force.version,
        config_digest=force.digest,
    )


_VIEW_COLUMNS = (
    "time", "leg", "party", "amount", "amount_u", "side", "party_class", "channel", "purpose", "precision", "first_time",
    "regular", "ignored",
)  # fmt: skip


def _visible(state: PartitionState, off: int, position: int, time: int) -> np.ndarray:
    """Rows visible at the judged row, void ones left out (docs/state.md)."""
    rows = state.rows[off : off + position + 1]
    start = int(np.searchsorted(rows["time"], time - state.settings.hold, side="right"))
    aged = int(np.searchsorted(rows["time"], time - state.settings.closing, side="right"))
    rows = rows[max(start, aged - state.settings.keep) :]
    return rows[(rows["a"] & window.VOID_BIT) == 0]


def too_dense(state: PartitionState, slot: int, recommendation_id: str, continues: str, bank: str) -> Body:
    """The one `monitor` of a hub: it says that the account is not judged, and why."""
    acc = state.acc[slot]
    since = int(acc["hub"])
    force = state.configs.at(since)
    return bodies.too_dense(
        subject=int(acc["subject"]),
        bank=bank,
        since=since,
        bucket_minutes=state.settings.lateness // MINUTE,
        bucket_legs=state.settings.hub_bucket_legs,
        counterparties=_hub_limit(state, state.baselines.index(since)),
        recommendation_id=recommendation_id,
        continues=continues,
        config=force.config,
        config_version=force.version,
        config_digest=force.digest,
    )


def is_hub(state: PartitionState, slot: int) -> bool:
    """Whether an account is counted instead of judged."""
    return bool(state.acc["hub"][slot] != ALWAYS)
