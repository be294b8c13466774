"""Many messages at a time become exactly what each becomes alone, whatever is among them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from detectors.model import COUNT, LEG, Channel, PartyClass
from streams.block import Block, BlockReader, Feed
from streams.formats import canonical
from streams.formats.plain import PlainReader
from streams.legs import LegBuilder
from streams.payment import DecodeContext
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.publish import AS_OF
from streams.rates import load_rates
from streams.rows import gather

RATES = {**load_rates().u_micro, "CLF": 40_000_000}  # four decimals
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the zone is written behind it
SOURCE = "pay/3"


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = b"k"
    headers: tuple[tuple[str, bytes | None], ...] = ()


def feeds(
    lexicon: bool = False, bank: str = "own", learn: bool = False, **options: Any
) -> tuple[Feed, Feed, list[Pseudonyms]]:
    """The feed with the plain way and without it, and what they hash with."""
    pseudonyms = [Pseudonyms(PUBLIC_KEY, remember_new=True) for _ in range(2)]
    context = DecodeContext(
        bank=bank, bank_codes=frozenset({"OWNBDEFF"}), lexicon=(lambda text: len(text) % 4) if lexicon else None,
        max_bytes=2_000, **options,
    )  # fmt: skip
    slow = Feed(
        "pay",
        lambda value: canonical.decode(value, context),
        system_wide=context.system_wide,
        learn=learn,
        max_bytes=context.max_bytes,
    )
    return dataclasses.replace(slow, plain=PlainReader(context, pseudonyms[0], RATES)), slow, pseudonyms


def rows_of(block: Block, partitions: int = 3) -> list[tuple[list[Any], ...]]:
    """Everything that is sent of a block, with names for numbers."""
    found = []
    for rows in gather([block.rows(0, len(block))], partitions):
        for partition, legs in rows.legs.items():
            found.append(
                (
                    [partition],
                    [rows.banks[n] for n in legs["bank"].tolist()],
                    [rows.sources[n] for n in legs["source"].tolist()],
                    legs[[name for name in LEG.names if name != "bank"]].tolist(),
                )
            )
        for partition, counts in rows.counts.items():
            found.append(([partition], counts.tolist()))
    return found


def same(
    values: Sequence[bytes | None],
    lexicon: bool = False,
    received: datetime = NOON,
    as_of: Sequence[bytes | None] = (),
    **options: Any,
) -> int:
    """Check that both ways agree; how many messages the plain way took."""
    plain, slow, pseudonyms = feeds(lexicon, **options)
    stamp = int(received.timestamp() * 1000)
    headers = [(), *(((AS_OF, said),) for said in as_of)]
    records = [
        Record(7 + 2 * n, stamp, value, b"k", headers[n % len(headers)]) for n, value in enumerate(values)
    ]
    assert plain.plain is not None
    for size in (len(records), 1, 2):  # the second and third time its words are known
        for first in range(0, len(records), size):
            some = records[first : first + size]
            left = BlockReader(LegBuilder(3, pseudonyms[0], RATES), plain_from=1).read(SOURCE, plain, some)
            right = BlockReader(LegBuilder(3, pseudonyms[1], RATES)).read(SOURCE, slow, some)
            for name in ("offset", "earliest", "latest", "bytes_until", "leg_until"):
                assert getattr(left, name).tolist() == getattr(right, name).tolist(), name
            assert left.refused == right.refused
            assert rows_of(left) == rows_of(right)
            for cut in range(len(some)):
                assert len(left.rows(cut, cut + 1).legs) == left.leg_until[cut + 1] - left.leg_until[cut]
    names = [{(subject, name.strip()) for subject, name in each.take_new()} for each in pseudonyms]
    assert names[0] == names[1]
    offsets, times = np.arange(len(records)), np.full(len(records), stamp * 1000)
    taken = int(plain.plain.read(list(values), offsets, times).taken.sum())
    return taken


def message(**fields: Any) -> dict[str, Any]:
    """An ordinary one."""
    made: dict[str, Any] = {
        "transaction_id": "t1",
        "acceptance_date_time": "2024-05-01T11:00:00Z",
        "amount": "12.30",
        "currency": "EUR",
        "debtor": {"account": "DE89370400440532013000", "agent": "own", "type": "personal"},
        "creditor": {"account": "other/2", "agent": "OWNBDEFFXXX", "type": "personal"},
    }
    made |= fields
    return {name: value for name, value in made.items() if value is not None}


def test_the_ordinary_message_is_taken_plain() -> None:
    values = [json.dumps(message(transaction_id=f"t{n}", amount=f"{n}.0{n}")).encode() for n in range(9)]
    assert same(values) == 9


texts = st.text(st.characters(codec="utf-8"), max_size=6)
amounts = st.one_of(
    st.from_regex(r"[0-9]{1,17}(\.[0-9]{1,4})?", fullmatch=True),
    st.from_regex(r"[0-9]{1,4}\.[0-9]{2}", fullmatch=True),
    st.sampled_from(
        [
            "0",
            "0.00",
            "00012.30",
            "1.",
            ".5",
            "",
            "-1",
            "+1.00",
            "1,00",
            "1e3",
            "１２.30",
            "10000000000.00",
            " 1.00",
        ]
    ),
)
times = st.one_of(
    st.datetimes(EPOCH, EPOCH.replace(year=2201)).map(lambda t: t.isoformat() + "Z"),
    st.datetimes(EPOCH.replace(year=2024), EPOCH.replace(year=2025)).map(lambda t: t.isoformat(timespec="seconds") + "+02:00"),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["2024-02-29T10:00:00", "2023-02-29T10:00:00", "2024-04-31T00:00:00", "2100-02-29T00:00:00",
                         "2024-05-01T24:00:00", "2024-05-01T23:59:60", "2024-05-01 10:00:00", "2024-05-01t10:00:00",
                         "2024-05-01T10:00", "20240501T100000", "2024-05-01T10:00:00.", "2024-05-01T1:00:00"]),
        st.sampled_from(["", ".1", ".123456", ".1234567", ".999999999", ",5"]),
        st.sampled_from(["Z", "z", "", "+00:00", "-00:00", "-05:30", "+14:00", "+14:59", "+15:00", "+23:59", "+24:00",
                         "+0200", "+02"]),
    ),
)  # fmt: skip
accounts = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "A",
            "B",
            " A",
            "A ",
            "de89 3704 0044 0532 0130 00",
            "DE89370400440532013000",
            "\u00e4",
            "\u2003",
        ]
    ),
    texts,
)
parties = st.fixed_dictionaries(
    {"account": accounts},
    optional={
        "agent": st.sampled_from(
            ["own", "OWNBDEFF", "ownbdeffxxx", "OWNBDEFF123", "else", "", "\u00e4", "another", "\0"]
        ),
        "type": st.sampled_from(
            ["personal", "unknown", "cash", "merchant", "sensitive", "own", "nonsense", 3]
        ),
        "type_source": st.sampled_from(["bank-master", "mcc", "mapping", "else"]),
        "external": st.sampled_from([True, False, "yes"]),
        "name": st.just("Somebody"),
    },
)
usual = st.fixed_dictionaries(
    {},
    optional={
        "transaction_id": st.one_of(st.sampled_from(["t", "t2", "", "x" * 127, "x" * 128, "x" * 140, "x" * 141, "\u00e4\u6f22",
                                                        "\0", "\x7f"]), texts),
        "acceptance_date_time": times,
        "amount": amounts,
        "currency": st.sampled_from(["EUR", "JPY", "KWD", "CLF", "FKP", "eur", "", "XXX", "USD", "X" * 300, None]),
        "debtor": parties,
        "creditor": parties,
        "reporting_bank": st.sampled_from(["own", "OWNBDEFF", "else", ""]),
        "time_precision": st.sampled_from(["exact", "minute", "hour", "day", "week"]),
        "status": st.sampled_from(["booked", "returned", "reversed", "pending", "rejected"]),
        "original_transaction_id": st.sampled_from(["", "t"]),
        "reported_side": st.sampled_from(["both", "debit", "credit"]),
        "channel": st.sampled_from([c.name.lower().replace("_", "-") for c in Channel]),
        "purpose": st.sampled_from(["SALA", "RENT", "XXXX", "", "TOOLONG"]),
        "category_purpose": st.sampled_from(["SALA", ""]),
        "uetr": st.sampled_from(["", "8a562c67-ca16-48ba-b074-65581be6f001", "8A562C67-CA16-48BA-B074-65581BE6F001", "8a562c67"]),
        "end_to_end_id": st.one_of(st.sampled_from(["", "NOTPROVIDED", "E1"]), texts),
        "merchant_category_code": st.sampled_from(["", "6011", "5411", "8661", "9311"]),
        "town": st.one_of(st.sampled_from(["", "Town", " TOWN "]), texts),
        "remittance_information": st.sampled_from(["", "rent", 5]),
        "unknown_field": st.just([1, {"a": None}]),
    },
).map(lambda fields: json.dumps(message(**fields)).encode())  # fmt: skip
odd = st.one_of(
    st.none(),
    st.binary(max_size=12),
    st.just(b"[]"),
    st.just(b"x" * 3_000),
    st.just(b" " + json.dumps(message()).encode() + b"\n"),
    st.just(json.dumps(message(remittance_information="r" * 2_500)).encode()),
    st.just(json.dumps(message(transaction_id="\ud800")).encode()),
    st.just(json.dumps(message(town="\ud800")).encode()),
    st.lists(usual, max_size=3).map(lambda some: b"[" + b",".join(some) + b"]"),
)


@given(
    st.lists(st.one_of(usual, usual, odd), min_size=1, max_size=8),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "EUR"]),
    st.sampled_from([0, int(PartyClass.PERSONAL)]),
    st.sampled_from(["own", "another"]),
    st.lists(
        st.sampled_from([None, b"1714561200000000", b"9999999999999999", b"0", b"-1", b"1" * 17]), max_size=3
    ),
)
def test_many_at_a_time_are_what_each_is_alone(
    values: list[bytes | None],
    lexicon: bool,
    system_wide: bool,
    currency: str,
    party_class: int,
    bank: str,
    as_of: list[bytes | None],
) -> None:
    taken = same(
        values,
        lexicon,
        as_of=as_of,
        bank=bank,
        learn=lexicon,
        system_wide=system_wide,
        currency=currency,
        party_class=party_class,
    )
    event(f"taken plain: {'all' if taken == len(values) else 'some' if taken else 'none'}")


@pytest.mark.parametrize("precision", ["exact", "minute", "hour", "day"])
@given(ahead=st.sampled_from([timedelta(hours=1), timedelta(days=1, hours=1), timedelta(hours=2), timedelta(hours=1, minutes=1)]),
       more=st.sampled_from([-1, 0, 1]))  # fmt: skip
def test_what_is_dated_ahead_of_its_record_is_refused_by_both(
    precision: str, ahead: timedelta, more: int
) -> None:
    time = NOON + ahead + timedelta(microseconds=more)
    same([json.dumps(message(acceptance_date_time=time.isoformat(), time_precision=precision)).encode()])


def test_more_combinations_of_words_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.formats.plain._MOST_WORDS", 3)
    values = [
        json.dumps(message(transaction_id=f"t{n}", debtor={"account": "X", "agent": f"bank{n}"})).encode()
        for n in range(20)
    ]
    assert same(values, system_wide=True) == 20


def test_no_text_of_a_message_is_kept_with_its_words() -> None:
    plain, _, _ = feeds()
    assert plain.plain is not None
    values = [json.dumps(message(currency="X" * 5_000 + str(n))).encode() for n in range(5)]
    plain.plain.read(values, np.arange(5), np.full(5, int(NOON.timestamp() * 1e6)))
    assert plain.plain._words == {}


def test_the_rows_are_those_of_the_layout() -> None:
    plain, _, pseudonyms = feeds()
    block = BlockReader(LegBuilder(1, pseudonyms[0], RATES), plain_from=1).read(
        SOURCE, plain, [Record(0, 1_714_561_200_000, json.dumps(message()).encode())]
    )
    assert block.part.legs.dtype == LEG
    assert block.part.counts.dtype == COUNT


def test_other_banks_are_one_combination_of_words() -> None:
    """Else every correspondent bank multiplies them, and each costs as much as fifty messages."""
    plain, _, _ = feeds()
    assert plain.plain is not None
    values = [
        json.dumps(message(creditor={"account": "X", "agent": f"bank{n}"}, purpose=f"X{n}")).encode()
        for n in range(50)
    ]
    taken = plain.plain.read(values, np.arange(50), np.full(50, int(NOON.timestamp() * 1e6))).taken
    assert taken.all()
    assert len(plain.plain._words) == 1
