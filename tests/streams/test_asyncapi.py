"""The document of the topics: it names each of them and no other, and says of headers and payloads what is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
import yaml

from detectors.config import demo_config
from detectors.model import DAY, AccountKind, FlagState, Mode
from detectors.settings import FoldSettings
from detectors.step import Cause, Hits, Listed, Recommendation, Withdrawal
from streams import asyncapi, controls, publish
from streams.block import Refused
from streams.controls import AccountMessage, CustomerMessage, DecisionMessage, FlagMessage
from streams.formats import schemas
from streams.intake import letters_of
from streams.judge import FileJudge
from streams.legs import coordinate
from streams.outputs import Outputs
from streams.payment import Reason, Rejected
from streams.publish import Message
from streams.topics import TopicNames, wanted
from tests.cli.samples import BANK, START, payments

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT = asyncapi.document()
CHANNELS: dict[str, Any] = DOCUMENT["channels"]
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
NAMES = TopicNames()
CAUSE = Cause(4, 0)


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def schema(name: str) -> Any:
    return json.loads(schemas.documents()[name])


@pytest.fixture(scope="module")
def recommendations() -> list[Recommendation]:
    judge = FileJudge(demo_config(), settings=FoldSettings(observed_since=START - 400 * DAY))
    judge.take(payments())
    judge.flush()
    found = list(judge.standing.values())
    assert found
    return found


def test_it_names_exactly_the_topics() -> None:
    named = [channel["address"] for channel in CHANNELS.values()]
    specs = wanted(NAMES, partitions=1, banks=["north"], sources=["north.payments"])
    ours = [
        s.name.replace("north.payments", "{bankTopic}").replace("review.north", "review.{bank}")
        for s in specs
    ]
    assert sorted(named) == sorted(ours)


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    found = set(refs(DOCUMENT))
    for ref in found:
        if ref.startswith("#/"):
            node: Any = DOCUMENT
            for word in ref[2:].split("/"):
                node = node[word]
        else:
            assert (DOCS / ref).is_file(), ref
    assert {f"#/components/messages/{name}" for name in MESSAGES} <= found
    assert {f"#/channels/{name}" for name in CHANNELS} <= found
    files = {f"./schemas/{name}" for name in schemas.documents()} - {f"./schemas/{schemas.MAPPING}"}
    assert files <= found


def test_the_file_is_the_document_without_anchors() -> None:
    text = (DOCS / "asyncapi.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == DOCUMENT
    assert not re.search(r"[:-] [&*]id\d", text)


@pytest.mark.parametrize("name", sorted(schemas.documents()))
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


def check(name: str, message: Message) -> None:
    """Headers as the document has them: all that it requires, none that it does not know."""
    told = MESSAGES[name]["headers"]
    sent = {key: value.decode() for key, value in message.headers}
    assert len(sent) == len(message.headers)
    assert sent.keys() <= told["properties"].keys()
    jsonschema.validate(sent, told)


def test_recommendations_are_as_described(recommendations: list[Recommendation]) -> None:
    made = Outputs(NAMES, "g1", [BANK])(3, recommendations).messages
    assert [message.topic for message in made] == [NAMES.review(BANK)] * len(recommendations)
    validator = jsonschema.Draft202012Validator(schema(schemas.RECOMMENDATION))
    for message in made:
        check("recommendation", message)
        body = json.loads(message.value or b"")
        validator.validate(body)
        assert not validator.is_valid({key: value for key, value in body.items() if key != "reasons"})
        assert not validator.is_valid({**body, "action": "seize"})
    # Without a review topic they go to the observe topic, and say so.
    for message in Outputs(NAMES, "g1", [])(3, recommendations).messages:
        assert message.topic == NAMES.observe
        check("recommendation", message)


def test_withdrawals_hits_and_dead_letters_are_as_described() -> None:
    one = np.ones(1)
    said = [
        Withdrawal(
            cause=CAUSE, subject=7, bank=BANK, mode=Mode.ADVISE, recommendation_id="ab" * 16, action="freeze"
        ),
        Hits(
            cause=CAUSE, subject=one.astype("u8"), leg=one.astype("u8"), time=one.astype("i8"),
            detector=one.astype("i2"), strength=one.astype("i4"),
        ),
        Listed(
            cause=CAUSE, reason="late", subject=7, leg=8, time=9, source="north.payments/0", coordinate=1 << 20 | 1
        ),
    ]  # fmt: skip
    withdrawal, hits, listed = Outputs(NAMES, "g1", [BANK])(0, said).messages
    check("withdrawal", withdrawal)
    jsonschema.validate(json.loads(withdrawal.value or b""), MESSAGES["withdrawal"]["payload"])
    check("hits", hits)
    check("deadletter", listed)


def test_letters_that_are_cut_out_truncated_or_listed_are_as_described() -> None:
    topic, source, key = (
        NAMES.deadletters,
        "north.payments/0",
        MESSAGES["deadletter"]["bindings"]["kafka"]["key"],
    )
    bad = [Rejected(Reason.INVALID, "amount", index) for index in range(2)]
    array, xml = b'[{"a": 1}, {"a": 2}]', b"<" * (publish.DEAD_LETTER_BYTES + 1)
    cut_out = letters_of(topic, source, Refused(5, 1, array, b"k", len(bad), bad))
    (whole,) = letters_of(topic, source, Refused(6, 1, xml, b"k" * 2_000, len(bad), bad))
    said = [
        Listed(
            cause=CAUSE, reason="late", subject=7, leg=8, time=9, source=source, coordinate=coordinate(7, 0, side)
        )
        for side in (0, 1)
    ]  # fmt: skip
    listed = Outputs(NAMES, "g1", [BANK])(0, said).messages
    for letter in (*cut_out, whole, *listed):
        check("deadletter", letter)
        jsonschema.validate(letter.key.decode(), key)
        assert not jsonschema.Draft202012Validator(key).is_valid(f"{letter.key.decode()}-other")
    assert [letter.value for letter in cut_out] == [b'{"a": 1}', b'{"a": 2}']
    assert [publish.TRUNCATED in dict(letter.headers) for letter in (*cut_out, whole)] == [False, False, True]
    assert [letter.key[-6:] for letter in listed] == [b"-debit", b"credit"]


def test_control_messages_are_as_described() -> None:
    given: list[tuple[str, Any]] = [
        (
            schemas.FLAG,
            FlagMessage(
                flag_id="f",
                state=FlagState.CONFIRMED,
                source="unit",
                account="1",
                expires="2030-01-01T00:00:00Z",
            ),
        ),
        (
            schemas.ACCOUNT,
            AccountMessage(
                account="1", bank="n", kind=AccountKind.YOUTH, opened=5, customers=[CustomerMessage("c")]
            ),
        ),
        (
            schemas.DECISION,
            DecisionMessage(
                recommendation_id="r", subject="0" * 15 + "1", decision="freeze", deciders=["a", "b"]
            ),
        ),
        (
            schemas.CONFIG,
            controls.NewConfig(
                version="v",
                document=msgspec.Raw(demo_config().canonical()),
                author="a",
                approver="b",
                reason="x",
            ),
        ),
        (schemas.CONFIG, controls.NewBaselines(version="v", hub_bucket_legs=300)),
        (schemas.CONFIG, controls.NewRates(version="v", u_micro={"EUR": 1_000_000})),
        (schemas.CONFIG, controls.NewBarrier(reason="upgrade")),
    ]
    for name, message in given:
        jsonschema.validate(json.loads(msgspec.json.encode(message)), schema(name))
    assert not jsonschema.Draft202012Validator(schema(schemas.FLAG)).is_valid({"flag_id": "f"})
