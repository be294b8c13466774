"""Ledger frames as message bytes, and back.

    magic "SHLF" · layout u8 · kind u8 · header length u16 · header (msgpack array) · body

The body of `legs` and `counts` is the rows as they lie in memory (little endian); that of the other kinds is a msgpack
array of control records. The layout byte is `detectors.model.LAYOUT_VERSION`: a reader of another layout refuses.

A frame's header names the sources and banks of its own rows and no others, so that it stays short however many banks one
fetch brings.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from detectors.model import COUNT, LAYOUT_VERSION, LEG, Control, Frame, Kind

MAGIC = b"SHLF"
MAX_MESSAGE_BYTES = 900_000
"""Largest message that is written. Brokers refuse above 1 MiB by default; the record's own overhead is left free."""

MAX_ROWS = 4_000
"""Most rows of one frame, so that one step stays short."""

MAX_HEADER_BYTES = 0xFFFF
"""The header's length is a u16."""

_PREFIX = struct.Struct("<4sBBH")
_KINDS: tuple[Kind, ...] = (
    Kind.LEGS,
    Kind.COUNTS,
    Kind.TRACES,
    Kind.LINKS,
    Kind.FACTS,
    Kind.FLAGS,
    Kind.DECISIONS,
    Kind.CONFIG,
    Kind.BASELINES,
    Kind.RATES,
    Kind.BARRIER,
)  # the order is part of the layout: append only
_CODE = {kind: code for code, kind in enumerate(_KINDS)}
_DTYPES = {Kind.LEGS: LEG, Kind.COUNTS: COUNT}


class LedgerError(ValueError):
    """A ledger message that this program must not read past."""


class ForeignLayout(LedgerError):
    """Not a ledger frame, or one of another layout version."""


class DamagedFrame(LedgerError):
    """A frame of this layout whose content does not add up."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What a frame says of all its records."""

    n: int
    key_id: str = ""  # the pseudonym key that its subjects were hashed with
    generation: str = ""  # the ledger generation it was written for
    sources: tuple[str, ...] = ()  # `topic/partition` names
    banks: tuple[str, ...] = ()


_header = msgspec.msgpack.Decoder(Header)
_records = msgspec.msgpack.Decoder(tuple[Control, ...])
_encoder = msgspec.msgpack.Encoder()


def _message(kind: Kind, header: Header, body: bytes) -> bytes:
    packed = _encoder.encode(header)
    if len(packed) > MAX_HEADER_BYTES:
        raise LedgerError(
            f"the header of a {kind} frame takes {len(packed)} bytes: too many sources or banks"
        )
    return _PREFIX.pack(MAGIC, LAYOUT_VERSION, _CODE[kind], len(packed)) + packed + body


def encode_rows(
    kind: Kind,
    rows: np.ndarray,
    *,
    sources: Sequence[str],
    banks: Sequence[str] = (),
    key_id: str = "",
    generation: str = "",
    max_rows: int = MAX_ROWS,
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> Iterator[bytes]:
    """Messages of `legs` or `counts` rows, in order: as many as the bounds ask for.

    `sources` and `banks` are what the rows' numbers mean. Raises `LedgerError` for rows that point past them, and for a row
    whose message alone would break a bound; bounds of names are the business of who gathers rows (`streams.legs`).
    """
    dtype = _DTYPES.get(kind)
    if dtype is None or rows.dtype != dtype:
        raise LedgerError(f"{kind} frames do not hold rows of {rows.dtype}")
    columns: dict[str, Sequence[str]] = {"source": sources}
    if kind is Kind.LEGS:
        columns["bank"] = banks
    for column, names in columns.items():
        if len(rows) and int(rows[column].max()) >= len(names):
            raise LedgerError(f"{kind} rows name a {column} that was not given")
    header = Header(len(rows), key_id, generation)
    room = max_bytes - _PREFIX.size - len(_encoder.encode(header))
    fit = max(1, min(max_rows, room // dtype.itemsize))
    for start in range(0, len(rows), fit):
        yield from _fitting(kind, rows[start : start + fit], columns, header, max_bytes)


def _fitting(
    kind: Kind, part: np.ndarray, columns: dict[str, Sequence[str]], header: Header, max_bytes: int
) -> Iterator[bytes]:
    """The rows as one message, else each half so."""
    own = {column: _own_names(part[column], names) for column, names in columns.items()}
    lists = {"sources": own["source"].names, "banks": own["bank"].names if "bank" in own else ()}
    header = msgspec.structs.replace(header, n=len(part), **lists)
    packed = len(_encoder.encode(header))
    size = _PREFIX.size + packed + part.nbytes
    if packed <= MAX_HEADER_BYTES and size <= max_bytes:
        if any(names.numbers is not None for names in own.values()):
            part = part.copy()
            for column, names in own.items():
                if names.numbers is not None:
                    part[column] = names.numbers
        yield _message(kind, header, part.tobytes())
    elif len(part) > 1:
        middle = len(part) // 2
        yield from _fitting(kind, part[:middle], columns, header, max_bytes)
        yield from _fitting(kind, part[middle:], columns, header, max_bytes)
    else:
        raise LedgerError(f"one row of a {kind} frame takes {size} bytes with its header")


class _Own(NamedTuple):
    """Names that a part uses, in their order, and its column by their new numbers; None where the old ones hold."""

    names: tuple[str, ...]
    numbers: np.ndarray | None


def _own_names(column: np.ndarray, names: Sequence[str]) -> _Own:
    if len(names) == 1:
        return _Own(tuple(names), None)
    used = np.flatnonzero(np.bincount(column, minlength=len(names)))
    if len(used) == len(names):
        return _Own(tuple(names), None)
    # `used` is sorted: the place of a number in it is its new number.
    return _Own(tuple(names[number] for number in used.tolist()), np.searchsorted(used, column))


def encode_records(
    kind: Kind,
    records: Sequence[Control],
    *,
    key_id: str = "",
    generation: str = "",
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> Iterator[bytes]:
    """Messages of control records, in order. One that is too large for a message alone is refused."""
    if kind in _DTYPES:
        raise LedgerError(f"{kind} frames hold rows, not control records")
    room = max_bytes - _PREFIX.size - len(_encoder.encode(Header(2**32, key_id, generation))) - 8
    batch: list[Control] = []
    size = 0
    for record in records:
        length = len(_encoder.encode(record))
        if length > room:
            raise LedgerError(f"a {kind} record of {length} bytes does not fit into a message of {max_bytes}")
        if batch and size + length > room:
            yield _message(kind, Header(len(batch), key_id, generation), _encoder.encode(batch))
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield _message(kind, Header(len(batch), key_id, generation), _encoder.encode(batch))


def _prefix(value: bytes) -> tuple[Kind, int]:
    if len(value) < _PREFIX.size:
        raise ForeignLayout(f"a message of {len(value)} bytes is no ledger frame")
    magic, layout, code, length = _PREFIX.unpack_from(value)
    if magic != MAGIC:
        raise ForeignLayout("the message does not begin as a ledger frame does")
    if layout != LAYOUT_VERSION:
        raise ForeignLayout(f"the frame has layout {layout}, this program reads layout {LAYOUT_VERSION}")
    if code >= len(_KINDS):
        raise ForeignLayout(f"the frame is of kind {code}, which this program does not know")
    return _KINDS[code], length


def peek_kind(value: bytes) -> Kind:
    """The kind of a message, from its first bytes."""
    return _prefix(value)[0]


def _where(problem: msgspec.MsgspecError) -> str:
    """The place that it names, without the value that it may quote: this text reaches logs and `/readyz`."""
    _, found, place = str(problem).rpartition(" - at `")
    return f", at {place.rstrip('`')}" if found else ""


def peek_header(value: bytes) -> tuple[Kind, Header]:
    """Kind and header, without the records."""
    kind, length = _prefix(value)
    try:
        return kind, _header.decode(memoryview(value)[_PREFIX.size : _PREFIX.size + length])
    except msgspec.MsgspecError as problem:
        raise DamagedFrame(f"the header of a {kind} frame cannot be read{_where(problem)}") from problem


def decode(value: bytes, *, offset: int, appended: int = 0, belongs: tuple[str, str] | None = None) -> Frame:
    """A message as a frame. The rows are a read-only view of `value`.

    `belongs` = (key id, generation) that the frame must have been written under.
    """
    kind, length = _prefix(value)
    _, header = peek_header(value)
    if belongs is not None and (header.key_id, header.generation) != belongs:
        raise ForeignLayout(
            f"the frame was written under key {header.key_id!r} and generation {header.generation!r}, "
            f"this ledger is of {belongs[0]!r} and {belongs[1]!r}"
        )
    start = _PREFIX.size + length
    dtype = _DTYPES.get(kind)
    if dtype is None:
        return _control_frame(kind, header, memoryview(value)[start:], offset, appended)
    if len(value) - start != header.n * dtype.itemsize:
        raise DamagedFrame(f"a {kind} frame of {header.n} rows has {len(value) - start} bytes of rows")
    rows = np.frombuffer(value, dtype, header.n, start)
    if header.n and int(rows["source"].max()) >= len(header.sources):
        raise DamagedFrame(f"a {kind} frame names a source that its header does not have")
    if kind is Kind.LEGS and header.n and int(rows["bank"].max()) >= len(header.banks):
        raise DamagedFrame(f"a {kind} frame names a bank that its header does not have")
    return Frame(
        kind=kind, offset=offset, appended=appended, sources=header.sources, banks=header.banks, rows=rows
    )


def _control_frame(kind: Kind, header: Header, body: memoryview, offset: int, appended: int) -> Frame:
    try:
        records = _records.decode(body)
    except msgspec.MsgspecError as problem:
        raise DamagedFrame(f"the records of a {kind} frame cannot be read{_where(problem)}") from problem
    if len(records) != header.n:
        raise DamagedFrame(f"a {kind} frame of {header.n} records holds {len(records)}")
    return Frame(kind=kind, offset=offset, appended=appended, records=records)
