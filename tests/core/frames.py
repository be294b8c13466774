"""An order of arrival as the ledger frames of each partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.model import (
    COUNT,
    DAY,
    LEG,
    Control,
    Frame,
    Kind,
)
from detectors.partition import partition_of
from tests.core.strategies import Entry


def leg_row(entry: Entry, coordinate: int, source: int = 0, bank: int = 0) -> tuple:
    """One `LEG` row."""
    leg = entry.leg
    assert leg is not None
    return (
        entry.subject,
        leg.leg,
        leg.party,
        leg.time,
        leg.time,
        leg.amount,
        leg.u,
        0,
        coordinate,
        0,
        source,
        bank,
        b"EUR",
        leg.party_class,
        1,
        leg.channel,
        leg.purpose,
        leg.precision,
        leg.status,
        0,
        0,
    )


@dataclass
class Ledger:
    """The frames of each partition, in offset order."""

    partitions: int
    frames: list[list[Frame]]

    def legs(self) -> int:
        """Leg rows in all frames."""
        return sum(len(f.rows) for frames in self.frames for f in frames if f.kind == Kind.LEGS)


SOURCES = ("payments/0", "payments/1")
BANKS = ("bank",)


def ledger(
    entries: Sequence[Entry],
    partitions: int,
    rows_per_frame: int,
    *,
    controls_per_frame: int = 10**9,
    counts: bool = True,
) -> Ledger:
    """Pack an arrival order into frames: each transaction comes from one source message and makes one leg.

    The source coordinate is where the record stands in its source, and grows within each source.
    """
    out = Ledger(partitions, [[] for _ in range(partitions)])
    waiting: list[list[tuple]] = [[] for _ in range(partitions)]
    next_offset = [0] * len(SOURCES)

    def put(partition: int, kind: Kind, **content) -> None:
        offset = len(out.frames[partition])
        out.frames[partition].append(Frame(kind=kind, offset=offset, sources=SOURCES, banks=BANKS, **content))

    def flush(partition: int) -> None:
        rows = waiting[partition]
        if not rows:
            return
        put(partition, Kind.LEGS, rows=np.array(rows, LEG))
        if counts:
            told = [(row[8], row[10], row[3] // DAY, 1, 0, 0, 1) for row in rows]
            put(partition, Kind.COUNTS, rows=np.array(told, COUNT))
        waiting[partition] = []

    said: list[list[Control]] = [[] for _ in range(partitions)]
    kinds: list[Kind | None] = [None] * partitions

    def flush_controls(partition: int) -> None:
        if said[partition]:
            put(partition, kinds[partition], records=tuple(said[partition]))
            said[partition] = []

    for entry in entries:
        if entry.leg is not None:
            partition = partition_of(entry.subject, partitions)
            flush_controls(partition)
            source = entry.leg.leg % len(SOURCES)
            waiting[partition].append(leg_row(entry, next_offset[source] << 20, source))
            next_offset[source] += 1
            if len(waiting[partition]) >= rows_per_frame:
                flush(partition)
            continue
        assert entry.control is not None
        subject = getattr(entry.control, "subject", 0)
        where = [partition_of(subject, partitions)] if entry.of_one_account else range(partitions)
        for partition in where:
            flush(partition)
            if kinds[partition] != entry.kind or len(said[partition]) >= controls_per_frame:
                flush_controls(partition)
            kinds[partition] = entry.kind
            said[partition].append(entry.control)
    for partition in range(partitions):
        flush(partition)
        flush_controls(partition)
    return out
