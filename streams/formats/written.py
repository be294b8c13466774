"""Amounts and times as they are usually written, a column at a time, compiled.

Text comes as one array of bytes, each entry behind the one before it, with the place where each ends. What is written in
another way, allowed or not, is marked as not good and left to `streams.currencies` and msgspec: these kernels refuse nothing.
"""

from __future__ import annotations

from numba import njit

MAX_DIGITS = 14
"""Longer amounts are left alone: with the four decimals of some currencies they might not fit into 64 bits."""


@njit(cache=True, nogil=True)
def amounts(text, ends, exponents, out, good):
    """`"12.30"` → 1230. What is not so plain is not good: the slow way knows all that is allowed."""
    start = 0
    for n in range(len(ends)):
        value, digits, behind, point = 0, 0, 0, False
        fine = True
        for i in range(start, ends[n]):
            c = text[i]
            if 48 <= c <= 57:
                value = value * 10 + (c - 48)
                digits += 1
                behind += point
                if digits > MAX_DIGITS:
                    fine = False
                    break
            elif c == 46 and not point and digits > 0:
                point = True
            else:
                fine = False
                break
        start = ends[n]
        exponent = exponents[n]
        if not fine or digits == 0 or (point and behind != exponent) or (point and behind == 0):
            good[n] = False
            continue
        if not point:
            for _ in range(exponent):
                value *= 10
        out[n] = value


@njit(cache=True, nogil=True)
def _number(text, start, length):
    """Digits as a number; -1 when something else is among them."""
    value = 0
    for i in range(start, start + length):
        c = text[i]
        if c < 48 or c > 57:
            return -1
        value = value * 10 + (c - 48)
    return value


@njit(cache=True, nogil=True)
def _time(text, first, until):
    """`2024-06-26T12:00:00[.123456](Z|+01:00)` as µs; -1 for anything else, valid or not."""
    if until - first < 20:
        return -1
    year, month, day = _number(text, first, 4), _number(text, first + 5, 2), _number(text, first + 8, 2)
    hour, minute, second = (
        _number(text, first + 11, 2),
        _number(text, first + 14, 2),
        _number(text, first + 17, 2),
    )
    if text[first + 4] != 45 or text[first + 7] != 45 or text[first + 10] != 84:
        return -1
    if text[first + 13] != 58 or text[first + 16] != 58:
        return -1
    if year < 1971 or year > 2199 or month < 1 or month > 12 or day < 1:
        return -1
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return -1
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    longest = 31
    if month in (4, 6, 9, 11):
        longest = 30
    elif month == 2:
        longest = 29 if leap else 28
    if day > longest:
        return -1
    at, fraction = first + 19, 0
    if text[at] == 46:
        at += 1
        scale = 1_000_000
        while at < until and 48 <= text[at] <= 57:
            if scale == 1:
                return -1
            scale //= 10
            fraction += (text[at] - 48) * scale
            at += 1
        if scale == 1_000_000:
            return -1
    offset = 0
    if at + 1 == until and text[at] == 90:
        pass
    elif at + 6 == until and (text[at] == 43 or text[at] == 45) and text[at + 3] == 58:
        hours, minutes = _number(text, at + 1, 2), _number(text, at + 4, 2)
        if hours < 0 or hours > 14 or minutes < 0 or minutes > 59:
            return -1
        offset = hours * 60 + minutes
        if text[at] == 45:
            if offset == 0:
                return -1  # "-00:00" says that the zone is not known
            offset = -offset
    else:
        return -1
    # Days since 1970-01-01 of the proleptic Gregorian calendar, with years that begin in March.
    y = year - (month <= 2)
    days = 365 * y + y // 4 - y // 100 + y // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 1 - 719_468
    return (((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1_000_000 + fraction


@njit(cache=True, nogil=True)
def times(text, ends, out, good):
    first = 0
    for n in range(len(ends)):
        found = _time(text, first, ends[n])
        first = ends[n]
        if found < 0:
            good[n] = False
        else:
            out[n] = found
