"""Parquet, CSV and JSONL through mappings: the same payments, the same rows, and what a bad row costs."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectors.model import (
    DAY,
    HOUR,
    LEG,
    MAX_AMOUNT,
    PPM,
    Channel,
    ClassSource,
    PartyClass,
    Purpose,
    Side,
    Status,
    TimePrecision,
)
from streams.formats.files import BadFile, MappedDecoder, read_columns, read_file
from streams.formats.mapping import Mapping, check_mapping, load_mapping, mappings
from streams.legs import LegBuilder, half_even, to_u
from streams.located import load
from streams.payment import Party, Payment, Reason, Rejected
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.rates import load_rates

RATES = load_rates().u_micro
NOON = 1_714_557_600_000_000  # 2024-05-01T10:00:00Z


def mapping(**changes: Any) -> Mapping:
    """A mapping for the columns id, t, a, d, c; nested fields are merged."""
    document: dict[str, Any] = {
        "version": 1, "name": "mine", "about": "a test", "bank": "own", "booked": True, "system_wide": True,
        "empty_bank": "reporting", "currency": "EUR", "accounts": "personal",
        "columns": {"transaction": "id", "time": "t", "amount": "a", "debtor": "d", "creditor": "c"},
        "time": {"precision": "exact", "format": "iso8601"},
    }  # fmt: skip
    for name, value in changes.items():
        document[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
    document["columns"] = {k: v for k, v in document["columns"].items() if v}
    return check_mapping(load(json.dumps(document), Mapping, "test"))


ROW: dict[str, Any] = {"id": "1", "t": "2024-05-01T10:00:00Z", "a": "12.30", "d": "A", "c": "B"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file of the kind that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        names = list(rows[0])
        lines = [",".join(names), *(",".join("" if r[n] is None else str(r[n]) for n in names) for r in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, m: Mapping, **options: int) -> list[Payment | Rejected]:
    """The whole file; the two ways of reading must agree on it."""
    items = [item for batch in read_file(path, m, **options) for item in batch]
    by_payment, by_column = both(path, m, **options)
    assert by_column.tobytes() == by_payment.tobytes()
    return items


def both(path: Path, m: Mapping, **options: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a file, made of payments and made of columns, with names in place of batch-wise indices."""
    pseudonyms = Pseudonyms(PUBLIC_KEY)
    first: list[np.ndarray] = []
    refused: list[Rejected] = []
    row = 0
    for batch in read_file(path, m, **options):
        for item in batch:
            builder = LegBuilder(1, pseudonyms, RATES)
            received = item.time if isinstance(item, Payment) else 0
            refused += builder.add([item], "f/0", row, received, system_wide=m.system_wide)
            row += 1
            rows = builder.take()
            first += [named(part, rows.banks) for part in rows.legs.values()]
    second: list[np.ndarray] = []
    also_refused: list[Rejected] = []
    accepted = no_leg = 0
    for columns in read_columns(path, m, pseudonyms, RATES, **options):
        second.append(named(columns.rows, columns.banks))
        also_refused += columns.refused
        accepted += int(columns.counts["accepted"].sum())
        no_leg += int(columns.counts["no_leg"].sum())
        assert int(columns.counts["accepted"].sum() + columns.counts["rejected"].sum()) >= len(
            columns.transactions
        )
        for index, leg in zip(
            (columns.rows["coordinate"] >> 20) - columns.first, columns.rows["leg"], strict=True
        ):
            if not columns.rows["status"].any():
                assert pseudonyms.transaction(m.bank, columns.transactions[index]) == leg & ~np.uint64(1)
    assert sorted(r.reason for r in refused) == sorted(r.reason for r in also_refused)
    made = np.concatenate([np.zeros(0, LEG), *second])
    assert 2 * accepted == len(made) + no_leg
    return np.concatenate([np.zeros(0, LEG), *first]), made


def named(rows: np.ndarray, banks: tuple[str, ...]) -> np.ndarray:
    """Rows whose bank is a number made of its name."""
    out = rows.copy()
    out["bank"] = [sum(banks[b].encode()) for b in rows["bank"]]
    return out


def one(path: Path, m: Mapping) -> Payment | Rejected:
    """The only row."""
    (item,) = read(path, m)
    return item


KINDS = ["x.parquet", "x.csv", "x.jsonl"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_payment_from_each_kind(tmp_path: Path, kind: str) -> None:
    assert one(write(tmp_path / kind, [ROW]), mapping()) == Payment(
        "own", "1", NOON, 1230, "EUR",
        Party("A", "own", PartyClass.PERSONAL, ClassSource.MAPPING), Party("B", "own", PartyClass.PERSONAL, ClassSource.MAPPING),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "time", "zone", "precision", "expected"),
    [
        ("2024-05-01T12:00:00+02:00", {"format": "iso8601"}, "Europe/Berlin", "exact", NOON),
        ("2024-05-01 12:00:00", {"format": "iso8601"}, "Europe/Berlin", "exact", NOON),
        ("2024-10-27 02:30:00", {"format": "iso8601"}, "Europe/Berlin", "exact", 1_729_989_000_000_000),
        ("01.05.2024 12:00", {"format": "%d.%m.%Y %H:%M"}, "Europe/Berlin", "minute", NOON),
        ("20240501", {"format": "%Y%m%d"}, "Europe/Berlin", "day", NOON - 10 * HOUR),
        (20240501, {"format": "%Y%m%d"}, "UTC", "day", NOON - 10 * HOUR),
        (1_714_557_600, {"format": "epoch-s"}, "UTC", "exact", NOON),
        ("1714557600000", {"format": "epoch-ms"}, "UTC", "exact", NOON),
        (NOON, {"format": "epoch-us"}, "UTC", "exact", NOON),
        (10, {"format": "steps", "origin": "2024-05-01"}, "UTC", "hour", NOON),
        (3, {"format": "steps", "origin": "2024-05-01"}, "UTC", "day", NOON - 10 * HOUR + 3 * DAY),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_times(
    tmp_path: Path, kind: str, value: Any, time: dict[str, str], zone: str, precision: str, expected: int
) -> None:
    payment = one(
        write(tmp_path / kind, [{**ROW, "t": value}]),
        mapping(time={**time, "zone": zone, "precision": precision}),
    )
    assert isinstance(payment, Payment)
    assert payment.time == expected
    assert payment.precision == TimePrecision[precision.upper()]


@pytest.mark.parametrize(
    ("value", "zone", "precision", "expected"),
    [
        (datetime(2024, 5, 1, 10), "UTC", "exact", NOON),  # noqa: DTZ001
        (datetime(2024, 5, 1, 12), "Europe/Berlin", "exact", NOON),  # noqa: DTZ001
        (datetime(2024, 5, 1, 10, tzinfo=UTC), "Europe/Berlin", "exact", NOON),
        (date(2024, 5, 1), "Europe/Berlin", "day", NOON - 10 * HOUR),
        (datetime(2024, 5, 1, 0, 0, 17), "Europe/Berlin", "day", NOON - 10 * HOUR + 17_000_000),  # noqa: DTZ001
    ],
)
def test_timestamp_columns(tmp_path: Path, value: Any, zone: str, precision: str, expected: int) -> None:
    file = write(tmp_path / "x.parquet", [{**ROW, "t": value}])
    payment = one(file, mapping(time={"format": "timestamp", "zone": zone, "precision": precision}))
    assert isinstance(payment, Payment)
    assert payment.time == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamp_units(tmp_path: Path, unit: str) -> None:
    table = pa.Table.from_pylist([ROW]).set_column(
        1,
        "t",
        pa.array(
            [NOON // 1_000_000 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]], pa.timestamp(unit)
        ),
    )
    pq.write_table(table, tmp_path / "x.parquet")
    payment = one(tmp_path / "x.parquet", mapping(time={"format": "timestamp"}))
    assert isinstance(payment, Payment)
    assert payment.time == NOON


@given(
    st.integers(-(10**12), 4 * 10**12),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]),
)
def test_whole_columns_of_local_times_are_as_single_ones(seconds: int, name: str) -> None:
    from streams.zones import microseconds, to_utc, zone

    seconds = seconds % 4_000_000_000
    local = datetime(1970, 1, 1) + timedelta(seconds=seconds)  # noqa: DTZ001
    assert to_utc(np.array([seconds * 1_000_000]), zone(name))[0] == microseconds(local, zone(name))


@pytest.mark.parametrize(
    ("value", "amount", "currency", "expected"),
    [
        ("12.30", {}, "EUR", 1230), ("12", {}, "JPY", 12), ("12.345", {}, "BHD", 12345), ("12.3450", {}, "BHD", 12345),
        ("1230", {"unit": "minor"}, "EUR", 1230), ("12,30", {"decimal": ","}, "EUR", 1230),
        ("12.3", {"scale": 1000}, "EUR", 1230000),
        ("0.125", {"rounding": "half-even"}, "EUR", 12), ("0.135", {"rounding": "half-even"}, "EUR", 14),
        ("1e2", {"rounding": "half-even"}, "EUR", 10000), ("0.125", {}, "EUR", Reason.INVALID_AMOUNT),
        ("x", {}, "EUR", Reason.INVALID_AMOUNT),
        ("-1", {}, "EUR", Reason.INVALID_AMOUNT), ("", {}, "EUR", Reason.INVALID_AMOUNT),
        ("NaN", {}, "EUR", Reason.INVALID_AMOUNT),
        ("inf", {}, "EUR", Reason.INVALID_AMOUNT), ("1e400", {}, "EUR", Reason.ABSURD_AMOUNT),
        ("9" * 30, {}, "EUR", Reason.ABSURD_AMOUNT),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["x.csv", "x.jsonl"])
def test_written_amounts(
    tmp_path: Path, kind: str, value: str, amount: dict[str, Any], currency: str, expected: Any
) -> None:
    if kind == "x.csv" and "," in value:
        value = f'"{value}"'
    item = one(write(tmp_path / kind, [{**ROW, "a": value}]), mapping(amount=amount, currency=currency))
    assert (item.amount if isinstance(item, Payment) else item.reason) == expected


@pytest.mark.parametrize(
    ("value", "amount", "expected"),
    [
        (550.29, {}, 55029), (0.1 + 0.2, {}, Reason.INVALID_AMOUNT), (0.1 + 0.2, {"rounding": "half-even"}, 30),
        (2.675, {"rounding": "half-even"}, 268), (2.665, {"rounding": "half-even"}, 266), (1e15, {}, None),
        (float("nan"), {}, Reason.INVALID_AMOUNT), (float("inf"), {}, Reason.INVALID_AMOUNT), (-0.01, {}, Reason.INVALID_AMOUNT),
        (1e300, {}, Reason.ABSURD_AMOUNT), (7, {}, 700), (7, {"unit": "minor"}, 7), (2**62, {}, Reason.ABSURD_AMOUNT),
    ],
)  # fmt: skip
def test_numbers_as_amounts(tmp_path: Path, value: float, amount: dict[str, Any], expected: Any) -> None:
    item = one(write(tmp_path / "x.parquet", [{**ROW, "a": value}]), mapping(amount=amount))
    if expected is not None:
        assert (item.amount if isinstance(item, Payment) else item.reason) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20), st.sampled_from(["EUR", "JPY", "BHD"]))
def test_whole_minor_units_survive_binary_floats(tmp_path: Path, minors: list[int], currency: str) -> None:
    exponent = {"EUR": 2, "JPY": 0, "BHD": 3}[currency]
    rows = [{**ROW, "id": str(n), "a": float(f"{minor}e-{exponent}")} for n, minor in enumerate(minors)]
    items = read(write(tmp_path / "x.parquet", rows), mapping(currency=currency))
    assert [item.amount for item in items if isinstance(item, Payment)] == minors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "sign", "side", "amount"),
    [("5.00", "credit-positive", Side.CREDIT, 500), ("-5.00", "credit-positive", Side.DEBIT, 500),
     ("5.00", "debit-positive", Side.DEBIT, 500), ("-5.00", "debit-positive", Side.CREDIT, 500)],
)  # fmt: skip
def test_signs(tmp_path: Path, kind: str, value: str, sign: str, side: int, amount: int) -> None:
    m = mapping(
        system_wide=False, empty_bank="outside", amount={"sign": sign},
        columns={"debtor": "", "creditor": "", "account": "d", "counterparty": "c"},
    )  # fmt: skip
    payment = one(write(tmp_path / kind, [{**ROW, "a": value}]), m)
    assert isinstance(payment, Payment)
    own, other = (payment.creditor, payment.debtor) if side else (payment.debtor, payment.creditor)
    assert (own.account, own.bank, other.account, other.bank) == ("A", "own", "B", "")
    assert (payment.amount, payment.only_side) == (amount, side)


def test_direction_column(tmp_path: Path) -> None:
    m = mapping(
        system_wide=False, direction={"debit": ["D", "S"], "credit": ["H"]},
        columns={"debtor": "", "creditor": "", "account": "d", "counterparty": "c", "direction": "way"},
    )  # fmt: skip
    rows = [{**ROW, "id": str(n), "way": way} for n, way in enumerate(["D", "H", "S", "?", None])]
    items = read(write(tmp_path / "x.parquet", rows), m)
    assert [i.only_side if isinstance(i, Payment) else i.reason for i in items] == [
        0,
        1,
        0,
        Reason.INVALID,
        Reason.INVALID,
    ]


def test_rules_the_first_that_sets_an_attribute_wins(tmp_path: Path) -> None:
    m = mapping(
        columns={"channel": "ch", "extra": ["k"]},
        rules=[
            {"when": {"account": "CASH"}, "set": {"party": {"type": "cash", "nameless": True}}},
            {
                "when": {"account": {"pattern": "M.*"}},
                "set": {"party": {"type": "merchant", "external": True}},
            },
            {"when": {"channel": ["OUT", "TAKE"], "k": "x"}, "set": {"channel": "atm"}},
            {"when": {"channel": {"pattern": "O.*"}}, "set": {"channel": "card", "purpose": "RENT"}},
            {"when": {"debtor": "A", "channel": ""}, "set": {"creditor": {"type": "biller"}}},
        ],
    )
    rows = [
        {**ROW, "id": "1", "c": "CASH", "ch": "OUT", "k": "x"},
        {**ROW, "id": "2", "c": "M1", "ch": "OUT", "k": None},
        {**ROW, "id": "3", "c": "B", "ch": None, "k": "x"},
        {**ROW, "id": "4", "d": "CASH", "ch": "TAKE", "k": "x"},
        {**ROW, "id": "5", "d": "XM1", "c": "MM", "ch": "?", "k": ""},
    ]
    p = [item for item in read(write(tmp_path / "x.parquet", rows), m) if isinstance(item, Payment)]
    assert [(x.channel, x.purpose) for x in p] == [
        (Channel.ATM, Purpose.RENT), (Channel.CARD, Purpose.RENT), (0, 0), (Channel.ATM, 0), (0, 0),
    ]  # fmt: skip
    assert [(x.creditor.account, x.creditor.cls, x.creditor.external) for x in p] == [
        ("", PartyClass.CASH, True), ("M1", PartyClass.MERCHANT, True), ("B", PartyClass.BILLER, False),
        ("B", PartyClass.PERSONAL, False), ("MM", PartyClass.MERCHANT, True),
    ]  # fmt: skip
    assert [(x.debtor.account, x.debtor.cls) for x in p][3:] == [
        ("", PartyClass.CASH),
        ("XM1", PartyClass.PERSONAL),
    ]


def test_banks_classes_and_qualified_accounts(tmp_path: Path) -> None:
    m = mapping(
        system_wide=False, empty_bank="outside", bank_codes=["OWN"], qualify_accounts=True, others="business",
        columns={"debtor_bank": "db", "creditor_bank": "cb"},
    )  # fmt: skip
    rows = [{**ROW, "db": "OWN", "cb": "ZZ"}, {**ROW, "id": "2", "db": None, "cb": "own"}]
    first, second = read(write(tmp_path / "x.parquet", rows), m)
    assert isinstance(first, Payment)
    assert isinstance(second, Payment)
    assert (first.debtor.account, first.debtor.bank, first.debtor.cls) == (
        "own/A",
        "own",
        PartyClass.PERSONAL,
    )
    assert (first.creditor.account, first.creditor.bank, first.creditor.cls) == (
        "ZZ/B",
        "ZZ",
        PartyClass.BUSINESS,
    )
    assert (second.debtor.account, second.debtor.bank) == ("A", "")


def test_returns_references_and_places(tmp_path: Path) -> None:
    m = mapping(
        columns={
            "status": "s",
            "refers_to": "r",
            "uetr": "u",
            "end_to_end_id": "e",
            "place": "p",
            "purpose": "pu",
            "currency": "cy",
        }
    )
    more = {"s": None, "r": None, "u": None, "e": "NOTPROVIDED", "p": "Town", "pu": "SALA", "cy": None}
    rows = [
        {**ROW, **more},
        {**ROW, **more, "id": "2", "s": "returned", "r": "1", "e": "X"},
        {**ROW, **more, "id": "3", "s": "returned"},
        {**ROW, **more, "id": "4", "s": "pending"},
        {**ROW, **more, "id": "5", "u": "8A562C67-CA16-48BA-B074-65581BE6F001", "cy": "USD"},
        {**ROW, **more, "id": "6", "cy": "QQQ"},
    ]
    items = read(write(tmp_path / "x.parquet", rows), m)
    assert [i.reason if isinstance(i, Rejected) else (i.status, i.refers_to, i.end_to_end_id, i.currency) for i in items] == [
        (Status.BOOKED, "", "", "EUR"), (Status.RETURNED, "1", "X", "EUR"), Reason.NO_ORIGINAL, Reason.NOT_BOOKED,
        (Status.BOOKED, "", "", "USD"), Reason.UNKNOWN_CURRENCY,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": None}, Reason.MISSING_ID),
        ({"t": None}, Reason.MISSING_TIME),
        ({"t": "Quillfeather"}, Reason.INVALID_TIME),
        ({"a": "Quillfeather"}, Reason.INVALID_AMOUNT),
        ({"a": None}, Reason.INVALID_AMOUNT),
        ({"d": None, "c": None}, Reason.MISSING_ACCOUNT),
    ],
)
def test_a_bad_row_costs_only_itself_and_is_told_by_number(
    tmp_path: Path, kind: str, changes: dict[str, Any], reason: Reason
) -> None:
    rows = [ROW, {**ROW, "id": "2", **changes}, {**ROW, "id": "3"}, {**ROW, "id": "4", **changes}]
    items = read(write(tmp_path / kind, rows), mapping(), batch=3)
    assert [i.reason if isinstance(i, Rejected) else None for i in items] == [None, reason, None, reason]
    assert [i.index for i in items if isinstance(i, Rejected)] == [1, 3]
    assert not [i for i in items if isinstance(i, Rejected) and "Quill" in i.detail]


def test_broken_lines(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    good = json.dumps(ROW).encode()
    file.write_bytes(
        b"\n".join([good, b"{", b"[1]", b"\xff", good.replace(b'"A"', b'["A"]'), b"", good]) + b"\n"
    )
    items = read(file, mapping())
    assert [i.reason if isinstance(i, Rejected) else None for i in items] == [
        None, Reason.UNDECODABLE, Reason.UNDECODABLE, Reason.UNDECODABLE, Reason.INVALID, None,
    ]  # fmt: skip
    csv = tmp_path / "x.csv"
    csv.write_bytes(
        b"id,t,a,d,c\n1,2024-05-01T10:00:00Z,1,A,B\n2,short\n3,2024-05-01T10:00:00Z,1,\xff\xfe,B\n4,2024-05-01T10:00:00Z,1,A,B\n"
    )
    items = read(csv, mapping())
    assert [i.reason if isinstance(i, Rejected) else i.tx_id for i in items] == [
        "1", Reason.UNDECODABLE, Reason.UNDECODABLE, "4",
    ]  # fmt: skip
    assert [i.index for i in items if isinstance(i, Rejected)] == [1, 2]


def test_broken_csv_rows_across_blocks_keep_their_numbers(tmp_path: Path) -> None:
    lines = ["id,t,a,d,c"]
    for n in range(150_000):
        lines.append(
            "broken"
            if n % 40_000 == 7 or n > 149_995
            else f"{n},2024-05-01T10:00:00Z,1.{'0' * (n % 50)},A,B{n % 9}"
        )
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    items = [item for batch in read_file(tmp_path / "x.csv", mapping()) for item in batch]
    assert len(items) == 150_000
    broken = [n for n in range(150_000) if n % 40_000 == 7 or n > 149_995]
    assert [(n, i.index) for n, i in enumerate(items) if isinstance(i, Rejected)] == [(n, n) for n in broken]
    assert all(i.tx_id == str(n) for n, i in enumerate(items) if isinstance(i, Payment))


def test_fractions_in_json_lines_never_pass_through_a_float(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({**ROW, "a": 0}).replace('"a": 0', '"a": 90071992547409.93') + "\n")
    payment = one(file, mapping())
    assert isinstance(payment, Payment)
    assert payment.amount == 9007199254740993


def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    for kind in ("x.parquet", "x.csv"):
        with pytest.raises(BadFile, match="no column"):
            list(read_file(write(tmp_path / kind, [{"id": "1", "t": "x", "d": "A", "c": "B"}]), mapping()))
    with pytest.raises(BadFile, match="no such file"):
        list(read_file(tmp_path / "none.csv", mapping()))
    (tmp_path / "x.xlsx").write_bytes(b"")
    with pytest.raises(BadFile, match="neither"):
        list(read_file(tmp_path / "x.xlsx", mapping()))
    (tmp_path / "y.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadFile):
        list(read_file(tmp_path / "y.parquet", mapping()))
    with pytest.raises(BadFile, match="booked"):
        list(read_file(write(tmp_path / "x.csv", [ROW]), msgspec.structs.replace(mapping(), booked=False)))


def test_messages_of_a_topic(tmp_path: Path) -> None:
    decoder = MappedDecoder(mapping())
    good = json.dumps(ROW).encode()
    (payment,) = decoder.decode(good)
    assert payment == one(write(tmp_path / "x.jsonl", [ROW]), mapping())
    items = decoder.decode(b"[" + good + b",5," + good + b"]")
    assert [isinstance(i, Payment) for i in items] == [True, False, True]
    for bad in (b"", b"{", b"\xff", b"[" * 10_000):
        assert [type(i) for i in decoder.decode(bad)] == [Rejected]
    assert decoder.decode(b"x" * 50, max_bytes=10)[0].reason == Reason.OVERSIZED  # type: ignore[union-attr]


def test_batches_do_not_change_a_row(tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(n), "d": f"A{n % 7}", "c": f"B{n % 3}", "a": f"{n}.5"} for n in range(50)]
    file = write(tmp_path / "x.parquet", rows)
    whole, apart = both(file, mapping())[1], both(file, mapping(), batch=7)[1]
    assert whole.tobytes() == apart.tobytes()


@given(st.lists(st.tuples(st.integers(0, MAX_AMOUNT), st.integers(1, 4 * 10**8)), min_size=1))
def test_whole_columns_are_worth_what_single_amounts_are(pairs: list[tuple[int, int]]) -> None:
    amounts, rates = np.array(pairs, np.int64).T
    found = to_u(amounts, rates).tolist()
    for (amount, rate), worth in zip(pairs, found, strict=True):
        expected = half_even(amount * rate, PPM)
        assert worth == expected if expected <= MAX_AMOUNT else worth > MAX_AMOUNT


# -- the mappings that ship -----------------------------------------------------------------------------------------------

MIDNIGHT = datetime(2023, 1, 1)  # noqa: DTZ001


def shape(rows: list[tuple[Any, ...]], *extra: str) -> list[dict[str, Any]]:
    """Rows of the sets' common schema."""
    names = ("src", "dst", "amount", "src_bank", "dst_bank", "channel", *extra)
    return [
        {"tx_id": n, "ts": MIDNIGHT + timedelta(seconds=17 * n), **dict(zip(names, row, strict=True))}
        for n, row in enumerate(rows)
    ]


SHAPES = {
    "amlgentex": (
        shape([
            ("1", "2", 10.5, "bank_a", "bank_a", "TRANSFER"), ("EXT_INCOME", "1", 2000.0, "source", "bank_a", "INCOME"),
            ("1", "EXT_SPEND", 3.07, "bank_a", "sink", "SPEND"), ("1", "EXT_CASH_OUT", 40.0, "bank_a", "sink", "CASH_OUT"),
            ("2", "EXT_SPEND", 0.0, "bank_a", "sink", "SPEND"),
        ]),
        [("PERSONAL", "TRANSFER")] * 2 + [("EMPLOYER", "TRANSFER"), ("MERCHANT", "CARD"), ("CASH", "ATM")],
    ),
    "amlsim": (
        shape([("1", "2", 10.5, "bank_a", "bank_b", "TRANSFER"), ("2", "1", 1.0, None, None, "TRANSFER"),
        ("3", "3", 1.0, None, None, "TRANSFER")]),
        [("PERSONAL", "TRANSFER")] * 4,
    ),
    "paysim": (
        shape([
            ("C1", "C2", 10.5, None, None, "TRANSFER"), ("C1", "M1", 9.0, None, None, "CASH_OUT"),
            ("M1", "C1", 9.0, None, None, "CASH_IN"),
            ("C1", "M2", 9.0, None, None, "PAYMENT"), ("C1", "B1", 9.0, None, None, "DEBIT"),
        ]),
        [("PERSONAL", "INSTANT")] * 2
        + [("CASH", "CASH_COUNTER"), ("CASH", "CASH_DEPOSIT"), ("MERCHANT", "TRANSFER"), ("BANK", "DIRECT_DEBIT")],
    ),
    "berka": (
        shape([
            ("CASH", "5", 200.0, None, "OWN", "credit in cash", None),
            ("5", "CASH", 14.6, "OWN", None, "withdrawal in cash", "payment for statement"),
            ("5", "CASH", 100.0, "OWN", None, "withdrawal in cash", None),
            ("BANK_FEES_INTEREST", "5", 3.2, None, "OWN", "interest/fee", "interest credited"),
            ("5", "YZ-1", 50.0, "OWN", "YZ", "remittance to another bank", "household"),
            ("AB-2", "5", 50.0, "AB", "OWN", "collection from another bank", None),
            ("5", "CARD", 50.0, "OWN", None, "credit card withdrawal", None),
            ("5", "YZ-3", 7.0, "OWN", "YZ", "remittance to another bank", None),
        ], "k_symbol"),
        [("CASH", "CASH_DEPOSIT"), ("BANK", "FEE"), ("CASH", "CASH_COUNTER"), ("BANK", "FEE"), ("BILLER", "TRANSFER"),
        ("UNKNOWN", "TRANSFER"),
         ("CASH", "ATM"), ("UNKNOWN", "TRANSFER")],
    ),
    "handbook": (shape([("C1", "T9", 57.16, None, None, "CARD"), ("C2", "T9", 0.0, None, None, "CARD")]), [("MERCHANT", "CARD")]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shipped_mappings_read_files_of_their_shape(tmp_path: Path, name: str) -> None:
    rows, expected = SHAPES[name]
    m = load_mapping(name)
    file = write(tmp_path / "tx.parquet", rows)
    legs, by_column = both(file, m)
    assert legs.tobytes() == by_column.tobytes()
    assert [(PartyClass(leg["party_class"]).name, Channel(leg["channel"]).name) for leg in legs] == expected
    assert {TimePrecision(leg["precision"]) for leg in legs} == {TimePrecision[m.time.precision.upper()]}
    nameless = (
        {PartyClass.CASH, PartyClass.EMPLOYER, PartyClass.BANK} if name != "paysim" else {PartyClass.CASH}
    )
    assert {int(leg["party"]) for leg in legs if leg["party_class"] in nameless} <= {0}
    assert not [i for batch in read_file(file, m) for i in batch if isinstance(i, Rejected)]


def test_a_shape_for_every_shipped_mapping() -> None:
    assert sorted(SHAPES) == mappings()


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_shipped_mappings_read_the_head_of_their_data(tmp_path: Path, name: str) -> None:
    folder = os.environ.get("SAFEHOLD_DATA")
    if not folder:
        pytest.skip("SAFEHOLD_DATA names no folder of data sets")
    sets = sorted(Path(folder).glob(f"{name}*/tx.parquet"))
    assert sets, f"no set of {name} in the folder"
    for path in sets:
        head = next(pq.ParquetFile(path).iter_batches(batch_size=2_000))
        pq.write_table(pa.Table.from_batches([head]), tmp_path / "tx.parquet")
        m = load_mapping(name)
        legs, by_column = both(tmp_path / "tx.parquet", m)
        assert legs.tobytes() == by_column.tobytes()
        assert len(legs) >= 1_500
        items = [i for batch in read_file(tmp_path / "tx.parquet", m) for i in batch]
        assert not [i for i in items if isinstance(i, Rejected)]
        assert {i.channel for i in items if isinstance(i, Payment)} - {Channel.OTHER}
