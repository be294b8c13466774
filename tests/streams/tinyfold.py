"""A fold small enough to see through, with the contract of `detectors.step`: for tests of what carries it.

An account is the set of its legs. After every frame it says, of each account that changed, all that it knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detectors.model import Fact, Frame, Kind, Quarantine
from streams.folding import Fold
from streams.publish import ACTION, CAUSE, Cause, Message, Publication, cloud_event


class At(NamedTuple):
    offset: int
    index: int


class Saying(NamedTuple):
    """All that is known of an account."""

    cause: At
    subject: int
    bank: str
    body: bytes


@dataclass
class Head:
    applied: int = -1
    coordinates: dict[str, int] = field(default_factory=dict)
    aside: dict[str, list[int]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Account:
    applied: int = -1
    bank: str = ""
    legs: dict[int, tuple[int, int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


BROKEN_AMOUNT = 666
"""A leg of this amount is one that the fold fails on."""


class Broken(Exception):
    """What a step that is told to fail raises."""


class TinyState:
    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.head = Head()
        self.accounts: dict[int, Account] = {}
        self.flags: list[str] = []
        self.control_changed = False
        self._touched: set[int] = set()
        self._ahead: list[Account] = []

    def touched(self) -> np.ndarray:
        return np.array(sorted(self._touched), np.uint64)

    def pack(self, subjects: np.ndarray) -> list[bytes]:
        return [msgspec.msgpack.encode(self.accounts[subject]) for subject in subjects.tolist()]

    def load_many(self, subjects: Sequence[int], blobs: Sequence[bytes]) -> None:
        for subject, blob in zip(subjects, blobs, strict=True):
            self.load_one(subject, blob)

    def load_one(self, subject: int, blob: bytes) -> None:
        account = msgspec.msgpack.decode(blob, type=Account, strict=False)
        account.legs = {int(leg): tuple(value) for leg, value in account.legs.items()}
        self.accounts[subject] = account
        if account.applied > self.head.applied:
            self._ahead.append(account)
        else:
            account.counts = {}

    def _catch_up(self) -> None:
        """The head takes over what an account counted ahead of it once it has come as far: ADR 12."""
        for account in [account for account in self._ahead if account.applied <= self.head.applied]:
            self._ahead.remove(account)
            for name, count in account.counts.items():
                self.count(name, count)

    def count(self, name: str, by: int = 1) -> None:
        self.head.counters[name] = self.head.counters.get(name, 0) + by

    def pack_control(self) -> bytes:
        return msgspec.msgpack.encode(self.flags)

    def pack_head(self) -> bytes:
        return msgspec.msgpack.encode(self.head)

    def load_head(self, blob: bytes) -> None:
        self.head = msgspec.msgpack.decode(blob, type=Head)

    def accept_gap(self, start: int) -> None:
        self.head.gaps.append((self.head.applied + 1, start - 1))
        self.head.applied = start - 1
        self._catch_up()

    def mark_flushed(self) -> None:
        for account in self.accounts.values():
            if all(account is not waiting for waiting in self._ahead):
                account.counts = {}
        self._touched.clear()
        self.control_changed = False

    # -- stepping

    def step(self, frames: Sequence[Frame]) -> list[Saying]:
        said: list[Saying] = []
        for frame in frames:
            assert frame.offset == self.head.applied + 1, "frames come in offset order without a gap"
            changed: set[int] = set()
            if frame.kind is Kind.LEGS:
                for row in frame.rows:
                    self._leg(frame, row, changed)
            elif frame.kind is Kind.COUNTS:
                self._counts(frame)
            for record in frame.records:
                if isinstance(record, Fact) and record.entity == "broken":
                    raise Broken
                if isinstance(record, Quarantine):
                    self._set_aside(record)
                self.flags.append(record.record_id)
                self.control_changed = True
            for subject in sorted(changed):
                account = self.accounts[subject]
                account.applied = frame.offset
                self._touched.add(subject)
                legs = sorted((time, leg, amount) for leg, (time, amount) in account.legs.items())
                body = json.dumps({"subject": subject, "partition": self.partition, "legs": legs}).encode()
                said.append(Saying(At(frame.offset, len(said)), subject, account.bank, body))
            self.head.applied = frame.offset
            self._catch_up()
        return said

    def _set_aside(self, record: Quarantine) -> None:
        if record.reason == "breaks the fold too" and record.legs:
            raise Broken
        self.count("unread", record.unread)
        for leg in record.legs:
            source = record.sources[leg.source]
            waiting = self.head.aside.setdefault(source, [])
            again = leg.coordinate <= self.head.coordinates.get(source, -1) or leg.coordinate in waiting
            self.count("redelivered" if again else "quarantined")
            if not again:
                waiting.append(leg.coordinate)

    def _leg(self, frame: Frame, row: Any, changed: set[int]) -> None:
        source = frame.sources[row["source"]]
        if row["amount"] == BROKEN_AMOUNT:
            raise Broken
        if row["coordinate"] <= self.head.coordinates.get(source, -1):
            self.count("redelivered")
            return
        self.head.coordinates[source] = coordinate = int(row["coordinate"])
        waiting = self.head.aside.get(source, [])
        if coordinate in waiting:
            self.count("quarantined", -1)
        self.head.aside[source] = [other for other in waiting if other > coordinate]
        account = self.accounts.setdefault(int(row["subject"]), Account())
        if account.applied >= frame.offset:
            return
        leg = int(row["leg"])
        outcome = "duplicate" if leg in account.legs else "judged"
        self.count(outcome)
        account.counts[outcome] = account.counts.get(outcome, 0) + 1
        account.bank = frame.banks[row["bank"]]
        account.legs.setdefault(leg, (int(row["time"]), int(row["amount"])))
        changed.add(int(row["subject"]))

    def _counts(self, frame: Frame) -> None:
        for row in frame.rows:
            source = "counts:" + frame.sources[row["source"]]
            if row["coordinate"] > self.head.coordinates.get(source, -1):
                self.head.coordinates[source] = int(row["coordinate"])
                for name in ("accepted", "rejected", "no_effect", "no_leg"):
                    self.count(name, int(row[name]))


@dataclass
class Result:
    outputs: list[Saying]


def load_control(state: TinyState, blob: bytes) -> None:
    state.flags = msgspec.msgpack.decode(blob)


TINY = Fold(TinyState, load_control, lambda state, frames: Result(state.step(frames)))


class TinyPublisher:
    """One message a saying, to one topic."""

    def __init__(self, topic: str = "said", generation: str = "g1") -> None:
        self.topic = topic
        self.generation = generation

    def __call__(self, partition: int, outputs: Sequence[Saying]) -> Publication:
        publication = Publication()
        for output in outputs:
            cause = Cause(self.generation, partition, output.cause.offset, output.cause.index)
            headers = cloud_event("test", f"{output.subject}", "/test")
            headers += [(CAUSE, str(cause).encode()), (ACTION, b"monitor")]
            publication.messages.append(Message(self.topic, b"%d" % output.subject, output.body, headers))
        return publication
