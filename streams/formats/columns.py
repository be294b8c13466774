"""What the columns of a batch mean under a mapping: accounts, banks, classes, times, amounts, and which rows are refused.

Accounts, banks and channels are worked out once for each distinct value, amounts and times on whole columns. Amounts in
binary floating point are accepted only where they are the nearest float to a whole number of minor units.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute

from detectors.model import DAY, HOUR, MINUTE, SECOND, ClassSource, Status, TimePrecision
from streams.currencies import EXPONENTS, MAX_DIGITS, BadAmount, minor_units
from streams.formats.codes import CHANNELS, CLASSES, PURPOSES, by_slug
from streams.formats.mapping import Mapping, PartySetting, Pattern, Setting
from streams.formats.tables import BadFile, Table
from streams.payment import Reason, Rejected
from streams.pseudonyms import qualify
from streams.zones import microseconds, to_utc, zone

pc: Any = pyarrow.compute

_PRECISIONS = by_slug(TimePrecision)
_STEP_US = {"minute": MINUTE, "hour": HOUR, "day": DAY}
_STATUS = {"": 0, "booked": 0, "returned": int(Status.RETURNED), "reversed": int(Status.REVERSED)}
_EPOCH = date(1970, 1, 1)
_LAST = np.iinfo(np.int64).max
_EXACT_FLOAT = 1 << 53


class Coded(NamedTuple):
    """A column of text: its distinct values, and which one each row has."""

    codes: np.ndarray
    values: list[str]

    def where(self, test: Callable[[str], bool]) -> np.ndarray:
        """Rows whose value passes."""
        return np.fromiter((test(value) for value in self.values), np.bool_, len(self.values))[self.codes]

    def list(self) -> list[str]:
        """The value of each row."""
        values = self.values
        return [values[code] for code in self.codes.tolist()]


@dataclass(slots=True)
class Columns:
    """One batch, understood. Rows in `refused` hold nothing usable elsewhere."""

    first: int
    size: int
    tx_ids: list[str]
    time: np.ndarray
    amount: np.ndarray
    currency: Coded
    debtor: Coded
    creditor: Coded
    debtor_bank: Coded
    creditor_bank: Coded
    debtor_class: np.ndarray
    creditor_class: np.ndarray
    debtor_source: np.ndarray
    creditor_source: np.ndarray
    debtor_external: np.ndarray
    creditor_external: np.ndarray
    debtor_nameless: np.ndarray
    creditor_nameless: np.ndarray
    channel: np.ndarray
    purpose: np.ndarray
    status: np.ndarray
    texts: dict[str, list[str]]
    only_side: np.ndarray
    refused: dict[int, Rejected] = field(default_factory=dict)

    def refuse(self, row: int, reason: Reason, detail: str) -> None:
        """Refuse a row, for the first reason found."""
        self.refused.setdefault(row, Rejected(reason, detail, self.first + row))

    def refuse_where(self, mask: np.ndarray, reason: Reason, detail: str) -> None:
        """Refuse many rows."""
        for row in np.flatnonzero(mask).tolist():
            self.refuse(row, reason, detail)


class _Matcher:
    """One condition of a rule, with what it said of values before."""

    def __init__(self, match: str | tuple[str, ...] | Pattern) -> None:
        if isinstance(match, Pattern):
            self._test: Callable[[str], bool] = lambda value, full=re.compile(match.pattern).fullmatch: (
                full(value) is not None
            )  # type: ignore[misc]
        else:
            values = frozenset((match,) if isinstance(match, str) else match)
            self._test = values.__contains__
        self._known: dict[str, bool] = {}

    def __call__(self, value: str) -> bool:
        known = self._known.get(value)
        if known is None:
            if len(self._known) > 1 << 20:
                self._known.clear()
            known = self._known[value] = self._test(value)
        return known


class _Attributes:
    """What rules set, each once: the first that sets it wins."""

    def __init__(self, size: int) -> None:
        self.values: dict[str, np.ndarray] = {}
        self.done: dict[str, np.ndarray] = {}
        self._size = size

    def set(self, name: str, mask: np.ndarray, value: int) -> None:
        if name not in self.values:
            self.values[name] = np.zeros(self._size, np.uint8)
            self.done[name] = np.zeros(self._size, np.bool_)
        now = mask & ~self.done[name]
        self.values[name][now] = value
        self.done[name] |= now

    def get(self, name: str, default: np.ndarray | int) -> np.ndarray:
        if name not in self.values:
            return np.broadcast_to(np.asarray(default, np.uint8), (self._size,))
        return np.where(self.done[name], self.values[name], default).astype(np.uint8)


class ColumnReader:
    """A mapping, ready to read."""

    def __init__(self, mapping: Mapping) -> None:
        if not mapping.booked:
            raise BadFile(f"mapping {mapping.name}: the feed does not hold booked payments")
        self.mapping = mapping
        self.zone = zone(mapping.time.zone)
        self.precision = _PRECISIONS[mapping.time.precision]
        self.rules = [
            ([(key, _Matcher(match)) for key, match in rule.when.items()], rule.set) for rule in mapping.rules
        ]
        self.own_codes = frozenset((*mapping.bank_codes, mapping.bank))

    # -- one batch --------------------------------------------------------------------------------------------------------

    def columns(self, table: Table, first: int) -> Columns:
        """Understand one batch."""
        m, size = self.mapping, table.size
        c = m.columns
        currency = self._coded(table, c.currency)
        if m.currency:
            currency = Coded(currency.codes, [value or m.currency for value in currency.values])
        zero = np.zeros(size, np.uint8)
        columns = Columns(
            first, size, self._texts(table, c.transaction), np.zeros(size, np.int64), np.zeros(size, np.int64), currency,
            *self._ends(table),
            zero, zero, zero, zero, zero, zero, zero, zero, zero, zero,
            np.zeros(size, np.uint8), {}, np.full(size, -1, np.int8),
        )  # fmt: skip
        for row, tx_id in enumerate(columns.tx_ids):
            if not tx_id:
                columns.refuse(row, Reason.MISSING_ID, f"{c.transaction}: empty")
        columns.time = self._times(table, columns)
        columns.amount = self._amounts(table, columns)
        if c.account:
            self._turn(table, columns)
        columns.refuse_where(columns.amount < 0, Reason.INVALID_AMOUNT, f"{c.amount}: negative")
        if c.status:
            status = self._coded(table, c.status)
            known = np.array([_STATUS.get(value, 255) for value in status.values], np.uint8)[status.codes]
            columns.refuse_where(
                known == 255, Reason.NOT_BOOKED, f"{c.status}: neither booked, returned nor reversed"
            )
            columns.status = np.where(known == 255, 0, known).astype(np.uint8)
        self._apply_rules(table, columns)
        for name in ("uetr", "end_to_end_id", "place", "refers_to"):
            if getattr(c, name):
                columns.texts[name] = self._texts(table, getattr(c, name))
        if columns.status.any():
            refers = columns.texts.get("refers_to") or [""] * size
            for row in np.flatnonzero(columns.status).tolist():
                if not refers[row]:
                    columns.refuse(row, Reason.NO_ORIGINAL, "refers_to: empty")
        nobody = (columns.debtor_nameless.astype(bool) | columns.debtor.where(lambda a: not a)) & (
            columns.creditor_nameless.astype(bool) | columns.creditor.where(lambda a: not a)
        )
        columns.refuse_where(nobody, Reason.MISSING_ACCOUNT, "debtor, creditor: neither has an account")
        return columns

    def _coded(self, table: Table, name: str) -> Coded:
        if not name:
            return Coded(np.zeros(table.size, np.int32), [""])
        column = table.columns[name]
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if pa.types.is_null(column.type):
            return Coded(np.zeros(table.size, np.int32), [""])
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = pc.cast(column, pa.large_string())
        coded = pc.dictionary_encode(pc.fill_null(column, ""))
        return Coded(
            coded.indices.to_numpy(zero_copy_only=False).astype(np.int32),
            [value.strip() for value in coded.dictionary.to_pylist()] or [""],
        )

    def _texts(self, table: Table, name: str) -> list[str]:
        column = table.columns[name]
        if pa.types.is_null(column.type):
            return [""] * table.size
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = pc.cast(column, pa.large_string())
        texts: list[str] = pc.fill_null(column, "").to_pylist()
        return texts

    def _ends(self, table: Table) -> tuple[Coded, Coded, Coded, Coded]:
        """Accounts and banks of both sides; with `columns.account`, ours first, turned later."""
        m, c = self.mapping, self.mapping.columns
        if c.account:
            accounts = (self._coded(table, c.account), self._coded(table, c.counterparty))
            banks = (Coded(np.zeros(table.size, np.int32), [m.bank]), self._coded(table, c.counterparty_bank))
        else:
            accounts = (self._coded(table, c.debtor), self._coded(table, c.creditor))
            banks = (self._coded(table, c.debtor_bank), self._coded(table, c.creditor_bank))
        empty = m.bank if m.empty_bank == "reporting" else ""
        named = [
            Coded(
                coded.codes, [m.bank if value in self.own_codes else value or empty for value in coded.values]
            )
            for coded in banks
        ]
        if m.qualify_accounts:
            accounts = (_qualified(accounts[0], named[0]), _qualified(accounts[1], named[1]))
        return accounts[0], accounts[1], named[0], named[1]

    def _turn(self, table: Table, columns: Columns) -> None:
        """The bank's own account is the debtor or the creditor, by sign or direction."""
        m, c = self.mapping, self.mapping.columns
        if m.direction is not None:
            word = self._coded(table, c.direction)
            debit = frozenset(m.direction.debit)
            credit = frozenset(m.direction.credit)
            columns.refuse_where(
                word.where(lambda w: w not in debit and w not in credit),
                Reason.INVALID,
                f"{c.direction}: unknown value",
            )
            is_credit = word.where(credit.__contains__)
        else:
            is_credit = (columns.amount > 0) == (m.amount.sign == "credit-positive")
            columns.amount = np.abs(columns.amount)
        columns.only_side = is_credit.astype(np.int8)
        own, other = columns.debtor, columns.creditor
        columns.debtor, columns.creditor = _choose(own, other, is_credit), _choose(other, own, is_credit)
        own, other = columns.debtor_bank, columns.creditor_bank
        columns.debtor_bank, columns.creditor_bank = (
            _choose(own, other, is_credit),
            _choose(other, own, is_credit),
        )

    def _apply_rules(self, table: Table, columns: Columns) -> None:
        m, c, size = self.mapping, self.mapping.columns, columns.size
        cache: dict[str, Coded] = {
            "debtor": columns.debtor,
            "creditor": columns.creditor,
            "debtor_bank": columns.debtor_bank,
            "creditor_bank": columns.creditor_bank,
            "currency": columns.currency,
        }
        out = _Attributes(size)
        for conditions, setting in self.rules:
            every = np.ones(size, np.bool_)
            sides = {"debtor": np.ones(size, np.bool_), "creditor": np.ones(size, np.bool_)}
            for key, matcher in conditions:
                if key == "account":
                    for side in sides:
                        sides[side] &= cache[side].where(matcher)
                    continue
                if key not in cache:
                    cache[key] = self._coded(table, key if key in c.extra else getattr(c, key))
                every &= cache[key].where(matcher)
            if any(key == "account" for key, _ in conditions):
                masks = {side: mask & every for side, mask in sides.items()}
                either = masks["debtor"] | masks["creditor"]
            else:
                masks = {}
                either = every
            _set(out, setting, either, masks)
        for side, accounts, banks in (
            ("debtor", columns.debtor, columns.debtor_bank),
            ("creditor", columns.creditor, columns.creditor_bank),
        ):
            external = (out.get(f"{side}.external", 0) | out.get(f"{side}.nameless", 0)).astype(np.uint8)
            served = np.ones(size, np.bool_) if m.system_wide else banks.where(lambda bank: bank == m.bank)
            default = np.where(served, CLASSES[m.accounts], CLASSES[m.others]).astype(np.uint8)
            default[(external == 1) | accounts.where(lambda account: not account)] = 0
            cls = out.get(f"{side}.type", default)
            setattr(columns, f"{side}_class", cls)
            setattr(
                columns,
                f"{side}_source",
                np.where(cls != 0, ClassSource.MAPPING, ClassSource.UNKNOWN).astype(np.uint8),
            )
            setattr(columns, f"{side}_external", external)
            setattr(columns, f"{side}_nameless", out.get(f"{side}.nameless", 0))
        columns.channel = out.get("channel", 0)
        if c.purpose:
            purposes = self._coded(table, c.purpose)
            known = np.array([PURPOSES.get(value, 0) for value in purposes.values], np.uint8)[purposes.codes]
            columns.purpose = out.get("purpose", known)
        else:
            columns.purpose = out.get("purpose", 0)

    # -- times ------------------------------------------------------------------------------------------------------------

    def _times(self, table: Table, columns: Columns) -> np.ndarray:
        m = self.mapping
        name = m.columns.time
        column = table.columns[name]
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        missing = np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False), np.bool_)
        columns.refuse_where(missing, Reason.MISSING_TIME, f"{name}: empty")
        kind = column.type
        form = m.time.format
        if form == "timestamp":
            if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
                if pa.types.is_date(kind):
                    column = pc.cast(column, pa.timestamp("us"))
                aware = column.type.tz is not None
                exact = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False)
                times = pc.fill_null(pc.cast(exact, pa.int64()), 0).to_numpy(zero_copy_only=False)
                # A bare date has no zone; a time that is only known to the day is one.
                return (
                    times
                    if aware or pa.types.is_date(kind) or m.time.precision == "day"
                    else to_utc(times, self.zone)
                )
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise BadFile(f"{name}: neither a timestamp nor text")
            form = "iso8601"
        if form in ("epoch-s", "epoch-ms", "epoch-us", "steps"):
            return self._numbers(column, columns, name, form)
        return self._parsed(self._coded(table, name), columns, name, form)

    def _numbers(self, column: Any, columns: Columns, name: str, form: str) -> np.ndarray:
        unit = {"epoch-s": SECOND, "epoch-ms": 1000, "epoch-us": 1}.get(form, 0) or _STEP_US[
            self.mapping.time.precision
        ]
        origin = (date.fromisoformat(self.mapping.time.origin) - _EPOCH).days * DAY if form == "steps" else 0
        limit = _LAST // 4 // unit
        if pa.types.is_integer(column.type):
            values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        else:
            values = np.zeros(columns.size, np.int64)
            for row, value in enumerate(pc.cast(column, pa.large_string()).to_pylist()):
                if value is not None:
                    try:
                        values[row] = int(value)
                    except (ValueError, OverflowError):
                        columns.refuse(row, Reason.INVALID_TIME, f"{name}: not a whole number")
        columns.refuse_where(np.abs(values) > limit, Reason.INVALID_TIME, f"{name}: not a time")
        return np.where(np.abs(values) > limit, 0, values) * unit + origin

    def _parsed(self, coded: Coded, columns: Columns, name: str, form: str) -> np.ndarray:
        local = zone("UTC") if self.mapping.time.precision == "day" else self.zone
        times = np.zeros(len(coded.values), np.int64)
        wrong = np.zeros(len(coded.values), np.bool_)
        for index, text in enumerate(coded.values):
            if not text:
                continue
            try:
                moment = datetime.fromisoformat(text) if form == "iso8601" else datetime.strptime(text, form)  # noqa: DTZ007
                times[index] = microseconds(moment, local)
            except (ValueError, OverflowError):
                wrong[index] = True
        columns.refuse_where(
            wrong[coded.codes], Reason.INVALID_TIME, f"{name}: not a time as the mapping says"
        )
        return times[coded.codes]

    # -- amounts ----------------------------------------------------------------------------------------------------------

    def _amounts(self, table: Table, columns: Columns) -> np.ndarray:
        m = self.mapping
        name = m.columns.amount
        column = table.columns[name]
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        columns.refuse_where(
            columns.currency.where(lambda code: code not in EXPONENTS),
            Reason.UNKNOWN_CURRENCY,
            f"{m.columns.currency or 'currency'}: not a code of ISO 4217",
        )
        columns.refuse_where(
            np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False), np.bool_),
            Reason.INVALID_AMOUNT,
            f"{name}: empty",
        )
        exponents = np.array([EXPONENTS.get(code, 0) for code in columns.currency.values], np.int64)[
            columns.currency.codes
        ]
        if m.amount.unit == "minor":
            exponents = np.zeros(columns.size, np.int64)
        kind = column.type
        if pa.types.is_floating(kind):
            return self._floats(column, exponents, columns, name)
        if pa.types.is_integer(kind):
            return self._integers(column, exponents, columns, name)
        return self._written(column, exponents, columns, name)

    def _floats(self, column: Any, exponents: np.ndarray, columns: Columns, name: str) -> np.ndarray:
        values = pc.fill_null(pc.cast(column, pa.float64()), 0.0).to_numpy(zero_copy_only=False)
        powers = 10.0**exponents
        scale = self.mapping.amount.scale
        with np.errstate(over="ignore", invalid="ignore"):
            whole = np.rint(values * powers)
            fits = np.isfinite(whole) & (np.abs(whole) * scale < _EXACT_FLOAT)
            exact = fits & (whole / powers == values)
        out = np.where(exact, whole, 0).astype(np.int64) * scale
        for row in np.flatnonzero(~exact).tolist():
            out[row] = self._one(repr(float(values[row])), int(exponents[row]), columns, row, name)
        return out

    def _integers(self, column: Any, exponents: np.ndarray, columns: Columns, name: str) -> np.ndarray:
        values = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        powers = 10**exponents * self.mapping.amount.scale
        absurd = np.abs(values) > _LAST // powers
        columns.refuse_where(absurd, Reason.ABSURD_AMOUNT, f"{name}: above 10^12 minor units")
        return np.where(absurd, 0, values) * powers

    def _written(self, column: Any, exponents: np.ndarray, columns: Columns, name: str) -> np.ndarray:
        comma = self.mapping.amount.decimal == ","
        scale = self.mapping.amount.scale
        out = np.zeros(columns.size, np.int64)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = pc.cast(column, pa.large_string())
        powers = exponents.tolist()
        for row, text in enumerate(column.to_pylist()):
            if text is None:
                continue
            written = text.strip()
            if comma:
                written = "" if "." in written else written.replace(",", ".")
            negative = written[:1] == "-"
            try:
                value = minor_units(written[1:] if negative else written, powers[row]) * scale
            except BadAmount:
                value = self._one(written, powers[row], columns, row, name)
            else:
                value = -value if negative else value
                if abs(value) > _LAST:
                    columns.refuse(row, Reason.ABSURD_AMOUNT, f"{name}: above 10^12 minor units")
                    value = 0
            out[row] = value
        return out

    def _one(self, text: str, exponent: int, columns: Columns, row: int, name: str) -> int:
        """An amount that is not simply whole minor units, by decimal arithmetic."""
        try:
            value = Decimal(text) if len(text) <= 4 * MAX_DIGITS else Decimal("NaN")
        except InvalidOperation:
            value = Decimal("NaN")
        if not value.is_finite():
            columns.refuse(row, Reason.INVALID_AMOUNT, f"{name}: not a plain decimal number")
            return 0
        if value.adjusted() > MAX_DIGITS:
            columns.refuse(row, Reason.ABSURD_AMOUNT, f"{name}: above 10^12 minor units")
            return 0
        value = value.scaleb(exponent) * self.mapping.amount.scale
        whole = value.to_integral_value(ROUND_HALF_EVEN)
        if whole != value and self.mapping.amount.rounding == "refuse":
            columns.refuse(row, Reason.INVALID_AMOUNT, f"{name}: finer than the minor unit")
            return 0
        if abs(whole) > _LAST:
            columns.refuse(row, Reason.ABSURD_AMOUNT, f"{name}: above 10^12 minor units")
            return 0
        return int(whole)


def _set(out: _Attributes, setting: Setting, either: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    if setting.channel is not None:
        out.set("channel", either, CHANNELS[setting.channel])
    if setting.purpose is not None:
        out.set("purpose", either, PURPOSES[setting.purpose])
    for side in ("debtor", "creditor"):
        told: PartySetting | None = getattr(setting, side)
        if told is not None:
            _set_party(out, side, told, either)
        if setting.party is not None:
            _set_party(out, side, setting.party, masks[side])


def _set_party(out: _Attributes, side: str, told: PartySetting, mask: np.ndarray) -> None:
    if told.type is not None:
        out.set(f"{side}.type", mask, CLASSES[told.type])
    if told.external is not None:
        out.set(f"{side}.external", mask, int(told.external))
    if told.nameless is not None:
        out.set(f"{side}.nameless", mask, int(told.nameless))


def _choose(own: Coded, other: Coded, swap: np.ndarray) -> Coded:
    return Coded(np.where(swap, other.codes + len(own.values), own.codes), own.values + other.values)


def _qualified(accounts: Coded, banks: Coded) -> Coded:
    pairs = accounts.codes.astype(np.int64) * len(banks.values) + banks.codes
    found, codes = np.unique(pairs, return_inverse=True)
    values = [
        qualify(accounts.values[p // len(banks.values)], banks.values[p % len(banks.values)])
        for p in found.tolist()
    ]
    return Coded(codes.astype(np.int32), values or [""])
