"""Judging: from touched accounts to verdicts, and from one verdict to the body of a recommendation."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from detectors import measures, window
from detectors.body import Body, assemble, too_dense
from detectors.measures import HIGH, LOW, READINGS
from detectors.model import ACTION_NAMES, MINUTE, AccountKind, Action
from detectors.roles import mostly_sends
from detectors.scoring import score, screen_all
from detectors.spec import MEASURES, AccountView, Measures
from detectors.state import KINDS, ConfigInForce, PartitionState, Standing
from detectors.typologies import FALLBACK, NAMES

__all__ = ["FALLBACK", "Judged", "dense", "explain", "judge"]

YOUTH = KINDS.index(AccountKind.YOUTH)


class Judged(msgspec.Struct, kw_only=True):
    """What judging the touched accounts gave."""

    items: int = 0
    verdicts: list[tuple[int, Standing]] = []  # (slot, verdict), an account's in canonical order
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
        self.force = force[0]
        self.params = force[0].measures._replace(hub_counterparties=force[1])
        self.slots = np.ascontiguousarray(slots)
        self.positions = np.ascontiguousarray(positions)
        self.times = times
        self.verdicts: list[tuple[int, Standing]] = []
        self.errors: dict[str, int] = {}
        self.hits: dict[str, np.ndarray] | None = None

    def run(self) -> None:
        state = self.state
        acc, rows = state.acc, state.rows
        judged = rows[acc["off"][self.slots] + self.positions]
        matrix, hubs = measure(state, self.params, self.slots, self.positions)
        for i in np.flatnonzero(hubs).tolist():
            bucket = self.times[i] // state.settings.lateness * state.settings.lateness
            window.cut_hub(acc, rows, int(self.slots[i]), int(bucket))
        high, low, sends, self.errors = self.strengths(matrix, judged)
        scores = score(
            high,
            low,
            self.force.plan,
            sends=sends,
            child=self.kinds() == YOUTH,
            max_action=self._max_action(),
        )
        said = np.flatnonzero((scores.action >= Action.MONITOR) & ((judged["a"] & window.LEARN_BIT) == 0))
        for i in said.tolist():
            standing = Standing(
                int(self.times[i]),
                int(judged["leg"][i]),
                int(scores.action[i]),
                NAMES[int(scores.typology[i])],
            )
            self.verdicts.append((int(self.slots[i]), standing))
        item, detector = np.nonzero(high > 0)
        if len(item):
            self.hits = {
                "subject": acc["subject"][self.slots[item]],
                "leg": judged["leg"][item],
                "time": self.times[item],
                "detector": detector.astype(np.int16),
                "strength": high[item, detector].astype(np.int32),
            }

    def strengths(
        self, matrix: np.ndarray, judged: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
        """Strengths (n, D) in both readings, whether more went to flagged accounts than came (n,), errors by detector."""
        upper = _measures(matrix[:, HIGH], judged)
        high, failed = screen_all(upper, self.force.plan)
        low = high
        if not np.array_equal(matrix[:, HIGH], matrix[:, LOW]):
            low, _ = screen_all(_measures(matrix[:, LOW], judged), self.force.plan)
        errors: dict[str, int] = {}
        for detector, _ in failed:
            errors[detector] = errors.get(detector, 0) + 1
        return high, low, mostly_sends(upper), errors

    def kinds(self) -> np.ndarray:
        """Number of the account kind of each item as of its time; youth where a declared customer is a minor."""
        return np.asarray(window.kinds_of(self.state.acc, self.state.facts, self.slots, self.times, YOUTH))

    def _max_action(self) -> np.ndarray | None:
        config = self.force.config
        if not config.entities:
            return None
        greatest = [ACTION_NAMES.index(config.for_entity(bank).max_action) for bank in self.state.banks]
        return np.array(greatest, np.int8)[self.state.acc["bank"][self.slots]]


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


def _measures(matrix: np.ndarray, judged: np.ndarray) -> Measures:
    c = window.unpack(judged)
    return Measures(
        np.asfortranarray(
            matrix
        ),  # screens read whole measures, so a measure's values should lie side by side
        side=c["side"],
        amount_u=c["amount_u"],
        channel=c["channel"],
        party_class=c["party_class"],
        time=c["time"],
        purpose=c["purpose"],
    )


def explain(
    state: PartitionState, slot: int, standing: Standing, recommendation_id: str, continues: str, bank: str
) -> Body:
    """The body of the recommendation that stands on a judged leg: everything from the rows visible at it."""
    acc = state.acc[slot]
    off, n = int(acc["off"]), int(acc["len"])
    position = int(window.position(state.rows, off, n, standing.time, np.uint64(standing.leg)))
    force = state.configs.at(standing.time)
    limit = _hub_limit(state, state.baselines.index(standing.time))
    batch = _Batch(
        state, (force, limit), np.array([slot]), np.array([position]), np.array([standing.time], np.int64)
    )
    judged = state.rows[off + position : off + position + 1]
    matrix, _ = measure(state, batch.params, batch.slots, batch.positions)
    high, low, _, _ = batch.strengths(matrix, judged)
    columns = window.unpack(_visible(state, off, position, standing.time))
    flags = state.flags.counting(standing.time)
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
    return assemble(
        subject=int(acc["subject"]),
        bank=bank,
        account_kind=KINDS[int(batch.kinds()[0])],
        verdict_action=Action(standing.action),
        typology=standing.typology,
        recommendation_id=recommendation_id,
        continues=continues,
        high=high[0],
        low=low[0],
        views=views,
        currency=columns["currency_code"],
        config=force.config,
        config_version=force.version,
        config_digest=force.digest,
        arrays=force.plan,
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


def dense(state: PartitionState, slot: int, recommendation_id: str, continues: str, bank: str) -> Body:
    """The one `monitor` of a hub: it says that the account is not judged, and why."""
    acc = state.acc[slot]
    since = int(acc["hub"])
    force = state.configs.at(since)
    return too_dense(
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
