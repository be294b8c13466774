"""A worker on real Kafka and Redis of this machine, and what it does, seen from outside."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks import population
from detectors.config import demo_config
from detectors.step import new_state
from streams.formats.canonical import Transaction
from streams.rows import partitions_of
from streams.state.base import StoreMeta, flush_accounts
from streams.state.redis import RedisStore
from tests.e2e.harness import PARTITIONS, SOURCES, Installation
from tests.rigs.kafka import KafkaBroker
from tests.rigs.process import Program, free_port
from tests.rigs.redis import RedisServer

TICK = os.sysconf("SC_CLK_TCK")
BARE_BATCH = 2_000
BATCH_BYTES = 256 * 1024


@dataclass
class Rig:
    """One broker, one Redis, one installation."""

    kafka: KafkaBroker
    redis: RedisServer
    install: Installation
    ports: dict[str, int]

    def worker(self, member: str = "w1", **named: Any) -> Program:
        """Start a worker whose numbers can be read."""
        self.ports[member] = free_port()
        self.install.options["health_port"] = self.ports[member]
        return self.install.worker(member, **named)

    def metrics(self, member: str = "w1") -> dict[str, float]:
        """Its numbers now; empty while it does not answer."""
        page = self._get(member, "/metrics")
        found: dict[str, float] = {}
        for line in (page or "").splitlines():
            if line and line[0] != "#":
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def ready(self, member: str = "w1") -> bool:
        """Whether every partition is being judged."""
        return self._get(member, "/readyz") is not None

    def _get(self, member: str, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[member]}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except (OSError, urllib.error.URLError):
            return None

    async def until_ready(self, member: str = "w1", within: float = 600.0) -> float:
        """Seconds until it is ready."""
        start = time.monotonic()
        while not await asyncio.to_thread(self.ready, member):
            if time.monotonic() - start > within:
                raise TimeoutError(f"{member} is not ready; {self.install.programs[-1].tail(30)}")
            await asyncio.sleep(0.1)
        return time.monotonic() - start

    def cpu(self) -> dict[str, float]:
        """CPU seconds of every process so far."""
        found = {"kafka": cpu_of(self.kafka._program.pid), "redis": cpu_of(self.redis._program.pid)}
        for program in self.install.programs:
            if program.running:
                found[program.name] = cpu_of(program.pid)
        return found


def cpu_of(pid: int | None) -> float:
    """CPU seconds of a process so far."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_of(pid: int | None) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    """Everything up, and down again at the end."""
    with tempfile.TemporaryDirectory(prefix="safehold-bench-") as name:
        folder = Path(name)
        kafka = KafkaBroker(folder / "kafka", full_speed=True, heap="1g").start()
        redis = RedisServer(folder / "redis", persistence=True).start()
        settings = {
            "redis_persistence": "aof",
            "redis_timeout": "5s",
            "flush_interval": "10s",
            "observed_since": population.SINCE,
            "member_ttl": "5s",
            "log_level": "WARNING",
            **options,
        }
        install = Installation(kafka, redis.url(), folder, "bench", settings)
        try:
            install.create()
            yield Rig(kafka, redis, install, {})
        finally:
            install.end()
            redis.kill()
            kafka.kill()


async def preload(here: Rig, copies: population.Copies, accounts: int) -> None:
    """Put accounts with full windows into the store, as an earlier life of the worker would have left them."""
    meta = StoreMeta(partitions=PARTITIONS, key_id=population.KEY.id, generation="g1")
    store = RedisStore(here.redis.url(), meta, namespace=here.install.prefix)
    await store.open()
    await store.check()
    epochs = [await store.claim(partition) for partition in range(PARTITIONS)]
    for subjects, blobs in copies.many(accounts):
        place = partitions_of(subjects, PARTITIONS).tolist()
        for partition in range(PARTITIONS):
            mine = [
                (subject, blob)
                for subject, blob, at in zip(subjects.tolist(), blobs, place, strict=True)
                if at == partition
            ]
            await flush_accounts(store, partition, epochs[partition], mine)
    for partition in range(PARTITIONS):
        state = new_state(partition, PARTITIONS, population.fold_settings(), demo_config())
        state.head.front = copies.state.head.front
        await store.write_head(partition, epochs[partition], None, -1, state.pack_head())
    await store.close()
    # Filling it made Redis rewrite its file, with a copy of every page that is written meanwhile: not what is measured.
    client = here.redis.client()
    while client.info("persistence")["aof_rewrite_in_progress"]:
        await asyncio.sleep(0.2)
    client.close()


async def produce(
    producer: AIOKafkaProducer, topic: str, items: Iterable[tuple[int, bytes]], limit: int = 1 << 62
) -> int:
    """Send messages in full batches, each account's in its source partition."""
    open_batches = [producer.create_batch() for _ in range(SOURCES)]
    waiting: list[Any] = []
    count = 0
    for account, value in items:
        partition = account % SOURCES
        key = b"%d" % account
        if open_batches[partition].append(key=key, value=value, timestamp=None) is None:
            waiting.append(await producer.send_batch(open_batches[partition], topic, partition=partition))
            open_batches[partition] = producer.create_batch()
            open_batches[partition].append(key=key, value=value, timestamp=None)
            await asyncio.sleep(0)
        count += 1
        if count == limit:
            break
    for partition, batch in enumerate(open_batches):
        if batch.record_count():
            waiting.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*waiting)
    return count


WARM = 200


async def warm(here: Rig, items: Iterator[tuple[int, bytes]]) -> None:
    """Send a few messages and wait until they are judged and flushed: then every group has its partitions."""
    producer = AIOKafkaProducer(bootstrap_servers=here.kafka.bootstrap)
    await producer.start()
    try:
        await produce(producer, here.install.topic, items, WARM)
    finally:
        await producer.stop()
    await here.install.received(WARM, within=120)


@asynccontextmanager
async def hidden(
    here: Rig, items: Iterable[tuple[int, bytes]]
) -> AsyncIterator[tuple[int, AIOKafkaProducer]]:
    """Messages in the topic that nobody who reads committed ones sees, until `commit_transaction`."""
    producer = AIOKafkaProducer(
        bootstrap_servers=here.kafka.bootstrap,
        transactional_id="bench",
        transaction_timeout_ms=900_000,
        max_batch_size=BATCH_BYTES,
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        yield await produce(producer, here.install.topic, items), producer
    finally:
        await producer.stop()


async def bare(here: Rig, messages: int, isolation: str) -> tuple[float, float]:
    """Messages a second, and CPU µs a message, of the bare client: getmany and decode, nothing else."""
    decode = msgspec.json.Decoder(Transaction).decode
    consumer = AIOKafkaConsumer(
        bootstrap_servers=here.kafka.bootstrap, enable_auto_commit=False, isolation_level=isolation
    )
    await consumer.start()
    try:
        places = [TopicPartition(here.install.topic, number) for number in range(SOURCES)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        cpu, start, done = time.process_time(), time.perf_counter(), 0
        while done < messages:
            for records in (await consumer.getmany(timeout_ms=500, max_records=BARE_BATCH)).values():
                for record in records:
                    decode(record.value)
                done += len(records)
        took, spent = time.perf_counter() - start, time.process_time() - cpu
        return done / took, 1e6 * spent / done
    finally:
        await consumer.stop()
