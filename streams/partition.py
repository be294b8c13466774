"""One ledger partition under judgement: load, apply, publish, flush, in the order that makes a crash harmless.

A crash between any two of the numbered steps loses and doubles nothing:

     1  claim the partition's epoch in the store
     2  load head, control and accounts
     3  read from applied + 1 on
     4  decode; an offset jump stops the partition, and so does a frame that cannot be read (see below)
     5  step
     6  publish the outputs and wait until all are acknowledged
     7  tell intake how far the ledger is applied
     8  write the accounts, in chunks, of frames whose outputs are acknowledged
     9  write the control records, if they changed
    10  write the head, last: epoch and stored offset must be those that we know
    11  commit the offset to Kafka, for lag tools

A frame that cannot be read or stepped stops the partition: all before it is judged, said and written, and the quarantine topic
says where it stands. With the signatures of two people it goes on without a restart, the quarantine standing in the place of the
frame. At such an offset a step of its own settles between 5 and 6, in that topic, what the frame became (`streams.quarantine`):
after its outputs are put together, since what cannot be said must not be settled as applied.

Memory that is not to be had is the machine's fault, and not a frame's: the partition's memory is dropped and loaded again, as when
the store is away, while the others go on.

Steps 8 to 11 write one frame's image of the state in a task of their own; newer frames go through 3 to 7 meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from aiokafka.errors import KafkaError

from detectors.model import Frame, Kind
from detectors.state import LayoutMismatch
from streams import ledger
from streams.board import Progress
from streams.crash import crash_point
from streams.folding import Fold, StateLike
from streams.metrics import Metrics
from streams.publish import Message, Publication, Publisher
from streams.quarantine import Outcome, Quarantines, frame_of
from streams.state.base import MAX_CHUNK, FenceLost, RecommendationEntry, StateStore, StoreError, chunked
from streams.state.snapshots import SnapshotGap
from streams.stops import AnotherFrame, FrameFailed, Overruled, Stops

log = logging.getLogger(__name__)

STEP_ROWS = 4_000
"""Rows of one step: a few milliseconds, so that outputs are not held up by what is judged behind them."""

PACK_ACCOUNTS = 2_000
"""Accounts that are handed to the store in one go."""

PACK_AT_ONCE = 150_000
"""Accounts that are packed before judging goes on: 0.3 s, and 330 MB of blobs at 60 legs an account."""

QUEUE_HIGH = 16_000_000
"""Bytes that wait in a partition's queue before it is paused."""

QUEUE_LOW = 4_000_000


class Record(Protocol):
    """The parts of a consumer record that are used."""

    offset: int
    timestamp: int
    value: bytes | None


class Broker(Protocol):
    """What a partition asks of the ledger consumer."""

    async def seek(self, partition: int, offset: int) -> None:
        """Read from here, and go on reading."""

    async def start_of_log(self, partition: int) -> int:
        """First offset that the log still has."""

    async def committed(self, partition: int) -> int | None:
        """Offset committed for lag tools: everything below it was acknowledged and written."""

    async def commit(self, partition: int, offset: int) -> bool:
        """Commit. False: we are not a member of the group any more. Raises KafkaError or TimeoutError without an answer."""

    def hold(self, partition: int, held: bool) -> None:
        """Stop or go on fetching: too much waits already."""


Send = Callable[[Message], Awaitable[Awaitable[Any]]]
"""Hand a message to the producer; the inner awaitable ends when it is acknowledged."""


class CannotGoOn(Exception):
    """The partition must not go on: what went wrong would go wrong again, and skipping is not allowed."""


class AwaitsPeople(Exception):
    """Everything before a frame that failed is written; it takes people to go on."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(f"stopped at offset {offset}")


class OffsetJump(Exception):
    """Records between the last one and this are missing."""


OWN_WORDS = (CannotGoOn, AnotherFrame, LayoutMismatch, SnapshotGap)
"""Exceptions whose text is ours, and quotes no data."""


class Phase(StrEnum):
    """Where a partition stands."""

    LOADING = "loading"
    RUNNING = "running"
    PARKED = "parked"
    """Revoked; memory is kept until it is known who has the partition next."""
    RETRYING = "retrying"
    STOPPED = "stopped"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class PartitionSettings:
    """How a partition is run."""

    flush_seconds: float = 10.0
    flush_accounts: int = 50_000
    retry_seconds: float = 0.5
    retry_most: float = 15.0
    belongs: tuple[str, str] | None = None
    """(key id, generation) that every frame must have."""
    signed_seconds: float = 1.0
    """How often a partition that stands at a frame asks whether it was signed."""
    accept_gap: bool = False
    """Go on where the log starts later than the state ends, at the first load of a partition in this process. An operator's
    decision; accounts then have less history."""


class Partition:
    """Runs one partition in a task of its own, until it is dropped."""

    def __init__(
        self,
        number: int,
        *,
        fold: Fold,
        store: StateStore,
        broker: Broker,
        send: Send,
        publisher: Publisher,
        progress: Progress,
        metrics: Metrics,
        settings: PartitionSettings,
        executor: Executor | None = None,
        restore: Callable[[int, int, bool], Awaitable[bool]] | None = None,
        observe: Callable[[Any], None] | None = None,
        keep: Callable[[int, int, int], Awaitable[None]] | None = None,
        quarantines: Quarantines | None = None,
        loaded: set[int] | None = None,
    ) -> None:
        """`restore(partition, epoch, accept_gap)` fills an empty partition of the store from a snapshot, if there is one;
        `keep(partition, applied, epoch)` takes one if it is due. `observe(result)` counts what a step did.
        Without `quarantines` a frame that fails stops the partition for good. `loaded`: the partitions that this process has loaded
        once, of which no gap is accepted any more; it enters itself.
        """
        self.number = number
        self.phase = Phase.LOADING
        self.session = 0
        """Changes with every seek: what was fetched before it is not for us."""
        self.problem: str = ""
        self.last_progress = time.monotonic()
        """When a step last ended, or its records began to wait."""
        self.unwritten_since: float | None = None
        """When the first step ended whose outcome is not written down yet."""
        self._dirty_since: float | None = None  # the same, of what the flush at hand does not hold
        self._flushing: asyncio.Task[None] | None = None
        self._fold = fold
        self._store = store
        self._broker = broker
        self._send = send
        self._publisher = publisher
        self._progress = progress
        self._metrics = metrics
        self._settings = settings
        self._loaded = set() if loaded is None else loaded
        self._executor = executor
        self._restore = restore
        self._observe = observe
        self._keep = keep
        self._stops = None if quarantines is None else Stops(number, quarantines, settings.belongs, metrics)
        self._queue: deque[Sequence[Record]] = deque()
        self._queued_bytes = 0
        self._held = False
        self._woken = asyncio.Event()
        self._parking = False
        self._leaving = False
        self._parked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._state: StateLike | None = None
        self._epoch = -1
        self._next = 0
        self._written: int | None = None
        self._floor = 0
        self._entries: list[RecommendationEntry] = []
        self._dirty = False
        self._unflushed = 0
        self._flushed_at = time.monotonic()
        self._jumps = 0
        self._jump_at = -1  # the offset that was due at the last jump: another one starts the count anew

    # -- from outside ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: claim, load, read."""
        self._task = asyncio.create_task(self._run(), name=f"partition-{self.number}")

    @property
    def waiting(self) -> bool:
        """Whether there are records that it has not applied."""
        return bool(self._queue)

    @property
    def state(self) -> StateLike | None:
        """What it holds, to be looked at: a step may be changing it."""
        return self._state

    def accept(self, session: int, records: Sequence[Record]) -> None:
        """Take fetched records. Never waits; what is too much pauses the partition instead."""
        if session != self.session or self.phase is not Phase.RUNNING or self._parking:
            return
        if not self._queue:
            self.last_progress = time.monotonic()
        self._queue.append(records)
        self._queued_bytes += sum(len(record.value or b"") for record in records)
        if self._queued_bytes > QUEUE_HIGH and not self._held:
            self._held = True
            self._broker.hold(self.number, True)
        self._woken.set()

    async def park(self) -> None:
        """Revoked: finish the step at hand, flush, keep the memory. Returns when nothing is written any more."""
        self._parking = True
        self._woken.set()
        if self._task is None or self._task.done():
            return
        if self.phase is not Phase.RUNNING:
            await self.drop()
            return
        waiting = asyncio.ensure_future(self._parked.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def resume(self) -> bool:
        """Assigned again after `park`: go on with the memory if nobody had the partition in between."""
        if self.phase is not Phase.PARKED or self._task is None or self._task.done():
            return False
        try:
            await self._store.confirm(self.number, self._epoch)
        except (FenceLost, StoreError):
            return False
        self._parking = False
        self._parked.clear()
        self.phase = Phase.RUNNING
        await self._seek()
        self._woken.set()
        return True

    async def drop(self) -> None:
        """Forget everything. Nothing more is written or sent."""
        self._leaving = True
        self._woken.set()
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
        await self._stop_flush()
        self._forget()
        self.phase = Phase.GONE

    # -- the task ----------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        wait = self._settings.retry_seconds
        while not self._leaving:
            try:
                await self._begin()
                wait = self._settings.retry_seconds
                try:
                    await self._work()
                finally:  # nothing of this epoch is written once its memory is dropped
                    await self._stop_flush()
            except asyncio.CancelledError:
                raise
            except FenceLost as lost:
                self._metrics.fence_lost.inc()
                log.warning(
                    "partition lost its fence", extra={"partition": self.number, "problem": lost.reason}
                )
                self._retry(f"fence lost: {lost.reason}")
                if not await self._still_member():
                    # Whoever is now has the partition. The rebalance that follows tells us what we have.
                    break
            except OffsetJump as jump:
                self._jumps += 1
                if self._jumps > 3:
                    self._stop(f"ledger gap: {jump}")
                    return
                self._retry(str(jump))
            except Overruled as overruled:
                self._retry(str(overruled))
            except FrameFailed as failed:
                log.exception("partition stopped", extra={"partition": self.number, "offset": failed.offset})
                self._stop(str(failed))
                if self._stops is None or not self._stops.note(failed):
                    return
                if await self._report(failed, self._stops):
                    self.phase = Phase.RETRYING  # once more, up to the frame: what is before it is not lost
                else:
                    self._retry("lost its partition while a frame failed")
                    if not await self._still_member():
                        break
            except AwaitsPeople as awaits:
                assert self._stops is not None
                self._stop(self._stops.words(awaits.offset))
                await self._signed(awaits.offset, self._stops)
                if not self._parking and not await self._still_member():
                    break
                self._retry(f"settles what became of offset {awaits.offset}")
            except (StoreError, KafkaError, OSError, TimeoutError, MemoryError) as problem:
                if isinstance(problem, StoreError):
                    self._metrics.state_store_errors.inc()
                log.warning(
                    "partition waits for memory"
                    if isinstance(problem, MemoryError)
                    else "partition waits for its store or broker",
                    extra={"partition": self.number, "problem": type(problem).__name__},
                )
                self._retry(f"{type(problem).__name__}: {problem}")
            except Exception as problem:
                # A step, codec or state error would come again with the same input. Skipping is not allowed.
                log.exception("partition stopped", extra={"partition": self.number})
                # Of anybody else's text nothing goes to /readyz: it may quote the data. The log has the places.
                name = type(problem).__name__
                self._stop(f"{name}: {problem}" if isinstance(problem, OWN_WORDS) else name)
                return
            if (
                self._parking
            ):  # what could not be written while it was revoked is for the next owner to replay
                break
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._settings.retry_most)
        self.phase = Phase.GONE

    async def _report(self, failed: FrameFailed, stops: Stops) -> bool:
        """Say in the quarantine topic where we stand, until it is taken. False: another has the partition, nothing is said."""
        while not self._leaving and not self._parking:
            try:
                await stops.report(failed, self._still_owner)
            except FenceLost:
                return False
            except (StoreError, KafkaError, TimeoutError, OSError):
                await asyncio.sleep(self._settings.retry_seconds)
            else:
                break
        return True

    async def _confirm(self) -> None:
        await self._store.confirm(self.number, self._epoch)

    async def _still_owner(self) -> None:
        """Raises `FenceLost` if the store or the group has given the partition to another."""
        if not await self._still_member():
            raise FenceLost(self.number, "not a member of the group any more")
        await self._confirm()

    async def _signed(self, offset: int, stops: Stops) -> None:
        """Until the frame is signed by enough people, or another owner has settled it."""
        while not self._parking and not stops.may_go_on(offset):
            await asyncio.sleep(self._settings.signed_seconds)
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                await stops.look()
            self.problem = stops.words(offset)

    async def _still_member(self) -> bool:
        """Whether the group still takes a commit from us. Asks until there is an answer."""
        while not self._leaving:
            try:
                return await self._broker.commit(
                    self.number, 0 if self._written is None else self._written + 1
                )
            except (KafkaError, TimeoutError):
                await asyncio.sleep(self._settings.retry_seconds)
        return False

    def _retry(self, problem: str) -> None:
        self._forget()
        self.phase, self.problem = Phase.RETRYING, problem

    def _stop(self, problem: str) -> None:
        self._forget()
        self.phase, self.problem = Phase.STOPPED, problem
        self._broker.hold(self.number, True)

    def _forget(self) -> None:
        self.session += 1
        self._state = None
        self._queue.clear()
        self._queued_bytes = 0
        self._entries.clear()
        self._dirty = False
        self._dirty_since = self.unwritten_since = None
        self._progress.drop_partition(self.number)

    async def _begin(self) -> None:
        self.phase = Phase.LOADING
        # 1. claim: from here on nothing of an older owner is written, so what we read stays true
        self._epoch = await self._store.claim(self.number)
        crash_point("after-claim")
        # 2. load
        await self._load()
        crash_point("after-load")
        # 3. read from applied + 1
        self._flushed_at = time.monotonic()
        self.phase, self.problem = Phase.RUNNING, ""
        await self._seek()

    async def _load(self) -> None:
        head = await self._store.load_head(self.number)
        if head is None:
            await self._store.clear_partition(self.number, self._epoch)
            if self._restore is not None and await self._restore(self.number, self._epoch, self._accepts_gap):
                head = await self._store.load_head(self.number)
        state = self._fold.new_state(self.number)
        if head is not None:
            state.load_head(head)
            control = await self._store.load_control(self.number)
            if control is not None:
                self._fold.load_control(state, control)
            async for chunk in self._store.load_accounts(self.number):
                subjects, blobs = zip(*chunk, strict=True) if chunk else ((), ())
                await self._compute(state.load_many, subjects, blobs)
        self._state = state
        self._next = state.head.applied + 1
        self._written = state.head.applied if head is not None else None
        # Everything below the committed offset was published and acknowledged: a rebuild does not say it again.
        self._floor = await self._broker.committed(self.number) or 0
        if self._stops is not None:
            await self._stops.settle_passed(state.head.applied, self._confirm)
        start = await self._broker.start_of_log(self.number)
        if start > self._next:
            self._accept_gap(state, start)
        self._loaded.add(self.number)  # the decision was about this start: a later gap is another one
        self._progress.set_applied(self.number, self._next - 1)

    @property
    def _accepts_gap(self) -> bool:
        return self._settings.accept_gap and self.number not in self._loaded

    def _accept_gap(self, state: StateLike, start: int) -> None:
        """The log begins beyond what the state needs: go on there if an operator said so, and mark every account."""
        if not self._accepts_gap:
            raise CannotGoOn(
                f"the log starts at offset {start}, the state needs {self._next}: records are lost. Restore a newer "
                "snapshot, or accept the gap (safehold worker --accept-gap)"
            )
        log.warning(
            "ledger gap accepted",
            extra={"partition": self.number, "first_lost": self._next, "last_lost": start - 1},
        )
        self._metrics.accepted_gaps.inc()
        state.accept_gap(start)
        self._next = start
        # The head with the gap is written even if nothing follows: from then on nobody has to accept it again.
        self._dirty, self._dirty_since = True, time.monotonic()
        self.unwritten_since = self._dirty_since

    async def _seek(self) -> None:
        self.session += 1
        self._queue.clear()
        self._queued_bytes = 0
        self._held = False
        await self._broker.seek(self.number, self._next)

    async def _work(self) -> None:
        while not self._leaving:
            if self._flushing is not None and self._flushing.done():
                await self._flushed()
            if self._parking:
                await self._stay_parked()
                continue
            if not self._queue and not self._flush_due():
                await self._idle()
                continue
            if self._queue:
                await self._apply(self._take())
            if self._flush_due():
                await self._begin_flush()

    async def _stay_parked(self) -> None:
        await self.flush()
        self.phase = Phase.PARKED
        self._parked.set()
        self._woken.clear()
        while self.phase is Phase.PARKED:
            await self._woken.wait()
            self._woken.clear()

    async def _idle(self) -> None:
        """Until records come, or the next flush is due."""
        timeout = None
        if self._dirty and self._flushing is None:  # the end of a flush wakes us
            timeout = max(0.0, self._flushed_at + self._settings.flush_seconds - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def _take(self) -> Sequence[Record]:
        records = self._queue.popleft()
        self._queued_bytes -= sum(len(record.value or b"") for record in records)
        if self._held and self._queued_bytes < QUEUE_LOW:
            self._held = False
            self._broker.hold(self.number, False)
        return records

    async def _apply(self, records: Sequence[Record]) -> None:
        try:
            await self._apply_all(records)
        except FrameFailed as failed:
            failed.value = next((r.value or b"" for r in records if r.offset == failed.offset), b"")
            raise

    def _decode(self, record: Record) -> Frame:
        try:
            return ledger.decode(
                record.value or b"",
                offset=record.offset,
                appended=record.timestamp * 1000,
                belongs=self._settings.belongs,
            )
        except ledger.LedgerError as problem:
            raise FrameFailed(record.offset, problem) from problem

    async def _apply_marked(self, record: Record, stops: Stops) -> None:
        """Apply what became of a frame that has stopped a partition once; settle it where nobody has."""
        outcome, settled = stops.outcome(record.offset, record.value or b"")
        if outcome is None:
            await self.flush()
            raise AwaitsPeople(record.offset)
        aside = outcome.quarantine
        frame = self._decode(record) if aside is None else frame_of(aside, record.offset)
        self._next += 1
        await self._step([frame], settle=None if settled else outcome)

    async def _settle(self, outcome: Outcome) -> None:
        """Say what a frame became, before anything else is said of it. A zombie is told so before it says anything."""
        assert self._stops is not None
        crash_point("before-outcome")
        await self._confirm()
        await self._stops.settle(outcome)

    async def _apply_all(self, records: Sequence[Record]) -> None:
        frames: list[Frame] = []
        rows = 0
        for record in records:
            # 4. decode
            if record.offset < self._next:
                continue
            if record.offset > self._next:
                if self._jump_at != self._next:
                    self._jump_at, self._jumps = self._next, 0
                raise OffsetJump(f"offset {record.offset} came where {self._next} was due")
            if self._stops is not None and record.offset in self._stops.marked:
                if frames:
                    await self._step(frames)
                    frames, rows = [], 0
                await self._apply_marked(record, self._stops)
                continue
            frame = self._decode(record)
            self._next += 1
            frames.append(frame)
            rows += len(frame.rows) + len(frame.records)
            if rows >= STEP_ROWS:
                await self._step(frames)
                frames, rows = [], 0
        if frames:
            await self._step(frames)

    async def _step(self, frames: list[Frame], settle: Outcome | None = None) -> None:
        state = self._state
        if state is None:
            return
        # 5. step
        started = time.perf_counter()
        try:
            result = await self._compute(self._fold.step, state, frames)
        except (MemoryError, OSError):  # of the machine: no frame is to blame
            raise
        except Exception as problem:  # the frames before it are applied, so it is the one after them
            raise FrameFailed(state.head.applied + 1, problem) from problem
        self._metrics.step_time.observe(time.perf_counter() - started)
        if not self._dirty:
            self._dirty, self._dirty_since = True, time.monotonic()
            if self._flushing is None or self.unwritten_since is None:
                self.unwritten_since = self._dirty_since
        self._unflushed += sum(len(frame.rows) + len(frame.records) for frame in frames)
        crash_point("after-step")
        publication = self._messages(result.outputs)
        if frames[0].offset < self._floor:
            unsaid = [output for output in result.outputs if output.cause.offset >= self._floor]
            publication.messages = self._messages(unsaid).messages
        if settle is not None:  # only now: what cannot be said must not be settled as applied
            await self._settle(settle)
        # 6. publish, and wait until all is acknowledged
        if publication.messages:
            waiting = []
            for message in publication.messages:
                waiting.append(await self._send(message))
                crash_point("between-outputs")
            await asyncio.gather(*waiting)
        self._entries += publication.entries
        self._show(frames, result)
        crash_point("after-publish")
        # 7. tell intake
        self._progress.set_applied(self.number, frames[-1].offset)
        self.last_progress = time.monotonic()

    def _messages(self, outputs: Sequence[Any]) -> Publication:
        try:
            return self._publisher(self.number, outputs)
        except (MemoryError, OSError):
            raise
        except Exception:
            for output in outputs:
                try:
                    self._publisher(self.number, [output])
                except (MemoryError, OSError):
                    raise
                except Exception as problem:  # it is what its frame caused
                    raise FrameFailed(output.cause.offset, problem) from problem
            raise

    def _show(self, frames: Sequence[Frame], result: Any) -> None:
        if self._observe is not None:
            self._observe(result)
        now = time.time()
        for frame in frames:
            if frame.kind is Kind.LEGS and len(frame.rows):
                self._metrics.latency.observe(max(0.0, now - int(frame.rows["received"].min()) / 1e6))

    # -- flushing ----------------------------------------------------------------------------------------------------------

    def _flush_due(self) -> bool:
        if not self._dirty or self._state is None:
            return False
        if self._flushing is None and time.monotonic() - self._flushed_at >= self._settings.flush_seconds:
            return True
        if self._unflushed < self._settings.flush_accounts:
            return False
        self._unflushed = 0  # counting the accounts is not free: look again after as many rows
        return len(self._state.touched()) >= self._settings.flush_accounts

    async def flush(self) -> None:
        """Write down everything that was applied, and wait for it. Called between steps only."""
        await self._begin_flush()
        await self._flushed()

    async def _begin_flush(self) -> None:
        """Pack what was applied and write it while newer frames are judged.

        Called between steps, so the outputs of all that is packed are acknowledged. What is judged from here on belongs to the next
        flush, which waits for this one: two packed images at a time would be too much memory.
        """
        await self._flushed()
        state = self._state
        if state is None or not self._dirty:
            return
        touched = await self._compute(state.touched)
        applied, entries = self._next - 1, self._entries
        self._entries = []
        self._dirty = False
        self._unflushed = 0
        apart = len(touched) <= PACK_AT_ONCE
        image = await self._compute(_pack, state, touched) if apart else None
        self._flushing = asyncio.create_task(
            self._write(state, touched, image, entries, applied), name=f"flush-{self.number}"
        )
        self._flushing.add_done_callback(lambda _: self._woken.set())
        if not apart:  # a record that touches most accounts: their blobs do not fit, so judging waits
            await self._flushed()

    async def _flushed(self) -> None:
        """Until nothing is being written. Raises what the write raised."""
        task = self._flushing
        if task is not None:
            await asyncio.wait({task})
            self._flushing = None
            task.result()

    async def _stop_flush(self) -> None:
        """Write no more: what was being written is given up."""
        task, self._flushing = self._flushing, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # whatever it was, the memory that it wrote from is dropped

    async def _write(
        self,
        state: StateLike,
        touched: np.ndarray,
        image: _Image | None,
        entries: list[RecommendationEntry],
        applied: int,
    ) -> None:
        started = time.perf_counter()
        # 8. accounts
        for first in range(0, len(touched), PACK_ACCOUNTS):
            some = touched[first : first + PACK_ACCOUNTS]
            if image is None:
                blobs = await self._compute(state.pack, some)
            else:
                blobs = image.blobs[first : first + PACK_ACCOUNTS]
            for chunk in chunked(zip(some.tolist(), blobs, strict=True)):
                await self._store.write_accounts(self.number, self._epoch, chunk)
                crash_point("between-chunks")
        if image is None:
            image = await self._compute(_pack, state, touched[:0])
        for first in range(0, len(entries), MAX_CHUNK):
            await self._store.put_recommendations(
                self.number, self._epoch, entries[first : first + MAX_CHUNK]
            )
        crash_point("after-accounts")
        # 9. control
        if image.control is not None:
            await self._store.write_control(self.number, self._epoch, image.control)
        crash_point("after-control")
        # 10. head, last
        await self._store.write_head(self.number, self._epoch, self._written, applied, image.head)
        self._written = applied
        self.unwritten_since = self._dirty_since if self._dirty else None
        self._flushed_at = time.monotonic()
        self._metrics.flush_time.observe(time.perf_counter() - started)
        crash_point("after-head")
        # 11. for lag tools; whether it works changes nothing
        with contextlib.suppress(KafkaError, TimeoutError):
            await self._broker.commit(self.number, applied + 1)
        crash_point("after-ledger-commit")
        if self._stops is not None:
            with contextlib.suppress(KafkaError, TimeoutError):  # the next flush does it, or the next load
                await self._stops.settle_passed(applied, self._confirm)
        if self._keep is not None:
            await self._keep(self.number, applied, self._epoch)

    async def _compute(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._executor is None:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


class _Image(NamedTuple):
    """A partition as of one frame, packed."""

    blobs: list[bytes]
    control: bytes | None
    """None: as it stands in the store."""
    head: bytes


def _pack(state: StateLike, touched: np.ndarray) -> _Image:
    """Pack these accounts, the control records and the head; what changes from here on belongs to the next image."""
    control = state.pack_control() if state.control_changed else None
    image = _Image(state.pack(touched), control, state.pack_head())
    state.mark_flushed()
    return image
