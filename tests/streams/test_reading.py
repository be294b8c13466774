"""Reading what topics hold, on real Kafka: the embedded broker tells a client more of its topics than Kafka does."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.reading import places_of, read_all
from tests.rigs.kafka import KafkaBroker


async def test_everything_that_is_there_is_read_and_nothing_is_created(
    kafka: KafkaBroker, topic_prefix: str
) -> None:
    full, empty, missing = (f"{topic_prefix}.{name}" for name in ("full", "empty", "missing"))
    kafka.create_topics({full: 3, empty: 2})
    sent = {(part, b"%d" % number) for part in range(3) for number in range(4)}
    producer = AIOKafkaProducer(bootstrap_servers=[kafka.bootstrap])
    await producer.start()
    try:
        for part, value in sorted(sent):
            await producer.send_and_wait(full, value, partition=part)
    finally:
        await producer.stop()
    client = AIOKafkaConsumer(bootstrap_servers=[kafka.bootstrap], enable_auto_commit=False)
    await client.start()
    try:
        places = await places_of(client, [missing, full, empty])
        assert [(p.topic, p.partition) for p in places] == [
            (full, 0), (full, 1), (full, 2), (empty, 0), (empty, 1),
        ]  # fmt: skip
        found = [record async for record in read_all(client, [missing, full, empty])]
        assert sorted((record.partition, record.value) for record in found) == sorted(sent)
        assert [record async for record in read_all(client, [missing])] == []
        assert missing not in await client.topics()
    finally:
        await client.stop()
