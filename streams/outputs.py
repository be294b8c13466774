"""The outputs of `detectors.step` as messages: the publisher that the monitor runs with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from detectors.body import body_bytes
from detectors.catalogue import IDS
from detectors.model import Mode, Side
from detectors.step import Hits, Listed, Recommendation, StepResult, Withdrawal
from streams.legs import COORDINATE_BITS
from streams.metrics import Metrics
from streams.publish import (
    ACTION,
    CAUSE,
    WITHDRAWN,
    Cause,
    Headers,
    Message,
    Publication,
    cloud_event,
    dead_letter,
)
from streams.state.base import RecommendationEntry
from streams.topics import TopicNames

RECOMMENDATION = "safehold.recommendation.v1"
HITS = "safehold.hits.v1"
MSGPACK = b"application/vnd.safehold.hits.v1+msgpack"
MAX_HITS = 20_000
"""Most hits of one message: 30 bytes each, well below what a broker takes. A control record may judge every account again."""
UNROUTED = "safehold-unrouted"
"""Header of a recommendation whose bank has no review topic: it goes to the observe topic, never nowhere."""


class HitsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a hits message: columns of one step or a part of it, little endian, all of the same length."""

    n: int
    detectors: tuple[str, ...]
    """Names that the column `detector` indexes."""
    subject: bytes
    leg: bytes
    time: bytes
    detector: bytes
    strength: bytes

    def columns(self) -> dict[str, np.ndarray]:
        """The columns as arrays."""
        kinds = {"subject": "<u8", "leg": "<u8", "time": "<i8", "detector": "<i2", "strength": "<i4"}
        return {name: np.frombuffer(getattr(self, name), kind) for name, kind in kinds.items()}


def account_key(subject: int) -> bytes:
    """Key of an account's messages: its pseudonym in hexadecimal."""
    return b"%016x" % subject


class Outputs:
    """Places what a step says. `banks` are those with a review topic."""

    def __init__(self, names: TopicNames, generation: str, banks: Collection[str]) -> None:
        self._names = names
        self._generation = generation
        self._review = {bank: names.review(bank) for bank in banks}

    def __call__(self, partition: int, outputs: Sequence[Any]) -> Publication:
        publication = Publication()
        for output in outputs:
            match output:
                case Recommendation():
                    self._recommendation(partition, output, publication)
                case Withdrawal():
                    self._withdrawal(partition, output, publication)
                case Hits():
                    publication.messages += self._hits(partition, output)
                case Listed():
                    publication.messages.append(self._listed(output))
                case _:
                    raise TypeError(f"no place for a {type(output).__name__}")
        return publication

    def _cause(self, partition: int, output: Any) -> Cause:
        return Cause(self._generation, partition, output.cause.offset, output.cause.index)

    def _place(self, bank: str, mode: Mode, headers: Headers) -> str | None:
        """The topic of a recommendation; None where nothing is said."""
        if mode is Mode.LEARN:
            return None
        if mode is Mode.OBSERVE:
            return self._names.observe
        topic = self._review.get(bank)
        if topic is None:
            headers.append((UNROUTED, b"true"))
            return self._names.observe
        return topic

    def _recommendation(self, partition: int, said: Recommendation, publication: Publication) -> None:
        body = said.body
        value = body_bytes(body)
        headers = self._headers(partition, said, body.recommendation_id, body.action, body.event_time)
        topic = self._place(said.bank, said.mode, headers)
        if topic is not None:
            publication.messages.append(Message(topic, account_key(said.subject), value, headers))
        publication.entries.append(
            self._entry(partition, said, body.recommendation_id, body.action, body.event_time, value)
        )

    def _withdrawal(self, partition: int, said: Withdrawal, publication: Publication) -> None:
        headers = self._headers(partition, said, said.recommendation_id, said.action, None)
        headers.append((WITHDRAWN, b"true"))
        topic = self._place(said.bank, said.mode, headers)
        if topic is not None:
            publication.messages.append(Message(topic, account_key(said.subject), b"{}", headers))
        publication.entries.append(
            self._entry(partition, said, said.recommendation_id, said.action, 0, b"", withdrawn=True)
        )

    def _headers(
        self, partition: int, said: Any, identity: str, action: str, event_time: int | None
    ) -> Headers:
        headers = cloud_event(
            RECOMMENDATION, identity, f"/safehold/{self._generation}/{partition}", event_time
        )
        headers += [(CAUSE, str(self._cause(partition, said)).encode()), (ACTION, action.encode())]
        return headers

    def _entry(
        self,
        partition: int,
        said: Recommendation | Withdrawal,
        identity: str,
        action: str,
        event_time: int,
        body: bytes,
        *,
        withdrawn: bool = False,
    ) -> RecommendationEntry:
        return RecommendationEntry(
            id=identity,
            partition=partition,
            subject=said.subject,
            event_time=event_time,
            offset=said.cause.offset,
            index=said.cause.index,
            action=action,
            mode=said.mode.value,
            entity=said.bank,
            withdrawn=withdrawn,
            body=body,
        )

    def _hits(self, partition: int, hits: Hits) -> Iterator[Message]:
        """All of one cause; parts after the first say in their id which they are."""
        cause = str(self._cause(partition, hits))
        for first in range(0, len(hits.leg), MAX_HITS):
            part = slice(first, first + MAX_HITS)
            leg = hits.leg[part]
            value = msgspec.msgpack.encode(
                HitsMessage(
                    n=len(leg),
                    detectors=IDS,
                    subject=hits.subject[part].astype("<u8").tobytes(),
                    leg=leg.astype("<u8").tobytes(),
                    time=hits.time[part].astype("<i8").tobytes(),
                    detector=hits.detector[part].astype("<i2").tobytes(),
                    strength=hits.strength[part].astype("<i4").tobytes(),
                )
            )
            identity = f"{cause}/{first // MAX_HITS}" if first else cause
            headers = cloud_event(HITS, identity, f"/safehold/{self._generation}/{partition}")
            headers = [(name, MSGPACK if name == "content-type" else text) for name, text in headers]
            headers.append((CAUSE, cause.encode()))
            yield Message(self._names.hits, b"%d" % partition, value, headers)

    def _listed(self, listed: Listed) -> Message:
        """A leg that came too late for its window, or the content that lost a conflict: named, with nothing personal."""
        value = msgspec.json.encode(
            {
                "account": f"{listed.subject:016x}",
                "leg": f"{listed.leg:016x}",
                "time": listed.time,
                "reason": listed.reason,
            }
        )
        # Coordinate 2i + side + 1 of message `offset`; see streams.legs.coordinate. Both sides of one payment may be listed.
        index, side = divmod((listed.coordinate & ((1 << COORDINATE_BITS) - 1)) - 1, 2)
        place = f"{listed.source}/{listed.coordinate >> COORDINATE_BITS}/{index}-{Side(side).name.lower()}"
        return dead_letter(
            self._names.deadletters,
            coordinate=place,
            reason=listed.reason,
            detail=f"leg {listed.leg:016x}",
            value=value,
        )


def count(metrics: Metrics, result: StepResult) -> None:
    """Raise the counters by what a step did."""
    metrics.judged_legs.inc(result.judged)
    for outcome, n in result.legs.items():
        metrics.legs.labels(outcome).inc(n)
    for detector, n in result.errors.items():
        metrics.detector_errors.labels(detector).inc(n)
    for output in result.outputs:
        match output:
            case Recommendation():
                metrics.recommendations.labels(output.body.action, output.mode.value).inc()
            case Withdrawal():
                metrics.withdrawals.inc()
            case Hits():
                for position, n in enumerate(np.bincount(output.detector, minlength=len(IDS)).tolist()):
                    if n:
                        metrics.detector_fired.labels(IDS[position]).inc(n)
            case Listed():
                metrics.dead_letters.labels(output.reason).inc()
