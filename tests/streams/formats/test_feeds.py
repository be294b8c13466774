"""From a topic's settings and a bank's message to legs, as the worker puts them together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors.model import HOUR, LEG, ClassSource, PartyClass, Side
from streams.app import feed_of
from streams.formats.iso20022 import decode
from streams.legs import LegBuilder
from streams.payment import DecodeContext, Payment
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.rates import load_rates
from streams.settings import BankTopic
from tests.streams.formats.messages import OTHER, OWN, camt054, details, entry, pacs008, transfer

PSEUDONYMS = Pseudonyms(PUBLIC_KEY)
NOON = 1_714_557_600_000_000  # 2024-05-01T10:00:00Z, noon in Berlin
CODES = ("OWNBDEFF", "37040044")


def legs(value: bytes, **more: Any) -> np.ndarray:
    """What one message becomes on a topic of bank alpha."""
    topic = BankTopic(name="alpha.iso", bank="alpha", **{"format": "pacs008", "bank_codes": CODES, **more})
    feed = feed_of(topic, PSEUDONYMS, load_rates().u_micro)
    builder = LegBuilder(1, PSEUDONYMS, load_rates().u_micro)
    assert builder.add(feed.decode(value), "alpha.iso/0", 1, NOON + HOUR, system_wide=feed.system_wide) == []
    rows = builder.take()
    assert rows.banks in ((), ("alpha",))
    return rows.legs.get(0, np.zeros(0, LEG))


def sides(rows: np.ndarray) -> list[tuple[int, int]]:
    return [(int(row["subject"]), int(row["leg"]) & 1) for row in rows]


def test_a_transfer_makes_the_leg_of_the_declared_bank_alone() -> None:
    value = pacs008(transfer())
    assert sides(legs(value)) == [(PSEUDONYMS.account(OWN), Side.DEBIT)]
    assert sides(legs(value, bank_codes=("OTHRFRPP",))) == [(PSEUDONYMS.account(OTHER), Side.CREDIT)]
    assert sides(legs(value, bank_codes=("ELSEITMM",))) == []
    assert len(legs(value, bank_codes=("OWNBDEFF", "OTHRFRPP"))) == 2


def test_a_clearing_code_means_the_bank_as_well() -> None:
    member = "<ClrSysMmbId><ClrSysId><Cd>DEBLZ</Cd></ClrSysId><MmbId>37040044</MmbId></ClrSysMmbId>"
    value = pacs008(transfer()).replace(b"<BICFI>OWNBDEFFXXX</BICFI>", member.encode())
    assert sides(legs(value)) == [(PSEUDONYMS.account(OWN), Side.DEBIT)]


def test_a_notification_makes_the_leg_of_its_account() -> None:
    value = camt054(entry(details(), indicator="CRDT"))
    assert sides(legs(value, format="camt054")) == [(PSEUDONYMS.account(OWN), Side.CREDIT)]
    paid = f"<RltdPties><CdtrAcct><Id><IBAN>{OTHER}</IBAN></Id></CdtrAcct></RltdPties>"
    debit = camt054(entry(details(parties=paid), indicator="DBIT"))
    assert sides(legs(debit, format="camt054")) == [(PSEUDONYMS.account(OWN), Side.DEBIT)]


def test_both_feeds_name_a_plain_number_alike() -> None:
    number = "<Othr><Id>17</Id></Othr>"
    by_transfer = legs(pacs008(transfer(debtor=number)))
    by_notification = legs(camt054(entry(details(), indicator="DBIT"), account=number), format="camt054")
    named = PSEUDONYMS.account("37040044/17")
    assert sides(by_transfer) == sides(by_notification) == [(named, Side.DEBIT)]


def test_a_local_time_is_read_in_the_declared_zone() -> None:
    value = pacs008(transfer(times="<AccptncDtTm>2024-05-01T12:00:00</AccptncDtTm>"))
    assert legs(value, zone="Europe/Berlin")["time"].tolist() == [NOON]
    booked = entry(details(), booked="<BookgDt><DtTm>2024-05-01T12:00:00</DtTm></BookgDt>")
    assert legs(camt054(booked), format="camt054", zone="Europe/Berlin")["time"].tolist() == [NOON]


def test_the_default_class_is_what_the_message_does_not_say() -> None:
    value = pacs008(transfer())
    assert legs(value)["party_class"].tolist() == [PartyClass.UNKNOWN]
    (row,) = legs(value, party_class="personal")
    assert (row["party_class"], row["class_source"]) == (PartyClass.PERSONAL, ClassSource.MAPPING)


@pytest.mark.parametrize(
    ("code", "tail", "expected"),
    [
        (("PMNT", "CCRD", "POSD"), "<CardTx><Tx><Indv><TxCtgy>6051</TxCtgy></Indv></Tx></CardTx>", "VASP"),
        (("PMNT", "MDOP", "CHRG"), "", "BANK"),
        (("PMNT", "ICDT", "ESCT"), "", "PERSONAL"),
    ],
)
def test_what_an_entry_says_wins_over_the_default_class(
    code: tuple[str, str, str], tail: str, expected: str
) -> None:
    context = DecodeContext(
        bank="alpha",
        bank_codes=frozenset(CODES),
        party_class=PartyClass.PERSONAL,
        class_source=ClassSource.MAPPING,
    )
    (payment,) = decode(camt054(entry(details(tail=tail), indicator="DBIT", code=code)), context)
    assert isinstance(payment, Payment)
    assert (payment.debtor.account, payment.debtor.cls) == (OWN, PartyClass.PERSONAL)
    assert PartyClass(payment.creditor.cls).name == expected
