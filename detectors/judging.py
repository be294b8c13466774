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

BATCH = 100_000
"""Most legs that are measured at once: 62 MB of measures. A late configuration may ask for every open leg of a partition."""

YOUTH = KINDS.index(AccountKind.YOUTH)


class Judged(msgspec.Struct, kw_only=True):
    """What judging the touched accounts gave."""

    items: int = 0
    verdicts: list[tuple[int, Standing]] = []  # (slot, verdict), an account's in canonical order
    hits: dict[str, np.ndarray] | None = None  # columns of `step.Hits`
    errors: dict[str, int] = {}


def judge(state: PartitionState, touched: np.ndarray, touches: np.ndarray) -> Judged:
    """Judge every touched account from its earliest insertion on. `touched` (n,) int32 slots, each once; `touches` TOUCHED."""
    acc = state.acc
    starts = np.zeros(len(touched), np.int64)
    window.dirty_positions(acc, state.rows, touched, touches, starts)
    window.cut_hubs(acc, state.rows, touched, starts, *state.hub_limits(), state.fold)
    total = int(window.dirty_positions(acc, state.rows, touched, touches, starts))
    window.derive(
        acc, state.rows, state.parties, state.facts, state.household, touched, starts, state.relations()
    )
    slots, positions, times = (np.zeros(total, np.int64) for _ in range(3))
    n = int(window.items_of(acc, state.rows, touched, starts, slots, positions, times))
    slots, positions, times = slots[:n], positions[:n], times[:n]
    result = Judged(items=n)
    hits: list[dict[str, np.ndarray]] = []
    for force, group in _by_configuration(state, times):
        part = _Batch(state, force, slots[group], positions[group], times[group])
        part.run()
        result.verdicts += part.verdicts
        for name, count in part.errors.items():
            result.errors[name] = result.errors.get(name, 0) + count
        if part.hits is not None:
            hits.append(part.hits)
    if hits:
        result.hits = {name: np.concatenate([h[name] for h in hits]) for name in hits[0]}
    return result


def _by_configuration(state: PartitionState, times: np.ndarray) -> Iterator[tuple[ConfigInForce, np.ndarray]]:
    """Items grouped by the configuration in force at them, in batches that bound the memory of their measures."""
    index = state.configs.indices(times)
    for k in np.unique(index).tolist():
        group = np.flatnonzero(index == k)
        for start in range(0, len(group), BATCH):
            yield state.configs[k], group[start : start + BATCH]


class _Batch:
    """Items judged under one configuration."""

    def __init__(
        self,
        state: PartitionState,
        force: ConfigInForce,
        slots: np.ndarray,
        positions: np.ndarray,
        times: np.ndarray,
    ) -> None:
        self.state = state
        self.force = force
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
        matrix = measure(state, self.force.measures, self.slots, self.positions)
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
        if not one_reading(matrix):
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
        banks = window.banks_of(self.state.acc, self.state.facts, self.slots, self.times)
        return np.array(greatest, np.int8)[banks]


def measure(
    state: PartitionState, params: measures.MeasureParams, slots: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """Measures (n, READINGS, M) of items; those of one measure lie side by side, because a screen reads whole measures."""
    n = len(slots)
    width = (
        -(-n // 8) | 1
    ) * 8  # an odd number of cache lines, so that the measures of an item do not displace each other
    out = np.empty((READINGS, len(MEASURES), width), np.int64)
    apart = np.zeros(n, np.bool_)
    party, start, until = state.flags.arrays()
    measures.measure(
        state.acc, state.rows, state.parties, state.facts, party, start, until, slots, positions, out, apart, state.fold,
        params,
    )  # fmt: skip
    found = out[:, :, :n].transpose(2, 0, 1)
    if not apart.any():
        return np.broadcast_to(found[:, HIGH : HIGH + 1], found.shape)
    found[~apart, LOW] = found[~apart, HIGH]
    return found


def one_reading(matrix: np.ndarray) -> bool:
    """Whether these measures (n, READINGS, M) are the same in both readings, because they are held once."""
    return matrix.strides[1] == 0


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
    state: PartitionState, slot: int, standing: Standing, recommendation_id: str, continues: str, bank: str
) -> Body:
    """The body of the recommendation that stands on a judged leg: everything from the rows visible at it."""
    acc = state.acc[slot]
    off, n = int(acc["off"]), int(acc["len"])
    position = int(window.position(state.rows, off, n, standing.time, np.uint64(standing.leg)))
    force = state.configs.at(standing.time)
    batch = _Batch(state, force, np.array([slot]), np.array([position]), np.array([standing.time], np.int64))
    judged = state.rows[off + position : off + position + 1]
    matrix = measure(state, force.measures, batch.slots, batch.positions)
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
        missing=state.missing(slot, standing.time),
        arrays=force.plan,
    )


_VIEW_COLUMNS = (
    "time", "leg", "party", "amount", "amount_u", "side", "party_class", "channel", "purpose", "precision", "first_time",
    "regular", "ignored",
)  # fmt: skip


def _visible(state: PartitionState, off: int, position: int, time: int) -> np.ndarray:
    """Rows visible at the judged row, without what is void or was taken back by then (docs/state.md)."""
    rows = state.rows[off : off + position + 1]
    start = int(np.searchsorted(rows["time"], time - state.settings.hold, side="right"))
    aged = int(np.searchsorted(rows["time"], time - state.settings.closing, side="right"))
    rows = rows[max(start, aged - state.settings.keep) :]
    void = (rows["a"] & window.VOID_BIT) != 0
    returned = rows["leg"][void & (rows["b"] >> window.AMOUNT_SHIFT == 0)]
    gone = ((rows["a"] & window.GONE_BIT) != 0) & np.isin(rows["leg"], returned)
    return rows[~void & ~gone]


def dense(state: PartitionState, slot: int, recommendation_id: str, continues: str, bank: str) -> Body:
    """The one `monitor` of a hub: it says that the account is not judged, and why."""
    acc = state.acc[slot]
    since = int(acc["hub"])
    force = state.configs.at(since)
    legs, counterparties = state.hub_limits_at(since)
    return too_dense(
        subject=int(acc["subject"]),
        bank=bank,
        since=since,
        bucket_minutes=state.settings.lateness // MINUTE,
        bucket_legs=legs,
        counterparties=counterparties,
        recommendation_id=recommendation_id,
        continues=continues,
        config=force.config,
        config_version=force.version,
        config_digest=force.digest,
    )
