"""Runs the fold as a worker would: steps over frames, publishes, flushes, dies, starts again.

A `Store` stands for what is durable. Writes come in the order of the contract: outputs first, then account
blobs in chunks, then control, the head last; a crash can come between any two of them.
"""

from __future__ import annotations

import functools
import json
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import numpy as np

from detectors import judging
from detectors.body import body_bytes
from detectors.config import Config, DetectorConfig, demo_config
from detectors.model import DAY, Frame
from detectors.settings import FoldSettings
from detectors.spec import MEASURES
from detectors.state import Gap, PartitionState
from detectors.step import Listed, Output, Recommendation, Withdrawal, load_control, new_state, step
from tests.core import twin_rows
from tests.core.frames import ledger
from tests.core.strategies import START, Entry

SETTINGS = FoldSettings(keep=16, observed_since=START - 400 * DAY)
"""Of the tests: K small enough to cut something."""


def sharp_config(version: str = "sharp", **scoring: int) -> Config:
    """A configuration that says much: thresholds so low that a short stream reaches every action."""
    config = demo_config()
    low = {
        "rapid-pass-through": {"min_episodes": 1, "strong_episodes": 2},
        "rapid-cash-out": {"min_events": 1, "full_events": 2},
        "new-account-velocity": {
            "min_payers": 2,
            "full_payers": 4,
            "min_credits": 50_000,
            "full_credits": 100_000,
        },
        "dormant-reactivation": {"min_quiet": 30, "full_quiet": 60, "min_payers": 2},
        "commission-retention": {"min_episodes": 2, "full_episodes": 3},
        "fan-in": {"min_payers": 3, "full_payers": 6},
        "fan-out": {"min_payees_day": 3, "full_payees_day": 5, "min_payees": 4, "full_payees": 8},
        "gather-scatter": {"min_payers": 2, "min_payees": 2, "full_parties": 4},
        "structuring": {"min_deposits": 2, "min_depositors": 1},
        "flagged-counterparty": {"min_amount": 1_000, "min_payments": 1},
        "victim-collection-account": {"min_payers": 2, "full_payers": 4, "one_off_share": 500_000},
    }
    detectors = {
        name: DetectorConfig(state=value.state, params=value.params | low.get(name, {}))
        for name, value in config.detectors.items()
    }
    point = 1_000_000
    numbers = config.scoring | {"monitor": point, "hold": 4 * point, "freeze": 7 * point} | scoring
    return msgspec.structs.replace(config, version=version, detectors=detectors, scoring=numbers)


def twin_settings(settings: FoldSettings, config: Config) -> twin_rows.Settings:
    """The twin's copy of the fold's lengths."""
    return twin_rows.Settings(
        lateness=settings.lateness,
        spread=settings.spread,
        hold=settings.hold,
        keep=settings.keep,
        bucket=settings.bucket,
        open=settings.open_for,
        observed_since=settings.observed_since,
        hub_bucket_legs=settings.hub_bucket_legs,
        hub_counterparties=settings.hub_counterparties,
        first_time_gap_days=config.measures["first_time_gap"],
        first_time_history=config.measures["first_time_history"],
        regular_payments=config.measures["regular_payments"],
        regular_spread_days=config.measures["regular_spread"],
    )


def twin_params(config: Config) -> twin_rows.Params:
    """The twin's copy of the detectors' parameters."""
    return {name: dict(value.params) for name, value in config.detectors.items()}


@contextmanager
def measured() -> Iterator[dict[tuple[int, int], np.ndarray]]:
    """Note what the kernel measured for each (subject, leg), the newest evaluation: (reading, measure)."""
    seen: dict[tuple[int, int], np.ndarray] = {}
    real = judging.measure

    def noting(state: PartitionState, params, slots: np.ndarray, positions: np.ndarray):
        out = real(state, params, slots, positions)
        rows = state.rows[state.acc["off"][slots] + positions]
        for subject, leg, values in zip(
            state.acc["subject"][slots].tolist(), rows["leg"].tolist(), out, strict=True
        ):
            seen[subject, leg] = values.copy()
        return out

    judging.measure = noting
    try:
        yield seen
    finally:
        judging.measure = real


def by_name(values: np.ndarray) -> dict[str, int]:
    """One reading of one leg."""
    return {name: int(value) for name, value in zip(MEASURES, values, strict=True)}


@dataclass
class Published:
    """What receivers know: of each id, the output with the greatest cause."""

    latest: dict[str, tuple[tuple[int, int], str, bytes | None]] = field(default_factory=dict)
    listed: set[tuple[str, int, int]] = field(default_factory=set)
    said: int = 0

    def take(self, outputs: Sequence[Output]) -> None:
        """Receive some outputs."""
        for output in outputs:
            cause = (output.cause.offset, output.cause.index)
            if isinstance(output, Recommendation):
                self.said += 1
                self._keep(
                    output.body.recommendation_id,
                    cause,
                    f"{output.mode} {output.bank}",
                    body_bytes(output.body),
                )
            elif isinstance(output, Withdrawal):
                self._keep(output.recommendation_id, cause, "", None)
            elif isinstance(output, Listed):
                self.listed.add((output.reason, output.subject, output.leg))

    def _keep(self, name: str, cause: tuple[int, int], route: str, body: bytes | None) -> None:
        if name not in self.latest or self.latest[name][0] <= cause:
            self.latest[name] = (cause, route, body)

    def bodies(self) -> dict[str, tuple[str, bytes]]:
        """The final set: latest bodies that are not withdrawn, with where they went."""
        return {
            name: (route, body) for name, (_, route, body) in sorted(self.latest.items()) if body is not None
        }


@dataclass
class Store:
    """What is durable of one partition."""

    blobs: dict[int, bytes] = field(default_factory=dict)
    control: bytes | None = None
    head: bytes | None = None


def start(
    store: Store, partition: int, partitions: int, settings: FoldSettings, config: Config
) -> PartitionState:
    """A worker that has been given this partition: head, control, then every account."""
    state = new_state(partition, partitions, settings, config, capacity=16)
    if store.head is not None:
        state.load_head(store.head)
    if store.control is not None:
        load_control(state, store.control)
    for subject in sorted(store.blobs):
        state.load(subject, store.blobs[subject])
    return state


class Died(Exception):
    """The process was killed here."""


Deadly = Callable[[str], None]
"""Called before every durable write with what comes next; raises `Died` to kill the process there."""


def never(_: str) -> None:
    """A process that lives."""


Writes = deque[tuple[str, Callable[[], None]]]
"""What a flush has still to write, in order: its name, and the write."""


def begin_flush(state: PartitionState, store: Store, chunk: int = 2, control_first: bool = False) -> Writes:
    """Pack what changed: blobs in chunks, control, the head. Steps may follow before all of it is written."""

    def set_control(blob: bytes) -> None:
        store.control = blob

    def set_head(blob: bytes) -> None:
        store.head = blob

    subjects = np.sort(state.touched())
    packed = list(zip(subjects.tolist(), state.pack(subjects), strict=True))
    writes: Writes = deque()
    for at in range(0, len(packed), chunk):
        writes.append(("blobs", functools.partial(store.blobs.update, packed[at : at + chunk])))
    if state.control_changed:
        control = ("control", functools.partial(set_control, state.pack_control()))
        writes.insert(0 if control_first else len(writes), control)
    writes.append(("head", functools.partial(set_head, state.pack_head())))
    state.mark_flushed()
    return writes


def write(writes: Writes, deadly: Deadly, most: int = 10**9) -> None:
    """Write some of what a flush has still to write."""
    while writes and most > 0:
        name, now = writes.popleft()
        deadly(name)
        now()
        most -= 1
        if name == "head":
            deadly("flushed")


def flush(state: PartitionState, store: Store, deadly: Deadly, control_first: bool = False) -> None:
    """Write what changed before anything else happens."""
    write(begin_flush(state, store, control_first=control_first), deadly)


@dataclass
class Run:
    """What came of it all."""

    published: Published
    states: list[PartitionState]

    def totals(self) -> dict[str, int]:
        """Counters over all partitions."""
        sums: dict[str, int] = {}
        for state in self.states:
            for name, n in state.totals().items():
                sums[name] = sums.get(name, 0) + n
        return sums


def chances(rng: random.Random, often: float) -> Deadly:
    """A process that dies now and then."""

    def deadly(_: str) -> None:
        if rng.random() < often:
            raise Died

    return deadly


def run(
    entries: Sequence[Entry],
    *,
    partitions: int = 1,
    rows_per_frame: int = 10**9,
    frames_per_step: int = 10**9,
    flush_every: int = 10**9,
    deadly: Deadly = never,
    control_first: bool = False,
    controls_per_frame: int = 10**9,
    settings: FoldSettings = SETTINGS,
    config: Config | None = None,
    rng: random.Random | None = None,
    meanwhile: random.Random | None = None,
    gaps: Sequence[tuple[int, int]] = (),
) -> Run:
    """Take an arrival order through the fold. With `rng`, each step takes some frames by chance.

    With `meanwhile`, a flush is written piece by piece while further frames are judged. `gaps` are (since, history_from) of
    records that were lost before the first one.
    """
    config = config or sharp_config()
    out = Run(Published(), [])
    packed = ledger(entries, partitions, rows_per_frame, controls_per_frame=controls_per_frame)
    for partition, frames in enumerate(packed.frames):
        store = Store()
        while True:
            state = start(store, partition, partitions, settings, config)
            if store.head is None and gaps:
                state.head.gaps = [Gap(0, 0, since, history_from) for since, history_from in gaps]
                state.load_head(state.pack_head())
            try:
                _work(
                    state,
                    frames,
                    store,
                    out.published,
                    frames_per_step,
                    flush_every,
                    deadly,
                    rng,
                    control_first,
                    meanwhile,
                )
            except Died:
                continue
            break
        out.states.append(state)
    return out


def _work(
    state: PartitionState,
    frames: Sequence[Frame],
    store: Store,
    published: Published,
    frames_per_step: int,
    flush_every: int,
    deadly: Deadly,
    rng: random.Random | None,
    control_first: bool,
    meanwhile: random.Random | None,
) -> None:
    at = state.head.applied + 1
    steps = 0
    writes: Writes = deque()
    while at < len(frames):
        size = frames_per_step if rng is None else rng.randint(1, min(frames_per_step, 20))
        result = step(state, frames[at : at + size])
        at += size
        steps += 1
        deadly("publish")
        published.take(result.outputs)
        deadly("acks")
        if meanwhile is not None and writes:
            write(writes, deadly, meanwhile.randint(0, 3))
        if steps % flush_every == 0:
            write(writes, deadly)  # one flush at a time
            writes = begin_flush(state, store, control_first=control_first)
            if meanwhile is None:
                write(writes, deadly)


Bodies = dict[str, tuple[str, bytes]]


def difference(expected: Bodies, got: Bodies) -> str:
    """The ids in which two final sets differ, and in which fields of their bodies."""
    lines = [f"{len(expected)} expected, {len(got)} got"]
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) == got.get(name):
            continue
        one, other = (json.loads(side[name][1]) if name in side else {} for side in (expected, got))
        routes = [side[name][0] if name in side else "nothing" for side in (expected, got)]
        lines.append(f"{name}: expected {routes[0]}, got {routes[1]}")
        if not one or not other:
            some = one or other
            lines += [f"  {key}: {some[key]}" for key in ("action", "typology", "event_time", "continues")]
            continue
        lines += [f"  {key}: {one[key]}\n    got {other[key]}" for key in one if one[key] != other[key]]
    return "\n".join(lines)
