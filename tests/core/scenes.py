"""Short scenes written by hand, and one worker to play them to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import count

import numpy as np

from detectors.config import Config
from detectors.model import (
    DAY,
    LEG,
    Control,
    Frame,
    Kind,
    PartyClass,
    Status,
)
from detectors.settings import FoldSettings
from detectors.step import StepResult, step
from tests.core.driver import (
    SETTINGS,
    Published,
    Store,
    by_name,
    flush,
    never,
    sharp_config,
    start,
)
from tests.core.frames import leg_row
from tests.core.strategies import START, Entry
from tests.core.twin_rows import Leg

U = 100
ACCOUNT = 0xACC0
A, B, C, D, E = 0xA, 0xB, 0xC, 0xD, 0xE
DENSE = FoldSettings(keep=16, observed_since=START - 400 * DAY, hub_bucket_legs=16, hub_counterparties=1000)
"""Buckets of sixteen legs are dense."""

_ids = count(1_000)


def leg(side: int, at: int, u: int, party: int, **more: int) -> Leg:
    """One leg at START + `at`; ids grow in the order of writing."""
    more.setdefault("party_class", PartyClass.PERSONAL)
    return Leg(leg=next(_ids) << 1 | side, time=START + at, amount=u * U, party=party, **more)


def credit(at: int, u: int, party: int, **more: int) -> Leg:
    """Money in."""
    return leg(1, at, u, party, **more)


def debit(at: int, u: int, party: int, **more: int) -> Leg:
    """Money out."""
    return leg(0, at, u, party, **more)


def crowd(at: int, n: int, first: int = 0x100) -> list[Leg]:
    """`n` people pay in, a minute apart: three of them are enough for a recommendation."""
    return [credit(at + i * 60_000_000, 20, first + i) for i in range(n)]


def returned(original: Leg, after: int = 0) -> Leg:
    """The return of a leg."""
    return changed(original, status=Status.RETURNED, time=original.time + after)


def changed(original: Leg, **changes: int) -> Leg:
    """A copy of a leg with some fields changed."""
    return dataclasses.replace(original, **changes)


class Worker:
    """One partition, fed frame by frame; it can be killed and started again between any two."""

    def __init__(self, fold: FoldSettings = SETTINGS, config: Config | None = None) -> None:
        self.fold = fold
        self.config = config or sharp_config()
        self.store = Store()
        self.state = start(self.store, 0, 1, fold, self.config)
        self.published = Published()
        self.results: list[StepResult] = []
        self.coordinate = 0
        self.offset = 0

    def legs(
        self, *legs: Leg, coordinates: Sequence[int] | None = None, subject: int = ACCOUNT
    ) -> StepResult:
        """A frame of legs, each from a source message of its own."""
        if coordinates is None:
            coordinates = range(self.coordinate, self.coordinate + len(legs))
            self.coordinate += len(legs)
        rows = [
            leg_row(Entry(one.time, subject, leg=one), c << 20)
            for one, c in zip(legs, coordinates, strict=True)
        ]
        return self._step(
            Frame(kind=Kind.LEGS, offset=self.offset, sources=("s/0",), rows=np.array(rows, LEG))
        )

    def say(self, *records: Control) -> StepResult:
        """A frame of control records."""
        kind = Entry(0, control=records[0]).kind
        return self._step(Frame(kind=kind, offset=self.offset, records=records))

    def _step(self, frame: Frame) -> StepResult:
        self.offset += 1
        result = step(self.state, [frame])
        self.published.take(result.outputs)
        self.results.append(result)
        return result

    def restart(self) -> None:
        """Flush everything, die, start again. What is loaded has no room to spare, so the next leg closes."""
        flush(self.state, self.store, never)
        self.state = start(self.store, 0, 1, self.fold, self.config)

    def bodies(self) -> list[dict]:
        """The final set, by event time."""
        found = [json.loads(body) for _, body in self.published.bodies().values()]
        return sorted(found, key=lambda body: (body["event_time"], body["typology"]))

    def outputs(self, kind: type) -> list:
        """All outputs of a kind."""
        return [o for result in self.results for o in result.outputs if isinstance(o, kind)]


def measure_of(one: Leg, seen: dict, reading: int = 0, subject: int = ACCOUNT) -> dict[str, int]:
    """The newest measures of a leg."""
    return by_name(seen[subject, one.leg][reading])
