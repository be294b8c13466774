"""The fold: one step takes a partition's state through a batch of ledger frames.

Insert everything, judge each touched account once from its earliest insertion, say what changed. What a step says depends on
the state and the frames alone; how the frames are batched changes when something is said, never what stands in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec
import numpy as np

from detectors import body as bodies
from detectors import judging, window
from detectors.body import Body
from detectors.config import Config
from detectors.measures import measure_params
from detectors.model import (
    ACTION_NAMES,
    COUNT,
    DAY,
    ENGINE_VERSION,
    Action,
    Barrier,
    Baselines,
    ConfigRecord,
    Control,
    Decision,
    Fact,
    Flag,
    Frame,
    Kind,
    Link,
    Mode,
    Quarantine,
    Rates,
    Trace,
)
from detectors.scoring import plan
from detectors.settings import FoldSettings
from detectors.state import (
    COUNTERS,
    Case,
    ConfigInForce,
    Kept,
    PartitionState,
    Said,
    SetAside,
    Standing,
)
from detectors.typologies import TOO_DENSE
from detectors.window import ALWAYS, NEVER, ROW


class Cause(msgspec.Struct, frozen=True, array_like=True, order=True):
    """What an output was caused by: (ledger offset, index within the step). Receivers keep the greatest."""

    offset: int
    index: int


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """A recommendation was raised or revised."""

    cause: Cause
    subject: int
    bank: str
    mode: Mode
    body: Body


class Withdrawal(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing stands under this id any more."""

    cause: Cause
    subject: int
    bank: str
    mode: Mode
    recommendation_id: str
    action: str  # what it had been


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """Indicators that fired, by columns. Judging a leg again gives its hits again: the greatest cause counts."""

    cause: Cause
    subject: np.ndarray  # u8
    leg: np.ndarray  # u8
    time: np.ndarray  # i8
    detector: np.ndarray  # i2, position in `catalogue.ALL`
    strength: np.ndarray  # i4, ppm, high reading


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A leg that needs a place in a list: `late` (it entered the profile) or `conflict` (the content that lost)."""

    cause: Cause
    reason: str
    subject: int
    leg: int
    time: int
    source: str
    coordinate: int


Output = Recommendation | Withdrawal | Hits | Listed


class StepResult(msgspec.Struct, kw_only=True):
    """What a step said, and what it did in numbers."""

    outputs: list[Output]
    judged: int = 0  # legs judged, those judged again included
    legs: dict[str, int] = {}  # what became of the legs of these frames
    accounts: int = 0  # accounts judged
    errors: dict[str, int] = {}  # detector -> legs on which it raised


def in_force(config: Config, settings: FoldSettings) -> ConfigInForce:
    """A configuration with what the kernel reads of it."""
    digest = config.digest(engine=ENGINE_VERSION, tzdata=settings.tzdata)
    return ConfigInForce(config, measure_params(config), plan(config), config.version, digest)


def new_state(
    partition: int, partitions: int, settings: FoldSettings, config: Config, capacity: int = 1024
) -> PartitionState:
    """An empty partition, judged under `config` until a configuration record says otherwise."""
    return PartitionState(partition, partitions, settings, in_force(config, settings), capacity)


def step(state: PartitionState, frames: Sequence[Frame]) -> StepResult:
    """Take the state through frames of its partition, in offset order. Changes `state` in place."""
    total = StepResult(outputs=[])
    for frame in frames:
        result = _Step(state, frame).run()
        total.outputs += result.outputs
        total.judged += result.judged
        total.accounts += result.accounts
        for mine, theirs in ((total.legs, result.legs), (total.errors, result.errors)):
            for name, n in theirs.items():
                mine[name] = mine.get(name, 0) + n
    return total


def load_control(state: PartitionState, blob: bytes) -> None:
    """Enter stored control records into a state without judging anything. Load the head first.

    Records from beyond the head are left out: the log brings them again, and with them the accounts that they concern.
    """
    for offset, record in state.control_image(blob).records:
        if offset <= state.head.applied:
            _enter(state, record)
            state.remember(offset, record)
    state.control_changed = False


def _enter(state: PartitionState, record: Kept) -> int | None:
    """Enter a control record. Returns the earliest time whose answer may change, None = nothing changes."""
    if isinstance(record, Flag):
        return state.flags.add(record)
    key = record.effective_at, record.record_id
    if isinstance(record, ConfigRecord):
        config = Config.from_json(record.document)
        value = ConfigInForce(config, measure_params(config), plan(config), record.version, record.digest)
        return record.effective_at if state.configs.add(*key, value) else None
    if isinstance(record, Baselines):
        return record.effective_at if state.baselines.add(*key, record) else None
    if isinstance(record, Quarantine):
        for subject, first, last in record.accounts:
            state.set_aside.setdefault(subject, []).append((first, last))
        return None
    state.rates.add(*key, record)
    return None


def record_hash(record_id: str) -> int:
    """64 bits of a record id: the order of facts of one moment."""
    return int.from_bytes(blake2b(record_id.encode(), digest_size=8).digest(), "little")


class _Step:
    """One frame on its way into the state: scratch that does not outlive it.

    The frame is the unit: what is said after each one is a function of the log, so a process that dies after it has published says
    the same again, and takes back the same again. Judging several frames at once would leave behind what only the first raised.
    """

    def __init__(self, state: PartitionState, frame: Frame) -> None:
        if frame.offset <= state.head.applied:
            raise ValueError(f"frame {frame.offset} is not above the applied offset {state.head.applied}")
        self.state = state
        self.frame = frame
        self.offset = frame.offset
        self.result = StepResult(outputs=[])
        self.number = state.next_step()
        self.touched = np.zeros(1024, window.TOUCHED)
        self.n_touched = 0

    def run(self) -> StepResult:
        state, frame = self.state, self.frame
        if frame.kind is Kind.LEGS:
            if len(frame.rows):
                self._insert_legs()
        elif frame.kind is Kind.COUNTS:
            self._counts(frame.rows, frame.sources)
        else:
            for record in frame.records:
                self._control(record)
        self._judge()
        state.head.applied = self.offset
        if state.ahead:
            state.catch_up()
        current = state.configs.at(state.head.front)
        state.head.config_version, state.head.config_digest = current.version, current.digest
        return self.result

    # -- inserting -----------------------------------------------------------------------------------------------------

    def _counts(self, rows: np.ndarray, sources: Sequence[str], *, aside: bool = False) -> None:
        state = self.state
        for index, name in enumerate(sources):
            mine = rows[rows["source"] == index]
            key = "counts:" + name
            seen = state.head.coordinates.get(key, -1)
            mine = mine[mine["coordinate"] > seen]
            if not len(mine):
                continue
            known = list(state.head.aside.get(key, ()))
            if aside:
                state.head.aside.setdefault(key, {}).update(dict.fromkeys(mine["coordinate"].tolist(), 0))
            else:
                self._raise_to(key, int(mine["coordinate"].max()))
            if known:  # counts that were set aside are counted as they are: a copy is not
                mine = mine[~np.isin(mine["coordinate"], known)]
            for day in np.unique(mine["day"]).tolist():
                today = mine[mine["day"] == day]
                accepted, rejected = int(today["accepted"].sum()), int(today["rejected"].sum())
                for counter, n in (
                    ("received", accepted + rejected),
                    ("accepted", accepted),
                    ("rejected", rejected),
                    ("no_effect", int(today["no_effect"].sum())),
                    ("no_leg", int(today["no_leg"].sum())),
                ):
                    state.count(name, day, COUNTERS.index(counter), n)

    def _insert_legs(self) -> None:
        state, frame = self.state, self.frame
        rows = frame.rows
        n = len(rows)
        sources = np.array([state.source(name) for name in frame.sources or ("",)], np.int64)
        banks = np.array([state.bank(name) for name in frame.banks or ("",)], np.uint16)
        source, bank = sources[rows["source"]], banks[rows["bank"]]
        offset = np.full(n, self.offset, np.int64)
        rank = np.argsort(np.argsort(np.array(state.banks)))
        skip = self._redelivered(source, rows["coordinate"])
        if state.head.gaps and not skip.all():
            state.note_first(int(rows["time"][int(skip.argmin())]))
        outcome = np.zeros(n, np.uint8)
        loser = np.zeros(n, ROW)
        wa, wb = pack_words(rows)
        columns = {
            name: np.ascontiguousarray(rows[name]) for name in ("subject", "leg", "party", "time", "status")
        }
        self._reserve_touched(n)
        start = 0
        while True:
            why, start, state.n_acc, self.n_touched = window.insert(
                state.acc, state.n_acc, state.table, state.rows, state.pool, state.parties, state.ppool,
                state.facts, state.household,
                columns["subject"], columns["leg"], columns["party"], columns["time"], wa, wb, bank, rank, columns["status"],
                offset, skip, start, self.number, self.touched, self.n_touched, outcome, loser, state.fold,
            )  # fmt: skip
            if why == window.DONE:
                break
            if why == window.NEED_ACCOUNTS:
                state.grow_accounts(n)
            elif why == window.NEED_ROWS:
                state.grow_rows(n)
            else:
                state.grow_parties(n)
        self._after_insert(rows, source, outcome, loser)

    def _redelivered(self, source: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
        state = self.state
        skip = np.zeros(len(source), np.bool_)
        for number in np.flatnonzero(np.bincount(source)).tolist():
            key = "legs:" + state.sources[number]
            mine = source == number
            # Inside a source the coordinates rise: what is not above all before it, in this step too, came again.
            seen = np.maximum.accumulate(
                np.concatenate(([state.head.coordinates.get(key, -1)], coordinate[mine]))
            )
            skip[mine] = coordinate[mine] <= seen[:-1]
            if key in state.head.aside:
                self._bring_back(key, state.sources[number], coordinate[mine & ~skip].tolist())
            self._raise_to(key, int(seen[-1]))
        return skip

    def _raise_to(self, key: str, coordinate: int) -> None:
        """From here on a source brings nothing new up to this coordinate. What was set aside up to it stays so."""
        head = self.state.head
        head.coordinates[key] = coordinate
        waiting = head.aside.pop(key, None)
        if waiting and (above := {c: day for c, day in waiting.items() if c > coordinate}):
            head.aside[key] = above

    def _bring_back(self, key: str, source: str, coordinates: Sequence[int]) -> None:
        """Legs that were set aside came again in a good frame: they are judged now, so they are not counted as set aside."""
        waiting = self.state.head.aside[key]
        for coordinate in coordinates:
            day = waiting.pop(coordinate, None)
            if day is not None:
                self.state.count(source, day, COUNTERS.index("quarantined"), -1)

    def _after_insert(
        self, rows: np.ndarray, source: np.ndarray, outcome: np.ndarray, loser: np.ndarray
    ) -> None:
        state = self.state
        state.head.front = max(state.head.front, int(rows["time"].max()))
        slots = window.slots_of(state.acc, state.table, np.ascontiguousarray(rows["subject"]))
        state.count_outcomes(slots, source, rows["received"] // DAY, outcome)
        for code, n in enumerate(np.bincount(outcome).tolist()):
            if n:
                name = window.OUTCOMES[code]
                self.result.legs[name] = self.result.legs.get(name, 0) + n
        for i in np.flatnonzero((outcome == window.LATE) | (outcome == window.CONFLICT)).tolist():
            lost = outcome[i] == window.CONFLICT
            self._say(
                Listed(
                    cause=self._cause(),
                    reason=window.OUTCOMES[outcome[i]],
                    subject=int(rows["subject"][i]),
                    leg=int(rows["leg"][i]),
                    time=int(loser["time"][i] if lost else rows["time"][i]),
                    source=state.sources[int(source[i])],
                    coordinate=int(rows["coordinate"][i]),
                )
            )
        for slot in np.unique(slots[outcome == window.HUB]).tolist():
            self._reserve_touched(1)
            self.n_touched = window.touch(
                state.acc,
                slot,
                self.touched,
                self.n_touched,
                int(state.acc["hub"][slot]),
                np.uint64(0),
            )

    def _reserve_touched(self, extra: int) -> None:
        need = self.n_touched + extra + 1
        if need > len(self.touched):
            touched = np.zeros(need + need // 2, window.TOUCHED)
            touched[: self.n_touched] = self.touched[: self.n_touched]
            self.touched = touched

    # -- control records -----------------------------------------------------------------------------------------------

    def _set_aside(self, record: Quarantine) -> None:
        """Enter what stands in the place of a frame: its rows settle as they would have, without being judged."""
        state = self.state
        for leg in record.legs:
            source = record.sources[leg.source]
            key = "legs:" + source
            waiting = state.head.aside.setdefault(key, {})
            again = leg.coordinate <= state.head.coordinates.get(key, -1) or leg.coordinate in waiting
            if not again:
                waiting[leg.coordinate] = leg.day
            outcome = "redelivered" if again else "quarantined"
            state.count(source, leg.day, COUNTERS.index(outcome), 1)
            self.result.legs[outcome] = self.result.legs.get(outcome, 0) + 1
        if record.counts:
            rows = np.zeros(len(record.counts), COUNT)
            for name in record.counts[0].__struct_fields__:
                rows[name] = [getattr(count, name) for count in record.counts]
            self._counts(rows, record.sources, aside=True)
        state.head.quarantined.append(
            SetAside(self.offset, record.kind, record.n, record.unread, record.sources)
        )
        kept = msgspec.structs.replace(record, legs=(), counts=())
        _enter(state, kept)
        state.remember(self.offset, kept)
        for subject, first, _ in record.accounts:
            slot = state.slot(subject)
            if slot >= 0 and window.apply_to(state.acc, slot, self.offset, self.number):
                self._touch_account(slot, first)

    def _control(self, record: Control | Quarantine) -> None:
        state, offset = self.state, self.offset
        if isinstance(record, Fact):
            slot = state.slot(record.subject, create=True)
            if window.apply_to(state.acc, slot, offset, self.number) and state.add_fact(
                slot, record, record_hash(record.record_id)
            ):
                self._touch_account(slot, record.effective_at)
        elif isinstance(record, Flag | ConfigRecord | Baselines | Rates):
            since = _enter(state, record)
            state.remember(offset, record)
            if since is None:
                return
            self._reserve_touched(state.n_acc)
            if isinstance(record, Flag):
                self.n_touched = window.touch_with(
                    state.acc, state.n_acc, state.rows, np.uint64(record.party), since, offset,
                    self.touched, self.number, self.n_touched,
                )  # fmt: skip
            else:
                self.n_touched = window.touch_since(
                    state.acc,
                    state.n_acc,
                    state.rows,
                    since,
                    offset,
                    self.touched,
                    self.number,
                    self.n_touched,
                )
        elif isinstance(record, Decision):
            slot = state.slot(record.subject, create=True)
            case = state.case(slot)
            if all(d.record_id != record.record_id for d in case.decisions):
                case.decisions.append(record)
                case.decisions.sort(key=lambda d: (d.effective_at, d.record_id))
                state.acc["changed"][slot] = 1
        elif isinstance(record, Quarantine):
            self._set_aside(record)
        elif isinstance(record, Trace | Link | Barrier):
            pass  # defined, carried and kept in the log; nothing reads them yet
        else:  # pragma: no cover - the decoder knows no other
            raise TypeError(f"unknown control record {type(record).__name__}")

    def _touch_account(self, slot: int, since: int) -> None:
        state = self.state
        state.acc["changed"][slot] = 1
        off, n = int(state.acc["off"][slot]), int(state.acc["len"][slot])
        at = int(window.position(state.rows, off, n, since, np.uint64(0)))
        if at < n:
            row = state.rows[off + at]
            self._reserve_touched(1)
            self.n_touched = window.touch(
                state.acc, slot, self.touched, self.n_touched, row["time"], row["leg"]
            )

    # -- judging -------------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        state = self.state
        touched = np.sort(self.touched["slot"][: self.n_touched])
        if not len(touched):
            return
        judged = judging.judge(state, touched, self.touched)
        self.result.judged += judged.items
        self.result.accounts += len(touched)
        if judged.hits is not None:
            self._say(Hits(cause=self._cause(), **judged.hits))
        self.result.errors = judged.errors
        self._say_what_changed(touched, judged)
        window.mark_swept(state.acc, touched)
        self._forget_lapsed(touched)

    def _say_what_changed(self, touched: np.ndarray, judged: judging.Judged) -> None:
        """Replace the verdicts of what was judged, and say what differs from what was said."""
        state = self.state
        fresh: dict[int, list[Standing]] = {}
        for slot, verdict in judged.verdicts:
            fresh.setdefault(slot, []).append(verdict)
        concerned = touched[(state.acc["cased"][touched] != 0) | (state.acc["hub"][touched] != ALWAYS)]
        for slot in sorted({*concerned.tolist(), *fresh}):
            case = state.case(slot)
            _, _, *key = self.touched[state.acc["mark"][slot]].tolist()
            since = tuple(key)
            hub = int(state.acc["hub"][slot])
            kept = [v for v in case.verdicts if (v.time, v.leg) < since and v.time < hub]
            self._revise(slot, case, kept, fresh.get(slot, []))

    def _revise(self, slot: int, case: Case, kept: list[Standing], new: list[Standing]) -> None:
        state = self.state
        length = state.settings.bucket
        dropped = case.verdicts[len(kept) :]
        was = _best_by_bucket(case.verdicts, length)
        untouched = set(kept)
        case.verdicts = sorted(kept + new, key=lambda v: (v.time, v.leg))
        buckets = {v.time // length for v in dropped} | {v.time // length for v in new}
        hub = int(state.acc["hub"][slot])
        if hub != ALWAYS:
            buckets |= {hub // length} | {s.bucket for s in case.said if s.typology == TOO_DENSE}
        if not buckets:
            state.drop_if_empty(slot)
            return
        buckets |= {b + 1 for b in buckets}  # they name the one before them
        best = _best_by_bucket(case.verdicts, length)
        if hub != ALWAYS:
            best[(TOO_DENSE, hub // length)] = Standing(hub, 0, int(Action.MONITOR), TOO_DENSE)
        said = {(s.typology, s.bucket): s for s in case.said}
        for key in sorted(set(best) | set(said), key=lambda k: (k[1], k[0])):
            if key[1] in buckets:
                before = key[0], key[1] - 1
                same = best.get(key) in untouched and best[key] == was.get(key)
                self._settle(slot, key, best, said, same and (before in best) == (before in was))
        case.said = sorted(said.values(), key=lambda s: (s.bucket, s.typology))
        state.acc["hold"][slot] = state.hold_from(slot)
        state.acc["changed"][slot] = 1
        state.drop_if_empty(slot)

    def _settle(
        self,
        slot: int,
        key: tuple[str, int],
        best: dict[tuple[str, int], Standing],
        said: dict[tuple[str, int], Said],
        same: bool,
    ) -> None:
        """Say a recommendation again if its body changed; withdraw it if nothing stands for it.

        `same`: it stands on the leg on which it stood, which was not judged again. A body is a function of the rows up to its
        leg, so it is the one that was said, and need not be put together to find that out. What is missing from the log may have
        become known since.
        """
        state = self.state
        typology, bucket = key
        subject = int(state.acc["subject"][slot])
        standing = best.get(key)
        before = said.get(key)
        bank, mode = "", Mode.LEARN
        if standing is not None:
            bank = state.bank_at(slot, standing.time)
            mode = state.configs.at(standing.time).config.for_entity(bank).mode
        if before is not None and (standing is None or before.bank != bank or before.mode != mode):
            del said[key]
            self._say(
                Withdrawal(
                    cause=self._cause(),
                    subject=subject,
                    bank=before.bank,
                    mode=Mode(before.mode),
                    recommendation_id=before.recommendation_id,
                    action=ACTION_NAMES[before.action],
                )
            )
            before = None
        if standing is None:
            return
        if same and before is not None and not state.missing(slot, standing.time):
            return
        recommendation_id = bodies.recommendation_id(subject, typology, bucket)
        continues = (
            bodies.recommendation_id(subject, typology, bucket - 1) if (typology, bucket - 1) in best else ""
        )
        if typology == TOO_DENSE:
            body = judging.dense(state, slot, recommendation_id, continues, bank)
        else:
            body = judging.explain(state, slot, standing, recommendation_id, continues, bank)
        digest = bodies.body_digest(body)
        if before is not None and before.digest == digest:
            return
        said[key] = Said(body.recommendation_id, typology, bucket, standing.action, digest, mode, bank)
        self._say(Recommendation(cause=self._cause(), subject=subject, bank=bank, mode=mode, body=body))

    def _forget_lapsed(self, touched: np.ndarray) -> None:
        """Recommendations that nothing can change any more need not be held."""
        state = self.state
        length = state.settings.bucket
        for slot in touched[state.acc["cased"][touched] != 0].tolist():
            case = state.cases[slot]
            done = int(state.acc["swept"][slot]) - state.settings.open_for - state.settings.closing - length
            said = [s for s in case.said if s.typology == TOO_DENSE or (s.bucket + 1) * length > done]
            verdicts = [v for v in case.verdicts if (v.time // length + 1) * length > done]
            if len(said) == len(case.said) and len(verdicts) == len(case.verdicts):
                continue
            case.said, case.verdicts = said, verdicts
            state.acc["hold"][slot] = state.hold_from(slot)
            state.drop_if_empty(slot)

    # -- saying --------------------------------------------------------------------------------------------------------

    def _cause(self) -> Cause:
        return Cause(self.offset, len(self.result.outputs))

    def _say(self, output: Output) -> None:
        self.result.outputs.append(output)


def _best_by_bucket(verdicts: Iterable[Standing], length: int) -> dict[tuple[str, int], Standing]:
    """The verdict with the highest action of each (typology, bucket), ties to the earliest.

    The fallback typology gives way to a named one of the same bucket that is at least as high.
    """
    best: dict[tuple[str, int], Standing] = {}
    for verdict in verdicts:
        key = (verdict.typology, verdict.time // length)
        if key not in best or verdict.action > best[key].action:
            best[key] = verdict
    highest: dict[int, int] = {}
    for (typology, bucket), verdict in best.items():
        if typology != judging.FALLBACK:
            highest[bucket] = max(highest.get(bucket, 0), verdict.action)
    return {
        key: verdict
        for key, verdict in best.items()
        if key[0] != judging.FALLBACK or verdict.action > highest.get(key[1], -1)
    }


def pack_words(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two packed words of `ROW` for `LEG` rows (n,)."""
    u8 = np.uint64
    code = rows["currency"].view("u1").reshape(len(rows), 3) if rows["currency"].flags.c_contiguous else None
    if code is None:
        code = np.ascontiguousarray(rows["currency"]).view("u1").reshape(len(rows), 3)
    letters = np.minimum(np.maximum(code.astype(np.int64) - 64, 0), 31).astype(u8)
    currency = letters[:, 0] << u8(10) | letters[:, 1] << u8(5) | letters[:, 2]
    a = (
        rows["amount_u"].astype(u8) << u8(24)
        | (rows["party_class"].astype(u8) & u8(0xF))
        | (rows["class_source"].astype(u8) & u8(7)) << u8(4)
        | (rows["channel"].astype(u8) & u8(0xF)) << u8(7)
        | (rows["purpose"].astype(u8) & u8(0xF)) << u8(11)
        | (rows["precision"].astype(u8) & u8(3)) << u8(15)
        | (rows["learn"].astype(u8) & u8(1)) << u8(17)
    )
    b = rows["amount"].astype(u8) << u8(24) | currency | rows["lexicon"].astype(u8) << u8(15)
    return a, b


__all__ = [
    "NEVER",
    "Cause",
    "Hits",
    "Listed",
    "Output",
    "Recommendation",
    "StepResult",
    "Withdrawal",
    "in_force",
    "load_control",
    "new_state",
    "pack_words",
    "step",
]
