"""The determinism contract on real parts: one file in several orders, the bodies of `safehold judge` every time."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detectors.model import HOUR, Kind
from detectors.state import COUNTERS, Head
from streams import ledger
from streams.formats import canonical
from streams.latest import Latest
from streams.opening import Opened
from streams.payment import Payment
from streams.replay import key_of
from tests.e2e.harness import PARTITIONS, SOURCES, Installation
from tests.e2e.worker import STOOD

AHEAD = 20_000
"""Sends that may wait for their acknowledgement."""


@dataclass(frozen=True, slots=True)
class Messages:
    """The payments of a file as canonical messages, in the order of the file."""

    times: tuple[int, ...]
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]

    @classmethod
    def of(cls, payments: Opened) -> Messages:
        """Of every row that is a payment."""
        return cls.of_payments(
            [item for batch in payments.payments() for item in batch if isinstance(item, Payment)]
        )

    @classmethod
    def of_payments(cls, items: Sequence[Payment]) -> Messages:
        """Of these, in this order."""
        return cls(
            tuple(item.time for item in items),
            tuple(key_of(item) for item in items),
            tuple(canonical.encode(item) for item in items),
        )


def shuffled(times: Sequence[int], lateness: int, seed: int) -> list[int]:
    """A random order in which no payment comes more than `lateness` behind the greatest time before it.

    Each payment is late by a random time below `lateness`: of two that change places, the times differ by less than that.
    """
    rng = random.Random(seed)
    arrival = [time + rng.randrange(lateness) for time in times]
    return sorted(range(len(times)), key=arrival.__getitem__)


@dataclass(frozen=True, slots=True)
class Disorder:
    """How far an order is from the file's, and what that leaves of the premise."""

    behind: int
    """Most that a payment comes behind the greatest time before it, µs."""
    overtaken: int
    """Payments that come after a later one."""


def disorder(times: Sequence[int], order: Sequence[int]) -> Disorder:
    """Of the payments in this order."""
    front, behind, overtaken = times[order[0]], 0, 0
    for place in order:
        time = times[place]
        if time > front:
            front = time
        elif time < front:
            overtaken += 1
            behind = max(behind, front - time)
    return Disorder(behind, overtaken)


async def send(installation: Installation, messages: Messages, order: Sequence[int]) -> None:
    """As fast as it goes, in this order, to partitions by key."""
    producer = AIOKafkaProducer(
        bootstrap_servers=installation.broker.bootstrap,
        enable_idempotence=True,
        max_batch_size=262_144,
        linger_ms=5,
        compression_type="lz4",
    )
    await producer.start()
    try:
        waiting: list[Any] = []
        for place in order:
            waiting.append(
                await producer.send(installation.topic, messages.values[place], key=messages.keys[place])
            )
            if len(waiting) == AHEAD:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)
    finally:
        await producer.stop()


def bodies_of(recommendations: Path) -> list[bytes]:
    """The bodies in a recommendations.jsonl of `safehold judge`, byte for byte as a worker writes them, by id."""
    found = []
    for line in recommendations.read_bytes().splitlines():
        document = msgspec.json.decode(line)
        del document["event_time_iso"]  # added for people
        found.append((document["recommendation_id"], msgspec.json.encode(document, order="sorted")))
    return [body for _, body in sorted(found)]


@dataclass
class Outcome:
    """What a run left behind."""

    counters: dict[str, int]
    ledger_legs: int
    source_messages: dict[str, int]
    bodies: list[bytes]
    said: int
    """Messages in the review and observe topics, those taken back or said again included."""
    unbalanced: list[str]
    stood: dict[str, Any] = field(default_factory=dict)

    def problems(self, wanted: Sequence[bytes], messages: int) -> list[str]:
        """Everything that breaks the contract, in words."""
        found = list(self.unbalanced)
        for name in ("late", "duplicate", "conflict", "rejected", "redelivered"):
            if self.counters.get(name):
                found.append(f"{self.counters[name]} {name}")
        if self.counters["received"] != messages:
            found.append(f"{self.counters['received']} of {messages} received")
        mine, theirs = {_id(body): body for body in self.bodies}, {_id(body): body for body in wanted}
        if missing := sorted(theirs.keys() - mine.keys()):
            found.append(f"{len(missing)} recommendations are missing: {missing[:3]}")
        if extra := sorted(mine.keys() - theirs.keys()):
            found.append(f"{len(extra)} recommendations too many: {extra[:3]}")
        differing = sorted(key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key])
        if differing:
            found.append(f"{len(differing)} bodies differ: {differing[:3]}")
        return found


def _id(body: bytes) -> str:
    return str(msgspec.json.decode(body)["recommendation_id"])


async def outcome(installation: Installation) -> Outcome:
    """Read everything back, from the topics and the heads in the store."""
    heads = await installation.heads()
    counters = await installation.counters()
    ends = await _ends(installation)
    legs: dict[str, int] = {}
    for record in await installation.read(installation.names.ledger):
        frame = ledger.decode(record.value, offset=record.offset)
        if frame.kind is Kind.LEGS:
            for number, name in enumerate(frame.sources):
                legs[name] = legs.get(name, 0) + int((frame.rows["source"] == number).sum())
    # A recommendation about an account of a bank without a review topic is in the observe topic, marked as unrouted.
    topics = (installation.names.review(installation.bank), installation.names.observe)
    latest, said = Latest(), 0
    for topic in topics:
        for record in await installation.read(topic):
            latest.add(record.value, list(record.headers))
            said += 1
    return Outcome(
        counters=counters,
        ledger_legs=sum(legs.values()),
        source_messages=ends,
        bodies=latest.bodies(),
        said=said,
        unbalanced=imbalance(heads, ends, legs),
    )


async def _ends(installation: Installation) -> dict[str, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.broker.bootstrap)
    await consumer.start()
    try:
        places = [TopicPartition(installation.topic, number) for number in range(SOURCES)]
        ends = await consumer.end_offsets(places)
        return {f"{place.topic}/{place.partition}": int(end) for place, end in ends.items()}
    finally:
        await consumer.stop()


def imbalance(heads: dict[int, Head], messages: dict[str, int], ledger_legs: dict[str, int]) -> list[str]:
    """The balance, per source partition and day, against what the source topic and the ledger really hold."""
    found = []
    for source, sent in messages.items():
        days: dict[int, dict[str, int]] = {}
        for head in heads.values():
            for day, row in head.counters.get(source, {}).items():
                sums = days.setdefault(int(day), dict.fromkeys(COUNTERS, 0))
                for name, count in zip(COUNTERS, row, strict=True):
                    sums[name] += count
        received = legs = 0
        for day, sums in sorted(days.items()):
            mine = sum(sums[name] for name in ("judged", "late", "duplicate", "conflict", "hub"))
            received, legs = received + sums["received"], legs + mine
            if sums["received"] != sums["accepted"] + sums["rejected"]:
                found.append(f"{source}, day {day}: received is not accepted + rejected: {sums}")
            if 2 * sums["accepted"] != mine + sums["no_leg"]:
                found.append(f"{source}, day {day}: 2 x accepted is not legs + sides without one: {sums}")
        if received != sent:
            found.append(f"{source}: {sent} messages, the heads speak of {received}")
        if legs != ledger_legs.get(source, 0):
            found.append(f"{source}: {ledger_legs.get(source, 0)} legs in the ledger, the heads have {legs}")
    return found


def stood(log: Path) -> dict[str, Any]:
    """What the worker said of its monitor's standing still, if it did."""
    said = re.findall(f"{STOOD}(.*)$", log.read_text(), re.MULTILINE)
    return dict(json.loads(said[-1])) if said else {}


def hours(microseconds: int) -> float:
    """For a table."""
    return round(microseconds / HOUR, 1)


__all__ = [
    "PARTITIONS",
    "SOURCES",
    "Messages",
    "Outcome",
    "bodies_of",
    "disorder",
    "outcome",
    "send",
    "shuffled",
]
