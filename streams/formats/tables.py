"""Files → tables of the columns that a mapping names, batch by batch. Broken rows keep their numbers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from streams.formats.mapping import Mapping
from streams.payment import Reason, Rejected

pc: Any = pyarrow.compute

BATCH = 65_536
LONGEST_HEADER = 200
"""Characters of a file's column names that a message shows."""


class BadFile(ValueError):
    """The file as a whole cannot be read with this mapping."""


class Table(NamedTuple):
    """One batch: its wanted columns as Arrow arrays."""

    size: int
    columns: dict[str, Any]


_Opened = Iterator[tuple[Table, int, dict[int, Rejected]]]
"""Batches, the number of their first row, and their rows that could not be split into fields."""


def wanted_columns(mapping: Mapping) -> list[str]:
    names = [
        value
        for name in mapping.columns.__struct_fields__
        if name != "extra" and (value := getattr(mapping.columns, name))
    ]
    return list(dict.fromkeys([*names, *mapping.columns.extra]))


def open_tables(path: Path, mapping: Mapping, batch: int) -> _Opened:
    if not path.is_file():
        raise BadFile(f"{path.name}: no such file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    try:
        if suffixes[-1:] == [".parquet"]:
            yield from _parquet(path, wanted_columns(mapping), batch)
        elif suffixes[-1:] in ([".csv"], [".tsv"]) or suffixes[-2:] in ([".csv", ".gz"],):
            yield from _csv(path, mapping, wanted_columns(mapping))
        elif suffixes[-1:] in ([".jsonl"], [".ndjson"]):
            yield from _jsonl(path, wanted_columns(mapping), batch)
        else:
            raise BadFile(f"{path.name}: neither .parquet, .csv nor .jsonl")
    except pa.lib.ArrowKeyError as error:
        if suffixes[-1:] in ([".csv"], [".tsv"]):
            _missing(path, wanted_columns(mapping), _header(path, _delimiter(path, mapping)))
        raise BadFile(f"{path.name}: no column: {str(error)[:80]}") from None
    except pa.ArrowInvalid as error:
        raise BadFile(f"{path.name}: {str(error).splitlines()[0][:80]}") from None


def _missing(path: Path, wanted: list[str], there: Iterable[str]) -> None:
    found = list(there)
    lacking = sorted(set(wanted) - set(found))
    if lacking:
        has = ", ".join(f'"{name}"' for name in found)
        has = has if len(has) <= LONGEST_HEADER else has[:LONGEST_HEADER] + "…"
        one = " (is `delimiter` right?)" if len(found) == 1 and path.suffix.lower() != ".parquet" else ""
        raise BadFile(f"{path.name} has no column {', '.join(lacking)}; it has: {has}{one}")


def _delimiter(path: Path, mapping: Mapping) -> str:
    return "\t" if path.suffix.lower() == ".tsv" and mapping.delimiter == "," else mapping.delimiter


def _header(path: Path, delimiter: str) -> list[str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        return next(csv.reader(lines, delimiter=delimiter), [])


def _parquet(path: Path, wanted: list[str], batch: int) -> _Opened:
    file = pq.ParquetFile(path)
    _missing(path, wanted, file.schema_arrow.names)
    first = 0
    for part in file.iter_batches(batch_size=batch, columns=wanted):
        yield Table(part.num_rows, {name: part.column(name) for name in wanted}), first, {}
        first += part.num_rows


def _csv(path: Path, mapping: Mapping, wanted: list[str]) -> _Opened:
    broken_rows: list[int] = []

    def skip(row: Any) -> Literal["skip"]:
        broken_rows.append(row.number - 2)  # from 1, with the header
        return "skip"

    with pa_csv.open_csv(
        path,
        # One thread: the only way in which broken rows are told by number.
        read_options=pa_csv.ReadOptions(block_size=8 << 20, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=_delimiter(path, mapping), invalid_row_handler=skip),
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
) -> tuple[Table, dict[int, Rejected]]:
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
    return Table(size, columns), broken


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
                table, broken = json_lines(lines, first, wanted)
                yield table, first, broken
                first += len(lines)
                lines = []
        if lines:
            table, broken = json_lines(lines, first, wanted)
            yield table, first, broken


# Fractions stay text: nothing passes through a binary float.
_object = msgspec.json.Decoder(dict[str, Any], float_hook=str)
json_parts = msgspec.json.Decoder(list[msgspec.Raw])


def json_lines(lines: list[bytes], first: int, wanted: list[str]) -> tuple[Table, dict[int, Rejected]]:
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
    return Table(
        len(lines), {name: pa.array(values, pa.large_string()) for name, values in columns.items()}
    ), broken
