"""Which side makes a leg, what it is worth, what is refused, and that the counts always add up."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.model import (
    COUNT,
    DAY,
    HOUR,
    LEG,
    MAX_AMOUNT,
    PPM,
    Channel,
    Kind,
    PartyClass,
    Status,
    TimePrecision,
)
from detectors.partition import partition_of
from streams import ledger
from streams.legs import (
    COORDINATE_BITS,
    MAX_ACCOUNT,
    MAX_BANK_BYTES,
    LegBuilder,
    Unholdable,
    coordinate,
    half_even,
)
from streams.payment import FUTURE_TOLERANCE, Party, Payment, Reason, Rejected
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.rates import load_rates
from streams.rows import MAX_NAMES, counts_partition, partitions_of

PSEUDONYMS = Pseudonyms(PUBLIC_KEY)
RATES = load_rates().u_micro
NOON = 19_800 * DAY + 12 * HOUR


def pay(**fields: object) -> Payment:
    """A payment between two accounts of the reporting bank."""
    made = Payment(
        "own",
        "tx",
        NOON,
        1000,
        "EUR",
        Party("A", "own", PartyClass.PERSONAL),
        Party("B", "own", PartyClass.PERSONAL),
    )
    return msgspec.structs.replace(made, **fields)


def build(
    *payments: Payment | Rejected, received: int = NOON, **options: bool
) -> tuple[np.ndarray, np.ndarray, list[Rejected]]:
    """Legs, counts and refusals of one message."""
    builder = LegBuilder(1, PSEUDONYMS, RATES)
    refused = builder.add(payments, "topic/0", 7, received, **options)
    rows = builder.take()
    return rows.legs.get(0, np.zeros(0, LEG)), rows.counts[0], refused


def test_both_sides_of_a_payment_inside_the_bank() -> None:
    legs, counts, refused = build(
        pay(place="Town", channel=Channel.INSTANT, uetr="8a562c67-ca16-48ba-b074-65581be6f001")
    )
    a, b = PSEUDONYMS.account("A"), PSEUDONYMS.account("B")
    assert refused == []
    assert legs["subject"].tolist() == [a, b]
    assert legs["party"].tolist() == [b, a]
    assert legs["leg"].tolist() == [
        PSEUDONYMS.transaction("own", "tx"),
        PSEUDONYMS.transaction("own", "tx") | 1,
    ]
    assert (
        legs["coordinate"].tolist()
        == [7 << 20 | 1, 7 << 20 | 2]
        == [coordinate(7, 0, 0), coordinate(7, 0, 1)]
    )
    assert legs["amount_u"].tolist() == [1000, 1000]
    assert legs["currency"].tolist() == [b"EUR", b"EUR"]
    assert legs["payment"][0] == legs["payment"][1] != 0
    assert legs["place"].tolist() == [PSEUDONYMS.place("Town")] * 2
    assert counts[0].tolist() == (7 << 20, 0, 19_800, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "sides"),
    [
        ({"debtor": Party("A", "else")}, [1]),
        ({"creditor": Party("B", "")}, [0]),
        ({"debtor": Party("A", "own", external=True)}, [1]),
        ({"creditor": Party("", "own")}, [0]),
        ({"creditor": Party("", "", PartyClass.CASH)}, [0]),
        *(({"creditor": Party("B", "own", cls)}, [0]) for cls in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14)),
        *(({"creditor": Party("B", "own", cls)}, [0, 1]) for cls in (0, 1, 11, 13)),
        ({"only_side": 0}, [0]),
        ({"only_side": 1}, [1]),
        ({"debtor": Party("A", "x"), "creditor": Party("B", "y")}, []),
    ],
)
def test_which_sides_make_a_leg(fields: dict[str, object], sides: list[int]) -> None:
    legs, counts, refused = build(pay(**fields))
    assert refused == []
    assert (legs["leg"] & np.uint64(1)).tolist() == sides
    assert counts["no_leg"][0] == 2 - len(sides)


def test_a_system_wide_feed_makes_legs_for_every_bank_under_its_name() -> None:
    builder = LegBuilder(1, PSEUDONYMS, RATES)
    builder.add([pay(debtor=Party("A", "x"), creditor=Party("B", ""))], "t/0", 0, NOON, system_wide=True)
    rows = builder.take()
    assert [rows.banks[i] for i in rows.legs[0]["bank"]] == ["x", "own"]


def test_an_external_side_is_still_the_counterparty_and_cash_is_nobody() -> None:
    legs, _, _ = build(pay(creditor=Party("SHOP", "else", PartyClass.MERCHANT, external=True)))
    assert legs["party"].tolist() == [PSEUDONYMS.account("SHOP")]
    assert legs["party_class"].tolist() == [PartyClass.MERCHANT]
    legs, _, _ = build(pay(creditor=Party("ATM-1", "", PartyClass.CASH)))
    assert legs["party"].tolist() == [0]


@pytest.mark.parametrize(
    "fields", [{"amount": 0}, {"creditor": Party("A", "own")}, {"creditor": Party(" A ", "else")}]
)
def test_no_effect(fields: dict[str, object]) -> None:
    legs, counts, refused = build(pay(**fields))
    assert (len(legs), refused, counts["no_effect"][0], counts["no_leg"][0], counts["accepted"][0]) == (
        0,
        [],
        1,
        2,
        1,
    )


def test_a_return_carries_the_leg_id_of_what_it_undoes() -> None:
    booked, _, _ = build(pay())
    void, _, _ = build(pay(tx_id="r1", refers_to="tx", status=Status.RETURNED))
    assert void["leg"].tolist() == booked["leg"].tolist()
    assert void["status"].tolist() == [Status.RETURNED] * 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"amount": MAX_AMOUNT + 1}, Reason.ABSURD_AMOUNT),
        ({"amount": 10**30}, Reason.ABSURD_AMOUNT),
        ({"amount": MAX_AMOUNT, "currency": "KWD"}, None),
        ({"amount": MAX_AMOUNT, "currency": "USD"}, None),
        ({"amount": MAX_AMOUNT}, None),
        ({"amount": -1}, Reason.INVALID_AMOUNT),
        ({"currency": "FKP"}, Reason.NO_RATE),
        ({"debtor": Party(), "creditor": Party()}, Reason.MISSING_ACCOUNT),
        ({"time": NOON + FUTURE_TOLERANCE}, None),
        ({"time": NOON + FUTURE_TOLERANCE + 1}, Reason.FUTURE_DATED),
        ({"time": NOON + FUTURE_TOLERANCE + DAY, "precision": TimePrecision.DAY}, None),
        ({"time": NOON + FUTURE_TOLERANCE + DAY + 1, "precision": TimePrecision.DAY}, Reason.FUTURE_DATED),
    ],
)
def test_refusals_whatever_the_format(fields: dict[str, object], reason: Reason | None) -> None:
    legs, counts, refused = build(Rejected(Reason.INVALID, "x", 0), pay(**fields), pay(tx_id="good"))
    assert [r.reason for r in refused] == [Reason.INVALID] + ([reason] if reason else [])
    assert [r.index for r in refused] == [0] + ([1] if reason else [])
    assert len(legs) == (2 if reason else 4)
    assert legs["coordinate"].tolist()[-2:] == [coordinate(7, 2, 0), coordinate(7, 2, 1)]
    assert counts["accepted"][0] + counts["rejected"][0] == 3


def test_absurd_in_u_alone() -> None:
    builder = LegBuilder(1, PSEUDONYMS, {"KWD": 30_000_000})
    refused = builder.add([pay(amount=MAX_AMOUNT, currency="KWD")], "t/0", 0, NOON)
    assert [r.reason for r in refused] == [Reason.ABSURD_AMOUNT]


@given(st.integers(0, MAX_AMOUNT), st.integers(1, 10**8))
def test_worth_in_u_is_rounded_half_to_even(amount: int, rate: int) -> None:
    from fractions import Fraction

    expected = round(Fraction(amount * rate, PPM))
    assert half_even(amount * rate, PPM) == expected
    builder = LegBuilder(1, PSEUDONYMS, {"EUR": rate})
    refused = builder.add([pay(amount=amount)], "t/0", 0, NOON)
    legs = builder.take().legs.get(0)
    if amount and not refused:
        assert legs is not None
        assert legs["amount_u"].tolist() == [expected] * 2
    assert bool(refused) == (expected > MAX_AMOUNT)


parties = st.builds(
    Party,
    st.sampled_from(["", "A", "B", "C"]),
    st.sampled_from(["", "own", "x"]),
    st.integers(0, 14),
    st.integers(0, 5),
    st.booleans(),
)
payments = st.builds(
    Payment,
    st.just("own"), st.text(st.characters(codec="utf-8"), min_size=1), st.integers(0, NOON + 3 * HOUR),
    st.sampled_from([0, 1, 500, 10**9, 10**13, -5]), st.sampled_from(["EUR", "JPY", "FKP"]), parties, parties,
    st.integers(0, 3), st.integers(0, 9), st.integers(0, 8), st.just(0), st.just(""), st.just(""), st.sampled_from(["", "e"]),
    st.sampled_from(["", "Town"]), st.just(0), st.integers(-1, 1),
)  # fmt: skip


@given(st.lists(st.lists(payments, max_size=4), max_size=6), st.integers(1, 12), st.booleans())
def test_balance_and_placement(messages: list[list[Payment]], partitions: int, system_wide: bool) -> None:
    builder = LegBuilder(partitions, PSEUDONYMS, RATES)
    for offset, message in enumerate(messages):
        builder.add(message, "topic/5", offset, NOON, system_wide=system_wide)
    pending = builder.pending
    rows = builder.take()
    legs = [row for part in rows.legs.values() for row in part]
    assert len(legs) == pending
    assert set(rows.counts) <= {counts_partition("topic/5", partitions)}
    counts = next(iter(rows.counts.values()), np.zeros(0, COUNT))
    assert len(counts) == len(messages)
    total = {name: int(counts[name].sum()) for name in ("accepted", "rejected", "no_effect", "no_leg")}
    assert total["accepted"] + total["rejected"] == sum(map(len, messages))
    assert 2 * total["accepted"] == len(legs) + total["no_leg"]
    for partition, part in rows.legs.items():
        assert {partition_of(int(subject), partitions) for subject in part["subject"]} == {partition}
        assert (np.diff(part["coordinate"]) > 0).all()
        assert (part["coordinate"] >> COORDINATE_BITS < len(messages)).all()
        assert (part["party_class"] <= 14).all()
    assert builder.take().legs == {}


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 100))
def test_vectorised_placement_is_the_placement(subjects: list[int], partitions: int) -> None:
    found = partitions_of(np.array(subjects, np.uint64), partitions)
    assert found.tolist() == [partition_of(subject, partitions) for subject in subjects]


@pytest.mark.parametrize("split", [1, 70_000])
@pytest.mark.parametrize("length", [8, MAX_BANK_BYTES])
def test_any_number_of_banks_becomes_frames(split: int, length: int) -> None:
    """One fetch that names 70,000 banks, as many messages or as one: each leg keeps its bank, in order."""
    count = 70_000 if length == 8 else 3_000
    names = [f"{number:06d}".rjust(length, "B") for number in range(count)]
    made = [
        pay(tx_id=name, debtor=Party("A", name), creditor=Party("B", name, external=True)) for name in names
    ]
    builder = LegBuilder(2, PSEUDONYMS, RATES)
    for offset, first in enumerate(range(0, count, count // split or 1)):
        some = made[first : first + (count // split or 1)]
        assert builder.add(some, f"t/{offset % 3}", offset, NOON, system_wide=True) == []
    found: list[str] = []
    accepted = 0
    for rows in builder.take_all():
        for part in rows.legs.values():
            for message in ledger.encode_rows(Kind.LEGS, part, sources=rows.sources, banks=rows.banks):
                frame = ledger.decode(message, offset=0)
                found += [frame.banks[number] for number in frame.rows["bank"].tolist()]
        for part in rows.counts.values():
            for message in ledger.encode_rows(Kind.COUNTS, part, sources=rows.sources):
                accepted += int(ledger.decode(message, offset=0).rows["accepted"].sum())
    assert found == names
    assert accepted == count


def test_take_gives_one_set_of_names_or_nothing() -> None:
    builder = LegBuilder(1, PSEUDONYMS, RATES)
    many = [pay(debtor=Party("A", str(number)), creditor=Party("B")) for number in range(MAX_NAMES + 1)]
    builder.add(many, "t/0", 0, NOON, system_wide=True)
    with pytest.raises(Unholdable):
        builder.take()


@pytest.mark.parametrize(
    "wrong",
    [
        {"debtor": Party("A", "b" * (MAX_BANK_BYTES + 1))},
        {"debtor": Party("A", "\ud800")},
        {"debtor": Party("A" * (MAX_ACCOUNT + 1), "own")},
        {"creditor": Party("\ud800", "own")},
        {"tx_id": "\ud800"},
        {"time": -(2**63) - 1},
        {"lexicon": 256},
        {"precision": 9},
        {"amount": 1.5},
        {"debtor": Party("A", "own", 1_000)},
    ],
)
def test_what_no_row_holds_costs_one_payment(wrong: dict[str, object]) -> None:
    legs, counts, refused = build(pay(tx_id="1"), pay(**wrong), pay(tx_id="2"), system_wide=True)
    assert [(item.reason, item.index) for item in refused] == [(Reason.INVALID, 1)]
    assert legs["leg"].tolist() == [
        leg | side
        for leg in (PSEUDONYMS.transaction("own", "1"), PSEUDONYMS.transaction("own", "2"))
        for side in (0, 1)
    ]
    assert (counts["accepted"].tolist(), counts["rejected"].tolist(), counts["no_leg"].tolist()) == (
        [2],
        [1],
        [0],
    )


def test_batching_does_not_change_a_row() -> None:
    messages = [[pay(tx_id=str(n), amount=n)] for n in range(1, 20)]
    whole, apart = LegBuilder(4, PSEUDONYMS, RATES), LegBuilder(4, PSEUDONYMS, RATES)
    pieces: dict[int, bytes] = {}
    for offset, message in enumerate(messages):
        whole.add(message, "t/0", offset, NOON)
        apart.add(message, "t/0", offset, NOON)
        for partition, rows in apart.take().legs.items():
            pieces[partition] = pieces.get(partition, b"") + rows.tobytes()
    assert {p: rows.tobytes() for p, rows in whole.take().legs.items()} == pieces
