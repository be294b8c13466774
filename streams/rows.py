"""Leg and count rows on their way from the sources to the ledger: numbered names, merged and split by ledger partition.

A row numbers its source and its bank in 16 bits, and a frame's header says what the numbers mean. What is gathered may name
more banks than that, so a part carries wide numbers beside its rows, and `gather` gives them narrow ones, a set at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detectors.model import COUNT, LEG

MAX_NAMES = 1 << 16
"""Most banks, or sources, that the u16 columns of rows can number."""


class Part(NamedTuple):
    """Rows in source order. `legs["bank"]` says nothing: the bank of leg n is `banks[bank[n]]`."""

    legs: np.ndarray
    """`LEG` rows."""
    bank: np.ndarray
    """u32, one a leg: its place in `banks`."""
    counts: np.ndarray
    """`COUNT` rows."""
    sources: Sequence[str]
    """What `source` of both kinds of row numbers."""
    banks: Sequence[str]
    """May hold names that no row has."""


class Rows(NamedTuple):
    """What one set of names holds, ready to be sent."""

    legs: dict[int, np.ndarray]
    """Ledger partition → `LEG` rows, in source order."""
    counts: dict[int, np.ndarray]
    """Ledger partition → `COUNT` rows, in source order."""
    sources: tuple[str, ...]
    banks: tuple[str, ...]


def partitions_of(subjects: np.ndarray, partitions: int) -> np.ndarray:
    """`detectors.partition.partition_of` for a whole column; the two are tested against each other."""
    with np.errstate(over="ignore"):
        z = subjects + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) % np.uint64(partitions)).astype(np.int64)


def counts_partition(source: str, partitions: int) -> int:
    """Ledger partition that holds the counts of one source partition (`topic/partition`)."""
    tail = source.rpartition("/")[2]
    return int(tail) % partitions if tail.isascii() and tail.isdigit() else 0


def gather(parts: Iterable[Part], partitions: int) -> list[Rows]:
    """The rows of all parts, in their order: as few sets of names as the 16 bits allow."""
    everything: list[Rows] = []
    at_hand = _Set()
    for part in parts:
        for piece in _pieces(part):
            if not at_hand.take(piece):
                everything.append(at_hand.rows(partitions))
                at_hand = _Set()
                at_hand.take(piece)
    everything.append(at_hand.rows(partitions))
    return everything


class _Set:
    """Pieces under one set of names."""

    def __init__(self) -> None:
        self._legs: list[np.ndarray] = []
        self._bank: list[np.ndarray] = []
        self._source: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._count_source: list[np.ndarray] = []
        self._sources: dict[str, int] = {}
        self._banks: dict[str, int] = {}

    def take(self, piece: Part) -> bool:
        """Add a piece. False, and nothing is added, when its names do not fit in."""
        used = _used(piece.bank, len(piece.banks))
        names = [piece.banks[number] for number in used.tolist()]
        if not (_fit(self._banks, names) and _fit(self._sources, piece.sources)):
            return False
        banks = np.array([self._banks.setdefault(name, len(self._banks)) for name in names], np.uint16)
        sources = np.array(
            [self._sources.setdefault(s, len(self._sources)) for s in piece.sources], np.uint16
        )
        one = len(names) == 1
        self._legs.append(piece.legs)
        self._bank.append(
            np.full(len(piece.legs), banks[0]) if one else banks[np.searchsorted(used, piece.bank)]
        )
        self._source.append(sources[piece.legs["source"]])
        self._counts.append(piece.counts)
        self._count_source.append(sources[piece.counts["source"]])
        return True

    def rows(self, partitions: int) -> Rows:
        """All that was taken."""
        legs = np.concatenate([np.zeros(0, LEG), *self._legs])
        legs["bank"], legs["source"] = _all(self._bank), _all(self._source)
        counts = np.concatenate([np.zeros(0, COUNT), *self._counts])
        counts["source"] = _all(self._count_source)
        places = np.array([counts_partition(source, partitions) for source in self._sources], np.int64)
        return Rows(
            _split(legs, partitions_of(legs["subject"], partitions)),
            _split(counts, places[counts["source"]]),
            tuple(self._sources),
            tuple(self._banks),
        )


def _all(columns: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.uint16), *columns])


def _fit(known: dict[str, int], names: Sequence[str]) -> bool:
    return len(known) + len(names) <= MAX_NAMES or len(known.keys() | set(names)) <= MAX_NAMES


def _used(numbers: np.ndarray, most: int) -> np.ndarray:
    """The distinct numbers, in order."""
    if most <= 4 * len(numbers):
        return np.flatnonzero(np.bincount(numbers, minlength=most))
    return np.unique(numbers)


def _pieces(part: Part) -> Iterator[Part]:
    """The part, cut where its legs name more banks than one set holds. Its counts go with the last piece."""
    if len(part.legs) <= MAX_NAMES or len(_used(part.bank, len(part.banks))) <= MAX_NAMES:
        yield part
        return
    none = part.counts[:0]
    last = (len(part.legs) - 1) // MAX_NAMES * MAX_NAMES
    for first in range(0, len(part.legs), MAX_NAMES):
        until = first + MAX_NAMES
        yield part._replace(
            legs=part.legs[first:until],
            bank=part.bank[first:until],
            counts=part.counts if first == last else none,
        )


def _split(rows: np.ndarray, places: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each partition, in their order."""
    if not len(rows):
        return {}
    if int(places.max()) < 1 << 16:  # sixteen bits are sorted by radix, ten times as fast
        places = places.astype(np.uint16)
    order = np.argsort(places, kind="stable")
    rows, places = rows[order], places[order]
    first = np.flatnonzero(np.diff(places.astype(np.int64), prepend=-1))
    return dict(zip(places[first].tolist(), np.split(rows, first[1:]), strict=True))
