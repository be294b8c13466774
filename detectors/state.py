"""The state of one ledger partition: a pure function of that partition's log up to `head.applied`.

Big things live in numpy arenas (`window.py`); the few accounts with verdicts or open recommendations have a `Case`. Blobs
(`packing.py`) are versioned: another `STATE_LAYOUT` refuses to load and the partition is rebuilt from its log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from detectors import packing, window
from detectors.arena import Arena
from detectors.config import Config
from detectors.measures import MeasureParams
from detectors.model import (
    DAY,
    AccountKind,
    Baselines,
    ConfigRecord,
    Decision,
    Fact,
    Flag,
    Quarantine,
    Rates,
)
from detectors.packing import STATE_LAYOUT
from detectors.scoring import Plan
from detectors.settings import FoldSettings
from detectors.timeline import Dated, FlagRegistry
from detectors.typologies import TOO_DENSE
from detectors.window import ACCOUNT, ALWAYS, FACT, NEVER, PARTY, ROW, Relations

COUNTERS = (
    "received", "accepted", "rejected", "no_effect", "no_leg",
    "judged", "duplicate", "conflict", "late", "hub", "skipped", "redelivered", "quarantined",
)  # fmt: skip
"""Counters per source partition and day. received = accepted + rejected; 2 accepted = legs + no_leg;
legs = judged + late + duplicate + conflict + hub + quarantined. `redelivered` legs were counted before and are outside the
balance. Append only: heads that are stored have what they had."""

KEPT_DAYS = 400
"""Days of a source that are counted apart, the newest ones. What was counted on older ones stands in one sum."""

EARLIER = -(2**31)
"""The day under which that sum stands."""

_OUTCOME_COUNTER = tuple(COUNTERS.index(name) for name in window.OUTCOMES)

KINDS = tuple(AccountKind)
STATUSES = ("open", "closed", "blocked", "deceased")


class Gap(msgspec.Struct, array_like=True):
    """Ledger records that are lost, and that an operator accepted to go on without.

    What was lost is dated at or after `since`, as a leg comes no more than L behind the greatest event time before it, and
    before `history_from`, for the same reason: from the first leg after the gap plus L on everything is known.
    """

    first: int  # ledger offset
    last: int
    since: int
    history_from: int = ALWAYS  # until a leg comes


class SetAside(msgspec.Struct, frozen=True, array_like=True):
    """A ledger frame that two people set aside, as the balance sees it."""

    offset: int
    kind: str  # empty = unknown
    n: int  # records by its header
    unread: int  # of those that the balance counts, how many cannot be read
    sources: tuple[str, ...] = ()


class Head(msgspec.Struct, kw_only=True):
    """What one partition has applied, and the counters that must balance."""

    layout: int = STATE_LAYOUT
    partition: int
    partitions: int
    generation: str
    key_id: str
    applied: int = -1
    coordinates: dict[str, int] = {}
    counters: dict[str, dict[int, list[int]]] = {}
    config_version: str = ""
    config_digest: str = ""
    front: int = NEVER  # greatest event time applied: what short-ledger intake waits for
    accounts: int = 0  # how many there were: a hint for the room that loading needs
    gaps: list[Gap] = []  # in order of offset
    quarantined: list[SetAside] = []  # in order of offset
    aside: dict[str, dict[int, int]] = {}
    """By the names of `coordinates`: those above them that set-aside frames brought → the day on which they are counted. A frame
    that was set aside does not raise them: another program may have written it, and it would swallow all that the source brings."""


class Standing(msgspec.Struct, frozen=True, array_like=True):
    """One judged leg that reached at least `monitor`."""

    time: int
    leg: int
    action: int
    typology: str


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What was last published under one recommendation id."""

    recommendation_id: str
    typology: str
    bucket: int
    action: int
    digest: str
    mode: str
    bank: str


class Case(msgspec.Struct, array_like=True):
    """An account's verdicts in canonical order, and what has been said of it."""

    verdicts: list[Standing] = []
    said: list[Said] = []
    decisions: list[Decision] = []


Kept = Flag | ConfigRecord | Baselines | Rates | Quarantine
"""Control records that more than one account is judged under."""


class ControlImage(msgspec.Struct, kw_only=True):
    """The control records of a partition, packed."""

    layout: int = STATE_LAYOUT
    records: list[tuple[int, Kept]] = []  # (ledger offset, record)


class ConfigInForce(msgspec.Struct, frozen=True):
    """A configuration and what the kernel reads of it."""

    config: Config
    measures: MeasureParams
    plan: Plan  # the same as arrays
    version: str
    digest: str


_LAST_STEP = 2**31 - 1

SCRATCH_WORDS = 1 << 17
"""Room in which accounts are packed before they are cut apart: a megabyte, so that it stays near the processor."""

_encode = msgspec.msgpack.Encoder().encode
_decode_case = msgspec.msgpack.Decoder(Case).decode
_decode_head = msgspec.msgpack.Decoder(Head).decode
_decode_control = msgspec.msgpack.Decoder(ControlImage).decode


class LayoutMismatch(Exception):
    """A blob was written by another layout version."""


class PartitionState:
    """Everything the fold remembers of one partition. Made by `step.new_state`; changed only by `step.step` and the loaders."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        settings: FoldSettings,
        first: ConfigInForce,
        capacity: int = 1024,
    ) -> None:
        problems = settings.check()
        if problems:
            raise ValueError("; ".join(problems))
        self.settings = settings
        self.fold = settings.params()
        self.head = Head(
            partition=partition,
            partitions=partitions,
            generation=settings.generation,
            key_id=settings.key_id,
            config_version=first.version,
            config_digest=first.digest,
        )
        self.configs: Dated[ConfigInForce] = Dated(first)
        self.control_log: list[tuple[int, Kept]] = []
        self.baselines: Dated[Baselines | None] = Dated(None)
        self.rates: Dated[Rates | None] = Dated(None)
        self.control_keys: set[tuple[str, str, int]] = set()
        self.flags = FlagRegistry(settings.open_for)
        self.set_aside: dict[int, list[tuple[int, int]]] = {}
        """Subject → (earliest, latest time) of its records in each frame that was set aside."""
        self._acc = Arena(ACCOUNT, capacity)
        self.n_acc = 0
        self.table = np.full(_power(4 * capacity), -1, np.int32)
        self._rows = Arena(ROW, capacity * 8)
        self.pool = new_pool()
        self._parties = Arena(PARTY, capacity * 4)
        self.ppool = new_pool()
        self.facts = np.zeros(capacity, FACT)
        self.n_facts = 0
        self.household = np.zeros(16, np.uint64)
        self.n_household = 0
        self.banks: list[str] = [""]
        self._bank_index: dict[str, int] = {"": 0}
        self.cases: dict[int, Case] = {}
        self.sources: list[str] = []
        self._source_index: dict[str, int] = {}
        self.since_head: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        """(slot, source, day, outcome, n) of what was counted since the head."""
        self._counted: tuple[tuple[int, int], packing.Counts] | None = None
        self._bank_names = packing.name_table(self.banks)
        self.ahead: list[tuple[int, int, list[tuple[str, int, int, int]]]] = []
        self.control_changed = False
        self.steps = 0

    def relations(self) -> Relations:
        """When a counterparty is new, and when regular, under each configuration."""
        forces = [self.configs[k] for k in range(len(self.configs))]
        columns = [
            np.array([force.config.measures[name] for force in forces], np.int64)
            for name in ("first_time_gap", "regular_payments", "regular_spread")
        ]
        return Relations(self.configs.starts(), *columns)

    # -- names ---------------------------------------------------------------------------------------------------------

    def bank(self, name: str) -> int:
        """Number of a bank's name."""
        if name not in self._bank_index:
            self._bank_index[name] = len(self.banks)
            self.banks.append(name)
        return self._bank_index[name]

    def source(self, name: str) -> int:
        """Number of a source partition's name."""
        if name not in self._source_index:
            self._source_index[name] = len(self.sources)
            self.sources.append(name)
        return self._source_index[name]

    def bank_at(self, slot: int, time: int) -> str:
        """Name of the bank that holds an account at a time."""
        number = window.banks_of(self.acc, self.facts, np.array([slot]), np.array([time], np.int64))
        return self.banks[int(number[0])]

    # -- hub limits ----------------------------------------------------------------------------------------------------

    def hub_limits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(from, legs in a bucket, counterparties) of every limit that was ever in force, in order of effect."""
        limits = [self._limits(self.baselines[i]) for i in range(len(self.baselines))]
        legs, counterparties = (np.array(column, np.int64) for column in zip(*limits, strict=True))
        return self.baselines.starts(), legs, counterparties

    def hub_limits_at(self, time: int) -> tuple[int, int]:
        """(legs in a bucket, counterparties) that make a hub at a time."""
        return self._limits(self.baselines.at(time))

    def _limits(self, baselines: Baselines | None) -> tuple[int, int]:
        legs, counterparties = self.settings.hub_bucket_legs, self.settings.hub_counterparties
        if baselines is not None and baselines.hub_bucket_legs is not None:
            legs = baselines.hub_bucket_legs
        if baselines is not None and baselines.hub_counterparties is not None:
            counterparties = baselines.hub_counterparties
        return legs, counterparties

    # -- room ----------------------------------------------------------------------------------------------------------

    @property
    def acc(self) -> np.ndarray:
        """The accounts: (>= n_acc,) ACCOUNT. Growing may replace it, as it may `rows` and `parties`."""
        return self._acc.array

    @property
    def rows(self) -> np.ndarray:
        """The row arena: (>= pool[0],) ROW."""
        return self._rows.array

    @property
    def parties(self) -> np.ndarray:
        """The counterparty arena: (>= ppool[0],) PARTY."""
        return self._parties.array

    def grow_accounts(self, extra: int = 1) -> None:
        """Make room for more accounts."""
        size = len(self.acc)
        while size < self.n_acc + extra:
            size += max(size // 2, 1024)
        self._acc.grow(size)
        if 2 * size > len(self.table):
            self.table = np.full(_power(2 * size + 1), -1, np.int32)
            window.rebuild_table(self.acc, self.n_acc, self.table)

    def grow_rows(self, extra: int, expected: int = 0) -> None:
        """Make the row arena larger by a quarter, by room for `extra` rows at least, and to `expected` rows."""
        held = len(self.rows)
        self._rows.grow(max(held + max(held // 4, 8 * extra), expected))

    def grow_parties(self, extra: int, expected: int = 0) -> None:
        """Make the counterparty arena larger by a quarter, by room for `extra` at least, and to `expected`."""
        held = len(self.parties)
        self._parties.grow(max(held + max(held // 4, 2 * extra), expected))

    def next_step(self) -> int:
        """Number of the next step: what accounts remember of the last one is told from it."""
        if self.steps == _LAST_STEP:
            self.acc["seen"][: self.n_acc] = -1
            self.steps = 0
        self.steps += 1
        return self.steps

    def slot(self, subject: int, create: bool = False) -> int:
        """Slot of a subject; -1 when unknown and not created."""
        slot = int(window.find(self.acc, self.table, np.uint64(subject)))
        if slot < 0 and create:
            if self.n_acc == len(self.acc):
                self.grow_accounts()
            slot = self.n_acc
            window.new_account(self.acc, self.table, slot, np.uint64(subject))
            self.n_acc += 1
        return slot

    # -- facts ---------------------------------------------------------------------------------------------------------

    def add_fact(self, slot: int, fact: Fact, record: int) -> bool:
        """Enter a fact into its account's chain, newest first. False when it is known.

        `record` is the 64-bit hash of the record id; equal `effective_at` are ordered by it.
        """
        acc = self.acc[slot]
        after, at = -1, int(acc["fact"])
        while at >= 0:
            row = self.facts[at]
            if (int(row["effective"]), int(row["record"])) <= (fact.effective_at, record):
                if (int(row["effective"]), int(row["record"])) == (fact.effective_at, record):
                    return False
                break
            after, at = at, int(row["prev"])
        if self.n_facts == len(self.facts):
            self._grow_facts(1)
        i = self.n_facts
        self.n_facts += 1
        row = self.facts[i]
        row["effective"] = fact.effective_at
        row["record"] = record
        row["opened"] = NEVER if fact.opened is None else fact.opened
        row["since"] = NEVER if fact.observed_since is None else fact.observed_since
        row["income"] = -1 if fact.income_band is None else fact.income_band
        row["kind"] = KINDS.index(fact.kind)
        row["status"] = STATUSES.index(fact.status) if fact.status in STATUSES else 0
        row["bank"] = self.bank(fact.entity)
        row["minor"] = any(c.role == "minor" for c in fact.customers)
        row["hoff"], row["hlen"] = self._household(np.array(sorted(set(fact.household)), np.uint64))
        row["prev"] = at
        if after < 0:
            self.acc["fact"][slot] = i
        else:
            self.facts["prev"][after] = i
        self.acc["changed"][slot] = 1
        return True

    def _household(self, members: np.ndarray) -> tuple[int, int]:
        n = len(members)
        if self.n_household + n > len(self.household):
            self._grow_household(n)
        self.household[self.n_household : self.n_household + n] = members
        self.n_household += n
        return self.n_household - n, n

    def _grow_facts(self, extra: int) -> None:
        more = np.zeros(max(len(self.facts) // 2, 1024, extra), FACT)
        self.facts = np.concatenate([self.facts, more])

    def _grow_household(self, extra: int) -> None:
        self.household = np.concatenate([self.household, np.zeros(len(self.household) + extra, np.uint64)])

    def fact_chain(self, slot: int) -> list[int]:
        """Rows of the fact table of an account, newest first."""
        chain = []
        at = int(self.acc["fact"][slot])
        while at >= 0:
            chain.append(at)
            at = int(self.facts["prev"][at])
        return chain

    # -- cases ---------------------------------------------------------------------------------------------------------

    def case(self, slot: int) -> Case:
        """The case of an account, made when there is none."""
        found = self.cases.get(slot)
        if found is None:
            found = self.cases[slot] = Case()
            self.acc["cased"][slot] = 1
        return found

    def drop_if_empty(self, slot: int) -> None:
        """An account of which nothing stands and nothing was decided needs no case."""
        case = self.cases[slot]
        if not case.verdicts and not case.said and not case.decisions:
            del self.cases[slot]
            self.acc["cased"][slot] = 0

    # -- counters ------------------------------------------------------------------------------------------------------

    def count(self, source: str, day: int, counter: int, n: int) -> None:
        """Add to one counter of the head. Only the newest `KEPT_DAYS` days of a source are kept apart."""
        days = self.head.counters.setdefault(source, {})
        days.setdefault(int(day), [0] * len(COUNTERS))[counter] += int(n)
        if len(days) > KEPT_DAYS + (EARLIER in days):
            oldest = days.pop(min(known for known in days if known != EARLIER))
            before = days.get(EARLIER, [0] * len(COUNTERS))
            days[EARLIER] = [x + y for x, y in zip(before, oldest, strict=True)]

    def count_outcomes(
        self, slots: np.ndarray, source: np.ndarray, day: np.ndarray, outcome: np.ndarray
    ) -> None:
        """Add what became of a batch of legs to the head, and note it per account until the head is flushed."""
        if not len(outcome):
            return
        first = int(day.min())
        days = int(day.max()) - first + 1
        if days > 4096:  # a batch of many years: by day, so that the cells stay few
            for d in np.unique(day).tolist():
                today = day == d
                self._count_days(source[today], day[today], outcome[today], d, 1)
        else:
            self._count_days(source, day, outcome, first, days)
        keep = (outcome != window.SKIPPED) & (outcome != window.REDELIVERED)
        self.since_head.append(
            (
                slots[keep].astype(np.int32),
                source[keep].astype(np.uint16),
                day[keep].astype(np.int32),
                outcome[keep],
                np.ones(int(keep.sum()), np.int32),
            )
        )

    def _count_days(
        self, source: np.ndarray, day: np.ndarray, outcome: np.ndarray, first: int, days: int
    ) -> None:
        cells = np.bincount((source * days + (day - first)) * 8 + outcome)
        for cell in np.flatnonzero(cells).tolist():
            rest, code = divmod(cell, 8)
            number, offset = divmod(rest, days)
            if code != window.SKIPPED:
                self.count(self.sources[number], first + offset, _OUTCOME_COUNTER[code], int(cells[cell]))

    def totals(self) -> dict[str, int]:
        """Sum of every counter over sources and days."""
        sums = dict.fromkeys(COUNTERS, 0)
        for days in self.head.counters.values():
            for row in days.values():
                for name, n in zip(COUNTERS, row, strict=True):
                    sums[name] += n
        return sums

    # -- flushing ------------------------------------------------------------------------------------------------------

    def touched(self) -> np.ndarray:
        """Subjects changed since the last `mark_flushed`."""
        acc = self.acc[: self.n_acc]
        return acc["subject"][acc["changed"] != 0].copy()

    def pack(self, subjects: np.ndarray) -> list[bytes]:
        """Blobs of these subjects, in their order. Raises KeyError for one that is not held."""
        slots = window.slots_of(self.acc, self.table, np.ascontiguousarray(subjects, np.uint64))
        if len(slots) and int(slots.min()) < 0:
            raise KeyError(int(subjects[int(slots.argmin())]))
        counts = self._counts_since_head()
        first, until = (np.searchsorted(counts.slot, slots, side) for side in ("left", "right"))
        banks, sources = self._banks_as_bytes(), packing.name_table(self.sources)
        words = np.empty(SCRATCH_WORDS, np.uint64)
        ends = np.zeros(len(slots), np.int64)
        blobs: list[bytes] = []
        while len(blobs) < len(slots):
            at = len(blobs)
            done = int(
                packing.pack(
                    self.acc, self.rows, self.parties, self.facts, self.household, slots, banks, sources, counts,
                    first, until, words, words.view(np.uint8), at, ends,
                )
            )  # fmt: skip
            if done == at:  # one account alone is larger than the scratch
                words = np.empty(2 * len(words), np.uint64)
                continue
            stops = ends[at:done].tolist()
            whole = words[: stops[-1] >> 3].tobytes()
            blobs += [whole[a:b] for a, b in zip([0, *stops[:-1]], stops, strict=True)]
        for i in np.flatnonzero(self.acc["cased"][slots]).tolist():
            blobs[i] = packing.with_case(blobs[i], _encode(self.cases[int(slots[i])]))
        return blobs

    def _banks_as_bytes(self) -> packing.Names:
        if len(self._bank_names.order) != len(self.banks):
            self._bank_names = packing.name_table(self.banks)
        return self._bank_names

    def _counts_since_head(self) -> packing.Counts:
        """Counts since the head by account. A flush packs many chunks of the same state, so they are kept until it changes."""
        key = (len(self.since_head), len(self.ahead))
        if self._counted is None or self._counted[0] != key:
            # An account that is ahead of the head still carries what the head has not taken over.
            waiting = [self._columns(slot, counts) for _, slot, counts in self.ahead]
            self._counted = key, _added_up([*self.since_head, *waiting])
        return self._counted[1]

    def _columns(
        self, slot: int, counts: Sequence[tuple[str, int, int, int]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return (
            np.full(len(counts), slot, np.int32),
            np.array([self.source(source) for source, _, _, _ in counts], np.uint16),
            np.array([day for _, day, _, _ in counts], np.int32),
            np.array([outcome for _, _, outcome, _ in counts], np.uint8),
            np.array([n for _, _, _, n in counts], np.int32),
        )

    def load(self, subject: int, blob: bytes) -> None:
        """Load one account (`load_many`)."""
        self.load_many([subject], [blob])

    def load_many(self, subjects: Sequence[int], blobs: Sequence[bytes]) -> None:
        """Load accounts. Load the head first: a blob that is ahead of it brings counts that the head lacks.

        Raises `LayoutMismatch` for a blob of another layout, ValueError for a damaged one.
        """
        ids = np.array(subjects, np.uint64)
        lengths = np.array([len(blob) for blob in blobs], np.int64)
        for i in np.flatnonzero(lengths & 7).tolist():
            raise ValueError(f"the blob of account {subjects[i]:016x} is damaged")
        starts = np.concatenate(([0], np.cumsum(lengths)))
        joined = b"".join((*blobs, bytes(packing.PAD)))
        slots, stops, where = (
            np.zeros(len(ids), np.int64),
            np.zeros(len(ids), np.int64),
            np.zeros(2, np.int64),
        )
        if self.n_acc == 0 and self.head.accounts > len(self.acc):
            self.grow_accounts(self.head.accounts)
        at = 0
        while True:
            why, at, self.n_acc, self.n_facts, self.n_household = packing.load(
                self.acc, self.n_acc, self.table, self.rows, self.pool, self.parties, self.ppool, self.facts, self.n_facts,
                self.household, self.n_household, ids, np.frombuffer(joined, np.uint64), np.frombuffer(joined, np.uint8),
                starts, self._banks_as_bytes(), at, slots, stops, where,
            )  # fmt: skip
            if why == packing.DONE:
                break
            if why == packing.DAMAGED:
                raise ValueError(f"the blob of account {subjects[at]:016x} is damaged")
            if why == packing.FOREIGN:
                raise LayoutMismatch(f"account blob has layout {where[0]}, this program has {STATE_LAYOUT}")
            if why == packing.NEED_NAME:
                self.bank(joined[where[0] : where[1]].decode())
            else:
                self._make_room(why, int(where[0]), len(ids) - at)
        for i in np.flatnonzero(self.acc["cased"][slots]).tolist():
            self.cases[int(slots[i])] = _decode_case(packing.case_of(blobs[i]))
        applied = self.acc["applied"][slots]
        for i in np.flatnonzero(applied > self.head.applied).tolist():
            counts = packing.counts_at(blobs[i], int(stops[i] - starts[i]))
            if counts:
                self.ahead.append((int(applied[i]), int(slots[i]), counts))

    def _make_room(self, why: int, least: int, accounts: int) -> None:
        """Room for what loading needs, at once for all accounts that are expected, and an eighth more: it costs nothing unused."""
        done = expected = 1
        if self.n_acc > 256:
            done, expected = self.n_acc, max(self.head.accounts, self.n_acc + accounts)
        if why == packing.NEED_ACCOUNTS:
            self.grow_accounts(accounts)
        elif why == packing.NEED_ROWS:
            self.grow_rows(least, int(self.pool[0]) * expected // done * 9 // 8)
        elif why == packing.NEED_PARTIES:
            self.grow_parties(least, int(self.ppool[0]) * expected // done * 9 // 8)
        elif why == packing.NEED_FACTS:
            self._grow_facts(least)
        else:
            self._grow_household(least)

    def catch_up(self) -> None:
        """Take over the counts of accounts that were stored ahead of the head, once the head has come as far as they had.

        Before that their blobs still carry them: a head written in between must not hold them too.
        """
        waiting = []
        for applied, slot, counts in self.ahead:
            if applied > self.head.applied:
                waiting.append((applied, slot, counts))
                continue
            for source, day, outcome, n in counts:
                self.count(source, day, _OUTCOME_COUNTER[outcome], n)
            self.since_head.append(self._columns(slot, counts))
        self.ahead = waiting

    def pack_head(self) -> bytes:
        """The head as bytes."""
        self.head.accounts = self.n_acc
        return _encode(self.head)

    def load_head(self, blob: bytes) -> None:
        """Load a head; refuses another layout, partition, partition count, generation or key."""
        head = decode_head(blob)
        mine = self.head
        for name in ("layout", "partition", "partitions", "generation", "key_id"):
            if getattr(head, name) != getattr(mine, name):
                raise LayoutMismatch(
                    f"{name} of the stored state is {getattr(head, name)}, of this program {getattr(mine, name)}"
                )
        self.head = head
        self._use_gaps()

    # -- lost records --------------------------------------------------------------------------------------------------

    def accept_gap(self, start: int) -> None:
        """Go on at ledger offset `start`, above the next one: what lies between is lost, and every account is marked.

        Measures then have no history before the gap, for legs that lost records may concern. See `Gap`.
        """
        head = self.head
        if start <= head.applied + 1:
            raise ValueError(f"nothing is lost between {head.applied} and {start}")
        since = head.front - self.settings.lateness if head.front != NEVER else NEVER
        head.gaps.append(Gap(head.applied + 1, start - 1, since))
        head.applied = start - 1
        if self.ahead:
            self.catch_up()
        self._use_gaps()

    def note_first(self, time: int) -> None:
        """The event time of a new leg: where a gap still waits for one, history begins L after it."""
        waiting = [gap for gap in self.head.gaps if gap.history_from == ALWAYS]
        for gap in waiting:
            gap.history_from = max(time + self.settings.lateness, self.head.front)
        if waiting:
            self._use_gaps()

    def _use_gaps(self) -> None:
        gaps = window.gaps_of([(gap.since, gap.history_from) for gap in self.head.gaps])
        self.fold = self.fold._replace(gaps=gaps)

    def missing(self, slot: int, time: int) -> tuple[str, ...]:
        """Codes of `body.MISSING` for a leg of this account and time."""
        hold = self.settings.hold
        aside = self.set_aside.get(int(self.acc["subject"][slot]), ())
        lost = ("records-lost",) if self.records_lost(time) else ()
        if any(first <= time < last + hold for first, last in aside):
            return (*lost, "records-quarantined")
        return lost

    def records_lost(self, time: int) -> bool:
        """Whether records are lost that a leg of this time, or what is visible at it, may hang on."""
        hold = self.settings.hold
        return any(gap.since <= time < gap.history_from + hold for gap in self.head.gaps)

    # -- control records -----------------------------------------------------------------------------------------------

    def pack_control(self) -> bytes:
        """The control records as bytes."""
        return _encode(ControlImage(records=self.control_log))

    def remember(self, offset: int, record: Kept) -> None:
        """Keep a control record that every account is judged under, once."""
        key = (type(record).__name__, record.record_id, record.effective_at)
        if key not in self.control_keys:
            self.control_keys.add(key)
            self.control_log.append((offset, record))
            self.control_changed = True

    def control_image(self, blob: bytes) -> ControlImage:
        """Decode control records; `step.load_control` enters them."""
        image = _decode_control(blob)
        if image.layout != STATE_LAYOUT:
            raise LayoutMismatch(f"control blob has layout {image.layout}, this program has {STATE_LAYOUT}")
        return image

    def mark_flushed(self) -> None:
        """Everything that changed is packed, and so is the head: what comes from here on belongs to the next flush.

        Whoever has packed it writes it, and drops this state if that fails: the packed bytes are the only ones there are.
        """
        self.acc["changed"][: self.n_acc] = 0
        self.since_head = []
        self._counted = None
        self.control_changed = False

    # -- looking -------------------------------------------------------------------------------------------------------

    def hold_from(self, slot: int) -> int:
        """Start of the bucket of the oldest recommendation of an account that is still open."""
        case = self.cases.get(slot)
        if case is None:
            return ALWAYS
        held = [s.bucket for s in case.said if s.typology != TOO_DENSE]
        return min(held) * self.settings.bucket if held else ALWAYS

    def memory(self) -> dict[str, int]:
        """Bytes of the arenas that are given out, and how many things they hold. What was never given out takes no memory."""
        acc = self.acc[: self.n_acc]
        return {
            "accounts": self.n_acc,
            "legs": int(acc["len"].sum()),
            "counterparties": int(acc["plen"].sum()),
            "bytes": acc.nbytes
            + self.table.nbytes
            + int(self.pool[0]) * ROW.itemsize
            + int(self.ppool[0]) * PARTY.itemsize
            + self.n_facts * FACT.itemsize
            + self.n_household * self.household.itemsize,
        }


def decode_head(blob: bytes) -> Head:
    """A head as it was packed. One that was written before a counter existed has counted none of it."""
    head = _decode_head(blob)
    for days in head.counters.values():
        for counts in days.values():
            counts += [0] * (len(COUNTERS) - len(counts))
    return head


def new_pool() -> np.ndarray:
    """Top of an empty arena, and no free stretches."""
    pool = np.full(1 + len(window.CAPACITIES), -1, np.int64)
    pool[0] = 0
    return pool


def _added_up(parts: Sequence[tuple[np.ndarray, ...]]) -> packing.Counts:
    """Counts of equal (slot, source, day, outcome) added up, in that order."""
    if not parts:
        return packing.Counts(*(np.zeros(0, np.int64) for _ in range(5)))
    slot, source, day, outcome, n = (
        np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True)
    )
    days, number = np.unique(day, return_inverse=True)
    sources = int(source.max(initial=0)) + 1
    cell = ((slot * sources + source) * max(len(days), 1) + number) * len(window.OUTCOMES) + outcome
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    first = np.flatnonzero(np.concatenate(([True], cell[1:] != cell[:-1]))) if len(cell) else order
    at = order[first]
    total = np.add.reduceat(n[order], first) if len(first) else n
    return packing.Counts(slot[at], source[at], day[at], outcome[at], total)


def _power(n: int) -> int:
    size = 16
    while size < n:
        size *= 2
    return size


def day_of(time: Any) -> Any:
    """Day number of a time or of an array of times."""
    return time // DAY
