"""A whole installation on real parts: topics, workers as processes of their own, and the one-process answer to compare with."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detectors.body import body_bytes
from detectors.config import demo_config
from detectors.settings import FoldSettings
from detectors.state import COUNTERS, Head
from streams import topics
from streams.formats import canonical
from streams.judge import FileJudge
from streams.latest import Latest
from streams.payment import Payment
from streams.pseudonyms import PseudonymKey, Pseudonyms
from streams.replay import key_of
from streams.simulate_bank import BANK, payment, simulate
from streams.state.base import StoreMeta
from streams.state.redis import RedisStore
from tests.rigs.kafka import KafkaBroker
from tests.rigs.process import Program

KEY = PseudonymKey("k1", bytes(range(32)))
PARTITIONS = 4
SOURCES = 4
ROOT = Path(__file__).resolve().parents[2]


@cache
def bank_payments(households: int = 40, days: int = 90, seed: int = 7) -> tuple[Payment, ...]:
    """A small simulated bank in the order in which its payments arrive."""
    return tuple(payment(move) for move in simulate(seed, days=days, households=households).moves)


@dataclass(frozen=True)
class Answer:
    """What stands in the end, and the counters behind it."""

    bodies: tuple[bytes, ...]
    counters: dict[str, int]


def one_process(payments: Sequence[Payment]) -> Answer:
    """The fold in one process, one partition, without any broker."""
    judge = FileJudge(
        demo_config(), pseudonyms=Pseudonyms(KEY), settings=FoldSettings(key_id=KEY.id), partitions=1
    )
    for first in range(0, len(payments), 500):
        judge.take(payments[first : first + 500])
    judge.flush()
    standing = sorted(judge.standing.items())
    return Answer(tuple(body_bytes(said.body) for _, said in standing), judge.counters())


@cache
def expected(households: int = 40, days: int = 90, seed: int = 7) -> Answer:
    """The answer for `bank_payments` of the same arguments."""
    return one_process(bank_payments(households, days, seed))


@dataclass
class Installation:
    """Topics with a prefix of their own, and the workers on them."""

    broker: KafkaBroker
    redis_url: str
    folder: Path
    prefix: str
    options: dict[str, Any] = field(default_factory=dict)
    bootstrap: str = ""
    bank: str = BANK
    key: PseudonymKey = KEY
    programs: list[Program] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = topics.TopicNames(self.prefix)
        self.topic = f"{self.prefix}-payments"
        self.bootstrap = self.bootstrap or self.broker.bootstrap
        (self.folder / "pseudonym.key").write_text(self.key.line())
        (self.folder / "detectors.yaml").write_text("version: demo\nmode: advise\nmax_action: freeze\n")

    def create(self) -> None:
        """Every topic."""
        specs = [
            *topics.wanted(self.names, partitions=PARTITIONS, banks=[self.bank]),
            topics.TopicSpec(self.topic, SOURCES, "payments", fixed_partitions=False),
        ]
        with topics.admin_client(self.broker.bootstrap) as admin:
            topics.create(admin, specs)

    def settings(self, member: str) -> Path:
        """A settings file."""
        values = {
            "bootstrap_servers": [self.bootstrap],
            "topics": [{"name": self.topic, "format": "canonical", "bank": self.bank}],
            "member_id": member,
            "topic_prefix": self.prefix,
            "ledger_partitions": PARTITIONS,
            "replication_factor": 1,
            "redis_url": self.redis_url,
            "redis_persistence": "none",
            "redis_namespace": self.prefix,
            "redis_timeout": "2s",
            "member_ttl": "2s",
            "pseudonym_key_file": str(self.folder / "pseudonym.key"),
            "config_file": str(self.folder / "detectors.yaml"),
            "mode": "advise",
            "flush_interval": "500ms",
            "health_port": 0,
            "log_level": "INFO",
            **self.options,
        }
        path = self.folder / f"{member}.yaml"
        path.write_text(json.dumps(values))
        return path

    def worker(
        self,
        member: str = "w1",
        *,
        crash_at: str = "",
        name: str = "",
        session: int = 0,
        raise_at: int = 0,
        stand_at: int = 0,
        hang: Path | None = None,
        raise_on: int = 0,
    ) -> Program:
        """Start a worker. Its log is named by the number of workers that were started."""
        name = name or f"{member}-{len(self.programs)}"
        program = Program(name, self.folder / f"{name}.log")
        command = [sys.executable, "-m", "tests.e2e.worker", str(self.settings(member))]
        command += ["--session", str(session), "--raise-at", str(raise_at)]
        command += ["--stand-at", str(stand_at)]
        command += ["--raise-on", str(raise_on)]
        command += ["--hang", str(hang)] if hang else []
        program.start(command, env={"SAFEHOLD_CRASH_AT": crash_at} if crash_at else {}, cwd=ROOT)
        self.programs.append(program)
        return program

    async def gone(self, program: Program, within: float = 40.0) -> None:
        """Wait until a worker has ended by itself."""
        await self.until(lambda: not program.running, within, f"{program.name} to end")

    async def until(self, there: Callable[[], bool], within: float, what: str) -> None:
        """Wait for something that is there to be seen."""
        try:
            async with asyncio.timeout(within):
                while not there():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            tails = "\n".join(program.tail(15) for program in self.programs[-2:])
            raise AssertionError(f"waited in vain for {what}\n{tails}") from None

    async def appended(self, messages: int, within: float = 120.0) -> None:
        """Wait until intake has committed so many source messages, and the ledger holds what came of them."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.broker.bootstrap,
            group_id=f"{self.prefix}-g1-intake",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            async with asyncio.timeout(within):
                places = [TopicPartition(self.topic, number) for number in range(SOURCES)]
                consumer.assign(places)
                done = 0
                while done < messages:
                    await asyncio.sleep(0.1)
                    done = sum([await consumer.committed(place) or 0 for place in places])
        except TimeoutError:
            tails = "\n".join(program.tail(15) for program in self.programs[-2:])
            raise AssertionError(f"only {done} of {messages} appended\n{tails}") from None
        finally:
            await consumer.stop()

    async def received(self, count: int, within: float = 120.0) -> None:
        """Wait until the heads in the store speak of so many transactions."""
        said: dict[str, int] = {}
        try:
            async with asyncio.timeout(within):
                while said.get("received", 0) < count:
                    await asyncio.sleep(0.05)
                    said = await self._counters_or_nothing()
        except TimeoutError:
            tails = "\n".join(program.tail(15) for program in self.programs[-2:])
            raise AssertionError(f"only {said} of {count}\n{tails}") from None

    async def as_one_process(self, answer: Answer, received: int) -> None:
        """Everything is settled, balanced, and says what one process says."""
        counters = await self.settled(received)
        balanced(counters)
        same(counters, answer.counters)
        assert (await self.latest()).bodies() == list(answer.bodies)

    def end(self) -> None:
        """End every worker that is left."""
        for program in self.programs:
            program.kill()

    # -- in and out

    async def send(
        self,
        payments: Iterable[Payment],
        *,
        compression: str | None = None,
        between: Callable[[int], list[bytes]] | None = None,
    ) -> int:
        """Send payments as the bank would; `between(n)` gives other messages to put after the n-th. Returns the messages."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.broker.bootstrap,
            enable_idempotence=True,
            compression_type=compression,
            linger_ms=2,
        )
        await producer.start()
        count = 0
        try:
            waiting = []
            for number, item in enumerate(payments):
                waiting.append(await producer.send(self.topic, canonical.encode(item), key=key_of(item)))
                for extra in between(number) if between else []:
                    waiting.append(await producer.send(self.topic, extra, key=key_of(item)))
            await asyncio.gather(*waiting)
            count = len(waiting)
        finally:
            await producer.stop()
        return count

    async def read(self, topic: str) -> list[Any]:
        """Everything that a topic holds now."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.broker.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            places = sorted(consumer.assignment())
            assert places
            ends = await consumer.end_offsets(places)
            found: list[Any] = []
            while any([await consumer.position(place) < ends[place] for place in places]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def latest(self) -> Latest:
        """What stands in the review topic."""
        latest = Latest()
        for record in await self.read(self.names.review(self.bank)):
            latest.add(record.value, list(record.headers))
        return latest

    async def heads(self) -> dict[int, Head]:
        """The heads that are in the store."""
        store = RedisStore(
            self.redis_url,
            StoreMeta(partitions=PARTITIONS, key_id=self.key.id, generation="g1"),
            persistence="none",
            namespace=self.options.get("redis_namespace", self.prefix),
        )
        await store.open()
        try:
            found = {}
            for partition in range(PARTITIONS):
                blob = await store.load_head(partition)
                if blob is not None:
                    found[partition] = msgspec.msgpack.decode(blob, type=Head)
            return found
        finally:
            await store.close()

    async def counters(self) -> dict[str, int]:
        """The counters of all heads, added up."""
        sums = dict.fromkeys(COUNTERS, 0)
        for head in (await self.heads()).values():
            for days in head.counters.values():
                for row in days.values():
                    for name, count in zip(COUNTERS, row, strict=True):
                        sums[name] += count
        return sums

    async def settled(self, received: int, *, within: float = 60.0) -> dict[str, int]:
        """Wait until the heads say that so many transactions came, and that the ledger is applied to its end."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap)
        await consumer.start()
        places = [TopicPartition(self.names.ledger, number) for number in range(PARTITIONS)]
        said: dict[str, int] = {}
        try:
            async with asyncio.timeout(within):
                while True:
                    self._alive()
                    said = await self._counters_or_nothing()
                    if said.get("received", 0) >= received:
                        ends = await consumer.end_offsets(places)
                        heads = await self.heads()
                        if all(
                            heads[place.partition].applied == ends[place] - 1
                            for place in places
                            if ends[place]
                        ):
                            return await self.counters()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            tails = "\n".join(program.tail(15) for program in self.programs)
            raise AssertionError(f"not settled: {said} of {received}\n{tails}") from None
        finally:
            await consumer.stop()

    async def _counters_or_nothing(self) -> dict[str, int]:
        try:
            return await self.counters()
        except Exception:  # noqa: BLE001 - the store may be away: that is what some tests do
            return {}

    def _alive(self) -> None:
        if self.programs and not any(program.running for program in self.programs):
            raise AssertionError(f"no worker is left; {self.programs[-1].tail(40)}")


def balanced(counters: dict[str, int], ledger_legs: int | None = None) -> None:
    """The balance that must close."""
    legs = sum(counters[name] for name in ("judged", "late", "duplicate", "conflict", "hub", "quarantined"))
    assert counters["received"] == counters["accepted"] + counters["rejected"], counters
    assert 2 * counters["accepted"] == legs + counters["no_leg"], counters
    if ledger_legs is not None:
        assert legs == ledger_legs


def same(counters: dict[str, int], wanted: dict[str, int]) -> None:
    """Equal but for what came twice."""
    names = [name for name in wanted if name not in ("redelivered", "skipped")]
    assert {name: counters[name] for name in names} == {name: wanted[name] for name in names}
