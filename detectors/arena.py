"""Arrays that grow where they stand: memory is taken when it is written to, and growing copies nothing.

A large array is a private anonymous mapping. What has not been written costs only addresses, so there may be a lot of room at
the end; and the system moves the pages, not the bytes, when there is not enough. A small array is an ordinary one: a mapping of
large pages would take two megabytes for it.
"""

from __future__ import annotations

import mmap

import numpy as np

LARGE = 1 << 22
"""Bytes from which on an array is a mapping."""

_PAGE = 1 << 21
"""A large page: mappings are whole numbers of them, so that the system may use and move them whole."""


class Arena:
    """Zeroed records of one type. `array` is another object after `grow`: whoever kept the old one keeps what was in it."""

    def __init__(self, dtype: np.dtype, n: int) -> None:
        self._dtype = dtype
        self._map: mmap.mmap | None = None
        self.array = np.zeros(0, dtype)
        self.grow(n)

    def grow(self, n: int) -> None:
        """Make room for `n` records in all. What is held stays; what comes to it is zero."""
        if n <= len(self.array):
            return
        size = n * self._dtype.itemsize
        if size < LARGE:
            self._copy(np.zeros(n, self._dtype))
            return
        size = -(-size // _PAGE) * _PAGE
        if self._map is not None:
            self.array = np.zeros(0, self._dtype)  # while it is looked at, a mapping does not move
            try:
                self._map.resize(size)
            except (BufferError, SystemError, OSError):
                pass  # somebody else looks at it, or the system cannot do it, or has no room just there
            finally:
                self.array = self._seen(self._map)
            if n <= len(self.array):
                return
        new = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            new.madvise(mmap.MADV_HUGEPAGE)
        self._copy(self._seen(new))
        self._map = new

    def _seen(self, memory: mmap.mmap) -> np.ndarray:
        return np.frombuffer(memory, self._dtype, len(memory) // self._dtype.itemsize)

    def _copy(self, array: np.ndarray) -> None:
        array[: len(self.array)] = self.array
        self.array = array
