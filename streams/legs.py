"""Payments → `LEG` and `COUNT` rows, one buffer a ledger partition.

Which side makes a leg, what a payment is worth in u, and what is refused whatever the format: decided here, once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from detectors.model import COUNT, DAY, LEG, MAX_AMOUNT, PPM, PRECISION_US, PartyClass, Status
from detectors.partition import partition_of
from streams.payment import FUTURE_TOLERANCE, Payment, Reason, Rejected
from streams.pseudonyms import Pseudonyms

_LEG = struct.Struct("<QQQqqqqQqIHH3s8B")
_COUNT = struct.Struct("<qHiIIII")
assert _LEG.size == LEG.itemsize and _COUNT.size == COUNT.itemsize  # noqa: S101

COORDINATE_BITS = 20
MAX_INDEX = (1 << (COORDINATE_BITS - 1)) - 1
"""Most transactions of one source message: each has two leg coordinates, and 0 is the message's own (its count row)."""

NO_LEG_CLASSES = frozenset(
    {
        PartyClass.MERCHANT,
        PartyClass.BILLER,
        PartyClass.EMPLOYER,
        PartyClass.GOVERNMENT,
        PartyClass.PSP,
        PartyClass.CHARITY,
        PartyClass.REMITTER,
        PartyClass.VASP,
        PartyClass.CASH,
        PartyClass.BANK,
        PartyClass.SENSITIVE,
    }
)
"""Shops, utilities, employers, payment firms, cash, a bank's own books, and those who are never scored."""

HAS_LEG = tuple(value not in NO_LEG_CLASSES for value in range(256))


def coordinate(offset: int, index: int, side: int) -> int:
    """Source coordinate of one leg. Unique in its source partition, and rising with it; `offset << 20` is the count row's."""
    return offset << COORDINATE_BITS | (2 * index + side + 1)


def half_even(value: int, by: int) -> int:
    """`value / by` rounded to the nearest integer, halves to the even one. `value` ≥ 0."""
    whole, rest = divmod(value, by)
    if 2 * rest > by or (2 * rest == by and whole & 1):
        whole += 1
    return whole


class Rows(NamedTuple):
    """What was gathered since the last `take`."""

    legs: dict[int, np.ndarray]
    """Ledger partition → `LEG` rows, in source order."""
    counts: dict[int, np.ndarray]
    """Ledger partition → `COUNT` rows, in source order."""
    sources: tuple[str, ...]
    banks: tuple[str, ...]


def counts_partition(source: str, partitions: int) -> int:
    """Ledger partition that holds the counts of one source partition (`topic/partition`)."""
    tail = source.rpartition("/")[2]
    return int(tail) % partitions if tail.isascii() and tail.isdigit() else 0


class LegBuilder:
    """Gathers rows of many messages. Not thread-safe; one an intake."""

    def __init__(
        self,
        partitions: int,
        pseudonyms: Pseudonyms,
        rates: Mapping[str, int],
        *,
        system_wide: frozenset[str] = frozenset(),
        future_tolerance: int = FUTURE_TOLERANCE,
    ) -> None:
        """`rates[ccy]` = u-cents per 10^6 minor units. `system_wide`: sources that report both sides, whoever holds them."""
        raise NotImplementedError

    def add(
        self, payments: Iterable[Payment | Rejected], source: str, offset: int, received: int, *, learn: bool = False
    ) -> list[Rejected]:
        """Take one source message. Returns everything refused (the decoder's and its own), for the dead letters."""
        raise NotImplementedError

    def take(self) -> Rows:
        """Everything since the last call."""
        raise NotImplementedError
