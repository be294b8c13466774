"""The ledger codec: what is written is read again, and nothing foreign is."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import model
from detectors.model import COUNT, LAYOUT_VERSION, LEG, Control, Kind
from streams import ledger

U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
TIME = st.integers(0, 2**53)
TEXT = st.text(max_size=12)


def leg_rows(draw: st.DrawFn, count: int, sources: int, banks: int) -> np.ndarray:
    """Rows whose bytes are arbitrary except for the columns that index the header."""
    raw = draw(st.binary(min_size=count * LEG.itemsize, max_size=count * LEG.itemsize))
    rows = np.frombuffer(raw, LEG).copy()
    rows["source"] %= sources
    rows["bank"] %= banks
    return rows


@st.composite
def leg_frames(draw: st.DrawFn) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    sources = tuple(draw(st.lists(TEXT, min_size=1, max_size=4)))
    banks = tuple(draw(st.lists(TEXT, min_size=1, max_size=3)))
    return leg_rows(draw, draw(st.integers(1, 40)), len(sources), len(banks)), sources, banks


def named(frame: model.Frame, column: str) -> list[str]:
    """What the numbers of a column mean in their own frame."""
    names = {"source": frame.sources, "bank": frame.banks}[column]
    return [names[number] for number in frame.rows[column].tolist()]


FACTS = st.builds(
    model.Fact,
    record_id=TEXT,
    effective_at=TIME,
    subject=U64,
    entity=TEXT,
    domain=TEXT,
    kind=st.sampled_from(model.AccountKind),
    opened=st.none() | TIME,
    customers=st.lists(st.builds(model.Customer, customer=U64, role=TEXT), max_size=3).map(tuple),
    household=st.lists(U64, max_size=3).map(tuple),
    alias_of=st.none() | U64,
    income_band=st.none() | st.integers(0, 10**9),
)
FLAGS = st.builds(
    model.Flag,
    record_id=TEXT,
    effective_at=TIME,
    flag_id=TEXT,
    party=U64,
    state=st.sampled_from(model.FlagState),
    source=TEXT,
    expires=st.none() | TIME,
    confirmed_by=st.lists(TEXT, max_size=2).map(tuple),
)
DECISIONS = st.builds(
    model.Decision,
    record_id=TEXT,
    effective_at=TIME,
    subject=U64,
    recommendation_id=TEXT,
    decision=TEXT,
    deciders=st.lists(TEXT, max_size=2).map(tuple),
)
CONFIGS = st.builds(
    model.ConfigRecord,
    record_id=TEXT,
    effective_at=TIME,
    version=TEXT,
    digest=TEXT,
    document=st.binary(max_size=50),
)
RATES = st.builds(
    model.Rates,
    record_id=TEXT,
    effective_at=TIME,
    version=TEXT,
    u_micro=st.dictionaries(TEXT, TIME, max_size=3),
)
TRACES = st.builds(
    model.Trace,
    record_id=TEXT,
    subject=U64,
    leg=U64,
    cause=TIME,
    hops=st.integers(0, 6),
    origins=st.lists(st.tuples(U64, TIME, TIME, TIME, TEXT), max_size=3).map(tuple),
)
RECORDS: dict[Kind, st.SearchStrategy[Control]] = {
    Kind.FACTS: FACTS,
    Kind.FLAGS: FLAGS,
    Kind.DECISIONS: DECISIONS,
    Kind.CONFIG: CONFIGS,
    Kind.RATES: RATES,
    Kind.TRACES: TRACES,
}


@given(leg_frames(), st.integers(1, 50), st.integers(400, 2_000))
def test_legs_come_back_as_they_went(
    frame: tuple[np.ndarray, tuple[str, ...], tuple[str, ...]], max_rows: int, max_bytes: int
) -> None:
    rows, sources, banks = frame
    messages = list(
        ledger.encode_rows(
            Kind.LEGS,
            rows,
            sources=sources,
            banks=banks,
            key_id="k1",
            generation="g1",
            max_rows=max_rows,
            max_bytes=max_bytes,
        )
    )
    assert all(len(message) <= max_bytes for message in messages)
    frames = [ledger.decode(message, offset=at, appended=7) for at, message in enumerate(messages)]
    assert all(len(frame.rows) <= max_rows for frame in frames)
    back = np.concatenate([frame.rows for frame in frames])
    for column in LEG.names:
        if column not in ("source", "bank"):
            assert back[column].tobytes() == rows[column].tobytes()
    assert {(frame.appended, frame.kind) for frame in frames} == {(7, Kind.LEGS)}
    for column, given_ in (("source", sources), ("bank", banks)):
        names = [name for frame in frames for name in named(frame, column)]
        assert names == [given_[number] for number in rows[column].tolist()]
    assert [frame.offset for frame in frames] == list(range(len(messages)))
    kind, header = ledger.peek_header(messages[0])
    assert (kind, header.key_id, header.generation) == (Kind.LEGS, "k1", "g1")


@given(
    st.sampled_from(sorted(RECORDS)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(RECORDS[kind])))
)
def test_control_records_come_back_as_they_went(given_: tuple[Kind, list[Control]]) -> None:
    kind, records = given_
    messages = list(ledger.encode_records(kind, records, max_bytes=1_200))
    assert all(len(message) <= 1_200 and ledger.peek_kind(message) is kind for message in messages)
    back = [
        record for at, message in enumerate(messages) for record in ledger.decode(message, offset=at).records
    ]
    assert back == records


@pytest.mark.parametrize("field", [b"fact", b"personal"])
def test_what_is_said_of_a_damaged_record_does_not_quote_it(field: bytes) -> None:
    fact = model.Fact(record_id="f", effective_at=4, subject=8, kind=model.AccountKind.PERSONAL)
    (message,) = ledger.encode_records(Kind.FACTS, [fact])
    damaged = message.replace(field, b"DE021203"[: len(field)])
    assert damaged != message
    with pytest.raises(ledger.DamagedFrame, match=r"of a facts frame cannot be read, at \$") as raised:
        ledger.decode(damaged, offset=0)
    assert "DE02" not in str(raised.value)


def test_counts_need_no_bank() -> None:
    rows = np.zeros(3, COUNT)
    rows["accepted"] = 5, 6, 7
    (message,) = ledger.encode_rows(Kind.COUNTS, rows, sources=["payments/0"])
    assert ledger.decode(message, offset=0).rows["accepted"].tolist() == [5, 6, 7]


def one_message() -> bytes:
    rows = np.zeros(2, LEG)
    return next(iter(ledger.encode_rows(Kind.LEGS, rows, sources=["payments/0"], banks=["north"])))


@pytest.mark.parametrize("value", [b"", b"SHL", b'{"a":1}', b"XXXX" + bytes(40)])
def test_what_is_no_frame_is_refused(value: bytes) -> None:
    with pytest.raises(ledger.ForeignLayout):
        ledger.decode(value, offset=0)
    with pytest.raises(ledger.ForeignLayout):
        ledger.peek_kind(value)


def test_another_layout_or_kind_is_refused() -> None:
    value = bytearray(one_message())
    value[4] = LAYOUT_VERSION + 1
    with pytest.raises(ledger.ForeignLayout, match=f"layout {LAYOUT_VERSION + 1}"):
        ledger.decode(bytes(value), offset=0)
    value[4], value[5] = LAYOUT_VERSION, 200
    with pytest.raises(ledger.ForeignLayout, match="kind 200"):
        ledger.decode(bytes(value), offset=0)


@given(st.integers(0, 200))
def test_a_message_cut_anywhere_is_refused(keep: int) -> None:
    value = one_message()
    with pytest.raises(ledger.LedgerError):
        ledger.decode(value[: min(keep, len(value) - 1)], offset=0)


def test_rows_must_point_into_the_header() -> None:
    rows = np.zeros(1, LEG)
    for column in ("source", "bank"):
        rows[:] = 0
        (message,) = ledger.encode_rows(Kind.LEGS, rows, sources=["payments/0"], banks=["north"])
        rows[column] = 1
        with pytest.raises(ledger.LedgerError, match=column):
            list(ledger.encode_rows(Kind.LEGS, rows, sources=["payments/0"], banks=["north"]))
        damaged = message[: -LEG.itemsize] + rows.tobytes()
        with pytest.raises(ledger.DamagedFrame, match=column):
            ledger.decode(damaged, offset=0)


@pytest.mark.parametrize("length", [1, 64, 1_000])
def test_more_banks_than_one_header_holds_are_several_frames(length: int) -> None:
    count = 65_536 if length == 1 else 3_000
    banks = [f"{number:05x}".rjust(length, "b") for number in range(count)]
    rows = np.zeros(count, LEG)
    rows["bank"] = np.random.default_rng(1).permutation(count)
    messages = list(ledger.encode_rows(Kind.LEGS, rows, sources=["s/0", "s/1"], banks=banks))
    assert max(map(len, messages)) <= ledger.MAX_MESSAGE_BYTES
    frames = [ledger.decode(message, offset=at) for at, message in enumerate(messages)]
    assert [name for frame in frames for name in named(frame, "bank")] == [
        banks[number] for number in rows["bank"].tolist()
    ]
    assert all(len(frame.banks) == len(set(frame.rows["bank"].tolist())) for frame in frames)
    assert {frame.sources for frame in frames} == {("s/0",)}


def test_as_many_sources_are_several_frames_of_counts() -> None:
    sources = [f"{number:03}".rjust(249, "t") for number in range(1_000)]
    rows = np.zeros(1_000, COUNT)
    rows["source"] = np.arange(1_000)
    frames = [
        ledger.decode(message, offset=0) for message in ledger.encode_rows(Kind.COUNTS, rows, sources=sources)
    ]
    assert len(frames) > 1
    assert [name for frame in frames for name in named(frame, "source")] == sources


def test_a_record_larger_than_a_message_is_refused() -> None:
    record = model.ConfigRecord(record_id="c", effective_at=0, version="1", digest="d", document=bytes(2_000))
    with pytest.raises(ledger.LedgerError, match="does not fit"):
        list(ledger.encode_records(Kind.CONFIG, [record], max_bytes=1_000))


def test_a_header_may_not_swallow_the_message() -> None:
    with pytest.raises(ledger.LedgerError, match="one row"):
        list(ledger.encode_rows(Kind.LEGS, np.zeros(1, LEG), sources=["x" * 500], banks=["b"], max_bytes=500))


def test_frames_of_another_key_or_generation_are_refused() -> None:
    (message,) = ledger.encode_rows(
        Kind.LEGS, np.zeros(1, LEG), sources=["s"], banks=["b"], key_id="k1", generation="g1"
    )
    assert ledger.decode(message, offset=0, belongs=("k1", "g1")).rows.size == 1
    for other in (("k2", "g1"), ("k1", "g2")):
        with pytest.raises(ledger.ForeignLayout, match="this ledger is of"):
            ledger.decode(message, offset=0, belongs=other)


def test_the_codes_of_the_kinds_do_not_move() -> None:
    rows = np.zeros(1, LEG)
    (message,) = ledger.encode_rows(Kind.LEGS, rows, sources=["s"], banks=["b"])
    assert struct.unpack_from("<4sBB", message) == (b"SHLF", 1, 0)
    (message,) = ledger.encode_records(
        Kind.BARRIER, [model.Barrier(record_id="b", effective_at=1, reason="r")]
    )
    assert message[5] == 10
    assert msgspec.msgpack.decode(message[8 : 8 + int.from_bytes(message[6:8], "little")]) == [
        1,
        "",
        "",
        [],
        [],
    ]
