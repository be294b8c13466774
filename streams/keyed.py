"""BLAKE2b with a key, for a column of short texts at a time: `hashlib.blake2b`, compiled.

`hashlib` costs half a microsecond of Python a text, most of it for the objects around the hash. The two are tested against each
other (tests/streams/test_keyed.py). Algorithm and constants: RFC 7693.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

BLOCK = 128
_IV = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    np.uint64,
)  # fmt: skip
_SIGMA = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    np.int64,
)


@njit(inline="always")
def _turn(x, by):
    return (x >> np.uint64(by)) | (x << np.uint64(64 - by))


@njit(inline="always")
def _mix(a, b, c, d, x, y):
    a = a + b + x
    d = _turn(d ^ a, 32)
    c = c + d
    b = _turn(b ^ c, 24)
    a = a + b + y
    d = _turn(d ^ a, 16)
    c = c + d
    b = _turn(b ^ c, 63)
    return a, b, c, d


@njit(cache=True, nogil=True)
def _compress(h, m, length, last):
    """Take the block `m` (16 words) into `h` (8 words); `length` bytes have been taken with it."""
    v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    v8, v9, v10, v11, v12, v13, v14, v15 = _IV[0], _IV[1], _IV[2], _IV[3], _IV[4], _IV[5], _IV[6], _IV[7]
    v12 ^= np.uint64(length)
    if last:
        v14 = ~v14
    for r in range(12):
        s = _SIGMA[r]
        v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[s[14]], m[s[15]])
    h[0] ^= v0 ^ v8
    h[1] ^= v1 ^ v9
    h[2] ^= v2 ^ v10
    h[3] ^= v3 ^ v11
    h[4] ^= v4 ^ v12
    h[5] ^= v5 ^ v13
    h[6] ^= v6 ^ v14
    h[7] ^= v7 ^ v15


@njit(cache=True, nogil=True)
def _hash_one(start, prefix, p, q, text, a, b, h, m):
    """First word of the hash of prefix[p:q] + text[a:b], from the state behind the key. `h` (8) and `m` (16) are scratch."""
    for i in range(8):
        h[i] = start[i]
    left = (q - p) + (b - a)
    taken = BLOCK
    at = 0
    while True:
        n = min(left, BLOCK)
        for i in range(16):
            m[i] = np.uint64(0)
        for i in range(n):
            k = at + i
            c = prefix[p + k] if k < q - p else text[a + k - (q - p)]
            m[i >> 3] |= np.uint64(c) << np.uint64(8 * (i & 7))
        at += n
        left -= n
        taken += n
        _compress(h, m, taken, left == 0)
        if left == 0:
            return h[0]


@njit(cache=True, nogil=True)
def _hash_all(start, prefix, prefix_ends, which, text, ends, out):
    h, m = np.zeros(8, np.uint64), np.zeros(16, np.uint64)
    a = 0
    for n in range(ends.shape[0]):
        p = prefix_ends[which[n] - 1] if which[n] > 0 else 0
        out[n] = _hash_one(start, prefix, p, prefix_ends[which[n]], text, a, ends[n], h, m)
        a = ends[n]


@njit(cache=True, nogil=True)
def _keyed(h, m):
    _compress(h, m, BLOCK, False)


@njit(cache=True, nogil=True)
def _written_plainly(text, ends, plain):
    """Whether each text has visible ASCII only, and no small letters."""
    a = 0
    for n in range(ends.shape[0]):
        fine = ends[n] > a
        for i in range(a, ends[n]):
            c = text[i]
            if c <= 32 or c >= 127 or 97 <= c <= 122:
                fine = False
                break
        plain[n] = fine
        a = ends[n]


@njit(cache=True, nogil=True)
def _insert_all(table, values, new):
    """Enter values (none is 0) into a set by open addressing (a power of two, 0 = empty); `new` tells which were not in it."""
    mask = np.uint64(table.shape[0] - 1)
    for n in range(values.shape[0]):
        i = values[n] & mask
        while table[np.int64(i)] != 0 and table[np.int64(i)] != values[n]:
            i = (i + np.uint64(1)) & mask
        new[n] = table[np.int64(i)] == 0
        table[np.int64(i)] = values[n]


def joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The texts one behind the other, one byte a character, and where each ends. Of one that is not ASCII: DEL, as long."""
    whole = "".join(texts)
    if not whole.isascii():
        whole = "".join(text if text.isascii() else "\x7f" * len(text) for text in texts)
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    return np.frombuffer(whole.encode("ascii"), np.uint8), ends


def written_plainly(text: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """bool (n): texts of visible ASCII without small letters, and not empty."""
    plain = np.zeros(len(ends), np.bool_)
    _written_plainly(text, ends, plain)
    return plain


class Seen:
    """Which hashes have been seen: a set of limited size, emptied when it is full."""

    def __init__(self, limit: int) -> None:
        """`limit`: a power of two."""
        self._table = np.zeros(2 * limit, np.uint64)
        self._free = limit

    def add(self, values: np.ndarray) -> np.ndarray:
        """Enter u64 values, none 0; the places of those that were not in it. What was forgotten is new again."""
        if self._free < len(values):
            self._free = max(len(self._table) // 2, len(values))
            self._table = np.zeros(1 << (2 * self._free - 1).bit_length(), np.uint64)
        new = np.zeros(len(values), np.bool_)
        _insert_all(self._table, values, new)
        places = np.flatnonzero(new)
        self._free -= len(places)
        return places


class Keyed:
    """`hashlib.blake2b(text, digest_size=8, key=…, person=…)` of a column of texts."""

    def __init__(self, secret: bytes, person: bytes) -> None:
        words = np.zeros(8, np.uint64)
        words[0] = 8 | len(secret) << 8 | 1 << 16 | 1 << 24
        words[6:] = np.frombuffer(person.ljust(16, b"\0"), "<u8")
        self._start = _IV ^ words
        _keyed(self._start, np.frombuffer(secret.ljust(BLOCK, b"\0"), "<u8").astype(np.uint64))

    def __repr__(self) -> str:
        return "Keyed(********)"

    def column(
        self,
        text: np.ndarray,
        ends: np.ndarray,
        prefixes: tuple[bytes, ...] = (b"",),
        which: np.ndarray | None = None,
    ) -> np.ndarray:
        """u64 (n): the digests, little endian, of texts that lie one behind the other in `text` (u8) and end at `ends` (i64).

        `prefixes[which[n]]` (`which` i64; left out = the first) stands before text n. Prefix and text are not both empty.
        """
        out = np.zeros(len(ends), np.uint64)
        numbers = np.zeros(len(ends), np.int64) if which is None else which
        prefix_ends = np.cumsum([len(prefix) for prefix in prefixes])
        _hash_all(
            self._start, np.frombuffer(b"".join(prefixes), np.uint8), prefix_ends, numbers, text, ends, out
        )
        return out
