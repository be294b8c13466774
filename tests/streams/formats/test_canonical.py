"""The canonical transaction: round trip, strictness, exact amounts, and what a bad one costs."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.model import ClassSource, PartyClass
from streams.currencies import EXPONENTS
from streams.formats import canonical, schemas
from streams.formats.canonical import decode, encode
from streams.formats.codes import CHANNELS, CLASS_SOURCES, CLASSES, PURPOSES
from streams.payment import DecodeContext, Party, Payment, Reason, Rejected
from tests.streams.formats.where import ROOT

OWN = DecodeContext(bank="own", bank_codes=frozenset({"OWNBDEFF"}))
GOOD: dict[str, Any] = {
    "transaction_id": "tx-1",
    "acceptance_date_time": "2024-05-01T12:00:00.25+02:00",
    "amount": "12.30",
    "currency": "EUR",
    "debtor": {
        "account": "DE89370400440532013000",
        "agent": "OWNBDEFFXXX",
        "type": "personal",
        "type_source": "bank-master",
    },
    "creditor": {"account": "FR1420041010050500013M02606", "agent": "OTHRFRPP"},
}


def message(**changes: Any) -> bytes:
    """The good one with changes; None takes a field away."""
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not None}).encode()


def one(**changes: Any) -> Payment | Rejected:
    """Decode a single message."""
    (item,) = decode(message(**changes), OWN)
    return item


def test_a_message_as_documented() -> None:
    assert one() == Payment(
        "own", "tx-1", 1_714_557_600_250_000, 1230, "EUR",
        Party("DE89370400440532013000", "own", PartyClass.PERSONAL, ClassSource.BANK_MASTER),
        Party("FR1420041010050500013M02606", "OTHRFRPP"),
    )  # fmt: skip


names = (
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=40)
    .map(str.strip)
    .filter(bool)
)
parties = st.builds(
    Party, names, st.sampled_from(["own", "x"]), st.sampled_from(sorted(CLASSES.values())),
    st.sampled_from(sorted(CLASS_SOURCES.values())), st.booleans(),
)  # fmt: skip


@st.composite
def payments(draw: st.DrawFn) -> Payment:
    status = draw(st.integers(0, 2))
    return Payment(
        "own", draw(names), draw(st.integers(-(10**15), 4 * 10**15)), draw(st.integers(0, 10**15)),
        draw(st.sampled_from(sorted(EXPONENTS))), draw(parties), draw(parties), draw(st.integers(0, 3)),
        draw(st.sampled_from(sorted(CHANNELS.values()))), draw(st.sampled_from([0, *PURPOSES.values()])), status,
        draw(names) if status else "", draw(st.sampled_from(["", "8a562c67-ca16-48ba-b074-65581be6f001"])),
        draw(st.one_of(st.just(""), names.filter(lambda n: n != "NOTPROVIDED"))), draw(st.one_of(st.just(""), names)), 0,
        draw(st.integers(-1, 1)),
    )  # fmt: skip


@given(payments())
def test_round_trip(payment: Payment) -> None:
    sent = encode(payment)
    assert decode(sent, OWN) == [payment]
    assert decode(b"[" + sent + b"," + sent + b"]", OWN) == [payment, payment]


@pytest.mark.parametrize(
    ("changes", "reason", "place"),
    [
        ({"transaction_id": None}, Reason.MISSING_ID, "transaction_id"),
        ({"transaction_id": ""}, Reason.MISSING_ID, "transaction_id"),
        ({"transaction_id": 7}, Reason.MISSING_ID, "transaction_id"),
        ({"acceptance_date_time": None}, Reason.MISSING_TIME, "acceptance_date_time"),
        ({"acceptance_date_time": "2024-05-01T12:00:00"}, Reason.INVALID_TIME, "acceptance_date_time"),
        ({"acceptance_date_time": "yesterday"}, Reason.INVALID_TIME, "acceptance_date_time"),
        ({"acceptance_date_time": 1714557600}, Reason.INVALID_TIME, "acceptance_date_time"),
        ({"amount": 12.3}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": 1230}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": "12,30"}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": "-12.30"}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": "12.305"}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": "1e3"}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": "NaN"}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": "1" * 40}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": "1.5", "currency": "JPY"}, Reason.INVALID_AMOUNT, "amount"),
        ({"currency": None}, Reason.UNKNOWN_CURRENCY, "currency"),
        ({"currency": "eur"}, Reason.UNKNOWN_CURRENCY, "currency"),
        ({"currency": "XAU"}, Reason.UNKNOWN_CURRENCY, "currency"),
        ({"debtor": None}, Reason.INVALID, "debtor"),
        ({"debtor": {"account": 5}}, Reason.INVALID, "debtor.account"),
        ({"debtor": {"account": "A", "type": "duke"}}, Reason.INVALID, "debtor.type"),
        ({"debtor": {}, "creditor": {}}, Reason.MISSING_ACCOUNT, "debtor.account"),
        ({"debtor": {"account": "A"}, "creditor": {"account": "B"}}, Reason.INVALID, "debtor.agent"),
        ({"channel": "pigeon"}, Reason.INVALID, "channel"),
        ({"uetr": "x"}, Reason.INVALID, "uetr"),
        ({"status": "pending"}, Reason.NOT_BOOKED, "status"),
        ({"status": "returned"}, Reason.NO_ORIGINAL, "original_transaction_id"),
        ({"reporting_bank": "else"}, Reason.WRONG_BANK, "reporting_bank"),
    ],
)
def test_each_refusal_names_its_place_and_costs_only_itself(
    changes: dict[str, Any], reason: Reason, place: str
) -> None:
    bad = message(**changes)
    (alone,) = decode(bad, OWN)
    assert isinstance(alone, Rejected)
    assert alone.reason == reason
    assert place in alone.detail
    first, middle, last = decode(
        b"[" + message() + b"," + bad + b"," + message(transaction_id="tx-2") + b"]", OWN
    )
    assert isinstance(first, Payment)
    assert isinstance(last, Payment)
    assert isinstance(middle, Rejected)
    assert (middle.reason, middle.index, middle.detail) == (reason, 1, alone.detail)


@pytest.mark.parametrize(
    "value", [b"", b" ", b"{", b"[", b"null", b"\xff\xfe", b'"text"', b"[" * 100_000, b"{" * 5_000, b'{"transaction_id":"\xff"}',
              b'{"transaction_id":"\\ud800"}', b"<Document/>", bytes(100)]
)  # fmt: skip
def test_bytes_that_are_no_transaction(value: bytes) -> None:
    items = decode(value, OWN)
    assert len(items) == 1
    assert isinstance(items[0], Rejected)
    assert items[0].reason in (Reason.UNDECODABLE, Reason.INVALID)


@given(st.binary(max_size=300))
def test_no_bytes_raise(value: bytes) -> None:
    decode(value, OWN)
    decode(b"[" + value + b"]", OWN)


def test_an_empty_array_is_no_transaction() -> None:
    assert decode(b"[]", OWN) == []


def test_limits() -> None:
    small = DecodeContext(bank="own", max_bytes=100)
    assert [r.reason for r in decode(message(), small) if isinstance(r, Rejected)] == [Reason.OVERSIZED]
    few = DecodeContext(bank="own", max_transactions=2)
    many = b"[" + b",".join([message()] * 3) + b"]"
    assert [r.reason for r in decode(many, few) if isinstance(r, Rejected)] == [Reason.OVERSIZED]


@pytest.mark.parametrize(
    ("currency", "text", "minor"),
    [("EUR", "0.01", 1), ("EUR", "5", 500), ("EUR", "5.1", 510), ("EUR", "5.10000", 510), ("JPY", "5", 5), ("JPY", "5.0", 5),
     ("KWD", "1.234", 1234), ("CLF", "1.2345", 12345), ("EUR", "90071992547409.93", 9007199254740993)],
)  # fmt: skip
def test_amounts_are_exact_for_each_exponent(currency: str, text: str, minor: int) -> None:
    payment = one(currency=currency, amount=text)
    assert isinstance(payment, Payment)
    assert payment.amount == minor


def test_notprovided_is_no_reference() -> None:
    payment = one(end_to_end_id="NOTPROVIDED")
    assert isinstance(payment, Payment)
    assert payment.end_to_end_id == ""


def test_text_ends_in_the_decoder() -> None:
    seen: list[str] = []

    def lexicon(text: str) -> int:
        seen.append(text)
        return 5

    context = DecodeContext(bank="own", bank_codes=frozenset({"OWNBDEFF"}), lexicon=lexicon)
    (payment,) = decode(message(remittance_information="secret words"), context)
    assert isinstance(payment, Payment)
    assert (payment.lexicon, seen) == (5, ["secret words"])
    assert "secret" not in repr(payment)


def test_merchant_codes_cash_and_fees() -> None:
    shop = one(merchant_category_code="5411")
    cash = one(creditor={}, channel="atm")
    assert isinstance(shop, Payment)
    assert isinstance(cash, Payment)
    assert (shop.creditor.cls, shop.creditor.class_source) == (PartyClass.MERCHANT, ClassSource.MCC)
    assert cash.creditor.cls == PartyClass.CASH


def test_names_of_the_messages_are_those_of_the_core() -> None:
    assert list(CLASSES) == list(canonical._CLASS_NAMES)
    assert list(CLASS_SOURCES) == list(canonical._SOURCE_NAMES)
    assert list(CHANNELS) == list(canonical._CHANNEL_NAMES)


def test_published_schemas_are_current_and_examples_validate() -> None:
    for name, text in schemas.documents().items():
        assert (ROOT / "docs" / "schemas" / name).read_text(encoding="utf-8") == text, (
            f"{name} is stale: python -m streams.formats.schemas docs/schemas"
        )
    schema = json.loads(schemas.documents()["transaction.v1.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(GOOD)
    for item in (
        one(),
        one(uetr="8a562c67-ca16-48ba-b074-65581be6f001", purpose="SALA", town="Town", channel="atm"),
    ):
        assert isinstance(item, Payment)
        validator.validate(json.loads(encode(item)))
    for bad in ({**GOOD, "amount": 12.3}, {**GOOD, "channel": "pigeon"}, {"transaction_id": "x"}):
        assert not validator.is_valid(bad)


def test_the_example_of_the_documentation() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    example = text.split("```json\n")[1].split("```")[0].encode()
    (payment,) = decode(example, OWN)
    assert isinstance(payment, Payment)
    assert (payment.debtor.bank, payment.amount, payment.channel) == ("own", 1230, CHANNELS["instant"])
    jsonschema.validate(json.loads(example), json.loads(schemas.documents()["transaction.v1.schema.json"]))
