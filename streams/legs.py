"""Payments → `LEG` and `COUNT` rows, one buffer a ledger partition.

Which side makes a leg, what a payment is worth in u, and what is refused whatever the format: decided here, once.
"""

from __future__ import annotations

import struct
from collections import defaultdict
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


_UNKNOWN = (0, b"")


def _by_currency(rates: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
    return {currency: (rate, currency.encode("ascii")) for currency, rate in rates.items()}


def _no_hasher(_: str) -> int:
    raise RuntimeError("no bank")


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
        self._currencies = _by_currency(rates)
        # A time that is known to the hour or the day may lie anywhere in its step, of any zone.
        self._tolerance = tuple(future_tolerance + (step if step > 1 else 0) for step in PRECISION_US)
        self._place_of = Memo(partial(partition_of, partitions=partitions), 1 << 19)
        self._legs: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._counts: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._sources: dict[str, tuple[int, bytearray]] = {}
        self._banks: dict[str, int] = {}
        self._hashers: dict[str, Callable[[str], int]] = {}
        self.pending = 0
        """Leg rows not taken yet."""

    def set_rates(self, rates: Mapping[str, int]) -> None:
        """Use other rates from the next payment on."""
        self._currencies = _by_currency(rates)

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
        # The hottest loop of intake: names are local, lookups are dictionary hits, a row is one `pack`.
        refused: list[Rejected] = []
        accepted = no_effect = made = 0
        source_index, counts = self._sources.get(source) or self._new_source(source)
        base = offset << COORDINATE_BITS
        subjects, place_of, legs, banks = self._pseudonyms.accounts, self._place_of, self._legs, self._banks
        currencies, tolerance, pack, has_leg = self._currencies, self._tolerance, _LEG.pack, HAS_LEG
        last_bank = ""
        hasher: Callable[[str], int] = _no_hasher
        for index, item in enumerate(payments):
            if isinstance(item, Rejected):
                refused.append(item)
                continue
            amount, time, debtor, creditor = item.amount, item.time, item.debtor, item.creditor
            payer_account, payee_account = debtor.account, creditor.account
            payer = subjects[payer_account] if payer_account else 0
            payee = subjects[payee_account] if payee_account else 0
            rate, code = currencies.get(item.currency, _UNKNOWN)
            if rate == PPM:
                amount_u = amount
            else:
                amount_u, rest = divmod(amount * rate, PPM)
                if rest > _HALF or (rest == _HALF and amount_u & 1):
                    amount_u += 1
            if (
                not rate
                or not 0 <= amount <= MAX_AMOUNT
                or amount_u > MAX_AMOUNT
                or time > received + tolerance[item.precision]
                or index > MAX_INDEX
                or not (payer or payee)
            ):
                refused.append(self._refusal(item, index, received, payer, payee))
                continue
            accepted += 1
            if amount == 0 or payer == payee:
                no_effect += 1
                continue
            bank, debtor_bank, creditor_bank, only = item.bank, debtor.bank, creditor.bank, item.only_side
            debtor_class, creditor_class = debtor.cls, creditor.cls
            paid = (
                payer
                and (debtor_bank == bank or system_wide)
                and has_leg[debtor_class]
                and not debtor.external
                and only != 1
            )
            got = (
                payee
                and (creditor_bank == bank or system_wide)
                and has_leg[creditor_class]
                and not creditor.external
                and only != 0
            )
            if not (paid or got):
                continue
            if bank != last_bank:
                last_bank, hasher = bank, self._hasher(bank)
            status, end_to_end_id = item.status, item.end_to_end_id
            leg = hasher(item.refers_to if status else item.tx_id)
            payment = 0
            if end_to_end_id or item.uetr:
                payment = self._pseudonyms.payment(item.uetr, end_to_end_id, amount, item.currency, time)
            place = self._pseudonyms.places[item.place] if item.place else 0
            channel, purpose, precision, lexicon = item.channel, item.purpose, item.precision, item.lexicon
            row = base | (2 * index + 1)
            if paid:
                debtor_bank = debtor_bank or bank
                bank_index = banks.get(debtor_bank)
                if bank_index is None:
                    bank_index = banks[debtor_bank] = len(banks)
                legs[place_of[payer]] += pack(
                    payer, leg, payee if creditor_class != _CASH else 0, time, received, amount, amount_u, payment,
                    row, place, source_index, bank_index, code,
                    creditor_class, creditor.class_source, channel, purpose, precision, status, learn, lexicon,
                )  # fmt: skip
                made += 1
            if got:
                creditor_bank = creditor_bank or bank
                bank_index = banks.get(creditor_bank)
                if bank_index is None:
                    bank_index = banks[creditor_bank] = len(banks)
                legs[place_of[payee]] += pack(
                    payee, leg | 1, payer if debtor_class != _CASH else 0, time, received, amount, amount_u, payment,
                    row + 1, place, source_index, bank_index, code,
                    debtor_class, debtor.class_source, channel, purpose, precision, status, learn, lexicon,
                )  # fmt: skip
                made += 1
        self.pending += made
        counts += _COUNT.pack(
            base, source_index, received // DAY, accepted, len(refused), no_effect, 2 * accepted - made
        )
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
        self._legs, self._counts = defaultdict(bytearray), defaultdict(bytearray)
        self._sources, self._banks = {}, {}
        self.pending = 0
        return rows

    def _new_source(self, source: str) -> tuple[int, bytearray]:
        counts = self._counts[counts_partition(source, self._partitions)]
        known = self._sources[source] = (len(self._sources), counts)
        return known

    def _hasher(self, bank: str) -> Callable[[str], int]:
        hasher = self._hashers.get(bank)
        if hasher is None:
            hasher = self._hashers[bank] = self._pseudonyms.transaction_of(bank)
        return hasher

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
        if item.currency not in self._currencies:
            return Rejected(Reason.NO_RATE, "currency: no rate to u in this deployment's table", index)
        if item.time > received + self._tolerance[item.precision]:
            return Rejected(Reason.FUTURE_DATED, "time: later than the bank's own record allows", index)
        return Rejected(Reason.ABSURD_AMOUNT, "amount: above 10^12 u-cents", index)
