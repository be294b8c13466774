"""The kernel: every measure of docs/state.md for every judged leg, in the high and the low reading.

One compiled function walks the items (account, row) of a step. For each account it decodes the rows once, links each row to
the earlier row of the same counterparty and side, and then computes the measures of each judged row from the rows visible at
it. The naive twin is `tests/core/twin.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from detectors.config import Config
from detectors.model import DAY, HOUR, MINUTE, PPM
from detectors.spec import MEASURE_INDEX, MEASURES
from detectors.window import (
    ALWAYS,
    AMOUNT_SHIFT,
    CHANNEL_SHIFT,
    CLASS_BANK,
    CLASS_MASK,
    FIRST_BIT,
    GONE_BIT,
    IGNORED_BIT,
    NEVER,
    ONE,
    PRECISION_SHIFT,
    REGULAR_BIT,
    VOID_BIT,
    fact_at,
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
DAY_PRECISION = 131072

# Counts of rows in one word, 16 bits each: a hub is cut long before an account holds 2^15 rows.
COUNT_UNKNOWN = 1
COUNT_LEFT_OUT = 1 << 16
COUNT_DAY = 1 << 32
COUNT_COARSE = 1 << 48
COUNT_MASK = 0xFFFF

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
STEPS = np.array([1, MINUTE, HOUR, DAY], np.int64)


@njit(cache=True, nogil=True)
def decode(row):
    """What a row is: facets of its side, channel and class, and what its derived bits say."""
    word = row.a
    credit = np.int64(row.leg & ONE)
    if word & (VOID_BIT | IGNORED_BIT):
        return VOID if word & VOID_BIT else credit * CREDIT
    f = FACETS[
        credit << 8 | np.int64(word >> CHANNEL_SHIFT & np.uint64(0xF)) << 4 | np.int64(word & CLASS_MASK)
    ]
    if word & FIRST_BIT:
        f |= FIRST
    if word & REGULAR_BIT:
        f &= ~(OUT | OUT << LOW)
    return f


@njit(cache=True, nogil=True)
def stood(rows, off, j, flags):
    """Whether the leg that the mark at j takes back was decoded as if it still stood."""
    k = 0
    while k < j and not (
        rows[off + k].leg == rows[off + j].leg and rows[off + k].a & GONE_BIT and not flags[k] & VOID
    ):
        k += 1
    return k < j


@njit(cache=True, nogil=True)
def elapsed(t0, s0, t1, s1):
    """Time from one row to another, both truncated to the coarser of their precisions."""
    s = max(s0, s1)
    if s == 1:
        return t1 - t0
    return (t1 // s - t0 // s) * s


@njit(cache=True, nogil=True)
def first_after(time, lo, hi, t):
    """First position in [lo, hi) whose time is greater than t, else hi."""
    while lo < hi:
        mid = (lo + hi) >> 1
        if time[mid] <= t:
            lo = mid + 1
        else:
            hi = mid
    return lo


@njit(cache=True, nogil=True)
def earlier(prev, flags, j, personal):
    """The row before j of the same counterparty and side that is a person in this reading, -1 = none."""
    q = prev[j]
    while q >= 0 and not flags[q] & personal:
        q = prev[q]
    return q


@njit(cache=True, nogil=True)
def follow(time, step, flags, amount, out_bit, c, lo, end, horizon, cash_horizon, share, cash_share, result):
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
        if j > c and elapsed(t, step[c], time[j], step[j]) > horizon:
            if time[j] - t > horizon + DAY:
                break
            continue
        want = amount[j]
        while head < j and (
            left == 0
            or not (flags[head] & LIVE)
            or not (flags[head] & CREDIT)
            or elapsed(time[head], step[head], time[j], step[j]) > horizon
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
                if flags[j] & CASH_OUT and elapsed(t, step[c], time[j], step[j]) <= cash_horizon:
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
def measure(acc, rows, parties, facts, flag_party, flag_from, flag_until, slots, positions, out, fold, m):
    """Measures of each item. out: (n, READINGS, M) int64, filled.

    Items of one account must be adjacent and in canonical order. `fold` is a FoldParams, `m` a MeasureParams.
    """
    n_items = slots.shape[0]
    size = 64
    time = np.empty(size, np.int64)
    step = np.empty(size, np.int64)
    flags = np.empty(size, np.int64)
    amount = np.empty(size, np.int64)
    prev = np.empty(
        size, np.int64
    )  # earlier row of the same counterparty and side, a person in the high reading
    group = np.empty(size, np.int64)  # number of the counterparty among those of the account
    flagged = np.empty(size, np.int64)  # first flag of the counterparty, -1 = none
    counts = np.empty(size, np.int64)  # rows up to and with this one that are ..., 16 bits each (see COUNT_*)
    taken_sum = np.empty(
        size, np.int64
    )  # u-cents that debits took away up to and with this row, high reading
    last = np.empty((2, size), np.int64)  # newest such row of each counterparty, by side
    stamp = np.empty(size, np.int64)
    table = np.empty(size * 4, np.int32)
    lot_gone = np.empty(size, np.int64)
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
    current = -1
    decoded = 0
    groups = 0
    for it in range(n_items):
        a = slots[it]
        off = acc[a].off
        i = positions[it]
        if a != current:
            current = a
            decoded = 0
            groups = 0
            n = acc[a].len
            if n > size:
                while size < n:
                    size *= 2
                time = np.empty(size, np.int64)
                step = np.empty(size, np.int64)
                flags = np.empty(size, np.int64)
                amount = np.empty(size, np.int64)
                prev = np.empty(size, np.int64)
                group = np.empty(size, np.int64)
                flagged = np.empty(size, np.int64)
                counts = np.empty(size, np.int64)
                taken_sum = np.empty(size, np.int64)
                last = np.empty((2, size), np.int64)  # newest such row of each counterparty, by side
                stamp = np.empty(size, np.int64)
                lot_gone = np.empty(size, np.int64)
                sort = np.empty(size, np.int64)
                dwell = np.empty(size, np.int64)
                table = np.empty(size * 4, np.int32)
            width = 4
            while width < 2 * n:
                width *= 2
            table[:width] = -1
            mask = np.uint64(width - 1)
        end = i + 1
        while decoded < end:  # decode up to the judged row, link it to the rows before it
            j = decoded
            row = rows[off + j]
            f = decode(row)
            if row.a & GONE_BIT and is_gone(rows, off, j, end):
                f = VOID | f & CUSTOMER  # that the customer did something stays true
            elif f & VOID and is_mark(row) and stood(rows, off, j, flags):
                decoded = groups = 0  # what stood until this return stands no more
                table[:width] = -1
                continue
            s = 1 if f & VOID else STEPS[np.int64(row.a >> PRECISION_SHIFT & np.uint64(3))]
            time[j] = row.time
            step[j] = s
            flags[j] = f
            amount[j] = np.int64(row.a >> AMOUNT_SHIFT)
            prev[j] = -1
            group[j] = -1
            flagged[j] = -1
            seen = counts[j - 1] if j > 0 else 0
            if f & UNKNOWN:
                seen += COUNT_UNKNOWN
            if not f & (LIVE | VOID):
                seen += COUNT_LEFT_OUT
            if s >= DAY:
                seen += COUNT_DAY
            if s > m.cash_horizon:
                seen += COUNT_COARSE
            counts[j] = seen
            taken_sum[j] = (taken_sum[j - 1] if j > 0 else 0) + (amount[j] if f & TAKEN else 0)
            if not f & VOID:
                h = (row.party ^ row.party >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(
                    20
                ) & mask
                while True:
                    k = table[np.int64(h)]
                    if k < 0:
                        table[np.int64(h)] = j
                        group[j] = groups
                        last[0, groups] = -1
                        last[1, groups] = -1
                        stamp[groups] = 0
                        groups += 1
                        break
                    if rows[off + k].party == row.party:
                        group[j] = group[k]
                        break
                    h = (h + ONE) & mask
                if f & PERSONAL:
                    x = f & CREDIT
                    prev[j] = last[x, group[j]]
                    last[x, group[j]] = j
                if f & LIVE and flag_party.shape[0] > 0:
                    lo = 0
                    hi = flag_party.shape[0]
                    while lo < hi:
                        mid = (lo + hi) >> 1
                        if flag_party[mid] < row.party:
                            lo = mid + 1
                        else:
                            hi = mid
                    if lo < flag_party.shape[0] and flag_party[lo] == row.party:
                        flagged[j] = lo
            decoded += 1
        t = time[i]
        # visible rows
        vis = first_after(time, 0, end, t - fold.hold)
        aged = first_after(time, vis, end, t - fold.closing)
        vis = max(vis, aged - fold.keep)
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
        seen = counts[i] - (counts[vis - 1] if vis > 0 else 0)
        unknown_rows = seen & COUNT_MASK
        day_rows = (seen // COUNT_DAY & COUNT_MASK) > 0
        cash_rows = seen // COUNT_COARSE > 0
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
        for reading in range(READINGS):
            o = out[it, reading]
            if reading == LOW and unknown_rows == 0:
                for c in range(o.shape[0]):
                    o[c] = out[it, HIGH, c]
                break
            personal = PERSONAL << reading
            out_bit = OUT << reading
            counted = COUNTED << reading
            taken = TAKEN << reading
            for c in range(o.shape[0]):
                o[c] = 0
            # lots
            pass_n = 0
            kept_n = 0
            life_n = 0
            cash_n = 0
            for j in range(min(lo_lots, lo_collect), end):
                lot_gone[j] = -1
            reach = (
                end - 1
            )  # last row that may still take from the lot: what leaves until then bounds what is gone of it
            for j in range(end - 1, lo_lots - 1, -1):
                f = flags[j]
                if not (f & LIVE) or not (f & CREDIT):
                    continue
                from_person = (f & personal) != 0
                payer = from_person or (f & NEW_BUSINESS and f & FIRST)
                episode = payer and amount[j] >= m.min_inflow
                cashed = from_person and amount[j] >= m.cash_min_credit
                if not (episode or cashed):
                    continue
                while time[reach] > time[j] + longest:
                    reach -= 1
                most = taken_sum[reach] - taken_sum[j]
                episode = episode and most >= (amount[j] * m.share_out + PPM - 1) // PPM
                cashed = cashed and most >= (amount[j] * m.cash_share + PPM - 1) // PPM
                if not (episode or cashed):
                    continue
                follow(
                    time, step, flags, amount, out_bit, j, vis, end, m.horizon, m.cash_horizon, m.share_out, m.cash_share,
                    found,
                )  # fmt: skip
                lot_gone[j] = found[0]
                done = found[1]
                if episode and done >= 0:
                    if time[done] > pass_from:
                        dwell[pass_n] = elapsed(time[j], step[j], time[done], step[done])
                        pass_n += 1
                    if time[done] > kept_from:
                        sort[kept_n] = PPM - found[0] * PPM // amount[j] if amount[j] > 0 else 0
                        kept_n += 1
                    if time[done] > life_from:
                        life_n += 1
                if cashed and found[2] >= 0 and time[found[2]] > cash_from:
                    cash_n += 1
            o[PASS_EPISODES] = pass_n
            if day_rows:
                o[PASS_DWELL] = TOO_COARSE
            elif pass_n == 0:
                o[PASS_DWELL] = HISTORY_SHORT
            else:
                dwell[:pass_n].sort()
                o[PASS_DWELL] = dwell[(pass_n - 1) // 2]
            o[KEPT_EPISODES] = kept_n
            if kept_n > 0:
                sort[:kept_n].sort()
                o[KEPT_MEDIAN] = sort[(kept_n - 1) // 2]
                o[KEPT_IQR] = sort[3 * (kept_n - 1) // 4] - sort[(kept_n - 1) // 4]
            o[LIFE_EPISODES] = life_n
            o[CASH_OUTS] = TOO_COARSE if cash_rows else cash_n
            # one backward pass over the windows
            low_band = m.band_low * m.limit
            first_live = -1
            wake_first = 0
            payers_first = 0
            payees_first = 0
            payees_first_day = 0
            for j in range(end - 1, vis - 1, -1):
                f = flags[j]
                if not (f & LIVE):
                    continue
                x = amount[j]
                q = earlier(prev, flags, j, personal)
                if j >= lo_wake:
                    first_live = j
                if f & CREDIT:
                    if f & personal:
                        if j >= lo_fan_in and q < lo_fan_in:
                            o[PAYERS] += 1
                            if f & FIRST:
                                payers_first += 1
                        if j >= lo_gather:
                            o[GATHER_IN] += x
                            if q < lo_gather:
                                o[GATHER_PAYERS] += 1
                        if j >= lo_life and q < lo_life:
                            o[LIFE_PAYERS] += 1
                    if f & counted:
                        if j >= lo_life:
                            o[LIFE_CREDITS] += x
                        if j >= lo_wake:
                            o[WAKE_CREDITS] += x
                            if f & FIRST:
                                wake_first += x
                    if (
                        j >= lo_band
                        and x < m.limit
                        and x * PPM >= low_band
                        and (f & BAND_CASH or f & personal)
                    ):
                        o[BAND_DEPOSITS] += 1
                        o[BAND_TOTAL] += x
                else:
                    if f & personal:
                        if j >= lo_fan_out and q < lo_fan_out:
                            o[PAYEES] += 1
                            if f & FIRST:
                                payees_first += 1
                        if j >= lo_day and q < lo_day and f & FIRST:
                            payees_first_day += 1
                        if j >= lo_gather and q < lo_gather:
                            o[GATHER_PAYEES] += 1
                    if f & taken and j >= lo_gather:
                        o[GATHER_OUT] += x
            # counterparties that need marks of their own (a row's class may differ from that of the row it is linked to)
            base = 8 * (it + 1) + 4 * reading
            for j in range(lo_wake, end):
                if flags[j] & LIVE and flags[j] & counted and stamp[group[j]] != base:
                    stamp[group[j]] = base
                    o[WAKE_PAYERS] += 1
            if o[BAND_DEPOSITS] > 0:
                for j in range(lo_band, end):
                    f = flags[j]
                    if not (f & LIVE) or not (f & CREDIT) or stamp[group[j]] == base + 1:
                        continue
                    x = amount[j]
                    if x < m.limit and x * PPM >= low_band and (f & BAND_CASH or f & personal):
                        stamp[group[j]] = base + 1
                        o[BAND_PAYERS] += 1
            if o[GATHER_PAYERS] > 0 and o[GATHER_PAYEES] > 0:
                for j in range(lo_gather, end):
                    if flags[j] & LIVE and flags[j] & CREDIT and flags[j] & personal:
                        stamp[group[j]] = base + 2
                for j in range(lo_gather, end):
                    f = flags[j]
                    if f & LIVE and not f & CREDIT and f & personal and stamp[group[j]] == base + 2:
                        stamp[group[j]] = 0
                        o[BOTH_WAYS] += 1
            # collection
            payers = 0
            one_off = 0
            total = 0
            forwarded = 0
            for j in range(end - 1, lo_collect - 1 if known else end - 1, -1):
                f = flags[j]
                if not (f & LIVE) or not (f & CREDIT) or not (f & personal) or stamp[group[j]] == base + 3:
                    continue
                stamp[group[j]] = base + 3
                head = j  # this payer's first credit inside the window
                q = earlier(prev, flags, head, personal)
                while q >= lo_collect:
                    head = q
                    q = earlier(prev, flags, head, personal)
                if not (flags[head] & FIRST):
                    continue
                payers += 1
                rising = True
                k = j
                while True:
                    total += amount[k]
                    if lot_gone[k] < 0:
                        follow(
                            time, step, flags, amount, out_bit, k, vis, end, m.horizon, m.cash_horizon, m.share_out,
                            m.cash_share, found,
                        )  # fmt: skip
                        lot_gone[k] = found[0]
                    forwarded += lot_gone[k]
                    if k == head:
                        break
                    q = earlier(prev, flags, k, personal)
                    if amount[q] >= amount[k]:
                        rising = False
                    k = q
                if rising:
                    one_off += 1
            if known:
                o[PAYERS_FIRST] = payers_first
                o[PAYEES_FIRST] = payees_first
                o[PAYEES_FIRST_DAY] = payees_first_day
                o[WAKE_CREDITS_FIRST] = wake_first
                o[COLLECT_PAYERS] = payers
                o[COLLECT_ONE_OFF] = one_off * PPM // payers if payers > 0 else 0
                o[COLLECT_CREDITS] = total
                o[COLLECT_FORWARDED] = share_ppm(forwarded, total)
            else:
                o[PAYERS_FIRST] = HISTORY_SHORT
                o[PAYEES_FIRST] = HISTORY_SHORT
                o[PAYEES_FIRST_DAY] = HISTORY_SHORT
                o[WAKE_CREDITS_FIRST] = HISTORY_SHORT
                o[COLLECT_PAYERS] = HISTORY_SHORT
                o[COLLECT_ONE_OFF] = HISTORY_SHORT
                o[COLLECT_CREDITS] = HISTORY_SHORT
                o[COLLECT_FORWARDED] = HISTORY_SHORT
            # life of the account
            o[AGE_DAYS] = max(t - opened, 0) // DAY if opened != NEVER else FACT_MISSING
            if first_live >= 0:
                awake = acc[a].gone_debit
                for k in range(first_live - 1, -1, -1):
                    if flags[k] & CUSTOMER:
                        awake = time[k]
                        break
                if awake == NEVER and opened != NEVER:
                    awake = max(since, opened)
                elif awake != NEVER:  # what the customer did among the lost records is not known
                    awake = max(awake, whole)
                if awake == NEVER:
                    o[QUIET_DAYS] = FACT_MISSING
                else:
                    o[QUIET_DAYS] = max(time[first_live] - awake, 0) // DAY
            # flags
            if flag_party.shape[0] > 0:
                for j in range(lo_flag, end):
                    if flagged[j] < 0:
                        continue
                    if flag_counts(flag_from, flag_until, flag_party, flagged[j], flag_party[flagged[j]], t):
                        if flags[j] & CREDIT:
                            o[FLAGGED_IN] += amount[j]
                            o[FLAGGED_IN_N] += 1
                        else:
                            o[FLAGGED_OUT] += amount[j]
                            o[FLAGGED_OUT_N] += 1
            seen = counts[i] - (counts[lo_own - 1] if lo_own > 0 else 0)
            o[UNKNOWN_LEGS] = seen & COUNT_MASK
            o[OWN_LEGS] = seen // COUNT_LEFT_OUT & COUNT_MASK
            o[HISTORY] = history


@njit(cache=True, nogil=True)
def tenure(acc, rows, parties, slots, positions, out, fold):
    """`tenure_days` of each item, both readings: how long its regular counterparty has been known."""
    for it in range(slots.shape[0]):
        a = slots[it]
        off = acc[a].off
        i = positions[it]
        row = rows[off + i]
        if not (row.a & REGULAR_BIT):
            continue
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
        out[it, HIGH, TENURE_DAYS] = day - first
        out[it, LOW, TENURE_DAYS] = day - first
