"""Frames that stop their partition, and what people decide of them: the quarantine topic, read by every owner of a partition.

A ledger frame that cannot be read, or that the fold raises on, stops its partition. The owner says so here (`Stopped`). People
sign that the frame is set aside (`Signed`); two different ones are needed. The owner then writes the `Outcome`: what the fold
takes in the frame's place. Whoever reads the frame later, after a crash or in a rebuild years on, takes the same.

**The first outcome of an offset is the one that counts**, and a frame that is known to have stopped somebody is never passed
without one. So two owners (a zombie and its heir, an older and a newer version) cannot come to different answers, and a
signature that comes after the frame was applied changes nothing. The topic has one partition: its order is everybody's.
"""

from __future__ import annotations

import asyncio
import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from mode import Service

from detectors.model import (
    DAY,
    Decision,
    Fact,
    Frame,
    Kind,
    Quarantine,
    QuarantinedCount,
    QuarantinedLeg,
)
from streams import ledger
from streams.clients import KafkaOptions, make_producer

log = logging.getLogger(__name__)

ANSWER_SECONDS = 20.0
"""Longest wait for the broker, for one reading or writing."""

POLL_MS = 200
PEOPLE = 2
"""Different people that must sign."""


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped", tag_field="record"):
    """A partition stopped at a frame. Written by its owner."""

    generation: str
    partition: int
    offset: int
    problem: str
    digest: str
    kind: str = ""  # empty: not even the header can be read
    n: int = 0
    sources: tuple[str, ...] = ()


class Signed(msgspec.Struct, frozen=True, kw_only=True, tag="signed", tag_field="record"):
    """People say that a frame is set aside. Written by `safehold quarantine`."""

    generation: str
    partition: int
    offset: int
    by: tuple[str, ...]
    reason: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome", tag_field="record"):
    """What a frame that had stopped a partition became. Written by the owner, before it goes on."""

    generation: str
    partition: int
    offset: int
    quarantine: Quarantine | None = None
    """What the fold takes in its place. None: the frame itself was applied after all."""


Said = Stopped | Signed | Outcome
_decode = msgspec.json.Decoder(Said).decode


def encode(said: Said) -> bytes:
    """A record as a message."""
    return msgspec.json.encode(said)


@dataclass(slots=True)
class FrameCase:
    """All that was said of one frame that stopped its partition."""

    stopped: Stopped
    since: int
    """Append time of that, µs."""
    people: dict[str, str] = field(default_factory=dict)
    """Who signed, by name as it is compared."""
    reasons: list[str] = field(default_factory=list)
    signed_at: int = 0
    """Append time of the signature that completed it, µs; 0 = not complete."""
    outcome: Outcome | None = None
    decided_at: int = 0

    @property
    def signed(self) -> bool:
        """Whether enough people have signed."""
        return self.signed_at > 0

    @property
    def stands(self) -> bool:
        """Whether a partition stands still at it, as far as is known."""
        return self.outcome is None


class Cases:
    """The quarantine topic, folded in its order. Of another generation's records nothing is kept."""

    def __init__(self, generation: str) -> None:
        self.generation = generation
        self.all: dict[tuple[int, int], FrameCase] = {}
        """(partition, offset) → its case."""

    def take(self, value: bytes, appended: int) -> None:
        """Enter one message; what cannot be read is of a later version, or was written by another program."""
        try:
            said = _decode(value)
        except msgspec.MsgspecError:
            log.warning("a message of the quarantine topic cannot be read")
            return
        if said.generation != self.generation:
            return
        place = said.partition, said.offset
        case = self.all.get(place)
        if case is None:
            if isinstance(said, Stopped):  # a frame that has stopped nobody cannot be set aside
                self.all[place] = FrameCase(said, appended)
            return
        if case.outcome is not None:
            return
        if isinstance(said, Outcome):
            if (
                said.quarantine is not None and not case.signed
            ):  # no owner writes it: two people have to sign before
                log.warning(
                    "an unsigned quarantine counts for nothing",
                    extra={"partition": said.partition, "offset": said.offset},
                )
                return
            case.outcome, case.decided_at = said, appended
        elif isinstance(said, Signed) and not case.signed:
            self._sign(case, said, appended)

    @staticmethod
    def _sign(case: FrameCase, said: Signed, appended: int) -> None:
        for name in said.by:
            if person(name):
                case.people.setdefault(person(name), name.strip())
        case.reasons.append(said.reason)
        if len(case.people) >= PEOPLE:
            case.signed_at = appended

    def offsets(self, partition: int) -> set[int]:
        """Offsets at which this partition is known to have stopped."""
        return {offset for number, offset in self.all if number == partition}


def person(name: str) -> str:
    """A name as two of them are compared: one person must not sign twice by another spelling."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(
        letter for letter in folded if unicodedata.category(letter) != "Cf"
    )  # zero-width and the like
    return " ".join(seen.split())


class Quarantines(Protocol):
    """What a partition asks."""

    cases: Cases

    async def refresh(self) -> None:
        """Read the topic to its end. Raises KafkaError or TimeoutError."""

    async def append(self, said: Said) -> None:
        """Write a record, wait for it, and read the topic to its end."""


class QuarantineTopic(Service):
    """The topic, for the partitions of one process."""

    def __init__(self, *, topic: str, generation: str, options: KafkaOptions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cases = Cases(generation)
        self._place = TopicPartition(topic, 0)
        self._options = options
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()

    async def on_start(self) -> None:
        """Start the clients."""
        self._producer = make_producer(self._options)
        await self._producer.start()
        self._consumer = AIOKafkaConsumer(
            **self._options.client(), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await self._consumer.start()
        self._consumer.assign([self._place])

    async def on_stop(self) -> None:
        """Stop them."""
        for client in (self._consumer, self._producer):
            if client is not None:
                await client.stop()

    async def refresh(self) -> None:
        """Read the topic to its end."""
        consumer = self._consumer
        assert consumer is not None
        async with self._lock, asyncio.timeout(ANSWER_SECONDS):
            end = (await consumer.end_offsets([self._place]))[self._place]
            start = (await consumer.beginning_offsets([self._place]))[self._place]
            while end > start and await consumer.position(self._place) < end:
                for records in (await consumer.getmany(self._place, timeout_ms=POLL_MS)).values():
                    for record in records:
                        self.cases.take(record.value or b"", record.timestamp * 1000)

    async def append(self, said: Said) -> None:
        """Write a record, wait for it, and read the topic to its end."""
        assert self._producer is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._producer.send_and_wait(
                self._place.topic, encode(said), key_of(said), self._place.partition
            )
        await self.refresh()


def key_of(said: Said) -> bytes:
    """`generation/partition/offset`."""
    return f"{said.generation}/{said.partition}/{said.offset}".encode()


# -- from a frame to what stands in its place ---------------------------------------------------------------------------


def digest_of(value: bytes) -> str:
    """Of a ledger message: a quarantine is of this frame and no other."""
    return blake2b(value, digest_size=16).hexdigest()


def stopped_at(value: bytes, generation: str, partition: int, offset: int, problem: str) -> Stopped:
    """That a partition stopped at this message."""
    kind, header = _header(value)
    return Stopped(
        generation=generation,
        partition=partition,
        offset=offset,
        problem=problem,
        digest=digest_of(value),
        kind=kind,
        n=header.n,
        sources=header.sources,
    )


def in_place_of(
    value: bytes, case: FrameCase, belongs: tuple[str, str] | None, *, bare: bool = False
) -> Quarantine:
    """What the fold takes in the place of a message: whatever can be read of it. `bare`: nothing but its header."""
    stopped = case.stopped
    kind, header = _header(value)
    frame = None if bare else _frame(value, stopped.offset, belongs)
    counted = kind in (Kind.LEGS, Kind.COUNTS)
    return Quarantine(
        record_id=f"{stopped.generation}/{stopped.partition}/{stopped.offset}",
        effective_at=case.signed_at,
        by=tuple(case.people.values()),
        reason="; ".join(dict.fromkeys(case.reasons)),
        digest=digest_of(value),
        kind=kind,
        n=header.n,
        sources=header.sources,
        legs=_legs(frame),
        counts=_counts(frame),
        accounts=_accounts(frame),
        unread=header.n if counted and frame is None else 0,
    )


def frame_of(quarantine: Quarantine, offset: int) -> Frame:
    """As the fold takes it."""
    return Frame(kind=Kind.QUARANTINE, offset=offset, records=(quarantine,))


def _header(value: bytes) -> tuple[str, ledger.Header]:
    try:
        kind, header = ledger.peek_header(value)
    except ledger.LedgerError:
        return "", ledger.Header(0)
    return kind.value, header


def _frame(value: bytes, offset: int, belongs: tuple[str, str] | None) -> Frame | None:
    try:
        return ledger.decode(value, offset=offset, belongs=belongs)
    except ledger.LedgerError:
        return None


def _legs(frame: Frame | None) -> tuple[QuarantinedLeg, ...]:
    if frame is None or frame.kind is not Kind.LEGS:
        return ()
    rows = frame.rows
    columns = (rows["source"], rows["coordinate"], rows["received"] // DAY)
    return tuple(QuarantinedLeg(*row) for row in zip(*(c.tolist() for c in columns), strict=True))


def _counts(frame: Frame | None) -> tuple[QuarantinedCount, ...]:
    if frame is None or frame.kind is not Kind.COUNTS:
        return ()
    columns = [frame.rows[name].tolist() for name in QuarantinedCount.__struct_fields__]
    return tuple(QuarantinedCount(*row) for row in zip(*columns, strict=True))


def _accounts(frame: Frame | None) -> tuple[tuple[int, int, int], ...]:
    if frame is None:
        return ()
    if frame.kind is Kind.LEGS:
        return _spans(zip(frame.rows["subject"].tolist(), frame.rows["time"].tolist(), strict=True))
    return _spans(
        (record.subject, record.effective_at)
        for record in frame.records
        if isinstance(record, Fact | Decision)
    )


def _spans(records: Iterable[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    """Subject, earliest and latest time, by subject."""
    spans: dict[int, tuple[int, int]] = {}
    for subject, at in records:
        first, last = spans.get(subject, (at, at))
        spans[subject] = min(first, at), max(last, at)
    return tuple((subject, first, last) for subject, (first, last) in sorted(spans.items()))
