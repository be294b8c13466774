"""Parquet, CSV and JSONL through a mapping: batches of payments, or `LEG` rows at once.

Both ways read the same columns (`_Reader.columns`), so they cannot differ in what a row means. Accounts, banks and
channels are worked out once for each distinct value of a batch, amounts and times on whole columns. Amounts in binary
floating point are accepted only where they are the nearest float to a whole number of minor units.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from detectors.model import (
    COUNT,
    DAY,
    HOUR,
    LEG,
    MAX_AMOUNT,
    MINUTE,
    SECOND,
    ClassSource,
    Status,
    TimePrecision,
)
from streams.currencies import EXPONENTS, MAX_DIGITS, BadAmount, minor_units
from streams.formats.codes import CHANNELS, CLASSES, PURPOSES, by_slug, complete
from streams.formats.mapping import Mapping, PartySetting, Pattern, Setting
from streams.legs import COORDINATE_BITS, HAS_LEG, partitions_of
from streams.payment import Party, Payment, Reason, Rejected
from streams.pseudonyms import Pseudonyms, qualify
from streams.zones import microseconds, to_utc, zone

pc: Any = pyarrow.compute

BATCH = 65_536

_PRECISIONS = by_slug(TimePrecision)
_STEP_US = {"minute": MINUTE, "hour": HOUR, "day": DAY}
_STATUS = {"": 0, "booked": 0, "returned": int(Status.RETURNED), "reversed": int(Status.REVERSED)}
_EPOCH = date(1970, 1, 1)
_CASH = CLASSES["cash"]
_LAST = np.iinfo(np.int64).max
_HAS_LEG = np.array(HAS_LEG)
_EXACT_FLOAT = 1 << 53


class BadFile(ValueError):
    """The file as a whole cannot be read with this mapping."""


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


class LegRows(NamedTuple):
    """`LEG` rows of one batch of a file."""

    first: int
    """Number of the batch's first row in the file."""
    rows: np.ndarray
    """`LEG`, in the order of the file, debit before credit. Their coordinate is the row number << 20 | side + 1."""
    counts: np.ndarray
    """`COUNT`, one a day of event time."""
    transactions: list[str]
    """The file's transaction ids, one a row of the file. `rows["coordinate"] >> 20` minus `first` is the index."""
    refused: list[Rejected]
    sources: tuple[str, ...]
    banks: tuple[str, ...]

    def split(self, partitions: int) -> dict[int, np.ndarray]:
        """Ledger partition → its rows."""
        where = partitions_of(self.rows["subject"], partitions)
        return {int(p): self.rows[where == p] for p in np.unique(where)}


def read_file(
    path: str | Path, mapping: Mapping, *, batch: int = BATCH
) -> Iterator[list[Payment | Rejected]]:
    """A whole file as payments, in its order. `Rejected.index` is the row's number in the file, from 0."""
    reader = _Reader(mapping)
    for table, first, broken in _open(Path(path), mapping, batch):
        yield reader.payments(reader.columns(table, first), broken)


def read_columns(
    path: str | Path,
    mapping: Mapping,
    pseudonyms: Pseudonyms,
    rates: MappingType[str, int],
    *,
    batch: int = BATCH,
) -> Iterator[LegRows]:
    """A whole file as `LEG` rows: the same rows as `read_file` through `LegBuilder`, at several times the speed.

    A file has no append time: each row counts as received when it happened.
    """
    reader = _Reader(mapping)
    source = f"{Path(path).name}/0"
    for table, first, broken in _open(Path(path), mapping, batch):
        yield reader.legs(reader.columns(table, first), broken, pseudonyms, rates, source)


class MappedDecoder:
    """JSON messages of a topic through a mapping: an object a message, or an array of them."""

    def __init__(self, mapping: Mapping) -> None:
        self._reader = _Reader(mapping)
        self._mapping = mapping

    def decode(self, value: bytes, max_bytes: int = 16 * 1024 * 1024) -> list[Payment | Rejected]:
        """One message. A bad item costs only itself."""
        if len(value) > max_bytes:
            return [Rejected(Reason.OVERSIZED, f"more than {max_bytes} bytes")]
        try:
            raws = _raws.decode(value) if value.lstrip()[:1] == b"[" else [msgspec.Raw(value)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [Rejected(Reason.UNDECODABLE, "not JSON")]
        table, broken = _table([bytes(raw) for raw in raws], 0, _wanted(self._mapping))
        return self._reader.payments(self._reader.columns(table, 0), broken)


# -- files → tables of the wanted columns ----------------------------------------------------------------------------------

_Opened = Iterator[tuple["_Table", int, dict[int, Rejected]]]


class _Table(NamedTuple):
    size: int
    columns: dict[str, Any]


def _wanted(mapping: Mapping) -> list[str]:
    names = [
        value
        for name in mapping.columns.__struct_fields__
        if name != "extra" and (value := getattr(mapping.columns, name))
    ]
    return list(dict.fromkeys([*names, *mapping.columns.extra]))


def _open(path: Path, mapping: Mapping, batch: int) -> _Opened:
    if not path.is_file():
        raise BadFile(f"{path.name}: no such file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    try:
        if suffixes[-1:] == [".parquet"]:
            yield from _parquet(path, _wanted(mapping), batch)
        elif suffixes[-1:] in ([".csv"], [".tsv"]) or suffixes[-2:] in ([".csv", ".gz"],):
            yield from _csv(path, mapping, _wanted(mapping))
        elif suffixes[-1:] in ([".jsonl"], [".ndjson"]):
            yield from _jsonl(path, _wanted(mapping), batch)
        else:
            raise BadFile(f"{path.name}: neither .parquet, .csv nor .jsonl")
    except pa.lib.ArrowKeyError as error:
        raise BadFile(f"{path.name}: no column: {str(error)[:80]}") from None
    except pa.ArrowInvalid as error:
        raise BadFile(f"{path.name}: {str(error).splitlines()[0][:80]}") from None


def _missing(path: Path, wanted: list[str], there: Iterable[str]) -> None:
    lacking = sorted(set(wanted) - set(there))
    if lacking:
        raise BadFile(f"{path.name}: no column {', '.join(lacking)}")


def _parquet(path: Path, wanted: list[str], batch: int) -> _Opened:
    file = pq.ParquetFile(path)
    _missing(path, wanted, file.schema_arrow.names)
    first = 0
    for part in file.iter_batches(batch_size=batch, columns=wanted):
        yield _Table(part.num_rows, {name: part.column(name) for name in wanted}), first, {}
        first += part.num_rows


def _csv(path: Path, mapping: Mapping, wanted: list[str]) -> _Opened:
    broken_rows: list[int] = []

    def skip(row: Any) -> Literal["skip"]:
        broken_rows.append(row.number - 2)  # from 1, with the header
        return "skip"

    delimiter = "\t" if path.suffix.lower() == ".tsv" and mapping.delimiter == "," else mapping.delimiter
    with pa_csv.open_csv(
        path,
        # One thread: the only way in which broken rows are told by number.
        read_options=pa_csv.ReadOptions(block_size=8 << 20, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
        convert_options=pa_csv.ConvertOptions(
            include_columns=wanted,
            column_types={name: pa.binary() for name in wanted},
            strings_can_be_null=True,
            null_values=[""],
        ),
    ) as reader:
        first = 0
        for part in reader:
            table, broken = _with_broken(part, wanted, first, broken_rows)
            yield table, first, broken
            first += table.size


def _with_broken(
    part: Any, wanted: list[str], first: int, broken_rows: list[int]
) -> tuple[_Table, dict[int, Rejected]]:
    """A batch with an empty row in the place of each that could not be split into fields.

    Arrow may have met broken rows of the next batch already; those stay in `broken_rows`.
    """
    broken: dict[int, Rejected] = {}
    size = part.num_rows
    take = None
    if broken_rows and broken_rows[0] <= first + size:
        indices: list[int | None] = []
        good = 0
        while good < size or (broken_rows and broken_rows[0] == first + len(indices)):
            if broken_rows and broken_rows[0] == first + len(indices):
                number = broken_rows.pop(0)
                broken[len(indices)] = Rejected(
                    Reason.UNDECODABLE, "not as many fields as the header has", number
                )
                indices.append(None)
            else:
                indices.append(good)
                good += 1
        take, size = pa.array(indices, pa.int64()), len(indices)
    columns = {}
    for name in wanted:
        column = part.column(name) if take is None else pc.take(part.column(name), take)
        columns[name] = _utf8(column, first, broken)
    return _Table(size, columns), broken


def _utf8(column: Any, first: int, broken: dict[int, Rejected]) -> Any:
    try:
        return pc.cast(column, pa.large_string())
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for row, value in enumerate(column.to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                broken.setdefault(row, Rejected(Reason.UNDECODABLE, "not UTF-8", first + row))
                texts.append(None)
        return pa.array(texts, pa.large_string())


def _jsonl(path: Path, wanted: list[str], batch: int) -> _Opened:
    first = 0
    with path.open("rb") as stream:
        lines: list[bytes] = []
        for line in stream:
            if line.strip():
                lines.append(line)
            if len(lines) == batch:
                table, broken = _table(lines, first, wanted)
                yield table, first, broken
                first += len(lines)
                lines = []
        if lines:
            table, broken = _table(lines, first, wanted)
            yield table, first, broken


# Fractions stay text: nothing passes through a binary float.
_object = msgspec.json.Decoder(dict[str, Any], float_hook=str)
_raws = msgspec.json.Decoder(list[msgspec.Raw])


def _table(lines: list[bytes], first: int, wanted: list[str]) -> tuple[_Table, dict[int, Rejected]]:
    broken: dict[int, Rejected] = {}
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    for row, line in enumerate(lines):
        try:
            item = _object.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            broken[row] = Rejected(Reason.UNDECODABLE, "not a JSON object", first + row)
            item = {}
        for name in wanted:
            value = item.get(name)
            if value is not None and not isinstance(value, str):
                if isinstance(value, (dict, list)):
                    broken.setdefault(
                        row, Rejected(Reason.INVALID, f"{name}: not a single value", first + row)
                    )
                    value = None
                else:
                    value = str(value)
            columns[name].append(value)
    return _Table(
        len(lines), {name: pa.array(values, pa.large_string()) for name, values in columns.items()}
    ), broken


# -- tables → columns ------------------------------------------------------------------------------------------------------


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


class _Reader:
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
        self.banks: dict[str, int] = {}

    # -- one batch --------------------------------------------------------------------------------------------------------

    def columns(self, table: _Table, first: int) -> Columns:
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

    def _coded(self, table: _Table, name: str) -> Coded:
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

    def _texts(self, table: _Table, name: str) -> list[str]:
        column = table.columns[name]
        if pa.types.is_null(column.type):
            return [""] * table.size
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = pc.cast(column, pa.large_string())
        texts: list[str] = pc.fill_null(column, "").to_pylist()
        return texts

    def _ends(self, table: _Table) -> tuple[Coded, Coded, Coded, Coded]:
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

    def _turn(self, table: _Table, columns: Columns) -> None:
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

    def _apply_rules(self, table: _Table, columns: Columns) -> None:
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

    def _times(self, table: _Table, columns: Columns) -> np.ndarray:
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

    def _amounts(self, table: _Table, columns: Columns) -> np.ndarray:
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

    # -- columns → payments -----------------------------------------------------------------------------------------------

    def payments(self, columns: Columns, broken: dict[int, Rejected]) -> list[Payment | Rejected]:
        """One batch as payments."""
        refused = columns.refused | broken
        items: list[Payment | Rejected] = []
        bank, system_wide = self.mapping.bank, self.mapping.system_wide
        texts = columns.texts
        empty = [""] * columns.size
        sides = [
            zip(
                getattr(columns, side).list(),
                getattr(columns, f"{side}_bank").list(),
                getattr(columns, f"{side}_class").tolist(),
                getattr(columns, f"{side}_source").tolist(),
                getattr(columns, f"{side}_external").tolist(),
                getattr(columns, f"{side}_nameless").tolist(),
                strict=True,
            )
            for side in ("debtor", "creditor")
        ]
        rows = zip(
            columns.tx_ids, columns.time.tolist(), columns.amount.tolist(), columns.currency.list(), *sides,
            columns.channel.tolist(), columns.purpose.tolist(), columns.status.tolist(),
            texts.get("refers_to", empty), texts.get("uetr", empty), texts.get("end_to_end_id", empty),
            texts.get("place", empty), columns.only_side.tolist(),
            strict=True,
        )  # fmt: skip
        for row, (
            tx_id, time, amount, currency, debtor, creditor, channel, purpose, status, refers_to, uetr, end_to_end_id, place,
            only_side,
        ) in enumerate(rows):  # fmt: skip
            if row in refused:
                items.append(refused[row])
                continue
            payer, payee = _party(debtor, system_wide), _party(creditor, system_wide)
            if not (payer.account and payee.account):
                complete(payer, payee, channel)
            items.append(
                Payment(
                    bank, tx_id, time, amount, currency, payer, payee, self.precision, channel, purpose, status,
                    refers_to if status else "", uetr.lower(), "" if end_to_end_id == "NOTPROVIDED" else end_to_end_id,
                    place, 0, only_side,
                )
            )  # fmt: skip
        return items

    # -- columns → legs ---------------------------------------------------------------------------------------------------

    def legs(
        self,
        columns: Columns,
        broken: dict[int, Rejected],
        pseudonyms: Pseudonyms,
        rates: MappingType[str, int],
        source: str,
    ) -> LegRows:
        """One batch as rows. The rules are those of `LegBuilder.add`, on whole columns."""
        size, m = columns.size, self.mapping
        refused = columns.refused | broken
        u_micro = np.array([rates.get(code, 0) for code in columns.currency.values], np.int64)[
            columns.currency.codes
        ]
        payer, payer_party, payer_class = _subjects(
            columns.debtor, columns.debtor_nameless, columns.debtor_class, pseudonyms
        )
        payee, payee_party, payee_class = _subjects(
            columns.creditor, columns.creditor_nameless, columns.creditor_class, pseudonyms
        )
        payer_class, payee_class = _completed(columns, payer, payee, payer_class, payee_class)
        amount = columns.amount
        columns.refused = refused
        columns.refuse_where(amount > MAX_AMOUNT, Reason.ABSURD_AMOUNT, "amount: above 10^12 minor units")
        columns.refuse_where(
            u_micro == 0, Reason.NO_RATE, "currency: no rate to u in this deployment's table"
        )
        small = np.where((amount > MAX_AMOUNT) | (amount < 0), 0, amount)
        amount_u = _to_u(small, u_micro)
        columns.refuse_where(amount_u > MAX_AMOUNT, Reason.ABSURD_AMOUNT, "amount: above 10^12 u-cents")
        good = np.ones(size, np.bool_)
        good[list(refused)] = False
        effect = good & (amount != 0) & (payer != payee)
        legs = []
        banks = {side: self._bank_index(getattr(columns, f"{side}_bank")) for side in ("debtor", "creditor")}
        for side, subject, cls, external in (
            ("debtor", payer, payer_class, columns.debtor_external),
            ("creditor", payee, payee_class, columns.creditor_external),
        ):
            held = (
                np.ones(size, np.bool_)
                if m.system_wide
                else getattr(columns, f"{side}_bank").where(lambda b: b == m.bank)
            )
            only = columns.only_side != (1 if side == "debtor" else 0)
            legs.append(effect & (subject != 0) & (external == 0) & held & _HAS_LEG[cls] & only)
        has_debit, has_credit = legs
        rows = np.zeros(size * 2, LEG)
        makes = np.zeros(size * 2, np.bool_)
        makes[0::2], makes[1::2] = has_debit, has_credit
        either = np.flatnonzero(has_debit | has_credit)
        transaction = np.zeros(size, np.uint64)
        hasher = pseudonyms.transaction_of(m.bank)
        refers = columns.texts.get("refers_to")
        ids = columns.tx_ids
        if refers is not None and columns.status.any():
            ids = [refers[row] if status else ids[row] for row, status in enumerate(columns.status.tolist())]
        transaction[either] = np.fromiter(
            (hasher(ids[row]) for row in either.tolist()), np.uint64, len(either)
        )
        payment = self._payments_of(columns, either, pseudonyms)
        places = columns.texts.get("place")
        place = (
            np.zeros(size, np.uint32)
            if places is None
            else np.array([pseudonyms.places[p] for p in places], np.uint32)
        )
        codes = np.array([code.encode() for code in columns.currency.values], "S3")[columns.currency.codes]
        for bit, subject, party, cls, party_source, bank in (
            (0, payer, payee_party, payee_class, columns.creditor_source, banks["debtor"]),
            (1, payee, payer_party, payer_class, columns.debtor_source, banks["creditor"]),
        ):
            half = rows[bit::2]
            half["subject"] = subject
            half["leg"] = transaction | np.uint64(bit)
            half["party"] = np.where(cls == _CASH, np.uint64(0), party)
            half["time"] = half["received"] = columns.time
            half["amount"], half["amount_u"] = small, np.minimum(amount_u, MAX_AMOUNT)
            half["payment"] = payment
            half["coordinate"] = (np.arange(size, dtype=np.int64) + columns.first) << COORDINATE_BITS | (
                bit + 1
            )
            half["place"], half["currency"], half["bank"] = place, codes, bank
            half["party_class"] = cls
            half["class_source"] = np.where(
                (party_source == 0) & (cls != 0), ClassSource.MAPPING, party_source
            )
            half["channel"], half["purpose"], half["status"] = (
                columns.channel,
                columns.purpose,
                columns.status,
            )
            half["precision"] = self.precision
        no_leg = np.where(good, 2 - has_debit.astype(np.int64) - has_credit, 0)
        return LegRows(
            columns.first,
            rows[makes],
            _counts(columns, good, effect, no_leg),
            columns.tx_ids,
            [refused[row] for row in sorted(refused)],
            (source,),
            tuple(self.banks),
        )

    def _bank_index(self, coded: Coded) -> np.ndarray:
        indices = [
            self.banks.setdefault(value or self.mapping.bank, len(self.banks)) for value in coded.values
        ]
        return np.array(indices, np.uint16)[coded.codes]

    def _payments_of(self, columns: Columns, rows: np.ndarray, pseudonyms: Pseudonyms) -> np.ndarray:
        payment = np.zeros(columns.size, np.uint64)
        uetrs, references = columns.texts.get("uetr"), columns.texts.get("end_to_end_id")
        if uetrs is None and references is None:
            return payment
        currencies, amounts, times = columns.currency.list(), columns.amount.tolist(), columns.time.tolist()
        for row in rows.tolist():
            reference = references[row] if references is not None else ""
            payment[row] = pseudonyms.payment(
                uetrs[row].lower() if uetrs is not None else "",
                "" if reference == "NOTPROVIDED" else reference,
                amounts[row],
                currencies[row],
                times[row],
            )
        return payment


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


def _party(side: tuple[str, str, int, int, int, int], system_wide: bool) -> Party:
    account, bank, cls, source, external, nameless = side
    return Party("" if nameless else account, bank, cls, source, bool(external))


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


def _subjects(
    accounts: Coded, nameless: np.ndarray, cls: np.ndarray, pseudonyms: Pseudonyms
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    memo = pseudonyms.accounts
    hashes = np.fromiter((memo[a] if a else 0 for a in accounts.values), np.uint64, len(accounts.values))[
        accounts.codes
    ]
    subject = np.where(nameless != 0, np.uint64(0), hashes)
    return subject, subject, cls


def _completed(
    columns: Columns, payer: np.ndarray, payee: np.ndarray, payer_class: np.ndarray, payee_class: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`codes.complete` on the few rows that it can concern."""
    lacking = ((payer == 0) & (payer_class == 0)) | ((payee == 0) & (payee_class == 0))
    if not lacking.any():
        return payer_class, payee_class
    payer_class, payee_class = payer_class.copy(), payee_class.copy()
    for row in np.flatnonzero(lacking).tolist():
        debtor = Party("x" if payer[row] else "", "", int(payer_class[row]))
        creditor = Party("x" if payee[row] else "", "", int(payee_class[row]))
        complete(debtor, creditor, int(columns.channel[row]))
        payer_class[row], payee_class[row] = debtor.cls, creditor.cls
    return payer_class, payee_class


def _to_u(amount: np.ndarray, u_micro: np.ndarray) -> np.ndarray:
    """`half_even(amount · rate, 10^6)`. In two steps where the product leaves 64 bits."""
    high, low = np.divmod(amount, 1_000_000)
    low_u, rest = np.divmod(low * u_micro, 1_000_000)
    with np.errstate(over="ignore"):
        whole = np.where(
            high > MAX_AMOUNT // np.maximum(u_micro, 1) + 1, MAX_AMOUNT + 1, high * u_micro + low_u
        )
    up = (rest > 500_000) | ((rest == 500_000) & (whole & 1 == 1))
    return whole + up


def _counts(columns: Columns, good: np.ndarray, effect: np.ndarray, no_leg: np.ndarray) -> np.ndarray:
    days = np.where(good, columns.time, columns.time[good].max() if good.any() else 0) // DAY
    found, first, inverse = np.unique(days, return_index=True, return_inverse=True)
    counts = np.zeros(len(found), COUNT)
    if len(found):
        counts["coordinate"] = (first + columns.first) << COORDINATE_BITS
        counts["day"] = found
        for name, values in (
            ("accepted", good), ("rejected", ~good), ("no_effect", good & ~effect), ("no_leg", no_leg),
        ):  # fmt: skip
            counts[name] = np.bincount(inverse, weights=values, minlength=len(found)).astype(np.uint32)
    return counts
