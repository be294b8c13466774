"""Reads the ledger with a consumer of its own and hands batches, through a Faust agent, to the partitions it judges.

Faust's own consumer is not used for the ledger: a seek in its rebalance callback is undone, it acknowledges what a handler
failed on, and it costs a hundred microseconds a message. The agent is fed from a bounded channel. Two things about channels
are worth knowing, and tests hold both: a plain one is emptied whenever Faust's flow control resumes (a rebalance of *its*
topics), and a `put` before the agent runs goes nowhere. `LedgerChannel` keeps what it holds; `Partition` notices an offset
jump and reads again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from mode import Service
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from streams.board import Progress
from streams.clients import REBALANCE_SECONDS, KafkaOptions, make_producer
from streams.folding import Fold, StateLike
from streams.keeping import Keeper
from streams.metrics import Metrics
from streams.partition import Partition, PartitionSettings, Phase, Record
from streams.publish import Message, Publisher
from streams.quarantine import Quarantines
from streams.state.base import StateStore

log = logging.getLogger(__name__)

CHANNEL_SIZE = 64
FETCH_BYTES = 4 * 1024 * 1024
FETCH_WAIT_MS = 100
WATCH_SECONDS = 1.0
PARK_SECONDS = REBALANCE_SECONDS
COMMIT_SECONDS = 10.0


class Batch(NamedTuple):
    """What the channel carries: fetched records of one ledger partition."""

    partition: int
    session: int
    records: Sequence[Record]


class LedgerChannel(faust.Channel[Batch]):
    """A channel that Faust's flow control does not empty."""

    _queue: ThrowableQueue | None

    @property
    def queue(self) -> ThrowableQueue:
        if self._queue is None:
            always = FlowControlEvent(initially_suspended=False)
            self._queue = ThrowableQueue(maxsize=self.maxsize or CHANNEL_SIZE, flow_control=always)
        return self._queue


class Monitor(Service):
    """The ledger consumer and its partitions."""

    def __init__(
        self,
        *,
        topic: str,
        group: str,
        member: str,
        options: KafkaOptions,
        fold: Fold,
        store: StateStore,
        publisher: Publisher,
        progress: Progress,
        metrics: Metrics,
        settings: PartitionSettings,
        channel: Callable[[], Any],
        quarantines: Quarantines | None = None,
        observe: Callable[[Any], None] | None = None,
        show: Callable[[Mapping[int, StateLike]], None] = lambda states: None,
        threaded: bool = True,
        **kwargs: Any,
    ) -> None:
        """`observe(result)` counts what a step did; `show(states)` is given the states that are running, once a second."""
        super().__init__(**kwargs)
        self.partitions: dict[int, Partition] = {}
        self.read_at = time.monotonic()
        """When the fetching loop last turned."""
        self._topic = topic
        self._group = group
        self._member = member
        self._options = options
        self._fold = fold
        self._store = store
        self._publisher = publisher
        self._progress = progress
        self._metrics = metrics
        self._settings = settings
        self._quarantines = quarantines
        self._loaded: set[int] = set()
        self._channel = channel
        self.keeper: Keeper | None = None
        """Set it before the start to have snapshots."""
        self._observe = observe
        self._show_states = show
        self._executor = ThreadPoolExecutor(1, "step") if threaded else None
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None

    # -- service -----------------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Start the clients; the group is joined once the agent listens."""
        self._producer = make_producer(self._options)
        await self._producer.start()
        self._consumer = AIOKafkaConsumer(
            **self._options.member(self._group, self._member),
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_bytes=4 * FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )

    async def on_stop(self) -> None:
        """Flush what is applied, then leave."""
        await self._park_all()
        for partition in list(self.partitions.values()):
            await partition.drop()
        for client in (self._consumer, self._producer):
            if client is not None:
                try:
                    async with asyncio.timeout(COMMIT_SECONDS):
                        await client.stop()
                except (KafkaError, TimeoutError) as problem:
                    log.warning("client did not stop cleanly", extra={"problem": type(problem).__name__})
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    @Service.task
    async def _read(self) -> None:
        """Fetch and hand on, until the service stops."""
        consumer = self._consumer
        assert consumer is not None
        channel = self._channel()
        while not channel.subscriber_count:  # a put before the agent runs goes nowhere
            await self.sleep(0.01)
        consumer.subscribe([self._topic], listener=_Listener(self))
        await consumer.start()
        while not self.should_stop:
            self.read_at = time.monotonic()
            try:
                fetched = await consumer.getmany(timeout_ms=200)
            except KafkaError as problem:
                log.warning("ledger fetch failed", extra={"problem": type(problem).__name__})
                await self.sleep(0.2)
                continue
            for tp, records in fetched.items():
                partition = self.partitions.get(tp.partition)
                if partition is not None:
                    await channel.put(Batch(tp.partition, partition.session, records))

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            self._show()
            await self.sleep(WATCH_SECONDS)

    def accept(self, batch: Batch) -> None:
        """From the agent: give a batch to its partition."""
        partition = self.partitions.get(batch.partition)
        if partition is not None:
            partition.accept(batch.session, batch.records)

    def _show(self) -> None:
        stopped = sum(partition.phase is Phase.STOPPED for partition in self.partitions.values())
        self._metrics.partitions_stopped.set(stopped)
        running = {n: part for n, part in self.partitions.items() if part.phase is Phase.RUNNING}
        self._show_states({n: part.state for n, part in sorted(running.items()) if part.state is not None})
        consumer = self._consumer
        if consumer is None:
            return
        self._metrics.ledger_lag.clear()  # a partition that another worker has now is shown by that one
        for number in running:
            applied = self._progress.own_applied.get(number)
            end = consumer.highwater(TopicPartition(self._topic, number))
            if applied is not None and end is not None:
                self._metrics.ledger_lag.labels(str(number)).set(max(0, end - 1 - applied))

    def owns(self, partition: int) -> bool:
        """Whether the partition is running here."""
        part = self.partitions.get(partition)
        return part is not None and part.phase is Phase.RUNNING

    async def last_offsets(self, partitions: int) -> dict[int, int]:
        """Offset of the last record of each ledger partition; -1 = it is empty."""
        places = [TopicPartition(self._topic, number) for number in range(partitions)]
        ends = await self._ledger().end_offsets(places)
        return {place.partition: int(end) - 1 for place, end in ends.items()}

    # -- rebalances --------------------------------------------------------------------------------------------------------

    async def revoked(self) -> None:
        """Everything stops: applied frames are written down, memory is kept for the case that it comes back."""
        await self._park_all()

    async def assigned(self, numbers: set[int]) -> None:
        """What came back goes on; what is new is loaded; the rest is forgotten."""
        consumer = self._consumer
        assert consumer is not None
        for number in numbers:
            consumer.pause(TopicPartition(self._topic, number))
        for number in set(self.partitions) - numbers:
            await self.partitions.pop(number).drop()
        for number in sorted(numbers):
            known = self.partitions.get(number)
            if known is not None:
                if await known.resume():
                    continue
                await known.drop()
            partition = self.partitions[number] = self._make(number)
            partition.start()

    def _make(self, number: int) -> Partition:
        return Partition(
            number,
            fold=self._fold,
            store=self._store,
            broker=self,
            send=self._send,
            publisher=self._publisher,
            progress=self._progress,
            metrics=self._metrics,
            settings=self._settings,
            executor=self._executor,
            restore=self.keeper.restore if self.keeper else None,
            keep=self.keeper.after_flush if self.keeper else None,
            observe=self._observe,
            quarantines=self._quarantines,
            loaded=self._loaded,
        )

    async def _park_all(self) -> None:
        parts = [partition for partition in self.partitions.values() if partition.phase is not Phase.GONE]
        if not parts:
            return
        tasks = {asyncio.ensure_future(partition.park()): partition for partition in parts}
        _, late = await asyncio.wait(tasks, timeout=PARK_SECONDS)
        for task in late:
            task.cancel()
            log.warning(
                "partition could not be written down in time", extra={"partition": tasks[task].number}
            )
            await tasks[task].drop()

    # -- what a partition asks (streams.partition.Broker) ------------------------------------------------------------------

    async def seek(self, partition: int, offset: int) -> None:
        tp = TopicPartition(self._topic, partition)
        self._ledger().seek(tp, offset)
        self._ledger().resume(tp)

    async def start_of_log(self, partition: int) -> int:
        tp = TopicPartition(self._topic, partition)
        return int((await self._ledger().beginning_offsets([tp]))[tp])

    async def committed(self, partition: int) -> int | None:
        offset = await self._ledger().committed(TopicPartition(self._topic, partition))
        return None if offset is None else int(offset)

    async def commit(self, partition: int, offset: int) -> bool:
        tp = TopicPartition(self._topic, partition)
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._ledger().commit({tp: OffsetAndMetadata(offset, "")})
        except (CommitFailedError, IllegalStateError):
            return False
        return True

    def hold(self, partition: int, held: bool) -> None:
        tp = TopicPartition(self._topic, partition)
        consumer = self._ledger()
        if tp in consumer.assignment():
            (consumer.pause if held else consumer.resume)(tp)

    def _ledger(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("the ledger consumer is not started")
        return self._consumer

    async def _send(self, message: Message) -> Any:
        assert self._producer is not None
        return await self._producer.send(
            message.topic, message.value, message.key, message.partition, headers=message.headers
        )


class _Listener(ConsumerRebalanceListener):
    """Rebalances of the ledger group. aiokafka logs what a callback raises and goes on, so nothing may be raised."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        try:
            await self._monitor.revoked()
        except Exception as problem:  # noqa: BLE001 - see above
            await self._monitor.crash(problem)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        try:
            await self._monitor.assigned({tp.partition for tp in assigned})
        except Exception as problem:  # noqa: BLE001 - see above
            await self._monitor.crash(problem)
