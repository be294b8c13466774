"""Control messages to records, expiry, and what is refused."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from detectors.config import default_config
from detectors.model import DAY, SECOND, Decision, Fact, Flag, FlagState, Kind
from detectors.partition import partition_of
from streams import ledger
from streams.clients import KafkaOptions
from streams.controls import FOUR_EYES, BadControl, Controls
from streams.feeds import Feeds
from streams.metrics import Metrics
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.publish import DEAD_LETTER_BYTES, KEY, TRUNCATED, Message
from streams.state.base import StoreMeta
from streams.state.memory import MemoryStore
from streams.topics import TopicNames

PSEUDONYMS = Pseudonyms(PUBLIC_KEY)
CONTROLS = Controls(PSEUDONYMS, lambda config: f"digest of {config.version}")
NOW = 20_000 * DAY


def flag(**more: Any) -> bytes:
    return json.dumps(
        {
            "flag_id": "f1",
            "state": "confirmed",
            "source": "ngo",
            "account": "DE02120300000000202051",
            "confirmed_by": ["ann"],
            **more,
        }
    ).encode()


def decision(**more: Any) -> bytes:
    return json.dumps(
        {
            "recommendation_id": "r",
            "subject": f"{77:016x}",
            "decision": "freeze",
            "deciders": ["ann", "bob"],
            **more,
        }
    ).encode()


def test_a_flag_names_its_account_by_pseudonym_and_has_the_same_id_twice() -> None:
    placed = CONTROLS.flag(flag(), NOW)
    assert placed == CONTROLS.flag(flag(), NOW)
    assert isinstance(placed.record, Flag)
    assert (placed.kind, placed.subject, placed.record.effective_at) == (Kind.FLAGS, None, NOW)
    assert placed.record.party == PSEUDONYMS.account("DE02 1203 0000 0000 2020 51")
    assert b"DE02" not in ledger._encoder.encode(placed.record)


def test_facts_and_decisions_go_to_their_subject() -> None:
    fact = CONTROLS.account(
        json.dumps(
            {"account": "north/17", "bank": "north", "opened": "2024-01-02T00:00:00Z", "household": ["18"]}
        ).encode(),
        NOW,
    )
    assert isinstance(fact.record, Fact)
    assert fact.subject == fact.record.subject == PSEUDONYMS.account("north/17")
    assert fact.record.household == (PSEUDONYMS.account("18"),)  # as written, like every account
    placed = CONTROLS.decision(decision(), NOW)
    assert isinstance(placed.record, Decision)
    assert placed.subject == 77


def test_a_configuration_takes_two_people_and_must_be_sound() -> None:
    document = json.loads(default_config().canonical())
    message = {
        "kind": "config",
        "version": "v2",
        "document": document,
        "author": "Ann",
        "approver": "bob",
        "reason": "r",
    }
    placed = CONTROLS.config(json.dumps(message).encode(), NOW)
    assert placed.record.digest == "digest of shipped"  # type: ignore[union-attr]
    with pytest.raises(BadControl) as caught:
        CONTROLS.config(json.dumps({**message, "approver": " ann"}).encode(), NOW)
    assert caught.value.reason == FOUR_EYES
    with pytest.raises(BadControl, match="document"):
        CONTROLS.config(json.dumps({**message, "document": {"version": 3}}).encode(), NOW)


@pytest.mark.parametrize(
    ("read", "value", "reason"),
    [
        ("flag", b"{", "invalid"),
        ("flag", flag(confirmed_by=[]), "invalid"),
        ("flag", flag(account=""), "invalid"),
        ("flag", flag(confidence=2_000_000), "invalid"),
        ("flag", flag(expires="yesterday"), "invalid"),
        ("flag", flag(expires="2026-01-01T00:00:00"), "invalid"),
        ("account", b'{"bank": "north"}', "invalid"),
        ("decision", decision(decision="arrest"), "invalid"),
        ("decision", decision(subject="77"), "invalid"),
        ("decision", decision(deciders=["ann"]), FOUR_EYES),
        ("decision", decision(deciders=["ann", " Ann "]), FOUR_EYES),
        ("config", b'{"kind": "rates", "version": "1", "u_micro": {}}', "invalid"),
        # numbers that the fold's columns do not hold would stop the partition, and again after every restart
        ("flag", flag(effective_at=10**30), "invalid"),
        ("flag", flag(effective_at=-(10**19)), "invalid"),
        ("flag", flag(expires=10**19), "invalid"),
        ("account", b'{"account": "a", "bank": "b", "opened": 10000000000000000000}', "invalid"),
        ("account", b'{"account": "a", "bank": "b", "income_band": 10000000000000000000}', "invalid"),
        ("config", b'{"kind": "baselines", "version": "1", "hub_bucket_legs": 0}', "invalid"),
        (
            "config",
            b'{"kind": "baselines", "version": "1", "hub_counterparties": 10000000000000000000}',
            "invalid",
        ),
    ],
)
def test_what_becomes_no_record_says_why(read: str, value: bytes, reason: str) -> None:
    with pytest.raises(BadControl) as caught:
        getattr(CONTROLS, read)(value, NOW)
    assert caught.value.reason == reason


# -- feeds


class Event(NamedTuple):
    value: bytes
    timestamp: float = NOW / SECOND
    topic: str = "safehold.flags.v1"
    partition: int = 0
    offset: int = 5
    key: bytes | None = None


class Written(Feeds):
    """Feeds that keep what they would send."""

    def __init__(self, now: float) -> None:
        self.sent: list[Message] = []
        super().__init__(
            names=TopicNames(),
            partitions=3,
            options=KafkaOptions("nowhere:1"),
            controls=CONTROLS,
            store=MemoryStore(StoreMeta(partitions=3, key_id="k", generation="g1")),
            metrics=Metrics(),
            key_id="k",
            generation="g1",
            now=lambda: now,
        )

    async def _deliver(self, messages: list[Message]) -> None:
        self.sent += messages


async def test_a_flag_goes_to_every_partition_and_into_the_registry() -> None:
    feeds = Written(0.0)
    await feeds.take(CONTROLS.flag, Event(flag()))
    assert [(message.topic, message.partition) for message in feeds.sent] == [
        ("safehold.ledger.v1", number) for number in range(3)
    ]
    assert len({message.value for message in feeds.sent}) == 1
    assert [entry.flag_id for entry in await feeds._store.list_flags()] == ["f1"]


async def test_a_decision_goes_to_the_partition_of_its_subject() -> None:
    feeds = Written(0.0)
    await feeds.take(CONTROLS.decision, Event(decision()))
    assert [message.partition for message in feeds.sent] == [partition_of(77, 3)]


async def test_a_freeze_by_one_person_is_a_dead_letter() -> None:
    feeds = Written(0.0)
    await feeds.take(CONTROLS.decision, Event(decision(deciders=["ann"]), topic="safehold.decisions.v1"))
    (letter,) = feeds.sent
    assert (letter.topic, letter.key) == ("safehold.deadletters.v1", b"safehold.decisions.v1/0/5/0")
    assert dict(letter.headers)["safehold-reason"] == FOUR_EYES.encode()


async def test_a_number_that_no_frame_holds_is_a_dead_letter() -> None:
    feeds = Written(NOW / SECOND)
    rates = b'{"kind": "rates", "version": "1", "u_micro": {"EUR": %d}}' % 10**30
    await feeds.take(CONTROLS.config, Event(rates))
    (letter,) = feeds.sent
    assert letter.topic == TopicNames().deadletters
    assert dict(letter.headers)["safehold-reason"] == b"invalid"


async def test_no_letter_of_a_control_topic_grows_with_what_it_is_about() -> None:
    feeds = Written(0.0)
    huge = b'{"flag_id": "%s' % (b"f" * 2_000_000)
    await feeds.take(CONTROLS.flag, Event(huge, key=b"k" * 2_000_000))
    (letter,) = feeds.sent
    sent = dict(letter.headers)
    assert sent[TRUNCATED] == b"%d" % len(huge)
    assert letter.value == huge[:DEAD_LETTER_BYTES]
    assert KEY not in sent
    assert sum(len(text) for text in sent.values()) < 20_000


def test_an_expiry_that_passes_is_said_once_and_the_same_by_everybody() -> None:
    expires = NOW + DAY
    early, one, other = (
        Written((expires - 1) / SECOND),
        Written(expires / SECOND),
        Written(expires / SECOND + 99),
    )
    for feeds in (early, one, other):
        feeds.note(flag(expires=expires), NOW)
    assert early.expired() == []
    (said,) = one.expired()
    assert [said] == other.expired()
    assert one.expired() == []
    placed = CONTROLS.flag(said.value or b"", NOW + 5 * DAY)
    assert isinstance(placed.record, Flag)
    assert (placed.record.state, placed.record.effective_at) == (FlagState.EXPIRED, expires)
    assert placed.record.record_id == f"{placed.record.party:016x}/f1/expiry:{expires}"


def test_two_partners_may_number_their_flags_alike() -> None:
    one, other = flag(expires=NOW + DAY), flag(account="north/17", expires=NOW + DAY)
    first, second = CONTROLS.flag(one, NOW).record, CONTROLS.flag(other, NOW).record
    assert first.record_id != second.record_id
    numbered = [CONTROLS.flag(flag(account=a, record_id="1"), NOW).record for a in ("north/17", "north/18")]
    assert numbered[0].record_id != numbered[1].record_id
    feeds = Written((NOW + DAY) / SECOND)
    for value in (one, other):
        feeds.note(value, NOW)
    said = [CONTROLS.flag(message.value or b"", NOW).record for message in feeds.expired()]
    assert {record.party for record in said if isinstance(record, Flag)} == {
        PSEUDONYMS.account("DE02120300000000202051"),
        PSEUDONYMS.account("north/17"),
    }
    assert len({record.record_id for record in said}) == 2
    feeds.note(flag(state="withdrawn", confirmed_by=[], effective_at=NOW + 2 * DAY), NOW)
    assert feeds.expired() == []


async def test_flags_with_one_id_stand_side_by_side_in_the_registry() -> None:
    feeds = Written(0.0)
    for value in (
        flag(),
        flag(account="north/17"),
        flag(account="north/17", state="withdrawn", effective_at=NOW + 1),
    ):
        await feeds.take(CONTROLS.flag, Event(value))
    shown = {entry.party: entry.state for entry in await feeds._store.list_flags()}
    assert shown == {
        PSEUDONYMS.account("DE02120300000000202051"): "confirmed",
        PSEUDONYMS.account("north/17"): "withdrawn",
    }


def test_a_withdrawn_flag_does_not_expire() -> None:
    feeds = Written((NOW + 2 * DAY) / SECOND)
    feeds.note(flag(state="withdrawn", confirmed_by=[], expires=NOW + DAY, effective_at=NOW + 9), NOW)
    feeds.note(flag(expires=NOW + DAY, effective_at=NOW), NOW + 20)
    assert feeds.expired() == []
