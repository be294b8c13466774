"""From the banks' topics to the ledger: decode, align, pseudonymise, append, in an order that makes a crash harmless.

     1  fetch and decode; a bad message costs only itself
     2  release what the alignment and the short ledger allow
     3  vault records of accounts that are new
     4  dead letters, keyed by source coordinate
     5  legs: one chain a ledger partition, each frame sent when the one before it is acknowledged
     6  counts, when all legs of their messages are acknowledged
     7  commit the source offsets

A crash before 7 sends the same messages again. The monitor drops legs and counts at or below the highest source coordinate
that it has of their source partition; so inside a ledger partition the coordinates of a source must never have a hole, and
nothing may be sent after a send that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from mode import Service

from detectors.model import Kind
from streams import ledger
from streams.block import BlockReader, Feed, Refused
from streams.board import Progress
from streams.clients import KafkaOptions, make_producer
from streams.crash import crash_point
from streams.metrics import Metrics
from streams.payment import Rejected
from streams.publish import Message, dead_letter
from streams.rows import Rows, gather
from streams.sources import SourceQueue, Sources, Taken, behind
from streams.vault import VaultWriter

log = logging.getLogger(__name__)

FETCH_RECORDS = 4_000
FETCH_WAIT_MS = 50
QUEUE_MESSAGES = 12_000
QUEUE_BYTES = 32 * 1024 * 1024
LINGER_SECONDS = 0.01
"""How long a small append waits for company. Adds to the latency of a quiet stream."""

SMALL_APPEND = 500
COMMIT_SECONDS = 0.5
LISTED_REJECTS = 20
DETAIL_CHARACTERS = 200


class Intake(Service):
    """Reads the bank topics of this process' share."""

    def __init__(
        self,
        *,
        feeds: Sequence[Feed],
        ledger_topic: str,
        partitions: int,
        dead_topic: str,
        group: str,
        member: str,
        options: KafkaOptions,
        reader: BlockReader,
        take_new: Callable[[], Sequence[tuple[int, str]]],
        vault: VaultWriter | None,
        vault_topic: str,
        key_id: str,
        generation: str,
        lateness: int,
        spread: int,
        progress: Progress,
        metrics: Metrics,
        stuck_seconds: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._feeds = {feed.topic: feed for feed in feeds}
        self._ledger_topic = ledger_topic
        self._ledger_partitions = [TopicPartition(ledger_topic, number) for number in range(partitions)]
        self._dead_topic = dead_topic
        self._group = group
        self._member = member
        self._options = options
        self._reader = reader
        self._take_new = take_new
        self._vault = vault
        self._vault_topic = vault_topic
        self._unsealed: list[tuple[int, str]] = []
        """New (subject, account) pairs that the vault has not acknowledged."""
        self.read_at = self.appended_at = time.monotonic()
        """When the reading loop last turned; when the appending one last appended, or had nothing that it might."""
        self._key_id = key_id
        self._generation = generation
        self._progress = progress
        self._metrics = metrics
        self._stuck_seconds = stuck_seconds
        self._sources = Sources(lateness, spread)
        self._all: tuple[str, ...] = ()
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._appending = asyncio.Lock()
        self._owned: dict[str, TopicPartition] = {}
        self._restart_at: dict[str, int] = {}
        """Source partition → the first offset that is not appended for certain."""
        self._commit_due: dict[TopicPartition, int] = {}
        self._session = 0
        """Changes with every seek and rebalance: what was fetched before it is not for us."""
        self._committed_at = 0.0
        self._unknown_since = time.monotonic()

    # -- service -----------------------------------------------------------------------------------------------------------

    async def on_start(self) -> None:
        """Start the clients and join the group."""
        self._producer = make_producer(self._options)
        await self._producer.start()
        self._consumer = AIOKafkaConsumer(
            **self._options.member(self._group, self._member),
            max_partition_fetch_bytes=2 * 1024 * 1024,
            fetch_max_bytes=16 * 1024 * 1024,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            isolation_level="read_committed",
        )
        self._consumer.subscribe(list(self._feeds), listener=_Listener(self))
        await self._consumer.start()
        await self._find_all()

    async def on_stop(self) -> None:
        """Finish the append at hand, commit, leave."""
        async with self._appending:
            await self._commit()
        for client in (self._consumer, self._producer):
            if client is not None:
                try:
                    async with asyncio.timeout(10.0):
                        await client.stop()
                except (KafkaError, TimeoutError) as problem:
                    log.warning("client did not stop cleanly", extra={"problem": type(problem).__name__})

    async def _find_all(self) -> None:
        """Every source partition there is, also those of other processes."""
        consumer = self._client()
        names = []
        for topic in self._feeds:
            names += [f"{topic}/{number}" for number in sorted(consumer.partitions_for_topic(topic) or ())]
        self._all = tuple(names)

    @property
    def waiting(self) -> bool:
        """Whether there is something that it may append and has not."""
        return not self._sources.held_by and self._sources.head() is not None

    # -- 1. fetch and decode -----------------------------------------------------------------------------------------------

    @Service.task
    async def _read(self) -> None:
        consumer = self._client()
        while not self.should_stop:
            self.read_at = time.monotonic()
            try:
                fetched = await consumer.getmany(timeout_ms=FETCH_WAIT_MS * 2, max_records=FETCH_RECORDS)
            except KafkaError as problem:
                log.warning("source fetch failed", extra={"problem": type(problem).__name__})
                await self.sleep(0.2)
                continue
            session = self._session
            for tp, records in fetched.items():
                if session != self._session:
                    break
                queue = self._sources.queues.get(f"{tp.topic}/{tp.partition}")
                if queue is not None and records:
                    self._restart_at.setdefault(queue.name, records[0].offset)
                    self._decode(queue, records)
                    crash_point("after-decode")
                    await asyncio.sleep(0)
            await self._look_at_ends()
            self._balance_fetching()

    def _decode(self, queue: SourceQueue, records: Sequence[Any]) -> None:
        queue.add(self._reader.read(queue.name, queue.feed, records))
        queue.at_end = False
        queue.moved_at = time.monotonic()
        if queue.stuck:
            queue.stuck = False
            self._metrics.intake_stuck.labels(*queue.name.rsplit("/", 1)).set(0)
        self._metrics.intake_messages.labels(queue.feed.topic, "read").inc(len(records))
        self._progress.wake()

    async def _look_at_ends(self) -> None:
        """Whether a source partition with nothing in hand has anything left at the broker."""
        consumer = self._client()
        for name, tp in list(self._owned.items()):
            queue = self._sources.queues.get(name)
            if queue is None or queue.waiting or tp not in consumer.assignment():
                continue
            end = consumer.last_stable_offset(tp)
            if end is None or end < 0:
                end = consumer.highwater(tp)
            if end is None:
                continue
            at_end = await consumer.position(tp) >= end
            if at_end != queue.at_end:
                queue.at_end = at_end
                queue.moved_at = time.monotonic()
                self._progress.wake()
        self._post_positions()

    def _post_positions(self) -> None:
        self._progress.own_positions = {name: queue.position for name, queue in self._sources.queues.items()}

    def _balance_fetching(self) -> None:
        """Stop fetching what has enough in hand."""
        consumer = self._client()
        assigned = consumer.assignment()
        paused = consumer.paused()
        for name, tp in self._owned.items():
            queue = self._sources.queues.get(name)
            if queue is None or tp not in assigned:
                continue
            full = queue.waiting >= QUEUE_MESSAGES or queue.waiting_bytes >= QUEUE_BYTES
            if full and tp not in paused:
                consumer.pause(tp)
            elif tp in paused and queue.waiting < QUEUE_MESSAGES // 2 and not full:
                consumer.resume(tp)

    # -- 2. release --------------------------------------------------------------------------------------------------------

    @Service.task
    async def _write(self) -> None:
        while not self.should_stop:
            async with self._appending:
                appended = await self._append_or_recover()
            if not self.waiting:
                self.appended_at = time.monotonic()
            self._balance_fetching()
            if appended == 0:
                await self._wait_for_news()
            elif appended < SMALL_APPEND:
                await self.sleep(LINGER_SECONDS)
            if time.monotonic() - self._committed_at > COMMIT_SECONDS:
                async with self._appending:
                    await self._commit()

    async def _wait_for_news(self) -> None:
        """Until something was fetched, or anybody has moved: what holds us back may be another process."""
        await self._progress.wait_moved(COMMIT_SECONDS)
        if self._sources.held_by != "short-ledger":
            self._watch_stuck()

    async def _append_or_recover(self) -> int:
        """Append; after a failed send read again from the first message that is not appended for certain."""
        try:
            return await self._append_next()
        except* (KafkaError, TimeoutError) as problems:
            names = sorted({type(problem).__name__ for problem in _leaves(problems)})
        log.warning("append failed; reading again", extra={"problem": ", ".join(names)})
        await self._recover()
        return 0

    async def _recover(self) -> None:
        """Forget what is in hand. A new producer: whatever the old one still holds must not follow what it failed on."""
        self._session += 1
        consumer = self._client()
        assigned = consumer.assignment()
        now = time.monotonic()
        for name, tp in self._owned.items():
            queue = self._sources.queues.get(name)
            if queue is None or tp not in assigned:
                continue
            self._sources.queues[name] = SourceQueue(name, queue.feed, front=queue.front, moved_at=now)
            if name in self._restart_at:
                consumer.seek(tp, self._restart_at[name])
        old, self._producer = self._producing(), make_producer(self._options)
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(5.0):
                await old.stop()
        while not self.should_stop:
            self.appended_at = time.monotonic()  # a broker that is away is no reason to restart us
            try:
                await self._producer.start()
                return
            except (KafkaError, OSError):
                await self.sleep(1.0)

    async def _append_next(self) -> int:
        sources = self._sources
        head = sources.head()
        if head is None:
            return 0
        others = self._others()
        for _ in range(2):
            due = sources.short.wanted(sources.front, head)
            if due is not None:
                sources.short.mark(due, await self._ledger_ends())
            released = sources.release(others, self._progress.applied)
            if released or sources.held_by != "short-ledger":
                break
        if released:
            await self._append(released)
            self._post_positions()
        return sum(taken.until - taken.first for taken in released)

    def _others(self) -> dict[str, Any]:
        """Positions of the source partitions that other processes read."""
        others: dict[str, Any] = {}
        unknown = False
        for name in self._all:
            if name not in self._sources.queues:
                others[name] = self._progress.position(name)
                unknown = unknown or others[name] is None
        if not unknown:
            self._unknown_since = time.monotonic()
        elif time.monotonic() - self._unknown_since > self._stuck_seconds:
            # Nobody reads them: an alarm, but no reason to hold back what can be read.
            others = {name: position for name, position in others.items() if position is not None}
        return others

    def _watch_stuck(self) -> None:
        """A partition that has a backlog and gives nothing holds the rest for a time, then it only raises an alarm."""
        slow = behind(self._sources.queues.values())
        if slow is not None and time.monotonic() - slow.moved_at > self._stuck_seconds:
            slow.stuck = True
            self._metrics.intake_stuck.labels(*slow.name.rsplit("/", 1)).set(1)
            log.error("source partition is stuck; the others go on without it", extra={"source": slow.name})

    async def _ledger_ends(self) -> Mapping[int, int]:
        ends = await self._client().end_offsets(self._ledger_partitions)
        return {tp.partition: end - 1 for tp, end in ends.items()}

    # -- 3 to 7. append ----------------------------------------------------------------------------------------------------

    async def _append(self, released: Sequence[Taken]) -> None:
        letters = [
            letter
            for taken in released
            for refused in taken.refused
            for letter in self._letters(taken.queue.name, refused)
        ]
        last = {taken.queue.name: int(taken.block.offset[taken.until - 1]) for taken in released}
        rows = gather((taken.rows for taken in released), len(self._ledger_partitions))
        # 3. vault, before anybody can ask for the name behind a pseudonym
        if self._vault is not None:
            self._unsealed += self._take_new()
            if self._unsealed:
                sealed = self._vault.seal(self._unsealed)
                await self._send_all([Message(self._vault_topic, r.key, r.value, []) for r in sealed])
                self._vault.written(sealed)
                self._unsealed.clear()
        crash_point("after-vault")
        # 4. dead letters
        if letters:
            await self._send_all(letters)
        # 5. legs
        await self._send_rows(Kind.LEGS, rows)
        crash_point("after-legs")
        # 6. counts
        await self._send_rows(Kind.COUNTS, rows)
        crash_point("after-counts")
        # 7. what may be committed
        for name, offset in last.items():
            self._restart_at[name] = offset + 1
            tp = self._owned.get(name)
            if tp is not None:
                self._commit_due[tp] = offset + 1
        self.appended_at = time.monotonic()
        for queue in {taken.queue.name: taken.queue for taken in released}.values():
            queue.moved_at = time.monotonic()
            topic, _, number = queue.name.rpartition("/")
            self._metrics.intake_front.labels(topic, number).set(queue.front / 1e6)

    def _letters(self, name: str, message: Refused) -> list[Message]:
        for reject in message.rejects:
            self._metrics.intake_rejected.labels(reject.reason.value).inc()
            self._metrics.dead_letters.labels(reject.reason.value).inc()
        return letters_of(self._dead_topic, name, message)

    async def _send_all(self, messages: Sequence[Message]) -> None:
        producer = self._producing()
        waiting = [
            await producer.send(m.topic, m.value, m.key, m.partition, headers=m.headers) for m in messages
        ]
        await asyncio.gather(*waiting)

    async def _send_rows(self, kind: Kind, gathered: Sequence[Rows]) -> None:
        """Send the frames of every ledger partition. The first failure ends the process of sending, and this service."""
        chains: defaultdict[int, list[Iterator[bytes]]] = defaultdict(list)
        for rows in gathered:
            for partition, mine in (rows.legs if kind is Kind.LEGS else rows.counts).items():
                chains[partition].append(
                    ledger.encode_rows(
                        kind,
                        mine,
                        sources=rows.sources,
                        banks=rows.banks if kind is Kind.LEGS else (),
                        key_id=self._key_id,
                        generation=self._generation,
                    )
                )
        if chains:
            async with asyncio.TaskGroup() as group:
                for partition, messages in chains.items():
                    group.create_task(self._chain(partition, chain.from_iterable(messages)))

    async def _chain(self, partition: int, messages: Iterator[bytes]) -> None:
        producer = self._producing()
        for message in messages:
            await producer.send_and_wait(self._ledger_topic, message, partition=partition)
        crash_point("between-partitions")

    async def _commit(self) -> None:
        """Commit what is appended: where a restart begins, and what lag tools see."""
        self._committed_at = time.monotonic()
        due, self._commit_due = self._commit_due, {}
        assigned = self._client().assignment()
        offsets = {tp: OffsetAndMetadata(offset, "") for tp, offset in due.items() if tp in assigned}
        if not offsets:
            return
        try:
            async with asyncio.timeout(10.0):
                await self._client().commit(offsets)
        except (KafkaError, TimeoutError) as problem:
            # The messages come again and are dropped by their coordinates.
            log.warning("source offsets not committed", extra={"problem": type(problem).__name__})
        crash_point("after-source-commit")

    # -- rebalances --------------------------------------------------------------------------------------------------------

    async def revoked(self) -> None:
        """What is appended is committed; what only waits is the next owner's to read again."""
        async with self._appending:
            await self._commit()
            self._session += 1
            self._commit_due.clear()
            self._restart_at.clear()
            self._sources.queues.clear()
            self._owned.clear()
            self._progress.own_positions = {}
            self._metrics.intake_front.clear()  # of what is another's now
            self._metrics.intake_stuck.clear()

    async def assigned(self, partitions: set[TopicPartition]) -> None:
        """Begin with empty queues. Nothing is known of their ends yet, so nothing overtakes them."""
        now = time.monotonic()
        async with self._appending:
            self._session += 1
            self._owned = {f"{tp.topic}/{tp.partition}": tp for tp in partitions}
            self._sources.queues = {
                name: SourceQueue(name, self._feeds[tp.topic], moved_at=now)
                for name, tp in sorted(self._owned.items())
            }
        self._unknown_since = now
        self._post_positions()

    def _client(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise RuntimeError("intake is not started")
        return self._consumer

    def _producing(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise RuntimeError("intake is not started")
        return self._producer


_raws = msgspec.json.Decoder(list[msgspec.Raw])


def cut(value: bytes, transactions: int) -> list[msgspec.Raw] | None:
    """The single transactions of a JSON array, each a message of its own; None where that is not what `value` is."""
    if value.lstrip(b" \t\r\n")[:1] != b"[":
        return None
    try:
        parts = _raws.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # Of a message that was refused whole no single transaction was looked at.
    return parts if len(parts) == transactions else None


def letters_of(topic: str, source: str, message: Refused) -> list[Message]:
    """The dead letters of one message of `source` (`topic/partition`): bounded, so that a broker takes every one.

    One a transaction where it can be cut out, else one for the message, whose detail counts the reasons and lists the first.
    """
    refused = message.rejects
    parts = cut(message.value, message.transactions) if refused and message.transactions > 1 else None
    if parts is not None:
        return [
            _letter(topic, source, message, each, each.detail, bytes(parts[each.index])) for each in refused
        ]
    detail = refused[0].detail if len(refused) == 1 else listed(refused)
    return [_letter(topic, source, message, each, detail, message.value) for each in refused[:1]]


def listed(refused: Sequence[Rejected]) -> str:
    """`3 transactions: invalid 2, no-rate 1; 0 invalid amount: …; 4 …; and 1 more`. Read again by `safehold dlq`."""
    reasons = sorted(Counter(each.reason.value for each in refused).items())
    words = [f"{len(refused)} transactions: " + ", ".join(f"{reason} {count}" for reason, count in reasons)]
    words += [
        f"{each.index} {each.reason.value} {each.detail[:DETAIL_CHARACTERS]}"
        for each in refused[:LISTED_REJECTS]
    ]
    if len(refused) > LISTED_REJECTS:
        words.append(f"and {len(refused) - LISTED_REJECTS} more")
    return "; ".join(words)


def _letter(
    topic: str, source: str, message: Refused, reject: Rejected, detail: str, value: bytes
) -> Message:
    return dead_letter(
        topic,
        coordinate=f"{source}/{message.offset}/{reject.index}",
        reason=reject.reason.value,
        detail=detail,
        value=value,
        key=message.key,
        received=message.received,
    )


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for problem in group.exceptions:
        if isinstance(problem, BaseExceptionGroup):
            yield from _leaves(problem)
        else:
            yield problem


class _Listener(ConsumerRebalanceListener):
    """Rebalances of the source group. aiokafka logs what a callback raises and goes on, so nothing may be raised."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        try:
            await self._intake.revoked()
        except Exception as problem:  # noqa: BLE001 - see above
            await self._intake.crash(problem)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        try:
            await self._intake.assigned(assigned)
        except Exception as problem:  # noqa: BLE001 - see above
            await self._intake.crash(problem)
