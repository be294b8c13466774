"""Dated control records: what was in force at a time, whatever order the records came in.

Every collection here is a function of the set of its records: inserting them in another order gives the same answers.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import Generic, TypeVar

import msgspec
import numpy as np

from detectors.model import Flag, FlagState
from detectors.window import ALWAYS, NEVER

T = TypeVar("T")


class Dated(Generic[T]):
    """Values by `(effective_at, record_id)`; the latest one at or before a time is in force."""

    def __init__(self, first: T) -> None:
        self._keys: list[tuple[int, str]] = [(NEVER, "")]
        self._values: list[T] = [first]

    def add(self, effective_at: int, record_id: str, value: T) -> bool:
        """Insert a value; False when that record is known."""
        key = (effective_at, record_id)
        i = bisect_right(self._keys, key)
        if self._keys[i - 1] == key:
            return False
        self._keys.insert(i, key)
        self._values.insert(i, value)
        return True

    def at(self, time: int) -> T:
        """The value in force at a time."""
        return self._values[self.index(time)]

    def index(self, time: int) -> int:
        """Number of the value in force at a time, in order of effect."""
        i = bisect_right(self._keys, (time, "\U0010ffff"))
        return i - 1

    def indices(self, times: np.ndarray) -> np.ndarray:
        """`index` of each time."""
        return np.searchsorted(self.starts(), times, side="right") - 1

    def starts(self) -> np.ndarray:
        """Times from which the values are in force, in order; the first before all times."""
        return np.array([k[0] for k in self._keys], np.int64)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, i: int) -> T:
        return self._values[i]


class FlagInterval(msgspec.Struct, frozen=True):
    """A stretch of time in which a flag counts: `from <= t < until`."""

    start: int
    until: int
    flag_id: str


class FlagRegistry:
    """The flags of a partition, and the intervals in which each counts (docs/state.md, "A flag counts at e").

    A confirmed flag counts until its expiry. A withdrawal, dispute or expiry record dated w ends it, and takes it back for
    everything after w - O: what was still open at w is judged as if the flag had never been set.
    """

    def __init__(self, open_for: int) -> None:
        self._open_for = open_for
        self._states: dict[
            tuple[int, str], list[Flag]
        ] = {}  # by account and flag id: two partners may number alike
        self._intervals: dict[int, list[FlagInterval]] = {}
        self._stale = True

    def add(self, flag: Flag) -> int | None:
        """Enter one state of a flag. Returns the earliest time whose answer may change, None = nothing changes."""
        states = self._states.setdefault((flag.party, flag.flag_id), [])
        if any(s.record_id == flag.record_id and s.effective_at == flag.effective_at for s in states):
            return None
        before = self._of(states)
        insort(states, flag, key=lambda s: (s.effective_at, s.record_id))
        after = self._of(states)
        if before == after:
            return None
        self._stale = True
        return min(_edges(before, after))

    def _of(self, states: list[Flag]) -> list[FlagInterval]:
        """Intervals of one flag from its states in order: each confirmation replaces the one before it."""
        intervals: list[FlagInterval] = []
        confirmed: Flag | None = None
        for s in states:
            if s.state is FlagState.PROPOSED:
                continue
            if confirmed is not None:
                until = min(_expiry(confirmed), s.effective_at)
                intervals.append(FlagInterval(confirmed.effective_at, until, s.flag_id))
                confirmed = None
            if s.state is FlagState.CONFIRMED:
                confirmed = s
            else:  # taken back also for what was still open at its date
                last = s.effective_at - self._open_for + 1
                intervals = [FlagInterval(i.start, min(i.until, last), i.flag_id) for i in intervals]
        if confirmed is not None:
            intervals.append(FlagInterval(confirmed.effective_at, _expiry(confirmed), confirmed.flag_id))
        return [i for i in intervals if i.start < i.until]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(party u8, start i8, until i8) of every interval, sorted by party: what the kernel looks counterparties up in."""
        if self._stale:
            self._intervals = {}
            for party, flag_id in sorted(self._states):
                for interval in self._of(self._states[party, flag_id]):
                    self._intervals.setdefault(party, []).append(interval)
            rows = sorted(
                (party, i.start, i.until) for party, intervals in self._intervals.items() for i in intervals
            )
            self._party = np.array([r[0] for r in rows], np.uint64)
            self._start = np.array([r[1] for r in rows], np.int64)
            self._until = np.array([r[2] for r in rows], np.int64)
            self._stale = False
        return self._party, self._start, self._until

    def counting(self, time: int) -> dict[int, tuple[str, ...]]:
        """Flag ids that count at a time, by counterparty."""
        self.arrays()
        found = {
            party: tuple(sorted(i.flag_id for i in intervals if i.start <= time < i.until))
            for party, intervals in self._intervals.items()
        }
        return {party: ids for party, ids in found.items() if ids}


def _edges(before: list[FlagInterval], after: list[FlagInterval]) -> list[int]:
    """Times from which two sets of intervals differ: where one of them alone begins, or ends earlier."""
    ends = {i.start: i.until for i in before}
    others = {i.start: i.until for i in after}
    return [
        min(ends[start], others[start]) if start in ends and start in others else start
        for start in ends.keys() | others.keys()
        if ends.get(start) != others.get(start)
    ]


def _expiry(flag: Flag) -> int:
    return ALWAYS if flag.expires is None else flag.expires
