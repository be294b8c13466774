"""The rows of the twin: canonical list, visibility, dated records, flags, relationships, hubs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from detectors.model import (
    DAY,
    HOUR,
    PRECISION_US,
    Channel,
    Fact,
    Flag,
    FlagState,
    PartyClass,
    Side,
    Status,
    TimePrecision,
)

SILENCE_DAYS = 400
IGNORED = (PartyClass.OWN, PartyClass.SENSITIVE)


@dataclass(frozen=True)
class Leg:
    """One leg record as it arrives, and (without `status`) one row of the canonical list."""

    leg: int
    time: int
    amount: int
    party: int = 0
    party_class: int = PartyClass.PERSONAL
    channel: int = Channel.TRANSFER
    purpose: int = 0
    precision: int = TimePrecision.EXACT
    status: int = Status.BOOKED
    amount_u: int = -1  # -1: the same as amount
    void: bool = False
    returned: int | None = None
    """Taken back from this time on: a return came so late that what was judged before it stands."""

    @property
    def u(self) -> int:
        """Amount in u-cents."""
        return self.amount if self.amount_u < 0 else self.amount_u

    @property
    def side(self) -> int:
        """The lowest bit of the id."""
        return self.leg & 1

    @property
    def credit(self) -> bool:
        """Money came in."""
        return self.side == Side.CREDIT

    @property
    def order(self) -> tuple[int, int]:
        """Canonical order."""
        return (self.time, self.leg)

    @property
    def mark(self) -> bool:
        """The mark of a return."""
        return self.void and not self.amount

    def gone(self, e: Leg) -> bool:
        """Taken back by the time of leg e."""
        return self.void or (self.returned is not None and (self.returned, self.leg) <= e.order)

    @property
    def content(self) -> tuple[int, ...]:
        """What two records of one leg must agree in."""
        return (
            self.time,
            self.amount,
            self.u,
            self.party,
            self.party_class,
            self.channel,
            self.purpose,
            self.precision,
        )


@dataclass(frozen=True)
class Settings:
    """Of the fold, docs/state.md's table."""

    lateness: int = 6 * HOUR
    spread: int = DAY
    hold: int = 32 * DAY
    keep: int = 256
    bucket: int = 7 * DAY
    open: int = 30 * DAY
    observed_since: int | None = None
    gaps: tuple[tuple[int, int], ...] = ()
    """(since, history_from) of accepted gaps: what is judged from the first on has no history before the second."""
    hub_bucket_legs: int = 10**9
    hub_counterparties: int = 10**9
    first_time_gap_days: int = 180
    first_time_history: int = 30 * DAY
    regular_payments: int = 3
    regular_spread_days: int = 60

    @property
    def settled(self) -> int:
        """`S`: a leg older than this behind the account's clock can no longer be displaced."""
        return self.lateness + 7 * self.spread

    @property
    def undo(self) -> int:
        """A return this long after its leg does not change what was judged before it."""
        return 6 * self.spread


Params = dict[str, dict[str, int]]
"""Parameters by detector name."""


@dataclass
class Canonical:
    """What all records of one account come to, whatever their order."""

    rows: list[Leg] = field(default_factory=list)
    conflicts: set[int] = field(default_factory=set)  # leg ids with two contents
    repeats: int = 0  # booked records beyond the first of their content, legs that were not voided


def canonical(records: Iterable[Leg], settings: Settings | None = None) -> Canonical:
    """Drop duplicates, void what was returned, keep the smaller of two contents; in (time, leg) order."""
    settings = settings or Settings()
    booked: dict[int, list[Leg]] = {}
    returned: dict[int, list[Leg]] = {}
    for record in records:
        pile = booked if record.status == Status.BOOKED else returned
        pile.setdefault(record.leg, []).append(record)
    out = Canonical()
    for leg in sorted(booked.keys() | returned.keys()):
        contents = sorted({record.content for record in booked.get(leg, [])})
        if len(contents) > 1:
            out.conflicts.add(leg)
            # What lost stays as a void row under an id of its own, one for each time.
            lost = {record.time: record for record in reversed(booked[leg]) if record.content != contents[0]}
            for time, record in lost.items():
                shadow = leg ^ (time << 1 & (1 << 64) - 1)
                out.rows.append(replace(record, leg=shadow, status=Status.BOOKED, void=True))
        times = sorted({record.time for record in returned.get(leg, [])})
        out.rows += [Leg(leg=leg, time=time, amount=0, void=True) for time in times]
        if leg not in booked:
            continue
        place = min(booked[leg], key=lambda record: record.content)
        if any(time - place.time < settings.undo for time in times):
            place = replace(place, void=True)
        elif times:
            place = replace(place, returned=times[0])
        else:
            out.repeats += len(booked[leg]) - len(contents)
        out.rows.append(place)
    out.rows.sort(key=lambda row: (row.order, row.mark))
    return out


def held(rows: Sequence[Leg], e: int, settings: Settings) -> list[Leg]:
    """The rows that are still kept at leg `e`, void ones too, in order."""
    now = rows[e].time
    prefix = rows[: e + 1]
    old = [row for row in prefix if row.time <= now - settings.settled]
    young = [row for row in prefix if row.time > now - settings.settled]
    kept = old[-settings.keep :] if settings.keep > 0 else []
    return [row for row in kept + young if row.time > now - settings.hold]


def visible(rows: Sequence[Leg], e: int, settings: Settings) -> list[Leg]:
    """The rows that a measure of leg `e` may look at, in order. One that was taken back is none, but counts for K."""
    return [row for row in held(rows, e, settings) if not row.gone(rows[e])]


def as_of(records: Sequence, time: int):
    """The newest record effective at or before `time`, or None. Equal times are ordered by record id."""
    effective = [record for record in records if record.effective_at <= time]
    return max(effective, key=lambda record: (record.effective_at, record.record_id), default=None)


def truncated(time: int, precision: int) -> int:
    """The start of the step of `precision` that holds `time`."""
    step = PRECISION_US[precision]
    return time // step * step


def elapsed(a: Leg, b: Leg) -> int:
    """Time from a to b, as finely as the coarser of the two knows it."""
    coarser = max(a.precision, b.precision)
    return truncated(b.time, coarser) - truncated(a.time, coarser)


def flag_counts(records: Sequence[Flag], time: int, open_for: int) -> bool:
    """Whether one flag (all records of one flag id) counts for a leg at `time`.

    choice: the newest confirmation is in force; what ended the flag before that one is past.
    """
    confirmed = as_of([record for record in records if record.state == FlagState.CONFIRMED], time)
    if confirmed is None:
        return False
    if confirmed.expires is not None and time >= confirmed.expires:
        return False
    ended = (FlagState.WITHDRAWN, FlagState.DISPUTED, FlagState.EXPIRED)
    return not any(
        record.state in ended
        and (record.effective_at, record.record_id) > (confirmed.effective_at, confirmed.record_id)
        and record.effective_at < time + open_for
        for record in records
    )


def counting_flags(flags: Sequence[Flag], time: int, open_for: int) -> dict[int, list[str]]:
    """Flagged party -> ids of the flags that count for a leg at `time`."""
    by_id: dict[str, list[Flag]] = {}
    for record in flags:
        by_id.setdefault(record.flag_id, []).append(record)
    out: dict[int, list[str]] = {}
    for flag_id in sorted(by_id):
        if flag_counts(by_id[flag_id], time, open_for):
            out.setdefault(by_id[flag_id][0].party, []).append(flag_id)
    return out


def is_ignored(row: Leg, facts: Sequence[Fact]) -> bool:
    """Own, sensitive, or with an account of the household as declared at the time of the row."""
    fact = as_of(facts, row.time)
    return row.party_class in IGNORED or (fact is not None and row.party in fact.household)


def relationship(counted: Sequence[Leg], leg: Leg) -> list[Leg]:
    """The earlier legs of the same party on the same side, since the last silence of more than 400 days.

    `counted` are the rows of the prefix that are neither void nor ignored; what a late return took back is among them.
    """
    out: list[Leg] = []
    for row in counted:
        if row.order >= leg.order or row.party != leg.party or row.side != leg.side:
            continue
        if out and row.time // DAY - out[-1].time // DAY > SILENCE_DAYS:
            out = []
        out.append(row)
    if out and leg.time // DAY - out[-1].time // DAY > SILENCE_DAYS:
        out = []
    return out


def first_time(counted: Sequence[Leg], leg: Leg, settings: Settings) -> bool:
    """Nothing before, or nothing for as long as `first_time_gap`."""
    if leg.party == 0:
        return True
    earlier = relationship(counted, leg)
    if not earlier:
        return True
    return leg.time // DAY - earlier[-1].time // DAY >= settings.first_time_gap_days


def regular(counted: Sequence[Leg], leg: Leg, settings: Settings) -> bool:
    """Enough payments before this one, spread far enough."""
    if leg.party == 0:
        return False
    earlier = relationship(counted, leg)
    if len(earlier) < settings.regular_payments:
        return False
    return earlier[-1].time // DAY - earlier[0].time // DAY >= settings.regular_spread_days


def hub_start(rows: Sequence[Leg], settings: Settings) -> int | None:
    """Start of the bucket from which the account is a hub, or None.

    A void leg still counts in its bucket, for what was forgotten cannot be undone; the mark of a return
    without its leg (amount 0) does not. The counterparty rule counts distinct non-zero parties.
    """
    length = settings.lateness
    buckets: dict[int, int] = {}
    for row in rows:
        if not row.void or row.amount:
            buckets[row.time // length] = buckets.get(row.time // length, 0) + 1
    starts = [bucket * length for bucket, n in buckets.items() if n >= settings.hub_bucket_legs]
    for e, row in enumerate(rows):
        if not row.amount:
            continue
        parties = {other.party for other in held(rows, e, settings) if other.amount} - {0}
        if len(parties) >= settings.hub_counterparties:
            starts.append(row.time // length * length)
            break
    return min(starts, default=None)
