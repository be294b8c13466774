"""The broker rig: a real broker, every codec a bank may use, and data that outlives kill -9."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from tests.rigs.kafka import KafkaBroker
from tests.rigs.process import RigError
from tests.rigs.proxy import FaultProxy


async def send(bootstrap: str, topic: str, values: list[bytes], compression: str | None = None) -> None:
    """Produce with an idempotent producer and wait for every acknowledgement."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=compression,
        enable_idempotence=True,
        request_timeout_ms=5_000,
    )
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(topic, value, partition=0) for value in values])
    finally:
        await producer.stop()


async def read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Read the first records of partition 0 without a group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        got: list[bytes] = []
        async with asyncio.timeout(20):
            while len(got) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    got += [record.value for record in records if record.value is not None]
        return got
    finally:
        await consumer.stop()


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_compressed_records_are_read(kafka: KafkaBroker, topic_prefix: str, codec: str | None) -> None:
    topic = f"{topic_prefix}.codec"
    kafka.create_topics({topic: 1}, {"compression.type": codec or "producer"})
    sent = [b"payment %d " % number * 20 for number in range(200)]
    await send(kafka.bootstrap, topic, sent, codec)
    assert await read(kafka.bootstrap, topic, len(sent)) == sent


async def test_topics_are_never_created_by_accident(kafka: KafkaBroker, topic_prefix: str) -> None:
    with pytest.raises((KafkaError, TimeoutError)):
        async with asyncio.timeout(3):
            await send(kafka.bootstrap, f"{topic_prefix}.absent", [b"x"])
    with kafka.admin() as admin:
        assert f"{topic_prefix}.absent" not in admin.list_topics()


async def test_a_shortened_log_starts_later(kafka: KafkaBroker, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.short"
    kafka.create_topics({topic: 1})
    await send(kafka.bootstrap, topic, [b"%d" % number for number in range(10)])
    kafka.delete_records_before(topic, 0, 7)
    assert await read(kafka.bootstrap, topic, 3) == [b"7", b"8", b"9"]


@pytest.fixture
def own_broker(kafka_here: None, tmp_path: Path) -> KafkaBroker:
    """A broker that the test may break."""
    return KafkaBroker(tmp_path / "kafka")


async def test_killed_and_restarted_keeps_data_and_port(own_broker: KafkaBroker) -> None:
    own_broker.start()
    try:
        own_broker.create_topics({"kept": 1})
        await send(own_broker.bootstrap, "kept", [b"before"])
        before = own_broker.bootstrap
        own_broker.kill()
        assert not own_broker.running
        own_broker.restart()
        assert own_broker.bootstrap == before
        await send(own_broker.bootstrap, "kept", [b"after"])
        assert await read(own_broker.bootstrap, "kept", 2) == [b"before", b"after"]
        own_broker.stop()
        own_broker.restart()
        assert await read(own_broker.bootstrap, "kept", 2) == [b"before", b"after"]
    finally:
        own_broker.kill()


async def test_an_idempotent_producer_survives_cut_connections(kafka_here: None, tmp_path: Path) -> None:
    with FaultProxy(0) as proxy:
        broker = KafkaBroker(tmp_path / "kafka", advertise_proxy=proxy.port)
        proxy.aim(broker.proxied_port)
        broker.start()
        try:
            broker.create_topics({"cut": 1})
            producer = AIOKafkaProducer(
                bootstrap_servers=f"127.0.0.1:{proxy.port}", enable_idempotence=True, retry_backoff_ms=20
            )
            await producer.start()
            waiting = []
            for number in range(300):
                waiting.append(await producer.send("cut", b"%d" % number, partition=0))
                if number % 60 == 59:
                    await asyncio.sleep(0.02)
                    proxy.cut()
            async with asyncio.timeout(30):
                await asyncio.gather(*waiting)
            await producer.stop()
            assert proxy.connections > 3, "the clients never came through the proxy"
            assert await read(broker.bootstrap, "cut", 300) == [b"%d" % number for number in range(300)]
        finally:
            broker.kill()


def test_a_broker_that_cannot_start_says_why(kafka_here: None, tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka", options={"num.io.threads": uuid.uuid4().hex})
    with pytest.raises(RigError, match=r"num\.io\.threads"):
        broker.start()
