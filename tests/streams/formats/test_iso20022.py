"""pacs.008 and camt.054: elements, times, exact amounts, hostile XML, and what a bad transaction costs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.model import DAY, Channel, ClassSource, PartyClass, Purpose, Side, Status, TimePrecision
from streams.formats.iso20022 import decode
from streams.payment import DecodeContext, Party, Payment, Reason, Rejected
from tests.streams.formats.iso_schema import problems
from tests.streams.formats.messages import OTHER, OWN, UETR, camt054, details, entry, pacs008, transfer

CONTEXT = DecodeContext(bank="own", bank_codes=frozenset({"OWNBDEFF"}))
NOON = 1_714_557_600_000_000  # 2024-05-01T10:00:00Z
MAY = NOON - 10 * 3_600_000_000


LENIENT = re.compile(
    r".*(GrpHdr: no (CreDtTm|NbOfTxs)|PmtId: no EndToEndId|Sts: a choice with 0 alternatives)"
)
"""What the schema asks for and is not needed here."""


def one(value: bytes, context: DecodeContext = CONTEXT) -> Payment:
    """The only payment of a message that is one by the schema."""
    assert [problem for problem in problems(value) if not LENIENT.fullmatch(problem)] == []
    (item,) = decode(value, context)
    assert isinstance(item, Payment), item
    return item


def refused(value: bytes, context: DecodeContext = CONTEXT) -> Rejected:
    """The only refusal of a message."""
    (item,) = decode(value, context)
    assert isinstance(item, Rejected), item
    return item


# -- pacs.008 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [8, 9, 10, 12])
def test_a_transfer(version: int) -> None:
    assert one(pacs008(transfer(), version=version)) == Payment(
        "own", UETR.format(n=1), NOON + 250_000, 1230, "EUR", Party(OWN, "own"), Party(OTHER, "OTHRFRPP"),
        TimePrecision.EXACT, Channel.INSTANT, Purpose.RENT, Status.BOOKED, "", UETR.format(n=1), "E2E-1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("times", "header", "time", "precision"),
    [
        ("<AccptncDtTm>2024-05-01T10:00:00Z</AccptncDtTm>", "", NOON, TimePrecision.EXACT),
        ("<SttlmTmIndctn><DbtDtTm>2024-05-01T09:00:00Z</DbtDtTm><CdtDtTm>2024-05-01T10:00:00Z</CdtDtTm></SttlmTmIndctn>", "",
         NOON, TimePrecision.EXACT),
        ("", "<CreDtTm>2024-05-01T10:00:00Z</CreDtTm><NbOfTxs>1</NbOfTxs>", NOON, TimePrecision.MINUTE),
        ("", "<CreDtTm>2024-05-01T10:00:00Z</CreDtTm><NbOfTxs>9</NbOfTxs>", NOON, TimePrecision.DAY),
        ("<IntrBkSttlmDt>2024-05-03</IntrBkSttlmDt>", "<CreDtTm>2024-05-01T10:00:00Z</CreDtTm><NbOfTxs>1</NbOfTxs>",
         MAY + 2 * DAY, TimePrecision.DAY),
        ("<IntrBkSttlmDt>2024-05-01</IntrBkSttlmDt>", "<CreDtTm>2024-05-01T10:00:00Z</CreDtTm><NbOfTxs>1</NbOfTxs>", NOON,
         TimePrecision.MINUTE),
        ("<IntrBkSttlmDt>2024-05-01+02:00</IntrBkSttlmDt>", "", MAY, TimePrecision.DAY),
    ],
)  # fmt: skip
def test_choice_of_time_and_its_precision(times: str, header: str, time: int, precision: int) -> None:
    payment = one(pacs008(transfer(times=times), header=header))
    assert (payment.time, payment.precision) == (time, precision)


@pytest.mark.parametrize(
    ("text", "zone", "time"),
    [
        ("2024-05-01T12:00:00", "Europe/Berlin", NOON),
        ("2024-05-01T10:00:00", "UTC", NOON),
        ("2024-05-01T15:30:00+05:30", "Europe/Berlin", NOON),
        # Clocks go back: 02:30 comes twice, the first one counts. Clocks go forward: 02:30 never comes.
        ("2024-10-27T02:30:00", "Europe/Berlin", 1_729_989_000_000_000),
        ("2024-03-31T02:30:00", "Europe/Berlin", 1_711_848_600_000_000),
        ("2024-05-01T10:00:00.123456789Z", "UTC", NOON + 123_456),
    ],
)
def test_zones_and_daylight_saving(text: str, zone: str, time: int) -> None:
    context = DecodeContext(bank="own", zone=zone)
    assert one(pacs008(transfer(times=f"<AccptncDtTm>{text}</AccptncDtTm>")), context).time == time


def test_ids_in_order_of_worth() -> None:
    assert (
        one(pacs008(transfer(ids="<EndToEndId>NOTPROVIDED</EndToEndId><TxId>T</TxId>"))).tx_id == "OWNBDEFF/T"
    )
    payment = one(pacs008(transfer(ids="<InstrId>I</InstrId><EndToEndId>NOTPROVIDED</EndToEndId>")))
    assert (payment.tx_id, payment.end_to_end_id, payment.uetr) == ("OWNBDEFF/I", "", "")
    assert refused(pacs008(transfer(ids="<EndToEndId>X</EndToEndId>"))).reason == Reason.MISSING_ID
    assert refused(pacs008(transfer(ids="<TxId>NOTPROVIDED</TxId>"))).reason == Reason.MISSING_ID
    assert refused(pacs008(transfer(ids="<UETR>x</UETR>"))).reason == Reason.INVALID


def test_national_numbers_carry_their_bank() -> None:
    payment = one(pacs008(transfer(debtor="<Othr><Id>123</Id></Othr>", creditor="<Othr><Id>123</Id></Othr>")))
    assert payment.debtor.account == "OWNBDEFF/123"
    assert payment.creditor.account == "OTHRFRPP/123"


@pytest.mark.parametrize(
    ("currency", "amount", "minor"),
    [("EUR", "12.30", 1230), ("EUR", "12", 1200), ("EUR", ".5", 50), ("EUR", "5.", 500), ("EUR", "+5", 500), ("JPY", "12", 12),
     ("JPY", "12.00", 12), ("BHD", "1.234", 1234), ("CLF", "0.0001", 1), ("EUR", "90071992547409.93", 9007199254740993)],
)  # fmt: skip
def test_amounts_are_exact(currency: str, amount: str, minor: int) -> None:
    assert one(pacs008(transfer(amount=amount, currency=currency))).amount == minor


@pytest.mark.parametrize(
    ("changes", "reason", "place"),
    [
        ({"amount": "1.234"}, Reason.INVALID_AMOUNT, "IntrBkSttlmAmt"),
        ({"amount": "-1"}, Reason.INVALID_AMOUNT, "IntrBkSttlmAmt"),
        ({"amount": "1,00"}, Reason.INVALID_AMOUNT, "IntrBkSttlmAmt"),
        ({"amount": "1e3"}, Reason.INVALID_AMOUNT, "IntrBkSttlmAmt"),
        ({"amount": ""}, Reason.INVALID_AMOUNT, "IntrBkSttlmAmt"),
        ({"amount": "."}, Reason.INVALID_AMOUNT, "IntrBkSttlmAmt"),
        ({"currency": "EUX"}, Reason.UNKNOWN_CURRENCY, "IntrBkSttlmAmt/@Ccy"),
        ({"times": "<AccptncDtTm>now</AccptncDtTm>"}, Reason.INVALID_TIME, "AccptncDtTm"),
        ({"ids": ""}, Reason.MISSING_ID, "PmtId"),
        ({"debtor": "", "creditor": ""}, Reason.MISSING_ACCOUNT, "DbtrAcct"),
    ],
)
def test_a_bad_transfer_costs_only_itself(changes: dict[str, str], reason: Reason, place: str) -> None:
    items = decode(pacs008(transfer(1), transfer(2, **changes), transfer(3)), CONTEXT)
    assert [type(item) for item in items] == [Payment, Rejected, Payment]
    bad = items[1]
    assert isinstance(bad, Rejected)
    assert (bad.reason, bad.index) == (reason, 1)
    assert place in bad.detail


def test_no_time_at_all() -> None:
    bad = refused(pacs008(transfer(times=""), header=""))
    assert bad.reason == Reason.MISSING_TIME


# -- camt.054 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [8, 9, 11, 12])
def test_a_booked_credit(version: int) -> None:
    assert one(camt054(entry(details()), version=version)) == Payment(
        "own", "REF-1", NOON, 1230, "EUR", Party(OTHER, "OTHRFRPP"), Party(OWN, "own"), TimePrecision.EXACT,
        Channel.TRANSFER, Purpose.SALA, Status.BOOKED, "", "", "", "", 0, Side.CREDIT,
    )  # fmt: skip


def test_the_indicator_decides_the_side() -> None:
    payment = one(camt054(entry(indicator="DBIT")))
    assert payment.debtor == Party(OWN, "own")
    assert payment.creditor == Party("")
    assert payment.only_side == Side.DEBIT


@pytest.mark.parametrize(
    ("code", "indicator", "channel", "other"),
    [
        (("PMNT", "CNTR", "CDPT"), "CRDT", Channel.CASH_DEPOSIT, PartyClass.CASH),
        (("PMNT", "CNTR", "CWDL"), "DBIT", Channel.CASH_COUNTER, PartyClass.CASH),
        (("PMNT", "CCRD", "CWDL"), "DBIT", Channel.ATM, PartyClass.CASH),
        (("PMNT", "CCRD", "POSD"), "DBIT", Channel.CARD, PartyClass.UNKNOWN),
        (("PMNT", "RRCT", "ESCT"), "CRDT", Channel.INSTANT, PartyClass.UNKNOWN),
        (("PMNT", "IDDT", "ESDD"), "CRDT", Channel.DIRECT_DEBIT, PartyClass.UNKNOWN),
        (("PMNT", "ICHQ", "CCHQ"), "DBIT", Channel.CHEQUE, PartyClass.UNKNOWN),
        (("PMNT", "ICDT", "CHRG"), "DBIT", Channel.FEE, PartyClass.BANK),
        (("ACMT", "MDOP", "CHRG"), "DBIT", Channel.FEE, PartyClass.BANK),
        (("SECU", "SETT", "TRAD"), "DBIT", Channel.OTHER, PartyClass.UNKNOWN),
    ],
)
def test_bank_transaction_codes(code: tuple[str, str, str], indicator: str, channel: int, other: int) -> None:
    payment = one(camt054(entry(code=code, indicator=indicator)))
    side = payment.debtor if indicator == "CRDT" else payment.creditor
    assert (payment.channel, side.cls) == (channel, other)


def test_a_card_payment_says_when_and_what() -> None:
    card = (
        "<CardTx><Tx><Indv><TxCtgy>5411</TxCtgy><TxId><TxDtTm>2024-04-30T09:00:00Z</TxDtTm><TxRef>r</TxRef></TxId></Indv>"
        "</Tx></CardTx>"
    )
    payment = one(
        camt054(entry(details(parties="", tail=card), indicator="DBIT", code=("PMNT", "CCRD", "POSD")))
    )
    assert payment.time == NOON - DAY - 3_600_000_000
    assert (payment.creditor.cls, payment.creditor.class_source) == (PartyClass.MERCHANT, ClassSource.MCC)


def test_a_later_version_says_elsewhere_when_it_was_accepted() -> None:
    times = "<AddtlDtTm><AccptncDtTm>2024-05-01T10:00:00.5Z</AccptncDtTm></AddtlDtTm>"
    payment = one(pacs008(transfer(times=times), version=13))
    assert (payment.time, payment.precision) == (NOON + 500_000, TimePrecision.EXACT)


def test_a_gathered_card_entry_says_what() -> None:
    card = "<CardTx><AggtdNtry><TxCtgy>5411</TxCtgy></AggtdNtry></CardTx>"
    gathered = entry(indicator="DBIT", code=("PMNT", "CCRD", "POSD")).replace(
        "<NtryDtls></NtryDtls>", f"{card}<NtryDtls></NtryDtls>"
    )
    payment = one(camt054(gathered))
    assert (payment.creditor.cls, payment.creditor.class_source) == (PartyClass.MERCHANT, ClassSource.MCC)


@pytest.mark.parametrize(
    ("extra", "status"),
    [("<RvslInd>true</RvslInd>", Status.REVERSED), ("<RvslInd>1</RvslInd>", Status.REVERSED)],
)
def test_a_reversal_points_at_the_other_side(extra: str, status: int) -> None:
    ids = f"<UETR>{UETR.format(n=1)}</UETR>"
    booked = one(camt054(entry(details(ids=ids))))
    undone = one(camt054(entry(details(ids=ids), n=2, indicator="DBIT", extra=extra)))
    assert (undone.status, undone.refers_to, undone.only_side) == (status, booked.tx_id, booked.only_side)
    assert (undone.debtor, undone.creditor) == (booked.debtor, booked.creditor)


def test_a_return_points_at_what_it_returns() -> None:
    sent = one(camt054(entry(details(ids=f"<UETR>{UETR.format(n=1)}</UETR>"), indicator="DBIT")))
    back = one(
        camt054(
            entry(
                details(
                    ids=f"<UETR>{UETR.format(n=1)}</UETR>", tail="<RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf>"
                ),
                n=2,
            )
        )
    )
    assert (back.status, back.refers_to, back.only_side) == (Status.RETURNED, sent.tx_id, sent.only_side)
    assert back.debtor.account == sent.debtor.account == OWN
    alone = entry(details(tail="<RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf>"))
    assert refused(camt054(alone)).reason == Reason.NO_ORIGINAL


def test_a_batch_entry_is_its_details() -> None:
    message = camt054(
        entry(
            details(amount='<Amt Ccy="EUR">1.00</Amt>'),
            details(amount='<Amt Ccy="JPY">2</Amt>'),
            details(),
            details(extra='<AmtDtls><TxAmt><Amt Ccy="EUR">3.00</Amt></TxAmt></AmtDtls>'),
        )
    )
    items = decode(message, CONTEXT)
    assert [(i.tx_id, i.amount, i.currency) if isinstance(i, Payment) else i.reason for i in items] == [
        ("REF-1#0", 100, "EUR"), ("REF-1#1", 2, "JPY"), Reason.INVALID_AMOUNT, ("REF-1#3", 300, "EUR"),
    ]  # fmt: skip


@pytest.mark.parametrize("status", ["<Cd>PDNG</Cd>", "<Cd>INFO</Cd>", "PDNG", ""])
def test_only_booked_entries(status: str) -> None:
    assert refused(camt054(entry(status=status))).reason == Reason.NOT_BOOKED


def test_status_as_plain_text() -> None:
    assert one(camt054(entry(status="BOOK"))).status == Status.BOOKED


@pytest.mark.parametrize(
    ("booked", "time", "precision"),
    [("<BookgDt><Dt>2024-05-02</Dt></BookgDt>", MAY + DAY, TimePrecision.DAY), ("", MAY, TimePrecision.DAY)],
)
def test_a_bare_date_has_no_zone(booked: str, time: int, precision: int) -> None:
    context = DecodeContext(bank="own", zone="America/New_York")
    payment = one(camt054(entry(booked=booked)), context)
    assert (payment.time, payment.precision) == (time, precision)


def test_two_accounts_in_one_message() -> None:
    message = camt054(entry(n=1)).replace(
        b"</Ntfctn>",
        b"</Ntfctn><Ntfctn><Id>2</Id><Acct><Id><Othr><Id>77</Id></Othr></Id></Acct>"
        + entry(n=2).encode()
        + b"</Ntfctn>",
    )
    assert [i.creditor.account for i in decode(message, CONTEXT) if isinstance(i, Payment)] == [
        OWN,
        "OWNBDEFF/77",
    ]


def test_another_banks_account_is_refused() -> None:
    other = camt054(entry(), servicer="<Svcr><FinInstnId><BICFI>ELSEDEFF</BICFI></FinInstnId></Svcr>")
    assert refused(other).reason == Reason.WRONG_BANK
    wide = DecodeContext(bank="own", bank_codes=frozenset({"OWNBDEFF"}), system_wide=True)
    assert one(other, wide).bank == "ELSEDEFF"


@pytest.mark.parametrize(
    ("bank", "codes", "own"),
    [("own", {"OWNBDEFF"}, True), ("own", {"OWNBDEFFXXX"}, True), ("ownbdeff", set(), True), ("OWNBDEFF123", set(), True),
     ("own", set(), False), ("own", {"ELSEDEFF"}, False)],
)  # fmt: skip
def test_which_codes_mean_the_reporting_bank(bank: str, codes: set[str], own: bool) -> None:
    payment = one(
        pacs008(transfer(debtor="<Othr><Id>1</Id></Othr>")),
        DecodeContext(bank=bank, bank_codes=frozenset(codes)),
    )
    assert (payment.debtor.bank == bank) == own
    assert payment.debtor.account == "OWNBDEFF/1"
    assert payment.creditor.bank == "OTHRFRPP"


# -- hostile XML ----------------------------------------------------------------------------------------------------------

LAUGHS = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
XXE = '<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "prolog", [LAUGHS, XXE, '<!DOCTYPE l SYSTEM "http://example.org/x.dtd">', "<!doctype l>", "<!DOCTYPE l>"]
)
def test_document_types_and_entities_are_refused_unread(prolog: str) -> None:
    value = pacs008(transfer(remittance="&x;"), prolog=f'<?xml version="1.0"?>{prolog}')
    assert refused(value).reason in (Reason.FORBIDDEN_XML, Reason.UNDECODABLE)
    assert b"passwd" not in repr(decode(value, CONTEXT)).encode()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_cannot_hide_one(encoding: str) -> None:
    value = (
        pacs008(transfer(), prolog=f'<?xml version="1.0" encoding="{encoding}"?>{LAUGHS}')
        .decode()
        .encode(encoding)
    )
    assert refused(value).reason == Reason.UNDECODABLE


def test_a_declared_encoding_other_than_utf8_is_refused() -> None:
    value = pacs008(transfer(), prolog='<?xml version="1.0" encoding="UTF-7"?>')
    assert refused(value).reason == Reason.UNDECODABLE


@pytest.mark.parametrize(
    "value", [b"", b"  ", b"{}", b"<a>", bytes(64), b"\xef\xbb\xbf", pacs008(transfer())[:-30]]
)
def test_what_is_not_well_formed_is_refused_whole(value: bytes) -> None:
    assert refused(value).reason == Reason.UNDECODABLE


@pytest.mark.parametrize(
    "value",
    [b"<a/>", pacs008(transfer(), version=7), camt054(entry(), version=2), pacs008(),
     pacs008(transfer()).replace(b"pacs.008", b"pacs.009"), pacs008(transfer()).replace(b"urn:iso", b"urn:oso")],
)  # fmt: skip
def test_other_messages_and_old_versions(value: bytes) -> None:
    assert refused(value).reason == Reason.UNSUPPORTED


def test_sizes() -> None:
    assert refused(pacs008(transfer()), DecodeContext(bank="own", max_bytes=1000)).reason == Reason.OVERSIZED
    many = pacs008(*(transfer(n) for n in range(4)))
    assert refused(many, DecodeContext(bank="own", max_transactions=3)).reason == Reason.OVERSIZED
    deep = b"<a>" * 5000 + b"</a>" * 5000
    assert refused(deep).reason == Reason.UNDECODABLE


def test_an_envelope_comments_and_prefixes_do_not_matter() -> None:
    plain = pacs008(transfer(), prolog="").decode()
    enveloped = f"<?xml version='1.0'?><e:Env xmlns:e='urn:e'><e:Hdr>x</e:Hdr>{plain}</e:Env>".encode()
    prefixed = plain.replace("<", "<p:").replace("<p:/", "</p:").replace("xmlns=", "xmlns:p=").encode()
    commented = plain.replace("<PmtId>", "<!-- c --><?pi x?><PmtId>\n").encode()
    expected = [one(plain.encode())]
    for value in (enveloped, prefixed, commented):
        assert decode(value, CONTEXT) == expected


@settings(max_examples=60)
@given(st.data())
def test_no_damage_raises(data: st.DataObject) -> None:
    value = bytearray(
        data.draw(st.sampled_from([pacs008(transfer(), transfer(2)), camt054(entry(details()), entry(n=2))]))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    assert decode(bytes(value), CONTEXT)


def test_many_transactions_stream() -> None:
    items = decode(pacs008(*(transfer(n, ids=f"<TxId>T{n}</TxId>") for n in range(500))), CONTEXT)
    assert [i.tx_id for i in items if isinstance(i, Payment)] == [f"OWNBDEFF/T{n}" for n in range(500)]
