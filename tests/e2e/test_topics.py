"""Topics on a real broker: created as they must be, and every difference is said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from streams import topics
from streams.cli import main
from streams.cli.exits import Exit
from tests.rigs.kafka import KafkaBroker


def installation(prefix: str, partitions: int = 4) -> list[topics.TopicSpec]:
    return topics.wanted(
        topics.TopicNames(prefix),
        partitions=partitions,
        banks=["north", "south"],
        sources=[f"{prefix}.payments"],
    )


def test_created_topics_pass_the_check_and_a_second_run_creates_nothing(
    kafka: KafkaBroker, topic_prefix: str
) -> None:
    kafka.create_topics({f"{topic_prefix}.payments": 3}, {"retention.ms": "-1"})
    specs = installation(topic_prefix)
    with topics.admin_client(kafka.bootstrap) as admin:
        assert set(topics.check(admin, specs)) == {
            f"{spec.name}: does not exist ({spec.why})" for spec in specs if spec.ours
        }
        assert topics.missing_sources(admin, specs) == []
        assert len(topics.create(admin, specs)) == len(specs) - 1
        assert topics.check(admin, specs) == []
        assert topics.create(admin, specs) == []
        assert topics.partition_counts(admin, [f"{topic_prefix}.ledger.v1"]) == {
            f"{topic_prefix}.ledger.v1": 4
        }


def test_every_difference_is_reported_at_once(kafka: KafkaBroker, topic_prefix: str) -> None:
    names = topics.TopicNames(topic_prefix)
    kafka.create_topics({f"{topic_prefix}.payments": 1}, {"retention.ms": "1000"})
    kafka.create_topics({names.ledger: 3}, {"cleanup.policy": "compact", "retention.bytes": "5000"})
    kafka.create_topics({names.vault: 4}, {"cleanup.policy": "delete"})
    specs = installation(topic_prefix)
    with topics.admin_client(kafka.bootstrap) as admin:
        problems = "\n".join(topics.check(admin, specs))
    for expected in (
        f"{names.ledger}: has 3 partitions, must have 4",
        f"{names.ledger}: cleanup.policy is compact, must be delete",
        f"{names.ledger}: message.timestamp.type is CreateTime, must be LogAppendTime",
        f"{names.ledger}: retention.bytes is 5000, must be without limit (-1)",
        f"{names.vault}: cleanup.policy is delete, must be compact",
        f"{topic_prefix}.payments: retention.ms is 1000, must be at least",
        f"{names.flags}: does not exist",
    ):
        assert expected in problems


def test_a_bank_id_that_kafka_would_refuse_is_refused_first() -> None:
    names = topics.TopicNames("safehold")
    assert names.review("north-1") == "safehold.review.north-1.v1"
    for bank in ("", "a/b", "nørd", "x" * 250):
        with pytest.raises(ValueError, match="bank id"):
            names.review(bank)


def test_the_ledger_is_never_compacted_and_keeps_the_brokers_time() -> None:
    (ledger, *_) = topics.wanted(topics.TopicNames(), partitions=12, replication=3)
    assert dataclasses.asdict(ledger)["exact"] == {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
    }
    assert ledger.configs["min.insync.replicas"] == "2"


def test_a_refusal_of_the_broker_is_one_line_without_the_request(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    document = {
        "bootstrap_servers": [kafka.bootstrap],
        "topics": [{"name": f"{topic_prefix}-payments", "format": "canonical", "bank": "north"}],
        "member_id": "w1",
        "topic_prefix": topic_prefix,
        "replication_factor": 3,
        "redis_url": "redis://127.0.0.1:1/0",
        "pseudonym_key_file": "k",
    }
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(document))
    code = main(["topics", "create", "-s", str(settings)])
    err = capfd.readouterr().err
    assert code == Exit.FAILED, err
    lines = err.splitlines()
    refused = f"safehold: Kafka refused to create {topic_prefix}.ledger.v1: "
    assert lines[0] == f"{refused}3 copies asked for, 1 broker is there"
    assert lines[-1] == "  look: replication_factor in the settings"
    assert "CreateTopics" not in err


def test_a_refusal_for_another_reason_carries_the_brokers_words(
    kafka: KafkaBroker, topic_prefix: str
) -> None:
    spec = topics.TopicSpec(f"{topic_prefix}.x", 1, "", {"cleanup.policy": "nonsense"})
    with topics.admin_client(kafka.bootstrap) as admin, pytest.raises(topics.TopicsRefused) as refused:
        topics.create(admin, [spec])
    (problem,) = refused.value.problems
    assert problem.startswith(f"{topic_prefix}.x: InvalidConfig")
    assert "nonsense" in problem
    assert refused.value.mend == ""
