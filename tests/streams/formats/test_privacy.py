"""What docs/formats.md says never gets further: names, addresses, birth data, identity numbers, contacts. Fuzzed."""

from __future__ import annotations

import json
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.formats import canonical, iso20022
from streams.legs import LegBuilder
from streams.payment import DecodeContext, Payment, Rejected
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.rates import load_rates
from tests.streams.formats.messages import camt054, details, entry, pacs008, transfer
from tests.streams.formats.test_canonical import GOOD

CONTEXT = DecodeContext(bank="own", bank_codes=frozenset({"OWNBDEFF"}))
RATES = load_rates().u_micro
PSEUDONYMS = Pseudonyms(PUBLIC_KEY)
RECEIVED = 1_714_557_600_000_000 + 3_600_000_000

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


def rows(items: list[Payment | Rejected]) -> bytes:
    """The legs and counts of one message, as bytes."""
    builder = LegBuilder(1, PSEUDONYMS, RATES)
    assert builder.add(items, "t/0", 0, RECEIVED) == []
    made = builder.take()
    assert len(made.legs[0]) >= 1
    return made.legs[0].tobytes() + made.counts[0].tobytes()


@st.composite
def xml_party(draw: st.DrawFn) -> str:
    """A party element's content: every D.3 field, any value, in the schema's places."""

    def text() -> str:
        return escape(draw(words))

    return (
        f"<Nm>{text()}</Nm><PstlAdr><Ctry>{text()}</Ctry><TwnNm>{text()}</TwnNm><AdrLine>{text()}</AdrLine></PstlAdr>"
        f"<Id><PrvtId><DtAndPlcOfBirth><BirthDt>{text()}</BirthDt><PrvcOfBirth>{text()}</PrvcOfBirth>"
        f"<CityOfBirth>{text()}</CityOfBirth><CtryOfBirth>{text()}</CtryOfBirth></DtAndPlcOfBirth>"
        f"<Othr><Id>{text()}</Id><SchmeNm><Cd>CCPT</Cd></SchmeNm></Othr></PrvtId></Id><CtryOfRes>{text()}</CtryOfRes>"
        f"<CtctDtls><Nm>{text()}</Nm><PhneNb>{text()}</PhneNb><EmailAdr>{text()}</EmailAdr></CtctDtls>"
    )


@st.composite
def regulatory(draw: st.DrawFn) -> str:
    text = escape(draw(words))
    return f"<RgltryRptg><Authrty><Nm>{text}</Nm><Ctry>DE</Ctry></Authrty><Dtls><Inf>{text}</Inf></Dtls></RgltryRptg>"


PLAIN_TRANSFER = rows(iso20022.decode(pacs008(transfer()), CONTEXT))
PLAIN_ENTRY = rows(iso20022.decode(camt054(entry(details())), CONTEXT))
PLAIN_JSON = rows(canonical.decode(json.dumps(GOOD).encode(), CONTEXT))


@settings(max_examples=60)
@given(xml_party(), xml_party(), regulatory(), words)
def test_pacs008(debtor: str, creditor: str, report: str, text: str) -> None:
    value = pacs008(
        transfer(debtor_party=debtor, creditor_party=creditor, extra=report, remittance=escape(text))
    )
    assert rows(iso20022.decode(value, CONTEXT)) == PLAIN_TRANSFER


@settings(max_examples=60)
@given(xml_party(), words)
def test_camt054(party: str, text: str) -> None:
    tail = f"<RmtInf><Ustrd>{escape(text)}</Ustrd></RmtInf><AddtlTxInf>{escape(text)}</AddtlTxInf>"
    assert (
        rows(iso20022.decode(camt054(entry(details(debtor_party=party, tail=tail))), CONTEXT)) == PLAIN_ENTRY
    )


D3 = (
    "name", "names", "postal_address", "country_of_residence", "birth_date", "city_of_birth", "country_of_birth",
    "private_identification", "national_id", "passport", "contact_details", "phone", "email", "nationality", "gender",
    "religion", "language", "ethnicity", "immigration_status", "regulatory_reporting", "Nm", "PstlAdr", "CtryOfRes",
)  # fmt: skip
personal = st.dictionaries(
    st.sampled_from(D3),
    st.recursive(st.one_of(words, st.integers(), st.none(), st.booleans()), st.lists, max_leaves=4),
    max_size=8,
)


@given(personal, personal, personal, words)
def test_canonical_json(
    whole: dict[str, Any], debtor: dict[str, Any], creditor: dict[str, Any], text: str
) -> None:
    document = {
        **whole, **GOOD, "debtor": {**debtor, **GOOD["debtor"]}, "creditor": {**creditor, **GOOD["creditor"]},
        "remittance_information": text,
    }  # fmt: skip
    assert rows(canonical.decode(json.dumps(document).encode(), CONTEXT)) == PLAIN_JSON


def test_a_payment_has_no_field_for_them() -> None:
    fields = {*Payment.__struct_fields__, *Payment.__annotations__}
    assert not fields & set(D3)


SECRET = "Quillfeather"


@pytest.mark.parametrize(
    "changes",
    [
        {"transaction_id": [SECRET]},
        {"acceptance_date_time": SECRET},
        {"amount": SECRET},
        {"currency": SECRET},
        {"debtor": SECRET},
        {"debtor": {"account": SECRET, "type": SECRET}},
        {"debtor": {"account": SECRET, SECRET: 1, "external": SECRET}},
        {"channel": SECRET},
        {"status": SECRET},
        {"uetr": SECRET},
        {"time_precision": f"{SECRET}' - at `$.{SECRET}`"},
        {"channel": f"Expected `{SECRET}`"},
        {"reporting_bank": SECRET},
        {"purpose": SECRET},
    ],
)
def test_a_refused_json_transaction_does_not_repeat_its_values(changes: dict[str, Any]) -> None:
    for value in (
        json.dumps({**GOOD, **changes}),
        f"[{json.dumps({**GOOD, **changes})}]",
        json.dumps({**GOOD, **changes})[:-1],
    ):
        items = canonical.decode(value.encode(), CONTEXT)
        assert isinstance(items[0], Rejected)
        assert SECRET not in items[0].detail


@pytest.mark.parametrize(
    "changes",
    [{"amount": SECRET}, {"currency": SECRET}, {"times": f"<AccptncDtTm>{SECRET}</AccptncDtTm>"},
     {"ids": f"<UETR>{SECRET}</UETR>"}, {"debtor": "", "creditor": ""}, {"extra": f"<{SECRET}>"}],
)  # fmt: skip
def test_a_refused_transfer_does_not_repeat_its_values(changes: dict[str, str]) -> None:
    (item,) = iso20022.decode(pacs008(transfer(**changes, debtor_party=f"<Nm>{SECRET}</Nm>")), CONTEXT)
    assert isinstance(item, Rejected)
    assert SECRET not in item.detail
