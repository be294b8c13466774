"""The rows of the accounts of one partition, and the compiled operations that keep them in canonical order.

Layout: one record a leg (`ROW`, 40 B), one a counterparty (`PARTY`, 24 B), one an account (`ACCOUNT`). Rows and counterparties
live in arenas; an account owns a contiguous, sorted stretch of each, so a window is always one slice and `lo, hi` are two integers.

Every function here is a deterministic function of its arrays. Closing is lazy: when it happens changes no value
(docs/state.md, "Rows, visibility, closing").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from detectors.model import DAY
from detectors.prefetch import LINE, prefetch

NEVER = -(2**62)
"""A time before all times."""
ALWAYS = 2**62
"""A time after all times."""

ROW = np.dtype(
    [
        ("time", "<i8"),
        ("leg", "<u8"),
        ("party", "<u8"),
        ("a", "<u8"),  # amount_u << 24 | static and derived bits (below)
        ("b", "<u8"),  # amount << 24 | currency (15) | lexicon (8) << 15
    ]
)
"""One held leg: 40 bytes."""

PARTY = np.dtype(
    [
        ("party", "<u8"),
        ("in_first", "<u2"),
        ("in_last", "<u2"),
        ("in_n", "<u2"),
        ("out_first", "<u2"),
        ("out_last", "<u2"),
        ("out_n", "<u2"),
        ("spare", "<u4"),
    ]
)
"""What is known of one counterparty from closed legs: 24 bytes. Days since 1970-01-01; counts stop at 65,535."""

MONTHS = 6
ACCOUNT = np.dtype(
    [
        ("subject", "<u8"),
        ("off", "<i8"),
        ("poff", "<i8"),
        ("len", "<i4"),
        ("cap", "<i4"),
        ("plen", "<i4"),
        ("pcap", "<i4"),
        ("closed", "<i4"),  # rows [0, closed) are at or before `boundary`
        ("fact", "<i4"),  # newest row of the fact table, -1 = none
        ("clock", "<i8"),  # greatest event time inserted
        ("swept", "<i8"),  # greatest event time judged
        ("boundary", "<i8"),
        ("hold", "<i8"),  # start of the bucket of the oldest open recommendation, ALWAYS = none
        ("applied", "<i8"),  # offset of the last frame applied
        ("first", "<i8"),  # time of the account's first leg
        ("gone_debit", "<i8"),  # last customer-initiated debit among rows no longer held
        ("hub", "<i8"),  # hub from this time on, ALWAYS = no hub
        (
            "mark",
            "<i4",
        ),  # where it stands in the `TOUCHED` of this step, if it is that one's slot (not packed)
        ("seen", "<i4"),  # step that last brought it a record that was new to it (not packed)
        ("month", "<i4"),  # 30-day bucket of totals[0]
        ("bank", "<u2"),
        ("changed", "u1"),
        ("cased", "u1"),  # has a Case
        ("credits", "<i8", (MONTHS,)),  # u-cents per 30-day bucket, closed legs
        ("debits", "<i8", (MONTHS,)),
    ]
)

TOUCHED = np.dtype([("slot", "<i4"), ("spare", "<i4"), ("time", "<i8"), ("leg", "<u8")])
"""One account that a step must judge again, and the canonical key from which on."""

FACT = np.dtype(
    [
        ("effective", "<i8"),
        ("record", "<u8"),
        ("opened", "<i8"),  # NEVER = unknown
        ("since", "<i8"),  # NEVER = unknown
        ("income", "<i8"),  # -1 = unknown
        ("hoff", "<i8"),  # declared household: stretch of the household array
        ("hlen", "<i4"),
        ("prev", "<i4"),  # the fact before it, -1 = none
        ("kind", "u1"),
        ("status", "u1"),
        ("minor", "u1"),
        ("spare", "u1"),
        ("bank", "<u2"),  # number of the entity's name, 0 = not said
        ("spare2", "<u2"),
    ]
)
"""One dated fact of an account; an account's facts are a chain, newest first."""

# Bits of ROW.a: static ones come with the leg, derived ones are a function of the canonical prefix that ends at the leg.
CLASS_MASK = np.uint64(0xF)
SOURCE_SHIFT = np.uint64(4)  # 3 bits
CHANNEL_SHIFT = np.uint64(7)  # 4 bits
PURPOSE_SHIFT = np.uint64(11)  # 4 bits
PRECISION_SHIFT = np.uint64(15)  # 2 bits
LEARN_BIT = np.uint64(1 << 17)
STATIC_MASK = np.uint64((1 << 18) - 1)
VOID_BIT = np.uint64(1 << 18)
FIRST_BIT = np.uint64(1 << 19)
REGULAR_BIT = np.uint64(1 << 20)
IGNORED_BIT = np.uint64(1 << 21)
GONE_BIT = np.uint64(1 << 22)
"""A return came later than `undo` after the leg: void for what is judged after the return, but not before."""
DERIVED_MASK = np.uint64((1 << 19) | (1 << 20) | (1 << 21))
AMOUNT_SHIFT = np.uint64(24)
LOW24 = np.uint64((1 << 24) - 1)
ONE = np.uint64(1)

# What became of a leg of a frame.
JUDGED = 0
DUPLICATE = 1
CONFLICT = 2
LATE = 3
HUB = 4
SKIPPED = 5  # applied before the crash (its counts travel with the account's blob)
REDELIVERED = 6  # source coordinate at or below the head's
OUTCOMES = ("judged", "duplicate", "conflict", "late", "hub", "skipped", "redelivered")

# Why `insert` stopped early.
DONE = 0
NEED_ROWS = 1
NEED_PARTIES = 2
NEED_ACCOUNTS = 3

CLASS_OWN = 11
CLASS_BANK = 12
CLASS_SENSITIVE = 14
CHANNEL_FEE = 9
FORGET_DAYS = 400
"""A relationship silent for longer starts anew, so a counterparty may be forgotten after it."""
MONTH_DAYS = 30
NOT_BOOKED = 1


def _capacities() -> np.ndarray:
    """Capacities of a stretch: steps of about an eighth, so that a sixteenth of an arena is spare on average."""
    sizes = [2]
    while sizes[-1] < 2**24:
        sizes.append(max(sizes[-1] + 1, sizes[-1] * 9 // 8))
    return np.array(sizes, np.int64)


CAPACITIES = _capacities()


class FoldParams(NamedTuple):
    """The lengths of the fold, µs and counts, for the compiled functions."""

    lateness: int
    closing: int  # S
    undo: int  # a return this long after its leg no longer changes what was judged before it
    hold: int  # W
    keep: int  # K
    since: int  # default of observed_since, NEVER = unknown
    gaps: np.ndarray  # (n, 2) i8: from when on records were lost, and from when on everything is known again


def gaps_of(gaps: Sequence[tuple[int, int]]) -> np.ndarray:
    """The stretches of lost records as the compiled functions read them."""
    return np.array(gaps, np.int64).reshape(-1, 2)


class Relations(NamedTuple):
    """When a counterparty is new, and when regular: one entry a configuration, in order of effect. int64 (k,)."""

    start: np.ndarray  # in force from here on, µs; the first before all times
    gap_days: np.ndarray
    payments: np.ndarray
    spread_days: np.ndarray


@njit(cache=True, nogil=True)
def mix(x):
    """SplitMix64 finaliser, for the open-addressing tables."""
    z = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def find(acc, table, subject):
    """Slot of a subject, or -1. `table` (power of two, int32, -1 = empty) holds slots."""
    mask = np.uint64(table.shape[0] - 1)
    h = mix(subject) & mask
    while True:
        slot = table[np.int64(h)]
        if slot < 0:
            return -1
        if acc[slot].subject == subject:
            return slot
        h = (h + ONE) & mask


@njit(cache=True, nogil=True)
def slots_of(acc, table, subject):
    """Slot of each subject (n,), -1 = unknown."""
    slots = np.empty(subject.shape[0], np.int64)
    for r in range(subject.shape[0]):
        slots[r] = find(acc, table, subject[r])
    return slots


@njit(cache=True, nogil=True)
def rebuild_table(acc, count, table):
    """Enter slots [0, count) into an empty table."""
    mask = np.uint64(table.shape[0] - 1)
    for slot in range(count):
        h = mix(acc[slot].subject) & mask
        while table[np.int64(h)] >= 0:
            h = (h + ONE) & mask
        table[np.int64(h)] = slot


@njit(cache=True, nogil=True)
def new_account(acc, table, slot, subject):
    """Make an empty account in a slot and enter it into the table."""
    acc[slot].subject = subject
    acc[slot].off = 0
    acc[slot].poff = 0
    acc[slot].len = 0
    acc[slot].cap = 0
    acc[slot].plen = 0
    acc[slot].pcap = 0
    acc[slot].closed = 0
    acc[slot].fact = -1
    acc[slot].clock = NEVER
    acc[slot].swept = NEVER
    acc[slot].boundary = NEVER
    acc[slot].hold = ALWAYS
    acc[slot].applied = -1
    acc[slot].first = ALWAYS
    acc[slot].gone_debit = NEVER
    acc[slot].hub = ALWAYS
    acc[slot].mark = -1
    acc[slot].seen = -1
    acc[slot].month = -1
    acc[slot].bank = 0
    acc[slot].changed = 0
    acc[slot].cased = 0
    mask = np.uint64(table.shape[0] - 1)
    h = mix(subject) & mask
    while table[np.int64(h)] >= 0:
        h = (h + ONE) & mask
    table[np.int64(h)] = slot


@njit(cache=True, nogil=True)
def party_index(parties, lo, n, party):
    """Position of a counterparty in a sorted stretch, or where it would stand."""
    hi = lo + n
    left = lo
    while left < hi:
        mid = (left + hi) >> 1
        if parties[mid].party < party:
            left = mid + 1
        else:
            hi = mid
    return left


@njit(cache=True, nogil=True)
def enter_party(acc, parties, a, party, credit, day):
    """Add one closed leg to the account's counterparties. The stretch must have room for one more."""
    lo = acc[a].poff
    n = acc[a].plen
    i = party_index(parties, lo, n, party)
    if i == lo + n or parties[i].party != party:
        for k in range(lo + n, i, -1):
            parties[k] = parties[k - 1]
        parties[i].party = party
        parties[i].in_first = 0
        parties[i].in_last = 0
        parties[i].in_n = 0
        parties[i].out_first = 0
        parties[i].out_last = 0
        parties[i].out_n = 0
        parties[i].spare = 0
        acc[a].plen = n + 1
    if credit:
        count = np.int64(parties[i].in_n)
        first = np.int64(parties[i].in_first)
        last = np.int64(parties[i].in_last)
    else:
        count = np.int64(parties[i].out_n)
        first = np.int64(parties[i].out_first)
        last = np.int64(parties[i].out_last)
    if count == 0 or day - last > FORGET_DAYS:
        count, first, last = 1, day, day
    else:
        if count < 65535:
            count += 1
        first = min(first, day)
        last = max(last, day)
    if credit:
        parties[i].in_n = count
        parties[i].in_first = first
        parties[i].in_last = last
    else:
        parties[i].out_n = count
        parties[i].out_first = first
        parties[i].out_last = last


@njit(cache=True, nogil=True)
def enter_totals(acc, a, credit, day, amount_u):
    """Add one closed leg to the 30-day totals (the newest MONTHS buckets are kept)."""
    month = day // MONTH_DAYS
    if acc[a].month < 0:
        acc[a].month = month - MONTHS + 1
    shift = month - (acc[a].month + MONTHS - 1)
    if shift > 0:
        for k in range(MONTHS):
            if k + shift < MONTHS:
                acc[a].credits[k] = acc[a].credits[k + shift]
                acc[a].debits[k] = acc[a].debits[k + shift]
            else:
                acc[a].credits[k] = 0
                acc[a].debits[k] = 0
        acc[a].month += shift
    k = month - acc[a].month
    if k >= 0:
        if credit:
            acc[a].credits[k] += amount_u
        else:
            acc[a].debits[k] += amount_u


@njit(cache=True, nogil=True)
def forget_parties(acc, parties, a, day):
    """Drop counterparties that have been silent for longer than FORGET_DAYS before `day`: they count as never seen."""
    lo = acc[a].poff
    w = lo
    for i in range(lo, lo + acc[a].plen):
        last = max(np.int64(parties[i].in_last), np.int64(parties[i].out_last))
        if day - last <= FORGET_DAYS:
            if w != i:
                parties[w] = parties[i]
            w += 1
    acc[a].plen = w - lo


@njit(cache=True, nogil=True)
def capacity_class(n):
    """Number of the smallest capacity that holds n."""
    return np.searchsorted(CAPACITIES, n)


@njit(cache=True, nogil=True)
def reserve_parties(acc, parties, pool, a, extra, day):
    """Make room for `extra` counterparties; False when the arena is full.

    `pool` (1 + classes,) int64: top of the arena, then the first free stretch of each capacity class (-1 = none); a free
    stretch holds the next one in its first record.
    """
    need = acc[a].plen + extra
    if need <= acc[a].pcap:
        return True
    if acc[a].plen > 0:
        forget_parties(acc, parties, a, day)
        need = acc[a].plen + extra
        if need <= acc[a].pcap:
            return True
    k = capacity_class(need)
    cap = CAPACITIES[k]
    new = pool[1 + k]
    if new >= 0:
        pool[1 + k] = np.int64(parties[new].party)
    else:
        if pool[0] + cap > parties.shape[0]:
            return False
        new = pool[0]
        pool[0] += cap
    old = acc[a].poff
    for i in range(acc[a].plen):
        parties[new + i] = parties[old + i]
    if acc[a].pcap > 0:
        k = capacity_class(acc[a].pcap)
        parties[old].party = np.uint64(pool[1 + k])
        pool[1 + k] = old
    acc[a].poff = new
    acc[a].pcap = cap
    return True


@njit(cache=True, nogil=True)
def move_row(acc, rows, pool, a, need):
    """Give an account a stretch with room for `need` rows and free the old one; False when the arena is full. Pool as above."""
    k = capacity_class(need)
    cap = CAPACITIES[k]
    new = pool[1 + k]
    if new >= 0:
        pool[1 + k] = rows[new].time
    else:
        if pool[0] + cap > rows.shape[0]:
            return False
        new = pool[0]
        pool[0] += cap
    old = acc[a].off
    for i in range(acc[a].len):
        rows[new + i] = rows[old + i]
    if acc[a].cap > 0:
        k = capacity_class(acc[a].cap)
        rows[old].time = pool[1 + k]
        pool[1 + k] = old
    acc[a].off = new
    acc[a].cap = cap
    return True


@njit(cache=True, nogil=True)
def close(acc, rows, parties, ppool, a, p):
    """Move the account's boundary, enter closed rows into its base, drop rows nobody can see any more.

    Only what was judged counts for the boundary, so that a step may insert first and judge afterwards. False when
    the counterparty arena is full (nothing is changed then).
    """
    if acc[a].swept == NEVER:
        return True
    b = min(acc[a].swept - p.closing, acc[a].hold - 1)
    if b <= acc[a].boundary:
        return True
    off = acc[a].off
    n = acc[a].len
    end = acc[a].closed
    while end < n and rows[off + end].time <= b:
        end += 1
    fresh = end - acc[a].closed
    if fresh > 0:
        # nothing closes or is judged from here on that is older than the first of these
        if not reserve_parties(acc, parties, ppool, a, fresh, rows[off + acc[a].closed].time // DAY):
            return False
        for i in range(off + acc[a].closed, off + end):
            if rows[i].a & (VOID_BIT | IGNORED_BIT):
                continue
            credit = (rows[i].leg & ONE) == ONE
            day = rows[i].time // DAY
            if rows[i].party != 0:
                enter_party(acc, parties, a, rows[i].party, credit, day)
            enter_totals(acc, a, credit, day, np.int64(rows[i].a >> AMOUNT_SHIFT))
        acc[a].closed = end
    acc[a].boundary = b
    old = 0  # rows at or before b - W
    while old < end and rows[off + old].time <= b - p.hold:
        old += 1
    aged = old  # rows at or before b - S
    while aged < end and rows[off + aged].time <= b - p.closing:
        aged += 1
    drop = max(old, aged - p.keep)
    if drop > 0:
        for i in range(off, off + drop):
            if rows[i].leg & ONE or rows[i].a & (VOID_BIT | IGNORED_BIT):
                continue
            channel = np.int64((rows[i].a >> CHANNEL_SHIFT) & np.uint64(0xF))
            if channel != CHANNEL_FEE and np.int64(rows[i].a & CLASS_MASK) != CLASS_BANK:
                acc[a].gone_debit = max(acc[a].gone_debit, rows[i].time)
        for i in range(off, off + n - drop):
            rows[i] = rows[i + drop]
        acc[a].len = n - drop
        acc[a].closed = end - drop
    return True


@njit(cache=True, nogil=True)
def position(rows, off, n, time, leg):
    """First position in a sorted stretch at or after the canonical key (time, leg)."""
    lo = 0
    hi = n
    while lo < hi:
        mid = (lo + hi) >> 1
        t = rows[off + mid].time
        if t < time or (t == time and rows[off + mid].leg < leg):
            lo = mid + 1
        else:
            hi = mid
    return lo


@njit(cache=True, nogil=True)
def touch(acc, a, touched, n_touched, time, leg):
    """Note that an account must be judged again from the canonical key (time, leg) on. `touched` (>= n_touched + 1,) TOUCHED."""
    k = np.int64(acc[a].mark)
    if k < 0 or k >= n_touched or touched[k].slot != a:
        acc[a].mark = n_touched
        touched[n_touched].slot = a
        touched[n_touched].time = time
        touched[n_touched].leg = leg
        n_touched += 1
    elif time < touched[k].time or (time == touched[k].time and leg < touched[k].leg):
        touched[k].time = time
        touched[k].leg = leg
    acc[a].changed = 1
    return n_touched


@njit(cache=True, nogil=True)
def apply_to(acc, a, offset, step):
    """Whether a record at this offset is new to the account, and if so note that it is applied.

    A step has one offset: what is above what had been applied before the step is new, and so is all that the step brings after it.
    """
    if acc[a].seen == step:
        return True
    if offset <= acc[a].applied:
        return False
    acc[a].seen = step
    acc[a].applied = offset
    return True


@njit(cache=True, nogil=True)
def is_mark(row):
    """Whether a row is the mark of a return: void, without an amount, under the id of the leg that it takes back."""
    return (row.a & VOID_BIT) != 0 and (row.b >> AMOUNT_SHIFT) == 0


@njit(cache=True, nogil=True)
def put_row(acc, rows, a, time, leg, party, wa, wb):
    """Insert one row in its place; a leg goes before the mark of a return of the same moment. There must be room."""
    off = acc[a].off
    n = acc[a].len
    i = n
    while i > 0 and (
        rows[off + i - 1].time > time
        or (rows[off + i - 1].time == time and rows[off + i - 1].leg > leg)
        or (rows[off + i - 1].time == time and rows[off + i - 1].leg == leg and is_mark(rows[off + i - 1]))
    ):
        rows[off + i] = rows[off + i - 1]
        i -= 1
    rows[off + i].time = time
    rows[off + i].leg = leg
    rows[off + i].party = party
    rows[off + i].a = wa
    rows[off + i].b = wb
    acc[a].len = n + 1


@njit(cache=True, nogil=True)
def take_row(acc, rows, a, i):
    """Remove the row at position i."""
    off = acc[a].off
    for k in range(off + i, off + acc[a].len - 1):
        rows[k] = rows[k + 1]
    acc[a].len -= 1
    if i < acc[a].closed:
        acc[a].closed -= 1


@njit(cache=True, nogil=True)
def smaller(time, party, wa, wb, row):
    """Whether a content orders before that of a row: (time, amount, amount_u, party, static bits). 1, 0 or -1."""
    if time != row.time:
        return 1 if time < row.time else -1
    x, y = wb >> AMOUNT_SHIFT, row.b >> AMOUNT_SHIFT
    if x != y:
        return 1 if x < y else -1
    x, y = wa >> AMOUNT_SHIFT, row.a >> AMOUNT_SHIFT
    if x != y:
        return 1 if x < y else -1
    if party != row.party:
        return 1 if party < row.party else -1
    x, y = wa & STATIC_MASK, row.a & STATIC_MASK
    if x != y:
        return 1 if x < y else -1
    x, y = wb & LOW24, row.b & LOW24
    if x != y:
        return 1 if x < y else -1
    return 0


@njit(cache=True, nogil=True)
def bits_of_return(time, back, p):
    """What a return at `back` makes of a leg at `time`."""
    return GONE_BIT if back - time >= p.undo else VOID_BIT


@njit(cache=True, nogil=True)
def is_gone(rows, off, i, end):
    """Whether the mark of the return of row i stands before position `end` of its account."""
    k = i + 1
    while k < end and not (rows[off + k].leg == rows[off + i].leg and is_mark(rows[off + k])):
        k += 1
    return k < end


@njit(cache=True, nogil=True)
def cut_hub(acc, rows, a, since):
    """The account is a hub from `since` on: legs from there are no longer held.

    The marks of returns are: the leg that one of them takes back may be older than the hub, and may still come.
    """
    if since >= acc[a].hub:
        return
    acc[a].hub = since
    off = acc[a].off
    n = position(rows, off, acc[a].len, since, np.uint64(0))
    acc[a].closed = min(acc[a].closed, n)
    for i in range(n, acc[a].len):
        if is_mark(rows[off + i]):
            rows[off + n] = rows[off + i]
            n += 1
    acc[a].len = n


@njit(cache=True, nogil=True)
def fact_at(acc, facts, a, time):
    """Row of the fact table in force at `time`, or -1."""
    f = acc[a].fact
    while f >= 0 and facts[f].effective > time:
        f = facts[f].prev
    return f


@njit(cache=True, nogil=True)
def is_ignored(acc, facts, household, a, word, party, time):
    """Whether a leg is left out of every measure: own or sensitive, or with the household declared as of the leg."""
    cls = np.int64(word & CLASS_MASK)
    if cls == CLASS_OWN or cls == CLASS_SENSITIVE:
        return True
    f = fact_at(acc, facts, a, time)
    if f >= 0:
        for k in range(facts[f].hoff, facts[f].hoff + facts[f].hlen):
            if household[k] == party:
                return True
    return False


@njit(cache=True, nogil=True)
def keep_loser(acc, rows, pool, a, time, leg, party, wa, wb, touched, n_touched):
    """Keep the content that lost a conflict as a void row, under an id of its own: it enters no measure, but counts where void
    rows count, so that the winner's coming first or last makes no difference. Returns n_touched, or -1 when the arena is full."""
    shadow = leg ^ (np.uint64(time) << ONE)
    if time <= acc[a].boundary:
        return n_touched
    off = acc[a].off
    for i in range(acc[a].len):
        if rows[off + i].leg == shadow:
            return n_touched
    if acc[a].len == acc[a].cap and not move_row(acc, rows, pool, a, acc[a].len + acc[a].len // 8 + 1):
        return -1
    put_row(acc, rows, a, time, shadow, party, wa & ~GONE_BIT | VOID_BIT, wb)
    return touch(acc, a, touched, n_touched, time, shadow)


ROW_BYTES = ROW.itemsize
PARTY_BYTES = PARTY.itemsize
HOT_BYTES = 128
"""What a step reads of an account: its fields up to the monthly sums."""

AHEAD = 8
"""How many accounts ahead memory is asked for. A million accounts are 3 GB: what a leg needs is almost never near the processor."""


@njit(cache=True, nogil=True)
def fetch_account(acc, a):
    """Ask for what a step reads of an account."""
    prefetch(acc, a, 0)
    prefetch(acc, a, LINE)
    prefetch(acc, a, HOT_BYTES - 1)


@njit(cache=True, nogil=True)
def fetch_rows(acc, rows, a):
    """Ask for the rows of an account."""
    for skip in range(0, acc[a].len * ROW_BYTES, LINE):
        prefetch(rows, acc[a].off, skip)


@njit(cache=True, nogil=True)
def fetch_parties(acc, parties, a):
    """Ask for the counterparties of an account."""
    for skip in range(0, acc[a].plen * PARTY_BYTES, LINE):
        prefetch(parties, acc[a].poff, skip)


@njit(cache=True, nogil=True)
def fetch_ahead(acc, table, rows, subject, r):
    """Ask for what the legs behind r will need: the place in the table, then the account that it names, then that one's rows."""
    mask = np.uint64(table.shape[0] - 1)
    n = subject.shape[0]
    if r + 3 * AHEAD < n:
        prefetch(table, np.int64(mix(subject[r + 3 * AHEAD]) & mask), 0)
    if r + 2 * AHEAD < n:
        slot = table[np.int64(mix(subject[r + 2 * AHEAD]) & mask)]
        if slot >= 0:
            fetch_account(acc, slot)
    if r + AHEAD < n:
        slot = table[np.int64(mix(subject[r + AHEAD]) & mask)]
        if slot >= 0:
            fetch_rows(acc, rows, slot)


@njit(cache=True, nogil=True)
def insert(
    acc, n_acc, table, rows, pool, parties, ppool, facts, household,
    subject, leg, party, time, wa, wb, bank, bank_rank, status, offset, skip,
    start, step, touched, n_touched, outcome, loser, p,
):  # fmt: skip
    """Insert the legs [start, n) of a batch. Returns (why, next leg, n_acc, n_touched).

    Stops early with NEED_* when an array is full; the caller makes room and calls again from the returned leg. `outcome` (n,)
    takes what became of each leg, `loser` (n,) ROW the content that lost a conflict. `skip` (n,) marks redelivered coordinates.
    """
    n = subject.shape[0]
    for r in range(start, n):
        fetch_ahead(acc, table, rows, subject, r)
        if skip[r]:
            outcome[r] = REDELIVERED
            continue
        a = find(acc, table, subject[r])
        if a < 0:
            if n_acc == acc.shape[0]:
                return NEED_ACCOUNTS, r, n_acc, n_touched
            a = n_acc
            new_account(acc, table, a, subject[r])
            n_acc += 1
        if not apply_to(acc, a, offset[r], step):
            outcome[r] = SKIPPED
            continue
        acc[a].changed = 1
        if bank[r] != acc[a].bank and bank[r] != 0:
            held_by = acc[a].bank
            if held_by == 0 or bank_rank[bank[r]] < bank_rank[held_by]:
                acc[a].bank = bank[r]
                if (
                    held_by != 0 and acc[a].len > 0
                ):  # two banks report it: the answer must not depend on which came first
                    first = rows[acc[a].off]
                    n_touched = touch(acc, a, touched, n_touched, first.time, first.leg)
        t = time[r]
        back = status[r] >= NOT_BOOKED
        if t >= acc[a].hub and not back:
            outcome[r] = HUB
            acc[a].clock = max(acc[a].clock, t)
            continue
        if t <= min(acc[a].swept - p.closing, acc[a].hold - 1) and not close(acc, rows, parties, ppool, a, p):
            return (
                NEED_PARTIES,
                r,
                n_acc,
                n_touched,
            )  # whether a leg is late must not depend on when its account was closed
        if acc[a].len == acc[a].cap:
            if not close(acc, rows, parties, ppool, a, p):
                return NEED_PARTIES, r, n_acc, n_touched
            if acc[a].len + acc[a].len // 8 >= acc[a].cap:
                if not move_row(acc, rows, pool, a, acc[a].len + acc[a].len // 8 + 1):
                    return NEED_ROWS, r, n_acc, n_touched
        off = acc[a].off
        held = -1
        word = wa[r]
        known = False  # this very return was seen before
        for i in range(acc[a].len):
            if rows[off + i].leg == leg[r]:
                if not is_mark(rows[off + i]):
                    held = i
                elif back:
                    known = known or rows[off + i].time == t
                else:
                    word |= bits_of_return(t, rows[off + i].time, p)
        if back:
            if known:
                outcome[r] = DUPLICATE
                continue
            outcome[r] = LATE if t <= acc[a].boundary else JUDGED
            if held >= 0:
                row = rows[off + held]
                bit = bits_of_return(row.time, t, p)
                if bit == VOID_BIT and not row.a & VOID_BIT:
                    n_touched = touch(acc, a, touched, n_touched, row.time, row.leg)
                rows[off + held].a = row.a | bit
            if t >= acc[a].hub and acc[a].clock > acc[a].hub + p.closing:
                if held < 0:  # nothing from before the hub can come any more
                    outcome[r] = HUB
                acc[a].clock = max(acc[a].clock, t)
            elif t > acc[a].boundary:
                put_row(acc, rows, a, t, leg[r], np.uint64(0), VOID_BIT, np.uint64(0))
                acc[a].first = min(acc[a].first, t)
                acc[a].clock = max(acc[a].clock, t)
                n_touched = touch(acc, a, touched, n_touched, t, leg[r])
            continue
        if held >= 0:
            row = rows[off + held]
            order = smaller(t, party[r], word, wb[r], row)
            if order == 0:
                outcome[r] = DUPLICATE
                continue
            outcome[r] = CONFLICT
            if order < 0:
                loser[r].time = t
                loser[r].leg = leg[r]
                loser[r].party = party[r]
                loser[r].a = word
                loser[r].b = wb[r]
                kept = keep_loser(acc, rows, pool, a, t, leg[r], party[r], word, wb[r], touched, n_touched)
                if kept < 0:
                    return NEED_ROWS, r, n_acc, n_touched
                n_touched = kept
                continue
            if acc[a].len + 1 >= acc[a].cap and not move_row(
                acc, rows, pool, a, acc[a].len + acc[a].len // 8 + 2
            ):
                return NEED_ROWS, r, n_acc, n_touched
            row = rows[acc[a].off + held]
            loser[r] = row
            n_touched = touch(acc, a, touched, n_touched, row.time, row.leg)
            take_row(acc, rows, a, held)
            acc[a].first = min(acc[a].first, t)
            if t > acc[a].boundary:
                put_row(acc, rows, a, t, leg[r], party[r], word, wb[r])
                n_touched = touch(acc, a, touched, n_touched, t, leg[r])
            n_touched = keep_loser(
                acc, rows, pool, a, loser[r].time, leg[r], loser[r].party, loser[r].a, loser[r].b, touched, n_touched
            )  # fmt: skip
            continue
        acc[a].first = min(acc[a].first, t)
        if t <= acc[a].boundary:
            outcome[r] = LATE
            if not (word & VOID_BIT) and not is_ignored(acc, facts, household, a, word, party[r], t):
                if not reserve_parties(acc, parties, ppool, a, 1, acc[a].boundary // DAY):
                    return NEED_PARTIES, r, n_acc, n_touched
                credit = (leg[r] & ONE) == ONE
                if party[r] != 0:
                    enter_party(acc, parties, a, party[r], credit, t // DAY)
                enter_totals(acc, a, credit, t // DAY, np.int64(wa[r] >> AMOUNT_SHIFT))
            continue
        put_row(acc, rows, a, t, leg[r], party[r], word, wb[r])
        acc[a].clock = max(acc[a].clock, t)
        n_touched = touch(acc, a, touched, n_touched, t, leg[r])
        outcome[r] = JUDGED
    return DONE, n, n_acc, n_touched


@njit(cache=True, nogil=True)
def derive(acc, rows, parties, facts, household, slots, starts, relations):
    """Set the derived bits (ignored, first-time, regular) of the rows [start, len) of each account.

    Each bit is a function of the canonical prefix that ends at the row: the base (rows at or before the boundary) and the open
    rows before it. Closed rows keep theirs. `relations` is a `Relations`: each row has the numbers in force at its own time.
    """
    for s in range(slots.shape[0]):
        a = slots[s]
        if s + AHEAD < slots.shape[0]:
            b = slots[s + AHEAD]
            fetch_parties(acc, parties, b)
            for i in range(max(acc[b].closed, acc[b].len - 32), acc[b].len):
                prefetch(rows, acc[b].off + i, 0)
        off = acc[a].off
        n = acc[a].len
        lo = acc[a].closed
        for j in range(max(starts[s], lo), n):
            word = rows[off + j].a & ~DERIVED_MASK
            party = rows[off + j].party
            t = rows[off + j].time
            if is_ignored(acc, facts, household, a, word, party, t):
                rows[off + j].a = word | IGNORED_BIT
                continue
            if party == 0:
                rows[off + j].a = word | FIRST_BIT
                continue
            side = rows[off + j].leg & ONE
            count = 0
            first = 0
            last = 0
            i = party_index(parties, acc[a].poff, acc[a].plen, party)
            if i < acc[a].poff + acc[a].plen and parties[i].party == party:
                if side:
                    count = np.int64(parties[i].in_n)
                    first = np.int64(parties[i].in_first)
                    last = np.int64(parties[i].in_last)
                else:
                    count = np.int64(parties[i].out_n)
                    first = np.int64(parties[i].out_first)
                    last = np.int64(parties[i].out_last)
            for k in range(off + lo, off + j):
                if (
                    rows[k].party == party
                    and (rows[k].leg & ONE) == side
                    and not (rows[k].a & (VOID_BIT | IGNORED_BIT))
                ):
                    day = rows[k].time // DAY
                    if count == 0 or day - last > FORGET_DAYS:
                        count, first, last = 1, day, day
                    else:
                        count += 1
                        last = day
            day = t // DAY
            if count == 0 or day - last > FORGET_DAYS:
                word |= FIRST_BIT
            else:
                c = relations.start.shape[0] - 1
                while relations.start[c] > t:
                    c -= 1
                if day - last >= relations.gap_days[c]:
                    word |= FIRST_BIT
                if count >= relations.payments[c] and last - first >= relations.spread_days[c]:
                    word |= REGULAR_BIT
            rows[off + j].a = word


@njit(cache=True, nogil=True)
def dirty_positions(acc, rows, touched, touches, starts):
    """First position to judge again of each touched account; returns how many rows that are in all. `touches`: TOUCHED."""
    total = 0
    for s in range(touched.shape[0]):
        a = touched[s]
        if s + AHEAD < touched.shape[0]:
            fetch_account(acc, touched[s + AHEAD])
        k = acc[a].mark
        i = position(rows, acc[a].off, acc[a].len, touches[k].time, touches[k].leg)
        i = max(i, acc[a].closed)
        starts[s] = i
        total += acc[a].len - i
    return total


@njit(cache=True, nogil=True)
def limit_at(starts, limits, time):
    """Limit in force at a time: the last one that starts at or before it (`starts` ascending, the first before all times)."""
    i = 0
    while i + 1 < starts.shape[0] and starts[i + 1] <= time:
        i += 1
    return limits[i]


@njit(cache=True, nogil=True)
def cut_hubs(acc, rows, touched, starts, limit_starts, bucket_legs, counterparties, p):
    """Make hubs of the touched accounts that have become too dense (docs/state.md, "Hubs").

    Void rows count as well: what a hub no longer holds cannot be counted again when a leg comes back. Only the mark of a return
    without its leg (amount 0) does not.
    """
    least = min(bucket_legs.min(), counterparties.min())
    for s in range(touched.shape[0]):
        a = touched[s]
        n = acc[a].len
        if n < least or starts[s] >= n:
            continue
        off = acc[a].off
        hub = ALWAYS
        length = p.lateness
        i = position(rows, off, n, rows[off + starts[s]].time // length * length, np.uint64(0))
        while i < n:
            bucket = rows[off + i].time // length
            dense = 0
            while i < n and rows[off + i].time // length == bucket:
                if rows[off + i].b >> AMOUNT_SHIFT:
                    dense += 1
                i += 1
            if dense >= limit_at(limit_starts, bucket_legs, bucket * length):
                hub = bucket * length
                break
        if n >= counterparties.min():
            for j in range(starts[s], n):
                t = rows[off + j].time
                if t >= hub:
                    break
                if not rows[off + j].b >> AMOUNT_SHIFT:
                    continue
                limit = limit_at(limit_starts, counterparties, t)
                lo = position(rows, off, n, t - p.hold + 1, np.uint64(0))
                aged = position(rows, off, n, t - p.closing + 1, np.uint64(0))
                lo = max(lo, aged - p.keep)
                if j + 1 - lo < limit:
                    continue
                seen = np.empty(j + 1 - lo, np.uint64)
                m = 0
                for k in range(lo, j + 1):
                    if rows[off + k].party != 0 and rows[off + k].b >> AMOUNT_SHIFT:
                        seen[m] = rows[off + k].party
                        m += 1
                if np.unique(seen[:m]).shape[0] >= limit:
                    hub = t // length * length
                    break
        if hub < acc[a].hub:
            cut_hub(acc, rows, a, hub)


@njit(cache=True, nogil=True)
def items_of(acc, rows, touched, starts, slot, pos, time):
    """The rows to judge, account by account in canonical order. Void rows are left out. Returns how many."""
    n = 0
    for s in range(touched.shape[0]):
        a = touched[s]
        for i in range(starts[s], acc[a].len):
            row = rows[acc[a].off + i]
            if row.a & VOID_BIT:
                continue
            slot[n] = a
            pos[n] = i
            time[n] = row.time
            n += 1
    return n


@njit(cache=True, nogil=True)
def mark_swept(acc, touched):
    """After judging: what was judged may close."""
    for s in range(touched.shape[0]):
        acc[touched[s]].swept = acc[touched[s]].clock


@njit(cache=True, nogil=True)
def touch_with(acc, n_acc, rows, party, since, offset, touched, step, n_touched):
    """Touch, from `since` on, every account that holds a row with this counterparty and has not applied `offset` yet."""
    for a in range(n_acc):
        off = acc[a].off
        for i in range(acc[a].len):
            if rows[off + i].party == party:
                j = position(rows, off, acc[a].len, since, np.uint64(0))
                j = max(j, acc[a].closed)
                if j < acc[a].len and apply_to(acc, a, offset, step):
                    n_touched = touch(acc, a, touched, n_touched, rows[off + j].time, rows[off + j].leg)
                break
    return n_touched


@njit(cache=True, nogil=True)
def touch_since(acc, n_acc, rows, since, offset, touched, step, n_touched):
    """Touch, from `since` on, every account that holds an open row from then on and has not applied `offset` yet."""
    for a in range(n_acc):
        if acc[a].len == 0:
            continue
        j = position(rows, acc[a].off, acc[a].len, since, np.uint64(0))
        j = max(j, acc[a].closed)
        if j < acc[a].len and apply_to(acc, a, offset, step):
            row = rows[acc[a].off + j]
            n_touched = touch(acc, a, touched, n_touched, row.time, row.leg)
    return n_touched


@njit(cache=True, nogil=True)
def banks_of(acc, facts, slots, times):
    """Number of the bank of each item: that of the fact in force, else the one that reported."""
    out = np.zeros(slots.shape[0], np.int64)
    for i in range(slots.shape[0]):
        f = fact_at(acc, facts, slots[i], times[i])
        out[i] = facts[f].bank if f >= 0 and facts[f].bank != 0 else acc[slots[i]].bank
    return out


@njit(cache=True, nogil=True)
def kinds_of(acc, facts, slots, times, youth):
    """Number of the account kind in force at each item; `youth` where a customer is a minor; 0 = unknown."""
    out = np.zeros(slots.shape[0], np.int64)
    for i in range(slots.shape[0]):
        f = fact_at(acc, facts, slots[i], times[i])
        if f >= 0:
            out[i] = youth if facts[f].minor else np.int64(facts[f].kind)
    return out


def unpack(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `ROW` records (n,), as an `AccountView` and `Measures` want them."""
    a, b = rows["a"], rows["b"]
    code = (b & np.uint64(0x7FFF)).astype(np.int64)
    return {
        "time": rows["time"].astype(np.int64),
        "leg": rows["leg"].astype(np.uint64),
        "party": rows["party"].astype(np.uint64),
        "amount": (b >> AMOUNT_SHIFT).astype(np.int64),
        "amount_u": (a >> AMOUNT_SHIFT).astype(np.int64),
        "side": (rows["leg"] & ONE).astype(np.int8),
        "party_class": (a & CLASS_MASK).astype(np.int8),
        "channel": ((a >> CHANNEL_SHIFT) & np.uint64(0xF)).astype(np.int8),
        "purpose": ((a >> PURPOSE_SHIFT) & np.uint64(0xF)).astype(np.int8),
        "precision": ((a >> PRECISION_SHIFT) & np.uint64(3)).astype(np.int8),
        "first_time": (a & FIRST_BIT) != 0,
        "regular": (a & REGULAR_BIT) != 0,
        "ignored": (a & IGNORED_BIT) != 0,
        "currency_code": code,
    }


def currency_name(code: int) -> str:
    """ISO 4217 letters of a packed currency code; empty when there is none."""
    letters = (code >> 10 & 31, code >> 5 & 31, code & 31)
    return "".join(chr(64 + c) for c in letters) if all(letters) else ""
