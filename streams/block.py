"""What a fetch of one source partition becomes: its messages by column, their rows, and what was refused of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from detectors.model import COUNT, DAY, LEG, PRECISION_US
from streams.aligned import ALWAYS
from streams.board import NEVER
from streams.formats.plain import PlainReader
from streams.legs import COORDINATE_BITS, LegBuilder
from streams.payment import FUTURE_TOLERANCE, Payment, Reason, Rejected
from streams.publish import AS_OF
from streams.rows import Part

Items = list[Payment | Rejected]

_AHEAD = tuple(FUTURE_TOLERANCE + (step if step > 1 else 0) for step in PRECISION_US)
"""How far ahead of its record a payment may be dated, by precision: the rule of `streams.legs`."""

PLAIN_FROM = 32
"""Messages of a fetch from which reading them by column costs less than one by one: 0.2 ms. A quiet stream brings fewer."""

AS_OF_DIGITS = 16
"""Of a time in µs: up to the year 2286. More would not fit into a row, and stop intake at that message for good."""


class Record(Protocol):
    """The parts of a consumer record that are used."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Feed:
    """How the messages of one bank topic are read."""

    topic: str
    decode: Callable[[bytes], Items]
    system_wide: bool = False
    learn: bool = False
    max_bytes: int = 16 * 1024 * 1024
    plain: PlainReader | None = None
    """Reads what is plain, many messages at a time; `decode` the rest."""


class Refused(NamedTuple):
    """A message of which something was refused."""

    offset: int
    received: int
    value: bytes
    key: bytes | None
    transactions: int
    rejects: Sequence[Rejected]


class Block(NamedTuple):
    """n messages of one source partition, in source order."""

    offset: np.ndarray
    """i64 (n)"""
    earliest: np.ndarray
    """i64 (n): smallest event time in the message; NEVER when nothing of it counts."""
    latest: np.ndarray
    """i64 (n): greatest one."""
    bytes_until: np.ndarray
    """i64 (n + 1): bytes of the messages before each."""
    leg_until: np.ndarray
    """i64 (n + 1): legs of the messages before each."""
    part: Part
    """Legs, and one count row a message."""
    refused: Sequence[Refused]

    def __len__(self) -> int:
        return len(self.offset)

    def rows(self, first: int, until: int) -> Part:
        """Legs and counts of messages [first, until)."""
        legs = slice(int(self.leg_until[first]), int(self.leg_until[until]))
        return self.part._replace(
            legs=self.part.legs[legs], bank=self.part.bank[legs], counts=self.part.counts[first:until]
        )

    def refusals(self, first: int, until: int) -> list[Refused]:
        """What was refused of messages [first, until)."""
        low, high = int(self.offset[first]), int(self.offset[until - 1])
        return [each for each in self.refused if low <= each.offset <= high]


class Times(NamedTuple):
    """Smallest and greatest event time of a message."""

    earliest: int
    latest: int


def times_of(items: Items, received: int) -> Times:
    """The event times of a message, without those of payments that will be refused as future-dated.

    One such payment would else move its partition's position far ahead of what it really gives, and everybody with it.
    """
    earliest, latest = ALWAYS, NEVER
    for item in items:
        if type(item) is Payment:
            time = item.time
            if time <= received + _AHEAD[item.precision]:
                earliest = time if time < earliest else earliest
                latest = time if time > latest else latest
    return Times(NEVER if latest == NEVER else earliest, latest)


class BlockReader:
    """Of one intake."""

    def __init__(self, builder: LegBuilder, plain_from: int = PLAIN_FROM) -> None:
        self._builder = builder
        self._plain_from = plain_from

    def read(self, source: str, feed: Feed, records: Sequence[Any]) -> Block:
        """The messages of one fetch of `source` (`topic/partition`). Records: `Record`, in source order, at least one."""
        size = len(records)
        offset = np.fromiter((record.offset for record in records), np.int64, size)
        received = np.fromiter((record.timestamp for record in records), np.int64, size) * 1000
        for number, record in enumerate(records):
            if record.headers:
                received[number] = as_of(record.headers, int(received[number]))
        lengths = np.fromiter((len(record.value or b"") for record in records), np.int64, size)
        earliest, latest = np.full(size, NEVER, np.int64), np.full(size, NEVER, np.int64)
        parts: list[Part] = []
        slow: list[int] = [*range(size)]
        if feed.plain is not None and size >= self._plain_from:
            values = [record.value for record in records]
            for number in np.flatnonzero(lengths > feed.max_bytes).tolist():
                values[number] = b""
            plain = feed.plain.read(values, offset, received)
            plain.legs["learn"] = feed.learn
            taken = np.flatnonzero(plain.taken)
            slow = np.flatnonzero(~plain.taken).tolist()
            earliest[taken] = latest[taken] = plain.time[taken]
            makes = np.bincount(
                np.searchsorted(offset, plain.legs["coordinate"] >> COORDINATE_BITS), minlength=size
            )
            counts = np.zeros(len(taken), COUNT)
            counts["coordinate"] = offset[taken] << COORDINATE_BITS
            counts["day"] = received[taken] // DAY
            counts["accepted"] = 1
            counts["no_effect"] = plain.no_effect[taken]
            counts["no_leg"] = 2 - makes[taken]
            parts.append(Part(plain.legs, plain.bank, counts, (source,), plain.banks))
        refused: list[Refused] = []
        for number in slow:
            record, at = records[number], int(received[number])
            items = self._items(feed, record)
            rejects = self._builder.add(
                items, source, record.offset, at, system_wide=feed.system_wide, learn=feed.learn
            )
            earliest[number], latest[number] = times_of(items, at)
            if rejects:
                refused.append(
                    Refused(record.offset, at, record.value or b"", record.key, len(items), rejects)
                )
        if slow:
            parts += self._builder.take_parts()
        part = _merged(parts)
        return Block(
            offset,
            earliest,
            latest,
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate(
                [np.searchsorted(part.legs["coordinate"], offset << COORDINATE_BITS), [len(part.legs)]]
            ),
            part,
            refused,
        )

    def _items(self, feed: Feed, record: Any) -> Items:
        value = record.value
        if value is None:
            return [Rejected(Reason.UNDECODABLE, "a message without a value")]
        if len(value) > feed.max_bytes:
            return [Rejected(Reason.OVERSIZED, f"more than {feed.max_bytes} bytes")]
        try:
            return feed.decode(value)
        except Exception as problem:  # noqa: BLE001 - a decoder's mistake may cost this message, never the next
            return [Rejected(Reason.UNDECODABLE, f"decoder failed: {type(problem).__name__}")]


def _merged(parts: Sequence[Part]) -> Part:
    """Parts of one source as one, in the order of their coordinates."""
    parts = [part for part in parts if len(part.counts)]
    if len(parts) == 1:
        return parts[0]
    shift = np.cumsum([0, *(len(part.banks) for part in parts)])
    legs = np.concatenate([np.zeros(0, LEG), *(part.legs for part in parts)])
    bank = np.concatenate(
        [np.zeros(0, np.uint32), *(p.bank + np.uint32(n) for p, n in zip(parts, shift, strict=False))]
    )
    counts = np.concatenate([part.counts for part in parts])
    order = np.argsort(legs["coordinate"], kind="stable")
    return Part(
        legs[order],
        bank[order],
        counts[np.argsort(counts["coordinate"], kind="stable")],
        parts[0].sources,
        [bank for part in parts for bank in part.banks],
    )


def as_of(headers: Sequence[tuple[str, bytes | None]], received: int) -> int:
    """The append time that a replay says its records had. Anybody may write headers: what is no moment does not count."""
    for name, value in headers:
        if name == AS_OF and value is not None and value.isdigit() and len(value) <= AS_OF_DIGITS:
            return int(value)
    return received
