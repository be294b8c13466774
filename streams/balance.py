"""The balance, from the stored heads: per source partition and day nothing is lost and nothing counted twice.

    received = accepted + rejected
    2 x accepted = sides without a leg + judged + late + duplicate + conflict + legs at hubs + quarantined

The counts of a message are in one ledger partition and its legs in others, and heads are written one by one: while work is
on its way a sum may be off. So a day is broken only if it is off, has not changed for a while, and everything that the ledger
held when it was first seen so is applied. A break stays until the heads balance.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError
from mode import Service

from detectors.state import COUNTERS, Head, decode_head
from streams.metrics import Metrics
from streams.state.base import StateStore, StoreError

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
SETTLED_SECONDS = 600.0
"""Longer than any append takes between its legs and their counts."""

OUTCOMES = ("judged", "late", "duplicate", "conflict", "hub", "quarantined")

Day = tuple[str, int]
"""Source partition, and day since 1970 on which its messages arrived."""


def add_up(heads: Iterable[Head]) -> dict[Day, dict[str, int]]:
    """The counters of all heads, by source partition and day."""
    found: dict[Day, dict[str, int]] = {}
    for head in heads:
        for source, days in head.counters.items():
            for day, values in days.items():
                sums = found.setdefault((source, int(day)), dict.fromkeys(COUNTERS, 0))
                for name, value in zip(COUNTERS, values, strict=True):
                    sums[name] += value
    return found


def difference(sums: Mapping[str, int]) -> str:
    """What is wrong with the counts of a day, each term named; empty = they balance."""
    problems = []
    if sums["received"] != sums["accepted"] + sums["rejected"]:
        problems.append(
            f"received {sums['received']} is not accepted {sums['accepted']} + rejected {sums['rejected']}"
        )
    if 2 * sums["accepted"] != sums["no_leg"] + sum(sums[name] for name in OUTCOMES):
        terms = " + ".join(f"{name.replace('_', ' ')} {sums[name]}" for name in ("no_leg", *OUTCOMES))
        problems.append(f"2 x accepted {sums['accepted']} is not {terms}")
    return "; ".join(problems)


def set_aside(heads: Mapping[int, Head], source: str) -> str:
    """Quarantined frames whose rows cannot be read and may be of this source, in words; empty = there are none."""
    found = [
        f"frame {frame.offset} of ledger partition {partition}"
        + (f" with {frame.unread} rows" if frame.kind else ", of which nothing is known")
        for partition, head in sorted(heads.items())
        for frame in head.quarantined
        if (frame.unread or not frame.kind) and (source in frame.sources or not frame.sources)
    ]
    return f"; set aside and not readable: {', '.join(found)}" if found else ""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A day that is off: since when it has not changed, and where the ledger ended then."""

    since: float
    sums: dict[str, int]
    ends: Mapping[int, int]


class Balance:
    """Looks at the heads again and again. `ends` are ledger partition → offset of its last record."""

    def __init__(self, settled: float = SETTLED_SECONDS) -> None:
        self.broken: dict[Day, str] = {}
        self._settled = settled
        self._off: dict[Day, _Seen] = {}

    def look(self, heads: Mapping[int, Head], ends: Mapping[int, int], now: float) -> list[Day]:
        """Days that are found broken now and were not before. `ends` must have been asked before the heads were read."""
        off: dict[Day, _Seen] = {}
        problems: dict[Day, str] = {}
        for day, sums in add_up(heads.values()).items():
            problem = difference(sums)
            if problem:
                problems[day] = problem + set_aside(heads, day[0])
                before = self._off.get(day)
                off[day] = before if before and before.sums == sums else _Seen(now, sums, ends)
        self._off = off
        applied = {partition: head.applied for partition, head in heads.items()}
        broken = {
            day: problems[day]
            for day, seen in off.items()
            if now - seen.since >= self._settled
            and all(applied.get(partition, -1) >= end for partition, end in seen.ends.items())
        }
        fresh = sorted(broken.keys() - self.broken.keys())
        self.broken = broken
        return fresh


class Reconciler(Service):
    """Asks for the balance once a minute. All heads are needed, so one worker does it: the one with ledger partition 0."""

    def __init__(
        self,
        *,
        store: StateStore,
        partitions: int,
        ends: Callable[[], Awaitable[Mapping[int, int]]],
        mine: Callable[[], bool],
        metrics: Metrics,
        every: float = EVERY_SECONDS,
        settled: float = SETTLED_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.turned_at = time.monotonic()
        self._store = store
        self._partitions = partitions
        self._ends = ends
        self._mine = mine
        self._metrics = metrics
        self._every = every
        self._settled = settled
        self._balance = Balance(settled)

    @Service.task
    async def _run(self) -> None:
        while not self.should_stop:
            self.turned_at = time.monotonic()
            try:
                await self.look()
            except (StoreError, KafkaError, TimeoutError) as problem:
                # Whoever needs them for more than this says so.
                log.info("balance not asked", extra={"problem": type(problem).__name__})
            await self.sleep(self._every)

    async def look(self) -> None:
        """One look, if it is ours to take."""
        if not self._mine():
            self._balance = Balance(self._settled)
            self._metrics.balance_breaks.set(0)
            return
        ends = await self._ends()
        heads = {}
        for partition in range(self._partitions):
            blob = await self._store.load_head(partition)
            if blob is not None:
                heads[partition] = decode_head(blob)
        for source, day in self._balance.look(heads, ends, time.monotonic()):
            problem = self._balance.broken[source, day]
            log.error(
                "counts do not balance", extra={"source": source, "day": _date(day), "problem": problem}
            )
        self._metrics.balance_breaks.set(len(self._balance.broken))


def _date(day: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))
