"""The control topics to the ledger: a Faust agent each, and the one place in Safehold that acts on a clock.

A record is written to every partition that it concerns before its message is acknowledged; written again after a crash it has
the same record id and changes nothing. A message that becomes no record goes to the dead letters.

When a flag's expiry passes, a state `expired` with a record id made from its date is put into the flags topic, so that quiet
accounts are corrected too. Every worker watches; whoever is first, it is one record. A flag is its account and its id, as in
the fold: two partners may number alike.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import faust
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from detectors.model import Flag, FlagState
from detectors.partition import partition_of
from streams import ledger
from streams.clients import KafkaOptions, make_producer
from streams.controls import INVALID, BadControl, Controls, FlagMessage, Moment, Placed, moment
from streams.metrics import Metrics
from streams.publish import Message, dead_letter
from streams.state.base import FlagEntry, StateStore, StoreError
from streams.topics import TopicNames

log = logging.getLogger(__name__)

WATCH_SECONDS = 5.0
RETRY_SECONDS = 1.0


class Feeds(Service):
    """Writes control records to the ledger."""

    def __init__(
        self,
        *,
        names: TopicNames,
        partitions: int,
        options: KafkaOptions,
        controls: Controls,
        store: StateStore,
        metrics: Metrics,
        key_id: str,
        generation: str,
        now: Callable[[], float] = time.time,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._names = names
        self._partitions = partitions
        self._options = options
        self._controls = controls
        self._store = store
        self._metrics = metrics
        self._key_id = key_id
        self._generation = generation
        self._now = now
        self._producer: AIOKafkaProducer | None = None
        self._started = asyncio.Event()
        self.delivering = 0
        """Deliveries under way."""
        self.delivered_at = self.watched_at = time.monotonic()
        """When an attempt to deliver last ended, whichever way; when the watch of expiries last turned."""
        self._flags: dict[tuple[int, str], tuple[int, str, FlagMessage]] = {}
        """(account, flag id) → (effective, record id, message) of its latest state."""

    async def on_start(self) -> None:
        """Start the producer."""
        self._producer = make_producer(self._options)
        await self._producer.start()
        self._started.set()

    async def on_stop(self) -> None:
        """Deliver what is on its way."""
        if self._producer is not None:
            await self._producer.stop()

    # -- messages to records -----------------------------------------------------------------------------------------------

    def agents(self, app: faust.App) -> None:
        """Declare the agents. The topics exist: a Faust agent on a missing one would read nothing, in silence."""
        for topic, read in (
            (self._names.flags, self._controls.flag),
            (self._names.accounts, self._controls.account),
            (self._names.decisions, self._controls.decision),
            (self._names.config, self._controls.config),
        ):
            channel = app.topic(
                topic, key_serializer="raw", value_serializer="raw", key_type=bytes, value_type=bytes
            )
            app.agent(channel, name=f"feeds-{topic}")(self._reader(read))

    def _reader(self, read: Callable[[bytes, int], Placed]) -> Callable[[Any], Awaitable[None]]:
        async def feed(stream: Any) -> None:
            await self._started.wait()
            # `async for` alone acknowledges in `finally`, also what its body failed on.
            async for event in stream.noack().events():
                await self.take(read, event.message)
                event.ack()

        return feed

    async def take(self, read: Callable[[bytes, int], Placed], message: Any) -> None:
        """Bring one message into the ledger or the dead letters. Returns when it is acknowledged there."""
        appended = int(message.timestamp * 1_000_000)
        try:
            placed = read(message.value or b"", appended)
            frames = self._frames(placed)
        except (BadControl, ledger.LedgerError, OverflowError) as problem:
            reason = getattr(
                problem, "reason", INVALID if isinstance(problem, OverflowError) else "oversized"
            )
            self._metrics.dead_letters.labels(reason).inc()
            letter = dead_letter(
                self._names.deadletters,
                coordinate=f"{message.topic}/{message.partition}/{message.offset}/0",
                reason=reason,
                detail=str(problem),
                value=message.value or b"",
                key=message.key,
                received=appended,
            )
            await self._deliver([letter])
            return
        await self._deliver(frames)
        if isinstance(placed.record, Flag):
            await self._show(placed.record)

    def _frames(self, placed: Placed) -> list[Message]:
        """One frame a partition that it concerns."""
        numbers = range(self._partitions)
        if placed.subject is not None:
            numbers = range(at := partition_of(placed.subject, self._partitions), at + 1)
        (value,) = ledger.encode_records(
            placed.kind, [placed.record], key_id=self._key_id, generation=self._generation
        )
        return [Message(self._names.ledger, None, value, [], number) for number in numbers]

    async def _deliver(self, messages: list[Message]) -> None:
        """Send until all are acknowledged. Sent again they change nothing."""
        if not self.delivering:
            self.delivered_at = time.monotonic()
        self.delivering += 1
        try:
            while True:
                if await self._delivered(messages):
                    return
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self.delivering -= 1

    async def _delivered(self, messages: list[Message]) -> bool:
        producer = self._producer
        if producer is None:
            raise RuntimeError("feeds are not started")
        try:
            waiting = [
                await producer.send(m.topic, m.value, m.key, m.partition, headers=m.headers) for m in messages
            ]
            await asyncio.gather(*waiting)
        except (KafkaError, TimeoutError) as problem:
            log.warning("control record not delivered", extra={"problem": type(problem).__name__})
            return False
        finally:
            self.delivered_at = time.monotonic()
        return True

    async def _show(self, flag: Flag) -> None:
        """Into the registry that people look at. Nothing depends on it."""
        entry = FlagEntry(
            flag_id=flag.flag_id,
            party=flag.party,
            state=flag.state.value,
            effective_at=flag.effective_at,
            record_id=flag.record_id,
            body=msgspec.json.encode(flag),
        )
        try:
            await self._store.put_flag(entry)
        except StoreError as problem:
            log.warning("flag not shown in the registry", extra={"problem": type(problem).__name__})

    # -- expiry ------------------------------------------------------------------------------------------------------------

    @Service.task
    async def _watch(self) -> None:
        """Follow the flags topic from its beginning, and say so when an expiry passes."""
        consumer = AIOKafkaConsumer(
            **self._options.client(), enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            places = [TopicPartition(self._names.flags, 0)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            while not self.should_stop:
                self.watched_at = time.monotonic()
                fetched = await self._fetch(consumer)
                for records in fetched.values():
                    for record in records:
                        self.note(record.value or b"", record.timestamp * 1000)
                if await consumer.position(places[0]) >= ends[places[0]]:
                    await self._deliver(self.expired())
        finally:
            await consumer.stop()

    async def _fetch(self, consumer: AIOKafkaConsumer) -> dict[Any, list[Any]]:
        try:
            found: dict[Any, list[Any]] = await consumer.getmany(timeout_ms=int(WATCH_SECONDS * 1000))
        except KafkaError as problem:
            log.warning("flags could not be read", extra={"problem": type(problem).__name__})
            await self.sleep(RETRY_SECONDS)
            return {}
        return found

    def note(self, value: bytes, appended: int) -> None:
        """Remember the latest state of each flag, as the fold orders them. What is no flag is the agent's to refuse."""
        try:
            placed = self._controls.flag(value, appended)
        except BadControl:
            return
        flag = placed.record
        if isinstance(flag, Flag):
            order = (flag.effective_at, flag.record_id)
            known = self._flags.get((flag.party, flag.flag_id))
            if known is None or known[:2] <= order:
                message = msgspec.json.decode(value, type=FlagMessage)
                self._flags[flag.party, flag.flag_id] = (*order, message)

    def expired(self) -> list[Message]:
        """What must be put into the flags topic now."""
        now = int(self._now() * 1_000_000)
        found = []
        for name, (_, _, message) in list(self._flags.items()):
            if message.expires is None or message.state not in (FlagState.CONFIRMED, FlagState.PROPOSED):
                continue
            at = moment(message.expires, "expires")
            if at > now:
                continue
            due: Moment = at
            gone = msgspec.structs.replace(
                message, state=FlagState.EXPIRED, effective_at=due, record_id=f"expiry:{at}"
            )
            value = msgspec.json.encode(gone)
            self._flags[name] = (at, self._controls.flag(value, at).record.record_id, gone)
            found.append(Message(self._names.flags, message.flag_id.encode(), value, []))
        return found
