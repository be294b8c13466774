"""Payments → `LEG` and `COUNT` rows.

Which side makes a leg, what a payment is worth in u, and what is refused whatever the format: decided here, once.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from detectors.model import COUNT, DAY, LEG, MAX_AMOUNT, PPM, PRECISION_US, PartyClass
from streams.payment import FUTURE_TOLERANCE, Payment, Reason, Rejected
from streams.pseudonyms import Pseudonyms
from streams.rows import MAX_NAMES, Part, Rows, gather

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

MAX_ACCOUNT = 1_000
"""Longest account identifier, in characters: the vault has to write it down, and a broker to take that."""

MAX_BANK_BYTES = 1_000
"""Longest name of a bank. No code is a tenth of it; a frame's header must hold the names of any one row."""


def coordinate(offset: int, index: int, side: int) -> int:
    """Source coordinate of one leg. Unique in its source partition, and rising with it; `offset << 20` is the count row's."""
    return offset << COORDINATE_BITS | (2 * index + side + 1)


def half_even(value: int, by: int) -> int:
    """`value / by` rounded to the nearest integer, halves to the even one. `value` ≥ 0."""
    whole, rest = divmod(value, by)
    if 2 * rest > by or (2 * rest == by and whole & 1):
        whole += 1
    return whole


def to_u(amount: np.ndarray, u_micro: np.ndarray) -> np.ndarray:
    """`half_even(amount · rate, 10^6)`. In two steps where the product leaves 64 bits."""
    high, low = np.divmod(amount, 1_000_000)
    low_u, rest = np.divmod(low * u_micro, 1_000_000)
    with np.errstate(over="ignore"):
        whole = np.where(
            high > MAX_AMOUNT // np.maximum(u_micro, 1) + 1, MAX_AMOUNT + 1, high * u_micro + low_u
        )
    up = (rest > 500_000) | ((rest == 500_000) & (whole & 1 == 1))
    return whole + up


_UNKNOWN = (0, b"")


def _by_currency(rates: Mapping[str, int]) -> dict[str, tuple[int, bytes]]:
    return {currency: (rate, currency.encode("ascii")) for currency, rate in rates.items()}


def _no_hasher(_: str) -> int:
    raise RuntimeError("no bank")


class Unholdable(ValueError):
    """A value that no ledger row can hold. The text names the field, never the value."""


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
        self._legs, self._counts = bytearray(), bytearray()
        """Rows in the order in which they came, whatever their partition."""
        self._bank = array("I")
        """Of each leg, its bank's number: there may be more banks than the row's own column can tell apart."""
        self._sources: dict[str, int] = {}
        self._banks: dict[str, int] = {}
        self._full: list[Part] = []
        """What was gathered before the numbers of sources ran out."""
        self._hashers: dict[str, Callable[[str], int]] = {}
        self.pending = 0
        """Leg rows not taken yet."""

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
        # Names are local, lookups are dictionary hits, a row is one `pack`.
        refused: list[Rejected] = []
        accepted = no_effect = made = 0
        source_index = self._source(source)
        base = offset << COORDINATE_BITS
        subjects, legs, banks = self._pseudonyms.accounts, self._legs, self._banks
        currencies, tolerance, pack, has_leg = self._currencies, self._tolerance, _LEG.pack, HAS_LEG
        last_bank = ""
        hasher: Callable[[str], int] = _no_hasher
        for index, item in enumerate(payments):
            if isinstance(item, Rejected):
                refused.append(item)
                continue
            try:
                amount, time, debtor, creditor = item.amount, item.time, item.debtor, item.creditor
                payer_account, payee_account = debtor.account, creditor.account
                if len(payer_account) > MAX_ACCOUNT or len(payee_account) > MAX_ACCOUNT:
                    raise Unholdable(f"account: more than {MAX_ACCOUNT} characters")
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
                if amount == 0 or payer == payee:
                    accepted += 1
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
                    accepted += 1
                    continue
                if bank != last_bank:
                    last_bank, hasher = bank, self._hasher(bank)
                status, end_to_end_id = item.status, item.end_to_end_id
                leg = hasher(item.refers_to if status else item.tx_id)
                payment = 0
                if end_to_end_id or item.uetr:
                    payment = self._pseudonyms.payment(item.uetr, end_to_end_id, amount, item.currency, time)
                place = self._pseudonyms.places[item.place] if item.place else 0
                channel, purpose, precision, lexicon = (
                    item.channel,
                    item.purpose,
                    item.precision,
                    item.lexicon,
                )
                row = base | (2 * index + 1)
                rows, held = b"", []
                if paid:
                    debtor_bank = debtor_bank or bank
                    bank_index = banks.get(debtor_bank)
                    if bank_index is None:
                        bank_index = self._new_bank(debtor_bank)
                    held.append(bank_index)
                    rows = pack(
                        payer, leg, payee if creditor_class != _CASH else 0, time, received, amount, amount_u, payment,
                        row, place, source_index, 0, code,
                        creditor_class, creditor.class_source, channel, purpose, precision, status, learn, lexicon,
                    )  # fmt: skip
                if got:
                    creditor_bank = creditor_bank or bank
                    bank_index = banks.get(creditor_bank)
                    if bank_index is None:
                        bank_index = self._new_bank(creditor_bank)
                    held.append(bank_index)
                    rows += pack(
                        payee, leg | 1, payer if debtor_class != _CASH else 0, time, received, amount, amount_u, payment,
                        row + 1, place, source_index, 0, code,
                        debtor_class, debtor.class_source, channel, purpose, precision, status, learn, lexicon,
                    )  # fmt: skip
            except Exception as problem:  # noqa: BLE001 - a value that a row cannot hold may cost this payment, never the next
                detail = f"a value that no row holds: {type(problem).__name__}"
                if isinstance(problem, Unholdable):
                    detail = str(problem)
                refused.append(Rejected(Reason.INVALID, detail, index))
                continue
            accepted += 1
            made += len(rows) // _LEG.size
            legs += rows
            self._bank.extend(held)
        self.pending += made
        self._counts += _COUNT.pack(
            base, source_index, received // DAY, accepted, len(refused), no_effect, 2 * accepted - made
        )
        return refused

    def take(self) -> Rows:
        """Everything since the last call, for who gathers fewer than `MAX_NAMES` banks and sources in between."""
        everything = self.take_all()
        if len(everything) > 1:
            raise Unholdable(f"bank, source: more than {MAX_NAMES} different ones")
        return everything[0]

    def take_all(self) -> list[Rows]:
        """Everything since the last call, in the order in which it has to be sent."""
        return gather(self.take_parts(), self._partitions)

    def take_parts(self) -> list[Part]:
        """Everything since the last call, not yet numbered for a frame. One part, unless there are `MAX_NAMES` sources."""
        self._cut()
        everything, self._full = self._full, []
        self.pending = 0
        return everything

    def _cut(self) -> None:
        """Put aside what is gathered; names are numbered anew."""
        self._full.append(
            Part(
                np.frombuffer(bytes(self._legs), LEG),
                np.array(self._bank, np.uint32),
                np.frombuffer(bytes(self._counts), COUNT),
                tuple(self._sources),
                tuple(self._banks),
            )
        )
        self._legs, self._counts, self._bank = bytearray(), bytearray(), array("I")
        self._sources, self._banks = {}, {}

    def _source(self, source: str) -> int:
        number = self._sources.get(source)
        if number is None:
            if len(self._sources) >= MAX_NAMES:
                self._cut()
            number = self._sources[source] = len(self._sources)
        return number

    def _new_bank(self, bank: str) -> int:
        if len(bank.encode()) > MAX_BANK_BYTES:
            raise Unholdable(f"agent: more than {MAX_BANK_BYTES} bytes")
        number = self._banks[bank] = len(self._banks)
        return number

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
