"""Payments → `LEG` and `COUNT` rows, one buffer a ledger partition.

Which side makes a leg, what a payment is worth in u, and what is refused whatever the format: decided here, once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from detectors.model import COUNT, DAY, LEG, MAX_AMOUNT, PPM, PRECISION_US, PartyClass
from detectors.partition import partition_of
from streams.payment import FUTURE_TOLERANCE, Payment, Reason, Rejected
from streams.pseudonyms import Memo, Pseudonyms

_LEG = struct.Struct("<QQQqqqqQqIHH3s8B")
_COUNT = struct.Struct("<qHiIIII")
if (_LEG.size, _COUNT.size) != (LEG.itemsize, COUNT.itemsize):
    raise RuntimeError("the packed rows of streams.legs are not those of detectors.model")

_HALF = PPM // 2
_CASH = int(PartyClass.CASH)  # cash is nobody: its leg has no counterparty

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


def partitions_of(subjects: np.ndarray, partitions: int) -> np.ndarray:
    """`detectors.partition.partition_of` for a whole column; the two are tested against each other."""
    with np.errstate(over="ignore"):
        z = subjects + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) % np.uint64(partitions)).astype(np.int64)


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
        future_tolerance: int = FUTURE_TOLERANCE,
    ) -> None:
        """`rates[ccy]` = u-cents per 10^6 minor units."""
        self._partitions = partitions
        self._pseudonyms = pseudonyms
        self._rates = dict(rates)
        # A time that is known to the hour or the day may lie anywhere in its step, of any zone.
        self._tolerance = tuple(future_tolerance + (step if step > 1 else 0) for step in PRECISION_US)
        self._currencies = {currency: currency.encode("ascii") for currency in self._rates}
        self._place_of = Memo(partial(partition_of, partitions=partitions), 1 << 19)
        self._legs: dict[int, bytearray] = {}
        self._counts: dict[int, bytearray] = {}
        self._sources: dict[str, int] = {}
        self._banks: dict[str, int] = {}
        self._transactions: dict[str, Callable[[str], int]] = {}
        self.pending = 0
        """Leg rows not taken yet."""

    def set_rates(self, rates: Mapping[str, int]) -> None:
        """Use other rates from the next payment on."""
        self._rates = dict(rates)
        self._currencies = {currency: currency.encode("ascii") for currency in self._rates}

    def add(
        self,
        payments: Iterable[Payment | Rejected],
        source: str,
        offset: int,
        received: int,
        *,
        system_wide: bool = False,
        learn: bool = False,
    ) -> list[Rejected]:
        """Take one source message. Returns everything refused (the decoder's and its own), for the dead letters.

        `source` is `topic/partition`, `received` the append time of the bank's own record. `system_wide`: the report
        makes legs for the accounts of every bank, not only for those that the reporting bank holds.
        """
        refused: list[Rejected] = []
        accepted = no_effect = no_leg = index = 0
        source_index = self._sources.setdefault(source, len(self._sources))
        base = offset << COORDINATE_BITS
        subjects, places, place_of, legs = (
            self._pseudonyms.accounts,
            self._pseudonyms.places,
            self._place_of,
            self._legs,
        )
        pack, has_leg = _LEG.pack, HAS_LEG
        for index, item in enumerate(payments):
            if isinstance(item, Rejected):
                refused.append(item)
                continue
            amount, currency, time = item.amount, item.currency, item.time
            rate = self._rates.get(currency)
            amount_u = -1
            if rate is not None and amount <= MAX_AMOUNT:
                amount_u, rest = divmod(amount * rate, PPM)
                if rest > _HALF or (rest == _HALF and amount_u & 1):
                    amount_u += 1
            debtor, creditor = item.debtor, item.creditor
            payer = subjects[debtor.account] if debtor.account else 0
            payee = subjects[creditor.account] if creditor.account else 0
            if (
                not 0 <= amount_u <= MAX_AMOUNT
                or time > received + self._tolerance[item.precision]
                or not (payer or payee)
                or amount < 0
                or index > MAX_INDEX
            ):
                refused.append(self._refusal(item, index, received, payer, payee))
                continue
            accepted += 1
            if amount == 0 or payer == payee:
                no_effect += 1
                no_leg += 2
                continue
            only, bank, status = item.only_side, item.bank, item.status
            paid = payer and only != 1 and not debtor.external and (system_wide or debtor.bank == bank)
            got = payee and only != 0 and not creditor.external and (system_wide or creditor.bank == bank)
            debtor_class, creditor_class = debtor.cls, creditor.cls
            paid = paid and has_leg[debtor_class]
            got = got and has_leg[creditor_class]
            if not (paid or got):
                no_leg += 2
                continue
            leg = self._transaction(bank, item.tx_id if status == 0 else item.refers_to)
            if item.uetr or item.end_to_end_id:
                payment = self._pseudonyms.payment(item.uetr, item.end_to_end_id, amount, currency, time)
            else:
                payment = 0
            place = places[item.place]
            code = self._currencies[currency]
            if paid:
                partition = place_of[payer]
                rows = legs.get(partition)
                if rows is None:
                    rows = legs[partition] = bytearray()
                rows += pack(
                    payer, leg, 0 if creditor_class == _CASH else payee, time, received, amount, amount_u, payment,
                    base | (2 * index + 1), place, source_index, self._bank(debtor.bank or bank), code,
                    creditor_class, creditor.class_source, item.channel, item.purpose, item.precision, status, learn,
                    item.lexicon,
                )  # fmt: skip
                self.pending += 1
            else:
                no_leg += 1
            if got:
                partition = place_of[payee]
                rows = legs.get(partition)
                if rows is None:
                    rows = legs[partition] = bytearray()
                rows += pack(
                    payee, leg | 1, 0 if debtor_class == _CASH else payer, time, received, amount, amount_u, payment,
                    base | (2 * index + 2), place, source_index, self._bank(creditor.bank or bank), code,
                    debtor_class, debtor.class_source, item.channel, item.purpose, item.precision, status, learn,
                    item.lexicon,
                )  # fmt: skip
                self.pending += 1
            else:
                no_leg += 1
        partition = counts_partition(source, self._partitions)
        counts = self._counts.get(partition)
        if counts is None:
            counts = self._counts[partition] = bytearray()
        counts += _COUNT.pack(base, source_index, received // DAY, accepted, len(refused), no_effect, no_leg)
        return refused

    def take(self) -> Rows:
        """Everything since the last call."""
        rows = Rows(
            {partition: np.frombuffer(bytes(rows), LEG) for partition, rows in sorted(self._legs.items())},
            {
                partition: np.frombuffer(bytes(rows), COUNT)
                for partition, rows in sorted(self._counts.items())
            },
            tuple(self._sources),
            tuple(self._banks),
        )
        self._legs, self._counts, self._sources, self._banks = {}, {}, {}, {}
        self.pending = 0
        return rows

    def _bank(self, bank: str) -> int:
        return self._banks.setdefault(bank, len(self._banks))

    def _transaction(self, bank: str, tx_id: str) -> int:
        hasher = self._transactions.get(bank)
        if hasher is None:
            hasher = self._transactions[bank] = self._pseudonyms.transaction_of(bank)
        return hasher(tx_id)

    def _refusal(self, item: Payment, index: int, received: int, payer: int, payee: int) -> Rejected:
        """Why this payment is refused: the first rule that it breaks."""
        if index > MAX_INDEX:
            return Rejected(Reason.OVERSIZED, f"more than {MAX_INDEX + 1} transactions in a message", index)
        if item.amount < 0:
            return Rejected(Reason.INVALID_AMOUNT, "amount: negative", index)
        if not (payer or payee):
            return Rejected(Reason.MISSING_ACCOUNT, "debtor, creditor: neither has an account", index)
        if item.amount > MAX_AMOUNT:
            return Rejected(Reason.ABSURD_AMOUNT, "amount: above 10^12 minor units", index)
        if item.currency not in self._rates:
            return Rejected(Reason.NO_RATE, "currency: no rate to u in this deployment's table", index)
        if item.time > received + self._tolerance[item.precision]:
            return Rejected(Reason.FUTURE_DATED, "time: later than the bank's own record allows", index)
        return Rejected(Reason.ABSURD_AMOUNT, "amount: above 10^12 u-cents", index)
