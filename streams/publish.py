"""What a step says, as messages: review, observe, hits and dead letters, each with the cause that it follows from.

The value is the canonical body and nothing else. Everything around it is in headers: CloudEvents in binary mode, and

    safehold-cause    generation/partition/offset/index: receivers keep the greatest of one id (`streams.latest`)
    safehold-action   the action of the body, so that nobody has to parse it for routing
    safehold-withdrawn  "true" where the recommendation no longer stands; the value is then empty JSON
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from streams.state.base import (
        RecommendationEntry,  # brings numba: commands that read a topic would wait for it
    )

CAUSE = "safehold-cause"
ACTION = "safehold-action"
WITHDRAWN = "safehold-withdrawn"
REASON = "safehold-reason"
COORDINATE = "safehold-source"
DETAIL = "safehold-detail"
RECEIVED = "safehold-received"
KEY = "safehold-key"
AS_OF = "safehold-as-of"
"""On a bank's message that is sent again: when the bank first sent it, µs."""

TRUNCATED = "safehold-truncated"
"""Header of a letter that cannot be sent again: the length of what it holds the beginning of."""

JSON = b"application/json"

DEAD_LETTER_BYTES = 700_000
"""Most of a message that a letter holds: brokers refuse above 1 MiB by default."""

LETTER_KEY_BYTES = 1_000
"""A longer key is left out of a letter: a replay names its partition, and intake does not read keys."""

LETTER_DETAIL_CHARACTERS = 4_400

Headers = list[tuple[str, bytes]]


class Message(NamedTuple):
    """One Kafka message to send."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """What an output follows from. Of one id the one with the greatest `order` is the latest word."""

    generation: str
    partition: int
    offset: int
    index: int

    def __str__(self) -> str:
        return f"{self.generation}/{self.partition}/{self.offset}/{self.index}"

    @property
    def order(self) -> tuple[str, int, int, int, int]:
        """Generations count upwards by the number at their end (`g9` before `g10`)."""
        name = self.generation.rstrip("0123456789")
        return name, int(self.generation[len(name) :] or 0), self.partition, self.offset, self.index

    @classmethod
    def parse(cls, text: str | bytes) -> Cause:
        """From the header. Raises ValueError."""
        words = (text.decode() if isinstance(text, bytes) else text).split("/")
        if len(words) != 4:
            raise ValueError(f"{text!r} is no cause: generation/partition/offset/index")
        return cls(words[0], int(words[1]), int(words[2]), int(words[3]))


@dataclass(slots=True)
class Publication:
    """Everything that one step says."""

    messages: list[Message] = field(default_factory=list)
    entries: list[RecommendationEntry] = field(default_factory=list)
    """For the index in the store, which people look at."""


class Publisher(Protocol):
    """From the outputs of a step to messages. Pure."""

    def __call__(self, partition: int, outputs: Sequence[Any]) -> Publication: ...


def cloud_event(kind: str, identity: str, source: str, time_us: int | None = None) -> Headers:
    """The attributes of CloudEvents 1.0 in Kafka's binary mode."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", kind.encode()),
        ("ce_id", identity.encode()),
        ("ce_source", source.encode()),
        ("content-type", JSON),
    ]
    if time_us is not None:
        headers.append(("ce_time", rfc3339(time_us).encode()))
    return headers


def rfc3339(time_us: int) -> str:
    """Microseconds since 1970 in UTC as RFC 3339. Works for every year that a payment may have."""
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=time_us)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def dead_letter(
    topic: str,
    *,
    coordinate: str,
    reason: str,
    detail: str,
    value: bytes,
    key: bytes | None = None,
    received: int = 0,
) -> Message:
    """What could not be used, with its original bytes, keyed by its coordinate: written twice it is one letter.

    `coordinate` is `topic/partition/offset/index` of the bank's record, with what else tells letters of one record apart.
    `received` is the append time of that record in µs: what a replay of the letter is judged by. Whatever it is about, a
    letter is small enough for a broker; one that is cut short says so (`TRUNCATED`).
    """
    headers: Headers = [
        (REASON, reason.encode()),
        (COORDINATE, coordinate.encode()),
        (DETAIL, detail[:LETTER_DETAIL_CHARACTERS].encode()),
        (RECEIVED, b"%d" % received),
    ]
    if key is not None and len(key) <= LETTER_KEY_BYTES:
        headers.append((KEY, key))
    if len(value) > DEAD_LETTER_BYTES:
        headers.append((TRUNCATED, b"%d" % len(value)))
    return Message(topic, coordinate.encode(), value[:DEAD_LETTER_BYTES], headers)
