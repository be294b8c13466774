"""An installation on the embedded parts, and the command line inside this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.cli import main
from streams.embedded import Embedded
from streams.pseudonyms import PseudonymKey
from streams.publish import Message
from streams.reading import read_all
from streams.topics import TopicNames, TopicSpec, admin_client, create, wanted

BANK = "north"
SOURCE = "north.payments"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run one command. Nothing may be raised past it."""

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ran(code, out, err)

    return run


@pytest.fixture(scope="session")
def embedded() -> Iterator[Embedded]:
    with Embedded() as parts:
        yield parts


@dataclass(frozen=True, slots=True)
class Installation:
    """Topics under a prefix of their own, and the settings of a worker that would run on them."""

    settings: Path
    names: TopicNames
    source: str
    kafka: str

    def send(self, *messages: Message) -> None:
        """Put messages into topics, as the worker would."""

        async def work() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.kafka)
            await producer.start()
            try:
                for message in messages:
                    await producer.send_and_wait(
                        message.topic, message.value, message.key, message.partition, headers=message.headers
                    )
            finally:
                await producer.stop()

        _run(work())

    def read(self, topic: str) -> list[Any]:
        """Everything in a topic, partition by partition."""
        found: list[Any] = []

        async def work() -> None:
            consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka, enable_auto_commit=False)
            await consumer.start()
            try:
                found.extend([record async for record in read_all(consumer, [topic])])
            finally:
                await consumer.stop()

        _run(work())
        return found


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.fixture
def installation(embedded: Embedded, topic_prefix: str, tmp_path: Path) -> Installation:
    names = TopicNames(topic_prefix)
    source = f"{topic_prefix}-{SOURCE}"
    specs = wanted(names, partitions=2, banks=[BANK])
    with admin_client(embedded.kafka) as admin:
        create(admin, [*specs, TopicSpec(source, 2, "the bank's", fixed_partitions=False)])
    key = tmp_path / "pseudonym.key"
    key.write_text(PseudonymKey.generate("k1").line())
    key.chmod(0o600)
    settings = {
        "bootstrap_servers": [embedded.kafka],
        "topics": [{"name": source, "format": "canonical", "bank": BANK}],
        "member_id": "w1",
        "topic_prefix": topic_prefix,
        "ledger_partitions": 2,
        "replication_factor": 1,
        "redis_url": embedded.redis,
        "redis_persistence": "none",
        "pseudonym_key_file": str(key),
    }
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps(settings))
    return Installation(path, names, source, embedded.kafka)
