"""The kernel: every measure of docs/state.md for every judged leg, in the high and the low reading.

One compiled function walks the items (account, row) of a step. For each account it decodes the rows that are visible at its first
judged row or later, once, and links each row to the earlier row of the same counterparty and side. The measures of a judged row
are then sums over stretches of these columns, in loops that do not branch: what a row is, is as good as random to a processor, and
a wrong guess costs as much as ten sums. The naive twin is `tests/core/twin.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from detectors.config import Config
from detectors.model import DAY, HOUR, MINUTE, PPM
from detectors.spec import MEASURE_INDEX, MEASURES
from detectors.window import (
    AHEAD,
    ALWAYS,
    AMOUNT_SHIFT,
    CHANNEL_SHIFT,
    CLASS_BANK,
    CLASS_MASK,
    GONE_BIT,
    IGNORED_BIT,
    NEVER,
    ONE,
    PRECISION_SHIFT,
    REGULAR_BIT,
    VOID_BIT,
    fact_at,
    fetch_rows,
    is_gone,
    is_mark,
)


class MeasureParams(NamedTuple):
    """What the kernel reads of a configuration: µs, u-cents, ppm, counts."""

    min_inflow: int
    share_out: int
    horizon: int
    pass_window: int
    kept_window: int
    fan_in_window: int
    fan_out_window: int
    fan_out_day: int
    gather_window: int
    life_window: int
    wake_window: int
    limit: int
    band_low: int
    band_window: int
    cash_min_credit: int
    cash_share: int
    cash_horizon: int
    cash_window: int
    collect_window: int
    flag_window: int
    first_time_history: int


def measure_params(config: Config) -> MeasureParams:
    """What the kernel reads of a configuration."""
    passing = config.params("rapid-pass-through")
    fan_out = config.params("fan-out")
    band = config.params("structuring")
    cash = config.params("rapid-cash-out")
    return MeasureParams(
        min_inflow=passing.min_inflow,
        share_out=passing.share_out,
        horizon=passing.horizon,
        pass_window=passing.window,
        kept_window=config.params("commission-retention").window,
        fan_in_window=config.params("fan-in").window,
        fan_out_window=fan_out.window,
        fan_out_day=fan_out.day_window,
        gather_window=config.params("gather-scatter").window,
        life_window=config.params("new-account-velocity").window,
        wake_window=config.params("dormant-reactivation").window,
        limit=band.limit,
        band_low=band.band_low,
        band_window=band.window,
        cash_min_credit=cash.min_credit,
        cash_share=cash.share,
        cash_horizon=cash.horizon,
        cash_window=cash.window,
        collect_window=config.params("victim-collection-account").window,
        flag_window=config.params("flagged-counterparty").window,
        first_time_history=config.measures["first_time_history"],
    )


READINGS = 2
HIGH, LOW = 0, 1
OWN_WINDOW = 30 * DAY
"""Look-back of `own_legs` and `unknown_legs`; they explain, no threshold reads them."""

HISTORY_SHORT = -1
TOO_COARSE = -2
FACT_MISSING = -3

# What a decoded row is.
CREDIT = 1
LIVE = 2  # neither void nor ignored
PERSONAL = 4  # << reading
OUT = 16  # << reading
COUNTED = 64  # << reading
TAKEN = 256  # << reading: money that leaves the account, regular payees included
FIRST = 1024
CASH_OUT = 2048
BAND_CASH = 4096
NEW_BUSINESS = 8192  # BUSINESS, REMITTER or VASP
CUSTOMER = 16384  # customer-initiated debit
UNKNOWN = 32768
VOID = 65536
LEFT_OUT = 131072
STEP_SHIFT = 18  # 2 bits: how finely its time is known
COARSE = 3 << STEP_SHIFT
RARE = UNKNOWN | LEFT_OUT | COARSE
LINKED = PERSONAL | COUNTED | BAND_CASH  # what some measure counts by counterparty
KIND = (
    PERSONAL | PERSONAL << 1 | COUNTED | COUNTED << 1
)  # what the rows of one counterparty and side mostly share

_PERSONAL, _VASP, _CASH, _REMITTER, _BUSINESS = 1, 9, 10, 8, 13
_ATM, _COUNTER, _DEPOSIT, _FEE = 4, 6, 5, 9

(
    PASS_EPISODES, PASS_DWELL, KEPT_EPISODES, KEPT_MEDIAN, KEPT_IQR, PAYERS, PAYERS_FIRST, PAYEES, PAYEES_FIRST,
    PAYEES_FIRST_DAY, GATHER_IN, GATHER_OUT, GATHER_PAYERS, GATHER_PAYEES, BOTH_WAYS, AGE_DAYS, LIFE_PAYERS, LIFE_CREDITS,
    LIFE_EPISODES, QUIET_DAYS, WAKE_CREDITS, WAKE_CREDITS_FIRST, WAKE_PAYERS, BAND_DEPOSITS, BAND_TOTAL, BAND_PAYERS,
    CASH_OUTS, COLLECT_PAYERS, COLLECT_ONE_OFF, COLLECT_CREDITS, COLLECT_FORWARDED, FLAGGED_IN, FLAGGED_IN_N, FLAGGED_OUT,
    FLAGGED_OUT_N, TENURE_DAYS, OWN_LEGS, UNKNOWN_LEGS, HISTORY,
) = tuple(MEASURE_INDEX[name] for name in MEASURES)  # fmt: skip


def _facets() -> np.ndarray:
    """What a live row is by (side, channel, class), index `side << 8 | channel << 4 | class`; first-time and regular apart."""
    table = np.zeros(512, np.int64)
    for index in range(512):
        credit, channel, cls = index >> 8, index >> 4 & 15, index & 15
        f = LIVE
        if cls == 0:
            f |= UNKNOWN | PERSONAL
        elif cls == _PERSONAL:
            f |= PERSONAL | PERSONAL << LOW
        if credit:
            f |= CREDIT
            if cls in (_BUSINESS, _REMITTER, _VASP):
                f |= NEW_BUSINESS
            if cls in (_BUSINESS, _REMITTER, _VASP, _CASH, _PERSONAL):
                f |= COUNTED | COUNTED << LOW
            elif cls == 0:
                f |= COUNTED
            if cls == _CASH or channel == _DEPOSIT:
                f |= BAND_CASH
        else:
            cash = channel in (_ATM, _COUNTER)
            if cash or cls == _CASH:
                f |= CASH_OUT
            if cash or cls in (_PERSONAL, _VASP, _CASH, _REMITTER):
                f |= (TAKEN | OUT) | (TAKEN | OUT) << LOW
            elif cls == 0:
                f |= TAKEN | OUT
            if channel != _FEE and cls != CLASS_BANK:
                f |= CUSTOMER
        table[index] = f
    return table


FACETS = _facets()
FIRST_SHIFT, REGULAR_SHIFT = np.uint64(19), np.uint64(20)
STEPS = np.array([1, MINUTE, HOUR, DAY], np.int64)


@njit(cache=True, nogil=True)
def decode(row):
    """What a row is: facets of its side, channel and class, what its derived bits say, and how finely its time is known."""
    word = row.a
    credit = np.int64(row.leg & ONE)
    if word & (VOID_BIT | IGNORED_BIT):
        if word & VOID_BIT:
            return VOID
        return credit * CREDIT | LEFT_OUT | np.int64(word >> PRECISION_SHIFT & np.uint64(3)) << STEP_SHIFT
    f = FACETS[
        credit << 8 | np.int64(word >> CHANNEL_SHIFT & np.uint64(0xF)) << 4 | np.int64(word & CLASS_MASK)
    ]
    f |= np.int64(word >> PRECISION_SHIFT & np.uint64(3)) << STEP_SHIFT
    f |= np.int64(word >> FIRST_SHIFT & ONE) * FIRST
    return f & ~(np.int64(word >> REGULAR_SHIFT & ONE) * (OUT | OUT << LOW))


@njit(cache=True, nogil=True)
def stood(rows, off, base, j, flags):
    """Whether the leg that the mark at j takes back was decoded as if it still stood."""
    k = base
    while k < j and not (
        rows[off + k].leg == rows[off + j].leg and rows[off + k].a & GONE_BIT and not flags[k] & VOID
    ):
        k += 1
    return k < j


@njit(cache=True, nogil=True)
def elapsed(time, flags, i, j):
    """Time from one row to another, both truncated to the coarser of their precisions."""
    s = STEPS[max(flags[i] >> STEP_SHIFT & 3, flags[j] >> STEP_SHIFT & 3)]
    if s == 1:
        return time[j] - time[i]
    return (time[j] // s - time[i] // s) * s


@njit(cache=True, nogil=True)
def first_after(time, lo, hi, t):
    """First position in [lo, hi) whose time is greater than t, else hi."""
    if hi - lo <= 128:  # counting does not branch
        some = time[lo:hi]
        n = 0
        for k in range(some.shape[0]):
            n += np.int64(some[k] <= t)
        return lo + n
    while lo < hi:
        mid = (lo + hi) >> 1
        if time[mid] <= t:
            lo = mid + 1
        else:
            hi = mid
    return lo


@njit(cache=True, nogil=True)
def oldest_seen(rows, off, end, t, fold):
    """Position of the oldest row that is visible at a row of time t at end - 1: nothing before it enters a measure of it."""
    since = t - fold.hold
    lo = 0
    first = rows[off].time
    if first <= since:  # legs come about evenly: look where this one should be, not half way again and again
        lo = (end - 1) * ((since - first) >> 20) // (((t - first) >> 20) + 1)
        while rows[off + lo].time > since:
            lo -= 1
        while lo < end and rows[off + lo].time <= since:
            lo += 1
    aged = end
    while aged - fold.keep > lo and rows[off + aged - 1].time > t - fold.closing:
        aged -= 1
    return max(lo, aged - fold.keep)


@njit(cache=True, nogil=True)
def follow(time, flags, amount, out_bit, c, lo, end, horizon, cash_horizon, share, cash_share, result):
    """Follow the lot of credit c through the debits up to `end` (exclusive), first in first out.

    result[0] = u-cents gone by `out` debits, [1] = the debit at which `share` was reached (-1), [2] = the debit at which
    `cash_share` was in cash within `cash_horizon` (-1).
    """
    t = time[c]
    size = amount[c]
    gone = 0
    cash = 0
    done = -1
    cash_done = -1
    head = first_after(time, lo, c + 1, t - horizon)
    left = 0
    if head <= c:
        left = amount[head]
    for j in range(head, end):
        if not (flags[j] & LIVE) or flags[j] & CREDIT:
            continue
        if j > c and elapsed(time, flags, c, j) > horizon:
            if time[j] - t > horizon + DAY:
                break
            continue
        want = amount[j]
        while head < j and (
            left == 0
            or not (flags[head] & LIVE)
            or not (flags[head] & CREDIT)
            or elapsed(time, flags, head, j) > horizon
        ):
            head += 1
            left = amount[head]
        while want > 0:
            while head < j and (left == 0 or not (flags[head] & LIVE) or not (flags[head] & CREDIT)):
                head += 1
                left = amount[head]
            if head >= j or head > c:
                break
            take = min(want, left)
            want -= take
            left -= take
            if head == c:
                if flags[j] & out_bit:
                    gone += take
                    if done < 0 and gone * PPM >= size * share:
                        done = j
                if flags[j] & CASH_OUT and elapsed(time, flags, c, j) <= cash_horizon:
                    cash += take
                    if cash_done < 0 and cash * PPM >= size * cash_share:
                        cash_done = j
        if head > c:  # the lot has left the queue
            break
    result[0] = gone
    result[1] = done
    result[2] = cash_done


@njit(cache=True, nogil=True)
def share_ppm(part, whole):
    """floor(part * 10^6 / whole) for 0 <= part, exact also where the product would overflow; 0 of nothing is 0."""
    if whole <= 0:
        return 0
    if part < 9 * PPM * PPM:
        return part * PPM // whole
    result = part // whole
    rest = part % whole
    for _ in range(6):
        rest *= 10
        result = result * 10 + rest // whole
        rest %= whole
    return result


@njit(cache=True, nogil=True)
def flag_counts(flag_from, flag_until, flag_party, first, party, time):
    """Whether one of a counterparty's flags, which start at `first` in the sorted registry, counts at `time`."""
    k = first
    while k < flag_party.shape[0] and flag_party[k] == party:
        if flag_from[k] <= time and time < flag_until[k]:
            return True
        k += 1
    return False


@njit(cache=True, nogil=True)
def first_flag(flag_party, party):
    """Position of a counterparty's first flag in the sorted registry, -1 = none."""
    lo = 0
    hi = flag_party.shape[0]
    while lo < hi:
        mid = (lo + hi) >> 1
        if flag_party[mid] < party:
            lo = mid + 1
        else:
            hi = mid
    return lo if lo < flag_party.shape[0] and flag_party[lo] == party else -1


@njit(cache=True, nogil=True)
def spread_bits(party):
    """32 well-mixed bits of a counterparty."""
    return (party ^ party >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)


@njit(cache=True, nogil=True)
def newest_of(rows, off, flags, table, mask, party, side):
    """(place in the table, newest row of this counterparty and side or -1)."""
    h = (spread_bits(party) + np.uint64(side * 7)) & mask
    while True:
        k = np.int64(table[np.int64(h)])
        if k < 0 or (rows[off + k].party == party and flags[k] & CREDIT == side):
            return np.int64(h), k
        h = (h + ONE) & mask


# The loops below do not branch on what a row is: rows of all kinds come in any order, and a wrong guess costs more than the sum.


@njit(cache=True, nogil=True)
def distinct(flags, link, lo, end, kind):
    """(counterparties of the rows of this kind in [lo, end), those whose first row in it is first-time).

    `link` = the earlier row of the same counterparty, side and kind.
    """
    f = flags[lo:end]
    q = link[lo:end]
    n = 0
    first = 0
    for k in range(f.shape[0]):
        hit = np.int64(f[k] & kind == kind) & np.int64(q[k] < lo)
        n += hit
        first += hit & np.int64(f[k] & FIRST != 0)
    return n, first


@njit(cache=True, nogil=True)
def summed(flags, amount, lo, end, kind):
    """Sum of the rows of this kind in [lo, end)."""
    f = flags[lo:end]
    x = amount[lo:end]
    total = 0
    for k in range(f.shape[0]):
        total += x[k] if f[k] & kind == kind else 0
    return total


@njit(cache=True, nogil=True)
def thinned(flags, link, base, end, kind, into):
    """Links that skip the rows that are of no such kind."""
    for j in range(base, end):
        q = link[j]
        while q >= 0 and not flags[q] & kind:
            q = link[q]
        into[j] = q
    return into


@njit(cache=True, nogil=True)
def counted_rows(flags, lo, end, bit):
    """How many rows in [lo, end) have a bit."""
    f = flags[lo:end]
    n = 0
    for k in range(f.shape[0]):
        n += np.int64(f[k] & bit != 0)
    return n


@njit(cache=True, nogil=True)
def in_band(f, x, personal, m):
    """Whether a row is a deposit just below the limit."""
    return (
        f & CREDIT != 0
        and x < m.limit
        and x * PPM >= m.band_low * m.limit
        and f & (BAND_CASH | personal) != 0
    )


@njit(cache=True, nogil=True)
def measure(
    acc, rows, parties, facts, flag_party, flag_from, flag_until, slots, positions, out, apart, fold, m
):
    """Measures of each item. out: (READINGS, M, >= n) int64, filled for the n items.

    `apart` (n,) takes whether an item's readings differ; where they do not, only the high one is filled. Items of one account must
    be adjacent and in canonical order. `fold` is a FoldParams, `m` a MeasureParams.
    """
    n_items = slots.shape[0]
    size = 64
    time = np.empty(size, np.int64)
    flags = np.empty(size, np.int64)
    amount = np.empty(size, np.int64)
    link = np.empty(size, np.int64)  # earlier row of the same counterparty and side, -1 = none
    later = np.empty(size, np.int64)  # the next one
    flagged = np.empty(size, np.int64)  # first flag of the counterparty, -1 = none
    taken_sum = np.empty(
        size, np.int64
    )  # u-cents that debits took away up to and with this row, high reading
    thin_personal = np.empty(size, np.int64)
    thin_counted = np.empty(size, np.int64)
    table = np.empty(size * 4, np.int32)
    sort = np.empty(size, np.int64)
    dwell = np.empty(size, np.int64)
    found = np.empty(3, np.int64)
    windows = np.array(
        [
            m.fan_in_window, m.fan_out_window, m.fan_out_day, m.gather_window, m.life_window, m.wake_window, m.band_window,
            m.collect_window, m.flag_window, OWN_WINDOW,
        ]
    )  # fmt: skip
    same = np.empty(windows.shape[0], np.int64)  # the first window of that length
    for k in range(windows.shape[0]):
        same[k] = k
        for x in range(k):
            if windows[x] == windows[k]:
                same[k] = x
                break
    starts = np.empty(windows.shape[0], np.int64)
    sieve = np.zeros(1024 if flag_party.shape[0] > 0 else 0, np.uint64)  # most counterparties have no flag
    for k in range(flag_party.shape[0]):
        h = spread_bits(flag_party[k])
        sieve[np.int64(h >> np.uint64(6) & np.uint64(1023))] |= ONE << (h & np.uint64(63))
    least = min(m.min_inflow, m.cash_min_credit)
    current = -1
    base = 0
    decoded = 0
    rare = 0
    mixed = False
    flags_met = False
    mask = ONE
    off = 0
    for it in range(n_items):
        a = slots[it]
        i = positions[it]
        end = i + 1
        if it + AHEAD < n_items and slots[it + AHEAD] != a:
            fetch_rows(acc, rows, slots[it + AHEAD])
        if a != current:
            current = a
            off = acc[a].off
            n = acc[a].len
            if n > size:
                while size < n:
                    size *= 2
                time = np.empty(size, np.int64)
                flags = np.empty(size, np.int64)
                amount = np.empty(size, np.int64)
                link = np.empty(size, np.int64)
                later = np.empty(size, np.int64)
                flagged = np.empty(size, np.int64)
                taken_sum = np.empty(size, np.int64)
                thin_personal = np.empty(size, np.int64)
                thin_counted = np.empty(size, np.int64)
                table = np.empty(size * 4, np.int32)
                sort = np.empty(size, np.int64)
                dwell = np.empty(size, np.int64)
            base = oldest_seen(rows, off, end, rows[off + i].time, fold)
            width = 16
            while width < 2 * (n - base):
                width *= 2
            table[:width] = -1
            mask = np.uint64(width - 1)
            decoded = base
            rare = 0
            mixed = flags_met = False
        while decoded < end:  # decode up to the judged row, link it to the rows before it
            j = decoded
            row = rows[off + j]
            f = decode(row)
            if row.a & (GONE_BIT | VOID_BIT):
                if row.a & GONE_BIT and is_gone(rows, off, j, end):
                    f = VOID | f & CUSTOMER  # that the customer did something stays true
                elif f & VOID and is_mark(row) and stood(rows, off, base, j, flags):
                    decoded = base  # what stood until this return stands no more
                    rare = 0
                    mixed = flags_met = False
                    table[: np.int64(mask) + 1] = -1
                    continue
            x = np.int64(row.a >> AMOUNT_SHIFT)
            time[j] = row.time
            flags[j] = f
            amount[j] = x
            rare |= f
            taken_sum[j] = (taken_sum[j - 1] if j > base else 0) + (x if f & TAKEN else 0)
            q = -1
            if f & LINKED:
                h, q = newest_of(rows, off, flags, table, mask, row.party, f & CREDIT)
                table[h] = j
                if q >= 0:
                    later[q] = j
                    mixed |= (flags[q] ^ f) & KIND != 0
            link[j] = q
            later[j] = -1
            if flag_party.shape[0] > 0:
                flagged[j] = -1
                h = spread_bits(row.party)
                if (
                    f & LIVE
                    and sieve[np.int64(h >> np.uint64(6) & np.uint64(1023))] >> (h & np.uint64(63)) & ONE
                ):
                    flagged[j] = first_flag(flag_party, row.party)
                    flags_met |= flagged[j] >= 0
            decoded += 1
        t = time[i]
        # visible rows
        vis = first_after(time, base, end, t - fold.hold)
        if end - vis > fold.keep:
            vis = max(vis, first_after(time, vis, end, t - fold.closing) - fold.keep)
        # facts and history
        f_at = fact_at(acc, facts, a, t)
        opened = NEVER
        since = NEVER
        if f_at >= 0:
            opened = facts[f_at].opened
            since = facts[f_at].since
        if since == NEVER:
            since = fold.since
        if since == NEVER:
            since = acc[a].first
        whole = (
            NEVER  # from when on everything is known again, where records that may concern this leg were lost
        )
        for k in range(fold.gaps.shape[0]):
            if fold.gaps[k, 0] <= t:
                whole = max(whole, fold.gaps[k, 1])
        since = max(since, whole)
        history = max(t - since, 0)
        if opened != NEVER and opened >= since:
            history = ALWAYS
        known = history >= m.first_time_history
        for k in range(windows.shape[0]):  # equal windows start at the same row
            starts[k] = starts[same[k]] if same[k] < k else first_after(time, vis, end, t - windows[k])
        lo_fan_in, lo_fan_out, lo_day, lo_gather, lo_life = (
            starts[0],
            starts[1],
            starts[2],
            starts[3],
            starts[4],
        )
        lo_wake, lo_band, lo_collect, lo_flag, lo_own = starts[5], starts[6], starts[7], starts[8], starts[9]
        unknown_rows = 0
        unknown_legs = 0
        own_legs = 0
        day_rows = False
        cash_rows = False
        if rare & RARE:
            unknown_rows = counted_rows(flags, vis, end, UNKNOWN)
            unknown_legs = counted_rows(flags, lo_own, end, UNKNOWN)
            own_legs = counted_rows(flags, lo_own, end, LEFT_OUT)
            for j in range(vis, end):
                s = STEPS[flags[j] >> STEP_SHIFT & 3]
                day_rows |= s >= DAY
                cash_rows |= s > m.cash_horizon
        pass_from = t - m.pass_window
        kept_from = t - m.kept_window
        life_from = t - m.life_window
        cash_from = t - m.cash_window
        lots_from = (
            min(min(pass_from, kept_from), min(life_from, cash_from)) - max(m.horizon, m.cash_horizon) - DAY
        )
        lo_lots = first_after(time, vis, end, lots_from)
        # a lot's reach in raw time: truncated to a coarse step, a longer time may still count as the horizon
        longest = m.horizon + (DAY if day_rows else HOUR)
        apart[it] = unknown_rows > 0
        for reading in range(READINGS if unknown_rows > 0 else 1):
            personal = PERSONAL << reading
            out_bit = OUT << reading
            counted = COUNTED << reading
            payer_kind = LIVE | CREDIT | personal
            payers_link = link
            counted_link = link
            if mixed:
                payers_link = thinned(flags, link, base, end, personal, thin_personal)
                counted_link = thinned(flags, link, base, end, counted, thin_counted)
            # lots
            pass_n = 0
            kept_n = 0
            life_n = 0
            cash_n = 0
            reach = (
                end - 1
            )  # last row that may still take from the lot: what leaves until then bounds what is gone of it
            for j in range(end - 1, lo_lots - 1, -1):
                f = flags[j]
                x = amount[j]
                if x < least or f & (LIVE | CREDIT) != LIVE | CREDIT:
                    continue
                from_person = (f & personal) != 0
                payer = from_person or (f & NEW_BUSINESS and f & FIRST)
                episode = payer and x >= m.min_inflow
                cashed = from_person and x >= m.cash_min_credit
                if not (episode or cashed):
                    continue
                while time[reach] > time[j] + longest:
                    reach -= 1
                most = taken_sum[reach] - taken_sum[j]
                episode = episode and most >= (x * m.share_out + PPM - 1) // PPM
                cashed = cashed and most >= (x * m.cash_share + PPM - 1) // PPM
                if not (episode or cashed):
                    continue
                follow(
                    time, flags, amount, out_bit, j, vis, end, m.horizon, m.cash_horizon, m.share_out, m.cash_share, found,
                )  # fmt: skip
                done = found[1]
                if episode and done >= 0:
                    if time[done] > pass_from:
                        dwell[pass_n] = elapsed(time, flags, j, done)
                        pass_n += 1
                    if time[done] > kept_from:
                        sort[kept_n] = PPM - found[0] * PPM // x if x > 0 else 0
                        kept_n += 1
                    if time[done] > life_from:
                        life_n += 1
                if cashed and found[2] >= 0 and time[found[2]] > cash_from:
                    cash_n += 1
            pass_dwell = HISTORY_SHORT
            if day_rows:
                pass_dwell = TOO_COARSE
            elif pass_n > 0:
                dwell[:pass_n].sort()
                pass_dwell = dwell[(pass_n - 1) // 2]
            kept_median = 0
            kept_iqr = 0
            if kept_n > 0:
                sort[:kept_n].sort()
                kept_median = sort[(kept_n - 1) // 2]
                kept_iqr = sort[3 * (kept_n - 1) // 4] - sort[(kept_n - 1) // 4]
            # sums and counterparties over the windows
            payers, payers_first = distinct(flags, payers_link, lo_fan_in, end, payer_kind)
            payees, payees_first = debtors(flags, payers_link, lo_fan_out, end, personal)
            _, payees_first_day = debtors(flags, payers_link, lo_day, end, personal)
            gather_payers = payers  # as shipped, these windows are the same
            if lo_gather != lo_fan_in:
                gather_payers, _ = distinct(flags, payers_link, lo_gather, end, payer_kind)
            gather_payees = payees
            if lo_gather != lo_fan_out:
                gather_payees, _ = debtors(flags, payers_link, lo_gather, end, personal)
            gather_in = summed(flags, amount, lo_gather, end, payer_kind)
            gather_out = summed(flags, amount, lo_gather, end, TAKEN << reading)
            life_payers, _ = distinct(flags, payers_link, lo_life, end, payer_kind)
            life_credits = summed(flags, amount, lo_life, end, counted)
            wake_payers, _ = distinct(flags, counted_link, lo_wake, end, counted)
            wake_credits = summed(flags, amount, lo_wake, end, counted)
            wake_first = summed(flags, amount, lo_wake, end, counted | FIRST)
            both_ways = 0
            if gather_payers > 0 and gather_payees > 0:
                for j in range(lo_gather, end):
                    if flags[j] & (CREDIT | personal) == personal and payers_link[j] < lo_gather:
                        _, q = newest_of(rows, off, flags, table, mask, rows[off + j].party, CREDIT)
                        while q >= 0 and not flags[q] & personal:
                            q = link[q]
                        both_ways += np.int64(q >= lo_gather)
            # deposits just below the limit
            band_n = 0
            band_total = 0
            band_payers = 0
            for j in range(lo_band, end):
                if amount[j] * PPM >= m.band_low * m.limit and in_band(flags[j], amount[j], personal, m):
                    band_n += 1
                    band_total += amount[j]
                    q = link[j]
                    while q >= lo_band and not in_band(flags[q], amount[q], personal, m):
                        q = link[q]
                    band_payers += np.int64(q < lo_band)
            # collection: each payer from the first credit inside the window on
            collect_payers = 0
            one_off = 0
            collected = 0
            forwarded = 0
            for j in range(lo_collect if known else end, end):
                if flags[j] & (payer_kind | FIRST) != payer_kind | FIRST or payers_link[j] >= lo_collect:
                    continue
                collect_payers += 1
                rising = True
                k = j
                while k >= 0:
                    collected += amount[k]
                    last = k
                    while last + 1 < end and time[last + 1] <= time[k] + longest:
                        last += 1
                    if taken_sum[last] > taken_sum[k]:
                        follow(
                            time, flags, amount, out_bit, k, vis, end, m.horizon, m.cash_horizon, m.share_out, m.cash_share,
                            found,
                        )  # fmt: skip
                        forwarded += found[0]
                    q = later[k]
                    while q >= 0 and not flags[q] & personal:
                        q = later[q]
                    rising = rising and (q < 0 or amount[q] > amount[k])
                    k = q
                one_off += np.int64(rising)
            # life of the account
            quiet_days = 0
            first_live = lo_wake
            while first_live < end and not flags[first_live] & LIVE:
                first_live += 1
            if first_live < end:
                awake = acc[a].gone_debit
                for k in range(first_live - 1, -1, -1):
                    if (flags[k] if k >= base else decode(rows[off + k])) & CUSTOMER:
                        awake = rows[off + k].time
                        break
                if awake == NEVER and opened != NEVER:
                    awake = max(since, opened)
                elif awake != NEVER:  # what the customer did among the lost records is not known
                    awake = max(awake, whole)
                if awake == NEVER:
                    quiet_days = FACT_MISSING
                else:
                    quiet_days = max(time[first_live] - awake, 0) // DAY
            # flags
            flagged_in = 0
            flagged_in_n = 0
            flagged_out = 0
            flagged_out_n = 0
            if flags_met:
                for j in range(lo_flag, end):
                    if flagged[j] < 0:
                        continue
                    if flag_counts(flag_from, flag_until, flag_party, flagged[j], flag_party[flagged[j]], t):
                        if flags[j] & CREDIT:
                            flagged_in += amount[j]
                            flagged_in_n += 1
                        else:
                            flagged_out += amount[j]
                            flagged_out_n += 1
            out[reading, PASS_EPISODES, it] = pass_n
            out[reading, PASS_DWELL, it] = pass_dwell
            out[reading, KEPT_EPISODES, it] = kept_n
            out[reading, KEPT_MEDIAN, it] = kept_median
            out[reading, KEPT_IQR, it] = kept_iqr
            out[reading, PAYERS, it] = payers
            out[reading, PAYERS_FIRST, it] = payers_first if known else HISTORY_SHORT
            out[reading, PAYEES, it] = payees
            out[reading, PAYEES_FIRST, it] = payees_first if known else HISTORY_SHORT
            out[reading, PAYEES_FIRST_DAY, it] = payees_first_day if known else HISTORY_SHORT
            out[reading, GATHER_IN, it] = gather_in
            out[reading, GATHER_OUT, it] = gather_out
            out[reading, GATHER_PAYERS, it] = gather_payers
            out[reading, GATHER_PAYEES, it] = gather_payees
            out[reading, BOTH_WAYS, it] = both_ways
            out[reading, AGE_DAYS, it] = max(t - opened, 0) // DAY if opened != NEVER else FACT_MISSING
            out[reading, LIFE_PAYERS, it] = life_payers
            out[reading, LIFE_CREDITS, it] = life_credits
            out[reading, LIFE_EPISODES, it] = life_n
            out[reading, QUIET_DAYS, it] = quiet_days
            out[reading, WAKE_CREDITS, it] = wake_credits
            out[reading, WAKE_CREDITS_FIRST, it] = wake_first if known else HISTORY_SHORT
            out[reading, WAKE_PAYERS, it] = wake_payers
            out[reading, BAND_DEPOSITS, it] = band_n
            out[reading, BAND_TOTAL, it] = band_total
            out[reading, BAND_PAYERS, it] = band_payers
            out[reading, CASH_OUTS, it] = TOO_COARSE if cash_rows else cash_n
            share = one_off * PPM // collect_payers if collect_payers > 0 else 0
            out[reading, COLLECT_PAYERS, it] = collect_payers if known else HISTORY_SHORT
            out[reading, COLLECT_ONE_OFF, it] = share if known else HISTORY_SHORT
            out[reading, COLLECT_CREDITS, it] = collected if known else HISTORY_SHORT
            out[reading, COLLECT_FORWARDED, it] = share_ppm(forwarded, collected) if known else HISTORY_SHORT
            out[reading, FLAGGED_IN, it] = flagged_in
            out[reading, FLAGGED_IN_N, it] = flagged_in_n
            out[reading, FLAGGED_OUT, it] = flagged_out
            out[reading, FLAGGED_OUT_N, it] = flagged_out_n
            out[reading, TENURE_DAYS, it] = tenure(acc, rows, parties, a, i)
            out[reading, OWN_LEGS, it] = own_legs
            out[reading, UNKNOWN_LEGS, it] = unknown_legs
            out[reading, HISTORY, it] = history


@njit(cache=True, nogil=True)
def debtors(flags, link, lo, end, personal):
    """As `distinct`, of the people who were paid."""
    f = flags[lo:end]
    q = link[lo:end]
    n = 0
    first = 0
    for k in range(f.shape[0]):
        hit = np.int64(f[k] & (CREDIT | personal) == personal) & np.int64(q[k] < lo)
        n += hit
        first += hit & np.int64(f[k] & FIRST != 0)
    return n, first


@njit(cache=True, nogil=True)
def tenure(acc, rows, parties, a, i):
    """`tenure_days` of the row at i: how long its regular counterparty has been known."""
    off = acc[a].off
    row = rows[off + i]
    if not (row.a & REGULAR_BIT):
        return 0
    day = row.time // DAY
    side = row.leg & ONE
    first = day
    last = -1
    lo = acc[a].poff
    hi = lo + acc[a].plen
    end = hi
    while lo < hi:
        mid = (lo + hi) >> 1
        if parties[mid].party < row.party:
            lo = mid + 1
        else:
            hi = mid
    if lo < end and parties[lo].party == row.party:
        if side and parties[lo].in_n > 0:
            first = np.int64(parties[lo].in_first)
            last = np.int64(parties[lo].in_last)
        elif not side and parties[lo].out_n > 0:
            first = np.int64(parties[lo].out_first)
            last = np.int64(parties[lo].out_last)
    for k in range(off + acc[a].closed, off + i):
        if (
            rows[k].party == row.party
            and (rows[k].leg & ONE) == side
            and not (rows[k].a & (VOID_BIT | IGNORED_BIT))
        ):
            d = rows[k].time // DAY
            if last < 0 or d - last > 400:
                first = d
            last = d
    return day - first
