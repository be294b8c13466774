"""The plain case of canonical messages, a fetch at a time: one booked payment a message, nothing unusual about it.

What this module takes becomes the same rows as `canonical.decode` and `LegBuilder.add` make of it, and what it is not sure of
it leaves to them, message by message: nothing is refused here. The words of a message (currency, channel, classes, banks …)
come in few combinations; what a combination means is asked of those two once, and kept as a row to be filled in. What is left
to do for each message are its accounts, its ids, its time and its amount.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detectors.model import LEG, MAX_AMOUNT, PRECISION_US
from streams.currencies import EXPONENTS
from streams.formats import canonical
from streams.formats.codes import PURPOSES, held_by, merchant_class
from streams.formats.written import amounts, times
from streams.keyed import joined
from streams.legs import COORDINATE_BITS, LegBuilder, to_u
from streams.payment import FUTURE_TOLERANCE, DecodeContext, Payment
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms, payment_text

_MOST_WORDS = 1 << 14
"""Combinations that are remembered. A new one costs tens of microseconds; a bank has some hundreds."""

_MOST_ALIKE = 1 << 16
"""Codes of other banks and of merchants of which it is remembered that they mean the same as another."""

_ANOTHER = "\0"
"""Stands for every bank that holds no account of ours. No bank is called so."""

_UETR = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SLOW = -1

_Message = msgspec.defstruct(
    "Message",
    [
        (each.name, str if each.name == "acceptance_date_time" else each.type)
        if each.required
        else (each.name, str if each.name == "acceptance_date_time" else each.type, each.default)
        for each in msgspec.structs.fields(canonical.Transaction)
    ],
    gc=False,
    kw_only=True,
)
"""A canonical transaction whose time is left as it is written."""


class Plain(NamedTuple):
    """What was taken of n messages."""

    taken: np.ndarray
    """bool (n): the others are for the slow way."""
    time: np.ndarray
    """i64 (n): event time, µs; of what was taken."""
    no_effect: np.ndarray
    """bool (n)"""
    legs: np.ndarray
    """`LEG` rows, in order; `bank`, `source` and `learn` are not filled in."""
    bank: np.ndarray
    """u32, one a leg: place of its bank in `banks`."""
    banks: Sequence[str]


class _Meaning(NamedTuple):
    """What a combination of words means."""

    rows: np.ndarray
    """`LEG` (2): debit and credit side, without what differs from message to message."""
    makes: tuple[bool, bool]
    banks: tuple[str, str]
    bank: str
    """Who reports."""
    currency: str
    exponent: int
    rate: int
    tolerance: int


class _Alike(dict[str, str]):
    """Of each code, what it comes to; told once, forgotten when there are too many."""

    def __init__(self, tell: Callable[[str], str]) -> None:
        super().__init__()
        self._tell = tell

    def __missing__(self, code: str) -> str:
        if len(self) >= _MOST_ALIKE:
            self.clear()
        found = self[code] = self._tell(code)
        return found


def _merchant(code: str) -> str:
    return str(merchant_class(code)) if code else ""


class PlainReader:
    """Of one feed."""

    def __init__(
        self,
        context: DecodeContext,
        pseudonyms: Pseudonyms,
        rates: Mapping[str, int],
    ) -> None:
        """`rates[ccy]` = u-cents per 10^6 minor units."""
        self._context = context
        self._pseudonyms = pseudonyms
        self._rates = rates
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(_Message).decode
        # Asked for what words mean, never for what an account is called: under a key of its own, and with nothing remembered.
        self._asked = LegBuilder(1, Pseudonyms(PUBLIC_KEY, memo=16), rates)
        self._forget()

    def _forget(self) -> None:
        self._words: dict[tuple[object, ...], int] = {}
        self._agents = _Alike(self._agent)
        self._merchants = _Alike(_merchant)
        self._meanings: list[_Meaning] = []
        self._names: dict[str, int] = {}
        self._table: _Table | None = None

    def read(self, values: Sequence[bytes], offsets: np.ndarray, received: np.ndarray) -> Plain:
        """Take what is plain of these messages. `offsets` and `received` (append time, µs): i64, one a message."""
        if len(self._words) > _MOST_WORDS:
            self._forget()
        size = len(values)
        decode = self._decode
        messages: list[Any] = []
        for value in values:
            try:
                messages.append(decode(value))
            except Exception:  # noqa: BLE001 - the slow way says what is wrong with it
                messages.append(None)
        words = self._numbered(messages)
        at = np.flatnonzero(words != _SLOW)
        if len(at) != size:
            messages = [messages[number] for number in at.tolist()]
            words = words[at]
        taken, time, no_effect = np.zeros(size, np.bool_), np.zeros(size, np.int64), np.zeros(size, np.bool_)
        table = self._tabled()
        when, amount, good = _numbers(messages, table.exponent[words])
        good &= (amount <= MAX_AMOUNT) & (when <= received[at] + table.tolerance[words])
        amount_u = to_u(np.where(good, amount, 0), table.rate[words])
        good &= amount_u <= MAX_AMOUNT
        if not good.all():  # before anything is hashed: of what is refused no name is kept
            messages = [messages[number] for number in np.flatnonzero(good).tolist()]
            at, words, when, amount, amount_u = (
                column[good] for column in (at, words, when, amount, amount_u)
            )
        if not len(at):
            return Plain(taken, time, no_effect, np.zeros(0, LEG), np.zeros(0, np.uint32), table.names)
        found = self._rows(
            messages, words, table, _Amounts(when, amount, amount_u), offsets[at], received[at]
        )
        good = at[found.taken]
        taken[good] = True
        time[at] = when
        no_effect[good] = found.no_effect[found.taken]
        return found._replace(taken=taken, time=time, no_effect=no_effect)

    def _numbered(self, messages: Sequence[Any]) -> np.ndarray:
        """The number of each message's words; `_SLOW` for what is not decoded or not plain."""
        known, agents, merchants, purpose = self._words.get, self._agents, self._merchants, PURPOSES.get
        reads_text = self._context.lexicon is not None
        out: list[int] = []
        for m in messages:
            if (
                m is None
                or (reads_text and m.remittance_information)
                or (m.uetr and not _UETR.fullmatch(m.uetr))
                or (m.currency and m.currency not in EXPONENTS)  # of any length, and part of what is kept
            ):
                out.append(_SLOW)
                continue
            d, c = m.debtor, m.creditor
            key = (
                agents[d.agent], agents[c.agent], d.type, c.type, d.type_source, c.type_source, d.external, c.external,
                d.account == "", c.account == "", m.currency, agents[m.reporting_bank], m.time_precision, m.status, m.reported_side,
                m.channel, purpose(m.purpose) or purpose(m.category_purpose), merchants[m.merchant_category_code],
            )  # fmt: skip
            number = known(key)
            out.append(self._learn_words(key, m) if number is None else number)
        return np.array(out, np.int64)

    def _agent(self, code: str) -> str:
        """What the code of a bank comes to: all banks that hold no account of ours are one, unless each has its legs."""
        context = self._context
        return code if context.system_wide or not code or held_by(code, context) == context.bank else _ANOTHER

    def _learn_words(self, key: tuple[object, ...], message: Any) -> int:
        meaning = self._meaning(message)
        if meaning is None:
            number = _SLOW
        else:
            number = len(self._meanings)
            self._meanings.append(meaning)
            for bank in meaning.banks:
                self._names.setdefault(bank, len(self._names))
            self._table = None
        self._words[key] = number
        return number

    def _meaning(self, m: Any) -> _Meaning | None:
        """What the slow way makes of these words."""
        fields = {name: getattr(m, name) for name in canonical.Transaction.__struct_fields__}
        fields |= {
            "transaction_id": "t", "acceptance_date_time": _EPOCH, "amount": "1", "uetr": "", "end_to_end_id": "", "town": "",
            "remittance_information": "",
            "debtor": msgspec.structs.replace(m.debtor, account="D" if m.debtor.account else ""),
            "creditor": msgspec.structs.replace(m.creditor, account="C" if m.creditor.account else ""),
        }  # fmt: skip
        item = canonical.payment_of(canonical.Transaction(**fields), self._context, 0)
        if not isinstance(item, Payment) or item.status:
            return None
        context = self._context
        refused = self._asked.add([item], "words/0", 0, 0, system_wide=context.system_wide)
        (part,) = self._asked.take_parts()
        if refused:
            return None
        rows, makes, banks = np.zeros(2, LEG), [False, False], ["", ""]
        for row, bank in zip(part.legs, part.bank.tolist(), strict=True):
            side = int(row["leg"]) & 1
            rows[side], makes[side], banks[side] = row, True, part.banks[bank]
        return _Meaning(
            rows,
            (makes[0], makes[1]),
            (banks[0], banks[1]),
            item.bank,
            item.currency,
            EXPONENTS[item.currency],
            self._rates[item.currency],
            FUTURE_TOLERANCE + (PRECISION_US[item.precision] if PRECISION_US[item.precision] > 1 else 0),
        )

    def _tabled(self) -> _Table:
        if self._table is None:
            self._table = _Table.of(self._meanings, self._names)
        return self._table

    def _rows(
        self,
        messages: Sequence[Any],
        words: np.ndarray,
        table: _Table,
        numbers: _Amounts,
        offsets: np.ndarray,
        received: np.ndarray,
    ) -> Plain:
        time, amount, amount_u = numbers
        payer = self._subjects([m.debtor.account for m in messages])
        payee = self._subjects([m.creditor.account for m in messages])
        # A blank account, or one that is not known by a stripped name: the slow way strips it.
        good = (payer != _UNSURE) & (payee != _UNSURE)
        no_effect = (amount == 0) | (payer == payee)
        effect = good & ~no_effect
        sides = table.makes[words] & effect[:, None]
        leg, payment, place, good = self._ids(messages, words, sides.any(axis=1), amount, time, good)
        sides &= good[:, None]
        number, side = np.nonzero(sides)
        word = words[number]
        legs = table.rows[word, side]
        other = np.where(side == 0, payee[number], payer[number])
        legs["subject"] = np.where(side == 0, payer[number], payee[number])
        legs["party"] = np.where(legs["party"] == 0, np.uint64(0), other)
        legs["leg"] = leg[number] | side.astype(np.uint64)
        legs["time"], legs["received"] = time[number], received[number]
        legs["amount"], legs["amount_u"] = amount[number], amount_u[number]
        legs["payment"], legs["place"] = payment[number], place[number]
        legs["coordinate"] = (offsets[number] << COORDINATE_BITS) + 1 + side
        return Plain(good, time, no_effect, legs, table.bank[word, side], table.names)

    def _subjects(self, accounts: list[str]) -> np.ndarray:
        """u64; `_UNSURE` where the account's name needs another look."""
        found, plain = self._pseudonyms.columns.subjects(accounts)
        for number in np.flatnonzero(~plain).tolist():
            found[number] = self._subject(accounts[number])
        return found

    def _subject(self, account: str) -> int:
        if not account:
            return 0
        if account != account.strip():
            return _UNSURE
        return self._pseudonyms.accounts[account] or _UNSURE

    def _ids(
        self,
        messages: Sequence[Any],
        words: np.ndarray,
        wanted: np.ndarray,
        amount: np.ndarray,
        time: np.ndarray,
        good: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Leg id of the debit side, payment identity and place of each wanted message; and which are still good."""
        size = len(messages)
        ids = [m.transaction_id for m in messages]
        leg, unusual = self._pseudonyms.columns.transactions(ids, self._tabled().prefixes, words)
        good = good.copy()
        good[unusual] = False
        payment, unusual = self._payments(messages, words, wanted, amount, time)
        good[unusual] = False
        place = np.zeros(size, np.uint32)
        for number in [n for n, m in enumerate(messages) if m.town and wanted[n]]:
            place[number] = self._pseudonyms.places[messages[number].town]
        return leg, payment, place, good

    def _payments(
        self,
        messages: Sequence[Any],
        words: np.ndarray,
        wanted: np.ndarray,
        amount: np.ndarray,
        time: np.ndarray,
    ) -> tuple[np.ndarray, list[int]]:
        """Payment identity of each wanted message, 0 = none; and whose reference is not ASCII: those go the slow way."""
        out = np.zeros(len(messages), np.uint64)
        named, texts = [], []
        for number, m in enumerate(messages):
            if (m.uetr or m.end_to_end_id) and wanted[number]:
                reference = "" if m.end_to_end_id == "NOTPROVIDED" else m.end_to_end_id
                currency = self._meanings[int(words[number])].currency
                text = payment_text(m.uetr, reference, int(amount[number]), currency, int(time[number]))
                if text:
                    named.append(number)
                    texts.append(text)
        if not named:
            return out, []
        out[named], unusual = self._pseudonyms.columns.payments(texts)
        return out, [named[place] for place in unusual]


_UNSURE = (1 << 64) - 1
"""No pseudonym that is used for an account here: one that hashes to it goes the slow way."""


class _Amounts(NamedTuple):
    """What is a number in messages. i64, one a message."""

    time: np.ndarray
    """µs"""
    amount: np.ndarray
    """Minor units."""
    amount_u: np.ndarray
    """u-cents."""


class _Table(NamedTuple):
    """The meanings, by column."""

    rows: np.ndarray
    makes: np.ndarray
    bank: np.ndarray
    exponent: np.ndarray
    rate: np.ndarray
    tolerance: np.ndarray
    prefixes: tuple[bytes, ...]
    """What stands before a transaction's id where it is hashed."""
    names: Sequence[str]

    @classmethod
    def of(cls, meanings: Sequence[_Meaning], names: Mapping[str, int]) -> _Table:
        """All that are known. They change when a new combination comes, and combinations are few."""
        return cls(
            np.array([m.rows for m in meanings], LEG).reshape(-1, 2),
            np.array([m.makes for m in meanings], np.bool_).reshape(-1, 2),
            np.array([[names[bank] for bank in m.banks] for m in meanings], np.uint32).reshape(-1, 2),
            np.array([m.exponent for m in meanings], np.int64),
            np.array([m.rate for m in meanings], np.int64),
            np.array([m.tolerance for m in meanings], np.int64),
            tuple(f"{m.bank}\0".encode() for m in meanings),
            tuple(names),
        )


def _numbers(messages: Sequence[Any], exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time and amount of each message, and whether both are plainly written."""
    size = len(messages)
    time, amount, good = np.zeros(size, np.int64), np.zeros(size, np.int64), np.ones(size, np.bool_)
    times(*joined([m.acceptance_date_time for m in messages]), time, good)
    amounts(*joined([m.amount for m in messages]), exponents, amount, good)
    return time, amount, good
