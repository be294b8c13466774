"""Arrays that grow where they stand keep what they hold, and what comes to them is zero."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from detectors.arena import LARGE, Arena
from detectors.window import ROW

MANY = LARGE // ROW.itemsize


def marked(arena: Arena, n: int) -> np.ndarray:
    """Write into the first n records; returns a copy of them."""
    arena.array["leg"][:n] = np.arange(1, n + 1)
    arena.array["time"][:n] = -np.arange(1, n + 1)
    return arena.array[:n].copy()


@pytest.mark.parametrize(
    ("first", "then"), [(8, 9), (8, MANY + 1), (MANY + 1, 8 * MANY), (3 * MANY, 3 * MANY + 1), (0, 1)]
)
def test_what_is_held_stays_and_the_rest_is_zero(first: int, then: int) -> None:
    arena = Arena(ROW, first)
    held = marked(arena, first)
    arena.grow(then)
    assert len(arena.array) >= then
    assert np.array_equal(arena.array[:first], held)
    assert not arena.array[first:].view(np.uint8).any()
    arena.array["leg"][then - 1] = 7  # it can be written to, to its end
    assert arena.array["leg"][then - 1] == 7


def test_it_never_gets_smaller() -> None:
    arena = Arena(ROW, MANY + 1)
    before = arena.array
    arena.grow(MANY)
    assert arena.array is before


def test_growing_copies_nothing() -> None:
    """Seen from outside: memory that was never written to is not there, before growing and after."""
    arena = Arena(ROW, 64 * MANY)
    marked(arena, 10)
    start = resident()
    arena.grow(128 * MANY)
    assert arena.array["leg"][9] == 10
    assert resident() - start < 8 * LARGE


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_who_looks_at_it_keeps_what_was_in_it() -> None:
    arena = Arena(ROW, MANY + 1)
    marked(arena, 100)
    kept = arena.array[:100]
    arena.grow(5 * MANY)
    arena.array["leg"][:100] = 0
    assert kept["leg"].tolist() == list(range(1, 101))
    arena.grow(9 * MANY)
    assert arena.array["time"][:3].tolist() == [-1, -2, -3]


def test_what_cannot_be_moved_is_copied() -> None:
    class Stuck(mmap.mmap):
        def resize(self, newsize: int) -> None:
            raise OSError(12, "Cannot allocate memory")

    arena = Arena(np.dtype("u8"), LARGE // 8)
    arena.array[:3] = (1, 2, 3)
    assert arena._map is not None
    stuck = Stuck(-1, len(arena._map))
    stuck[:] = arena._map[:]
    arena._map, arena.array = stuck, np.frombuffer(stuck, "u8")
    arena.grow(LARGE // 2)
    assert len(arena.array) >= LARGE // 2
    assert arena.array[:4].tolist() == [1, 2, 3, 0]
