"""Accounts as bytes, and back: compiled, over the arrays of a partition, because a flush packs tens of thousands of them.

One blob is a whole number of 8-byte little-endian words:

    words   layout | cased << 16 · rows | counterparties << 32 · the rows' leg ids · their counterparties · the counterparties' ids
    stream  account, rows, counterparties, facts, counts (below), zeros up to the next word
    case    only when `cased`: msgpack, zeros up to the next word, length of the msgpack as a word

Numbers in the stream are base-128 varints, signed ones zigzag. A time of an account is its distance from the account's clock, 0 and
1 stand for NEVER and ALWAYS. A row says how much later it is than the one before, and names what it shares with that one once. So a
held leg takes about 27 bytes and a counterparty 13, instead of 40 and 24. The bytes depend on values alone, not on where those
stand in memory: what is loaded and packed again gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from detectors.model import DAY
from detectors.window import (
    ALWAYS,
    AMOUNT_SHIFT,
    LOW24,
    MONTHS,
    NEVER,
    find,
    move_row,
    new_account,
    reserve_parties,
)

STATE_LAYOUT = 2
"""Version of every blob of the state. Another one refuses to load, and the partition is rebuilt from its log."""

PAD = 64
"""Zero bytes behind the last blob: more than one item of a stream can take, so that a damaged one is noticed behind its end."""

# Why `pack` or `load` stopped early.
DONE = 0
NEED_ROOM = 1
NEED_ROWS = 2
NEED_PARTIES = 3
NEED_ACCOUNTS = 4
NEED_FACTS = 5
NEED_HOUSEHOLD = 6
NEED_NAME = 7
DAMAGED = 8
FOREIGN = 9

_B7 = np.uint64(7)
_LOW7 = np.uint64(127)
_MORE = np.uint64(128)
_U0 = np.uint64(0)
_U1 = np.uint64(1)
_U2 = np.uint64(2)
_U16 = np.uint64(16)
_U32 = np.uint64(32)
_BYTE = np.uint64(0xFF)
_WORD32 = np.uint64(0xFFFFFFFF)
_ROW_MOST = 40  # bytes of a row in the stream, at most
_PARTY_MOST = 48
_FACT_MOST = 80  # without name and household
_COUNT_MOST = 24  # without name
_ACCOUNT_MOST = 320  # without name
_ROW_LEAST = 3
_HASH_START = np.uint64(0xCBF29CE484222325)
_HASH_TIMES = np.uint64(0x100000001B3)


class Names(NamedTuple):
    """Numbered names as bytes, for the compiled functions."""

    data: np.ndarray  # (bytes,) u1, one after another
    starts: np.ndarray  # (n + 1,) i8
    hashes: np.ndarray  # (n,) u8, ascending
    order: np.ndarray  # (n,) i8: number of the name of each hash


class Counts(NamedTuple):
    """What became of an account's legs since the head, by (slot, source, day, outcome), ascending."""

    slot: np.ndarray  # (n,) i8
    source: np.ndarray  # (n,) i8
    day: np.ndarray  # (n,) i8
    outcome: np.ndarray  # (n,) i8
    n: np.ndarray  # (n,) i8


def name_table(names: Sequence[str]) -> Names:
    """The table of these names, in the order of their numbers."""
    encoded = [name.encode() for name in names]
    data = np.frombuffer(b"".join(encoded) + bytes(8), np.uint8)
    starts = np.concatenate(([0], np.cumsum([len(name) for name in encoded]))).astype(np.int64)
    hashes = _hashes(data, starts)
    order = np.argsort(hashes, kind="stable")
    return Names(data, starts, hashes[order], order)


@njit(cache=True, nogil=True)
def _hash(data, start, until):
    h = _HASH_START
    for i in range(start, until):
        h = (h ^ np.uint64(data[i])) * _HASH_TIMES
    return h


@njit(cache=True, nogil=True)
def _hashes(data, starts):
    found = np.empty(starts.shape[0] - 1, np.uint64)
    for i in range(found.shape[0]):
        found[i] = _hash(data, starts[i], starts[i + 1])
    return found


@njit(cache=True, nogil=True)
def _number(names, data, start, until):
    """Number of a name, or -1."""
    h = _hash(data, start, until)
    i = np.searchsorted(names.hashes, h)
    while i < names.hashes.shape[0] and names.hashes[i] == h:
        number = names.order[i]
        first = names.starts[number]
        if names.starts[number + 1] - first == until - start:
            same = True
            for k in range(until - start):
                if names.data[first + k] != data[start + k]:
                    same = False
                    break
            if same:
                return number
        i += 1
    return -1


# -- numbers ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _put(out, p, x):
    """Append an unsigned number; returns where the next one goes."""
    while x >= _MORE:
        out[p] = np.uint8((x & _LOW7) | _MORE)
        x >>= _B7
        p += 1
    out[p] = np.uint8(x)
    return p + 1


@njit(cache=True, nogil=True)
def _get(data, p):
    """(unsigned number at p, where the next one is). Ends after ten bytes whatever they are."""
    x = _U0
    shift = _U0
    for _ in range(10):
        byte = np.uint64(data[p])
        p += 1
        x |= (byte & _LOW7) << shift
        if byte < _MORE:
            break
        shift += _B7
    return x, p


@njit(cache=True, nogil=True)
def _zigzag(x):
    return (np.uint64(x) << _U1) ^ np.uint64(x >> 63)


@njit(cache=True, nogil=True)
def _signed(x):
    return np.int64(x >> _U1) ^ -np.int64(x & _U1)


@njit(cache=True, nogil=True)
def _put_time(out, p, time, near):
    if time == NEVER:
        return _put(out, p, _U0)
    if time == ALWAYS:
        return _put(out, p, _U1)
    return _put(out, p, _zigzag(time - near) + _U2)


@njit(cache=True, nogil=True)
def _get_time(data, p, near):
    x, p = _get(data, p)
    if x == _U0:
        return NEVER, p
    if x == _U1:
        return ALWAYS, p
    return near + _signed(x - _U2), p


@njit(cache=True, nogil=True)
def _put_low24(out, p, x):
    out[p] = np.uint8(x & _BYTE)
    out[p + 1] = np.uint8((x >> np.uint64(8)) & _BYTE)
    out[p + 2] = np.uint8((x >> _U16) & _BYTE)
    return p + 3


@njit(cache=True, nogil=True)
def _get_low24(data, p):
    return np.uint64(data[p]) | np.uint64(data[p + 1]) << np.uint64(8) | np.uint64(data[p + 2]) << _U16


@njit(cache=True, nogil=True)
def _put_name(out, p, names, number):
    first = names.starts[number]
    n = names.starts[number + 1] - first
    p = _put(out, p, np.uint64(n))
    for k in range(n):
        out[p + k] = names.data[first + k]
    return p + n


# -- packing ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def pack(
    acc, rows, parties, facts, household, slots, banks, sources, counts, first, until, out64, out8, start, ends
):  # fmt: skip
    """Pack the accounts `slots[start:]` into `out64` (words) = `out8` (the same bytes), as many as there is room for.

    `first`, `until` (n,): each account's stretch of `counts`. `ends` (n,) takes where each blob ends, in bytes. Returns how many of
    `slots` are done.
    """
    p = 0
    for s in range(start, slots.shape[0]):
        a = slots[s]
        if p + _most(acc, facts, banks, sources, counts, a, first[s], until[s]) > out8.shape[0]:
            return s
        p = _pack_one(
            acc, rows, parties, facts, household, a, banks, sources, counts, first[s], until[s], out64, out8, p
        )  # fmt: skip
        ends[s] = p
    return slots.shape[0]


@njit(cache=True, nogil=True)
def _name_length(names, number):
    return names.starts[number + 1] - names.starts[number]


@njit(cache=True, nogil=True)
def _most(acc, facts, banks, sources, counts, a, first, until):
    """Bytes that a blob can take at most."""
    most = 24 + _ACCOUNT_MOST + _name_length(banks, acc[a].bank)
    most += acc[a].len * (16 + _ROW_MOST) + acc[a].plen * (8 + _PARTY_MOST)
    f = acc[a].fact
    while f >= 0:
        most += _FACT_MOST + 8 * np.int64(facts[f].hlen) + _name_length(banks, facts[f].bank)
        f = facts[f].prev
    for i in range(first, until):
        most += _COUNT_MOST + _name_length(sources, counts.source[i])
    return most


@njit(cache=True, nogil=True)
def _pack_one(acc, rows, parties, facts, household, a, banks, sources, counts, first, until, out64, out8, p):
    n = np.int64(acc[a].len)
    m = np.int64(acc[a].plen)
    off = acc[a].off
    poff = acc[a].poff
    w = p >> 3
    out64[w] = np.uint64(STATE_LAYOUT) | np.uint64(acc[a].cased) << _U16
    out64[w + 1] = np.uint64(n) | np.uint64(m) << _U32
    w += 2
    for i in range(n):
        out64[w + i] = rows[off + i].leg
        out64[w + n + i] = rows[off + i].party
    w += 2 * n
    for i in range(m):
        out64[w + i] = parties[poff + i].party
    p = (w + m) << 3
    p = _pack_account(acc, a, banks, out8, p)
    p = _pack_rows(rows, off, n, out8, p)
    p = _pack_parties(parties, poff, m, _day(acc[a].clock), out8, p)
    p = _pack_facts(acc, facts, household, a, banks, out8, p)
    p = _pack_counts(counts, sources, first, until, out8, p)
    while p & 7:
        out8[p] = 0
        p += 1
    return p


@njit(cache=True, nogil=True)
def _day(clock):
    return clock // DAY if clock > 0 else 0


@njit(cache=True, nogil=True)
def _near(clock):
    return clock if clock != NEVER else 0


@njit(cache=True, nogil=True)
def _pack_account(acc, a, banks, out, p):
    clock = acc[a].clock
    near = _near(clock)
    p = _put_time(out, p, clock, 0)
    p = _put_time(out, p, acc[a].swept, near)
    p = _put_time(out, p, acc[a].boundary, near)
    p = _put_time(out, p, acc[a].hold, near)
    p = _put_time(out, p, acc[a].first, near)
    p = _put_time(out, p, acc[a].gone_debit, near)
    p = _put_time(out, p, acc[a].hub, near)
    p = _put(out, p, _zigzag(np.int64(acc[a].applied)))
    p = _put(out, p, np.uint64(acc[a].closed))
    p = _put(out, p, _zigzag(np.int64(acc[a].month)))
    for k in range(MONTHS):
        p = _put(out, p, _zigzag(acc[a].credits[k]))
        p = _put(out, p, _zigzag(acc[a].debits[k]))
    return _put_name(out, p, banks, acc[a].bank)


@njit(cache=True, nogil=True)
def _pack_rows(rows, off, n, out, p):
    """flags: 1 `a` has the low bits of the row before, 2 `b` has, 4 `amount` is `amount_u`."""
    time = np.int64(0)
    low_a = _U0
    low_b = _U0
    for i in range(off, off + n):
        word_a = rows[i].a
        word_b = rows[i].b
        flags = 0
        if word_a & LOW24 == low_a:
            flags |= 1
        if word_b & LOW24 == low_b:
            flags |= 2
        if word_a >> AMOUNT_SHIFT == word_b >> AMOUNT_SHIFT:
            flags |= 4
        out[p] = flags
        p = _put(out, p + 1, np.uint64(rows[i].time) - np.uint64(time))
        p = _put(out, p, word_a >> AMOUNT_SHIFT)
        time = rows[i].time
        if not flags & 1:
            low_a = word_a & LOW24
            p = _put_low24(out, p, low_a)
        if not flags & 2:
            low_b = word_b & LOW24
            p = _put_low24(out, p, low_b)
        if not flags & 4:
            p = _put(out, p, word_b >> AMOUNT_SHIFT)
    return p


@njit(cache=True, nogil=True)
def _put_side(out, p, near, first, last, n):
    p = _put(out, p, _zigzag(near - np.int64(last)))
    p = _put(out, p, _zigzag(np.int64(last) - np.int64(first)))
    return _put(out, p, np.uint64(n))


@njit(cache=True, nogil=True)
def _pack_parties(parties, poff, m, near, out, p):
    """flags: 1 it paid in, 2 it was paid, 4 `spare` is used."""
    for i in range(poff, poff + m):
        flags = 0
        if parties[i].in_first | parties[i].in_last | parties[i].in_n:
            flags |= 1
        if parties[i].out_first | parties[i].out_last | parties[i].out_n:
            flags |= 2
        if parties[i].spare:
            flags |= 4
        out[p] = flags
        p += 1
        if flags & 1:
            p = _put_side(out, p, near, parties[i].in_first, parties[i].in_last, parties[i].in_n)
        if flags & 2:
            p = _put_side(out, p, near, parties[i].out_first, parties[i].out_last, parties[i].out_n)
        if flags & 4:
            p = _put(out, p, np.uint64(parties[i].spare))
    return p


@njit(cache=True, nogil=True)
def _pack_facts(acc, facts, household, a, banks, out, p):
    n = 0
    f = acc[a].fact
    while f >= 0:
        n += 1
        f = facts[f].prev
    p = _put(out, p, np.uint64(n))
    f = acc[a].fact
    while f >= 0:
        p = _put_time(out, p, facts[f].effective, 0)
        p = _put(out, p, facts[f].record)
        p = _put_time(out, p, facts[f].opened, 0)
        p = _put_time(out, p, facts[f].since, 0)
        p = _put(out, p, _zigzag(facts[f].income))
        out[p] = facts[f].kind
        out[p + 1] = facts[f].status
        out[p + 2] = facts[f].minor
        p = _put_name(out, p + 3, banks, facts[f].bank)
        p = _put(out, p, np.uint64(facts[f].hlen))
        for k in range(facts[f].hoff, facts[f].hoff + facts[f].hlen):
            x = household[k]
            for _ in range(8):
                out[p] = np.uint8(x & _BYTE)
                x >>= np.uint64(8)
                p += 1
        f = facts[f].prev
    return p


@njit(cache=True, nogil=True)
def _pack_counts(counts, sources, first, until, out, p):
    p = _put(out, p, np.uint64(until - first))
    source = np.int64(-1)
    for i in range(first, until):
        if counts.source[i] == source:
            p = _put(out, p, _U0)
        else:
            source = counts.source[i]
            n = _name_length(sources, source)
            p = _put(out, p, np.uint64(n + 1))
            for k in range(n):
                out[p + k] = sources.data[sources.starts[source] + k]
            p += n
        p = _put(out, p, _zigzag(counts.day[i]))
        p = _put(out, p, np.uint64(counts.outcome[i]))
        p = _put(out, p, np.uint64(counts.n[i]))
    return p


# -- loading ---------------------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def load(
    acc, n_acc, table, rows, pool, parties, ppool, facts, n_facts, household, n_household,
    subjects, words, data, starts, banks, start, slots, stops, where,
):  # fmt: skip
    """Load the accounts [start, n) from `words` = `data` (the same bytes, `PAD` zeros behind them).

    `starts` (n + 1,): where each blob starts, in bytes. `slots` (n,) takes each one's slot, `stops` (n,) the place of its counts.
    Returns (why, next account, n_acc, n_facts, n_household); stops early with NEED_*, after which the same account is taken again,
    or with DAMAGED or FOREIGN. `where` (2,): start and end of the bank's name that is not known, or how much room is needed.
    """
    for s in range(start, subjects.shape[0]):
        p = starts[s]
        end = starts[s + 1]
        if end - p < 24 or p & 7 or words[p >> 3] & np.uint64(0xFFFF) != np.uint64(STATE_LAYOUT):
            where[0] = np.int64(words[p >> 3] & np.uint64(0xFFFF)) if end - p >= 8 else -1
            why = FOREIGN if end - p >= 8 and where[0] != STATE_LAYOUT else DAMAGED
            return why, s, n_acc, n_facts, n_household
        cased = (words[p >> 3] >> _U16) & _U1
        n = np.int64(words[(p >> 3) + 1] & _WORD32)
        m = np.int64(words[(p >> 3) + 1] >> _U32)
        stream = p + 16 + 16 * n + 8 * m
        if stream + _ROW_LEAST * n + m > end:
            return DAMAGED, s, n_acc, n_facts, n_household
        a = find(acc, table, subjects[s])
        if a < 0:
            if n_acc == acc.shape[0]:
                return NEED_ACCOUNTS, s, n_acc, n_facts, n_household
            a = n_acc
            new_account(acc, table, a, subjects[s])
            n_acc += 1
        acc[a].len = 0
        acc[a].plen = 0
        if acc[a].cap < n and not move_row(acc, rows, pool, a, n):
            where[0] = n
            return NEED_ROWS, s, n_acc, n_facts, n_household
        if acc[a].pcap < m and not reserve_parties(acc, parties, ppool, a, m, 0):
            where[0] = m
            return NEED_PARTIES, s, n_acc, n_facts, n_household
        off = acc[a].off
        poff = acc[a].poff
        w = (p >> 3) + 2
        for i in range(n):
            rows[off + i].leg = words[w + i]
            rows[off + i].party = words[w + n + i]
        w += 2 * n
        for i in range(m):
            parties[poff + i].party = words[w + i]
        p = _load_account(acc, a, data, stream)
        known, p = _load_bank(banks, data, p, end, where)
        if known < 0:
            return -known, s, n_acc, n_facts, n_household
        acc[a].bank = known
        p = _load_rows(rows, off, n, data, p, end)
        if p > end:
            return DAMAGED, s, n_acc, n_facts, n_household
        p = _load_parties(parties, poff, m, _day(acc[a].clock), data, p, end)
        if p > end or acc[a].closed > n or acc[a].closed < 0:
            return DAMAGED, s, n_acc, n_facts, n_household
        why, p, used_facts, used_household = _load_facts(
            acc, a, facts, n_facts, household, n_household, banks, data, p, end, where
        )
        if why != DONE:
            return why, s, n_acc, n_facts, n_household
        n_facts = used_facts
        n_household = used_household
        acc[a].len = n
        acc[a].plen = m
        acc[a].mark = -1
        acc[a].seen = -1
        acc[a].changed = 0
        acc[a].cased = cased
        slots[s] = a
        stops[s] = p
    return DONE, subjects.shape[0], n_acc, n_facts, n_household


@njit(cache=True, nogil=True)
def _load_account(acc, a, data, p):
    clock, p = _get_time(data, p, 0)
    near = _near(clock)
    acc[a].clock = clock
    acc[a].swept, p = _get_time(data, p, near)
    acc[a].boundary, p = _get_time(data, p, near)
    acc[a].hold, p = _get_time(data, p, near)
    acc[a].first, p = _get_time(data, p, near)
    acc[a].gone_debit, p = _get_time(data, p, near)
    acc[a].hub, p = _get_time(data, p, near)
    x, p = _get(data, p)
    acc[a].applied = _signed(x)
    x, p = _get(data, p)
    acc[a].closed = np.int64(x)
    x, p = _get(data, p)
    acc[a].month = _signed(x)
    for k in range(MONTHS):
        x, p = _get(data, p)
        acc[a].credits[k] = _signed(x)
        x, p = _get(data, p)
        acc[a].debits[k] = _signed(x)
    return p


@njit(cache=True, nogil=True)
def _load_bank(banks, data, p, end, where):
    """(number of the name at p, behind it); minus why it cannot be had."""
    n, p = _get(data, p)
    until = p + np.int64(n)
    if until > end or until < p:
        return -DAMAGED, p
    number = _number(banks, data, p, until)
    if number < 0:
        where[0] = p
        where[1] = until
        return -NEED_NAME, p
    return number, until


@njit(cache=True, nogil=True)
def _load_rows(rows, off, n, data, p, end):
    time = _U0
    low_a = _U0
    low_b = _U0
    for i in range(off, off + n):
        flags = data[p]
        later, p = _get(data, p + 1)
        time += later
        amount_u, p = _get(data, p)
        if not flags & 1:
            low_a = _get_low24(data, p)
            p += 3
        if not flags & 2:
            low_b = _get_low24(data, p)
            p += 3
        amount = amount_u
        if not flags & 4:
            amount, p = _get(data, p)
        rows[i].time = np.int64(time)
        rows[i].a = amount_u << AMOUNT_SHIFT | low_a
        rows[i].b = amount << AMOUNT_SHIFT | low_b
        if p > end:
            break
    return p


@njit(cache=True, nogil=True)
def _get_side(data, p, near):
    x, p = _get(data, p)
    last = near - _signed(x)
    x, p = _get(data, p)
    first = last - _signed(x)
    n, p = _get(data, p)
    return first, last, np.int64(n), p


@njit(cache=True, nogil=True)
def _load_parties(parties, poff, m, near, data, p, end):
    for i in range(poff, poff + m):
        flags = data[p]
        p += 1
        first, last, n = 0, 0, 0
        if flags & 1:
            first, last, n, p = _get_side(data, p, near)
        parties[i].in_first = first
        parties[i].in_last = last
        parties[i].in_n = n
        first, last, n = 0, 0, 0
        if flags & 2:
            first, last, n, p = _get_side(data, p, near)
        parties[i].out_first = first
        parties[i].out_last = last
        parties[i].out_n = n
        spare = _U0
        if flags & 4:
            spare, p = _get(data, p)
        parties[i].spare = spare
        if p > end:
            break
    return p


@njit(cache=True, nogil=True)
def _load_facts(acc, a, facts, n_facts, household, n_household, banks, data, p, end, where):
    """Append the account's chain, newest first, to the fact table. Returns (why, behind it, n_facts, n_household)."""
    count, p = _get(data, p)
    n = np.int64(count)
    if n > end - p or n < 0:
        return DAMAGED, p, n_facts, n_household
    if n_facts + n > facts.shape[0]:
        where[0] = n
        return NEED_FACTS, p, n_facts, n_household
    acc[a].fact = n_facts if n else -1
    for f in range(n_facts, n_facts + n):
        facts[f].effective, p = _get_time(data, p, 0)
        facts[f].record, p = _get(data, p)
        facts[f].opened, p = _get_time(data, p, 0)
        facts[f].since, p = _get_time(data, p, 0)
        x, p = _get(data, p)
        facts[f].income = _signed(x)
        if p + 3 > end:
            return DAMAGED, p, n_facts, n_household
        facts[f].kind = data[p]
        facts[f].status = data[p + 1]
        facts[f].minor = data[p + 2]
        bank, p = _load_bank(banks, data, p + 3, end, where)
        if bank < 0:
            return -bank, p, n_facts, n_household
        facts[f].bank = bank
        members, p = _get(data, p)
        h = np.int64(members)
        if h < 0 or h > (end - p) // 8:
            return DAMAGED, p, n_facts, n_household
        if n_household + h > household.shape[0]:
            where[0] = h
            return NEED_HOUSEHOLD, p, n_facts, n_household
        facts[f].hoff = n_household
        facts[f].hlen = h
        for k in range(n_household, n_household + h):
            x = _U0
            for byte in range(8):
                x |= np.uint64(data[p + byte]) << np.uint64(8 * byte)
            household[k] = x
            p += 8
        n_household += h
        facts[f].prev = f + 1 if f + 1 < n_facts + n else -1
        facts[f].spare = 0
        facts[f].spare2 = 0
    return DONE, p, n_facts + n, n_household


# -- what is read by few: plain Python -------------------------------------------------------------------------------


def counts_at(data: bytes, p: int) -> list[tuple[str, int, int, int]]:
    """Counts (source, day, outcome, n) that begin at p. Raises ValueError when they are cut off."""
    try:
        n, p = _plain(data, p)
        found = []
        source = ""
        for _ in range(n):
            length, p = _plain(data, p)
            if length:
                if p + length - 1 > len(data):
                    raise ValueError("a blob's counts are cut off")
                source = data[p : p + length - 1].decode()
                p += length - 1
            day, p = _plain(data, p)
            outcome, p = _plain(data, p)
            count, p = _plain(data, p)
            found.append((source, (day >> 1) ^ -(day & 1), outcome, count))
    except IndexError:
        raise ValueError("a blob's counts are cut off") from None
    return found


def _plain(data: bytes, p: int) -> tuple[int, int]:
    x = shift = 0
    while True:
        byte = data[p]
        p += 1
        x |= (byte & 127) << shift
        if byte < 128:
            return x, p
        shift += 7


def with_case(blob: bytes, case: bytes) -> bytes:
    """A packed account and its case."""
    return b"".join((blob, case, bytes(-len(case) % 8), len(case).to_bytes(8, "little")))


def case_of(blob: bytes) -> bytes:
    """The case of a blob that has one. Raises ValueError when it cannot be there."""
    n = int.from_bytes(blob[-8:], "little")
    start = len(blob) - 8 - n - (-n % 8)
    if start < 24:
        raise ValueError("a blob's case is cut off")
    return blob[start : start + n]
