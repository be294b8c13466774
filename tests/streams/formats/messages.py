"""ISO 20022 messages for the tests, written by hand. Nobody in them exists.

`test_iso_schema.py` holds them against the schema of every version.
"""

from __future__ import annotations

PACS = "urn:iso:std:iso:20022:tech:xsd:pacs.008.001.{version:02}"
CAMT = "urn:iso:std:iso:20022:tech:xsd:camt.054.001.{version:02}"
UETR = "8a562c67-ca16-48ba-b074-65581be6f0{n:02x}"
OWN = "DE89370400440532013000"
OTHER = "FR1420041010050500013M02606"


def party(name: str = "A. Nobody", extra: str = "") -> str:
    """What a party element may hold: all of it is dropped at the door."""
    return (
        f"<Nm>{name}</Nm><PstlAdr><StrtNm>Street 1</StrtNm><TwnNm>Town</TwnNm><Ctry>DE</Ctry></PstlAdr>"
        "<Id><PrvtId><DtAndPlcOfBirth><BirthDt>1990-01-01</BirthDt><PrvcOfBirth>P</PrvcOfBirth>"
        "<CityOfBirth>C</CityOfBirth><CtryOfBirth>DE</CtryOfBirth></DtAndPlcOfBirth>"
        "<Othr><Id>PASSPORT-1</Id></Othr></PrvtId></Id><CtryOfRes>DE</CtryOfRes>"
        f"<CtctDtls><PhneNb>+49-1</PhneNb><EmailAdr>a@example.org</EmailAdr></CtctDtls>{extra}"
    )


def transfer(
    n: int = 1,
    *,
    amount: str = "12.30",
    currency: str = "EUR",
    ids: str | None = None,
    times: str = "<AccptncDtTm>2024-05-01T12:00:00.250+02:00</AccptncDtTm>",
    debtor: str = f"<IBAN>{OWN}</IBAN>",
    creditor: str = f"<IBAN>{OTHER}</IBAN>",
    debtor_party: str | None = None,
    creditor_party: str | None = None,
    extra: str = "",
    remittance: str = "rent",
) -> str:
    """One `CdtTrfTxInf`."""
    if ids is None:
        ids = f"<EndToEndId>E2E-{n}</EndToEndId><TxId>TX-{n}</TxId><UETR>{UETR.format(n=n)}</UETR>"
    return (
        f"<CdtTrfTxInf><PmtId>{ids}</PmtId><PmtTpInf><LclInstrm><Cd>INST</Cd></LclInstrm></PmtTpInf>"
        f'<IntrBkSttlmAmt Ccy="{currency}">{amount}</IntrBkSttlmAmt>{times}<ChrgBr>SLEV</ChrgBr>'
        f"<Dbtr>{debtor_party or party()}</Dbtr><DbtrAcct><Id>{debtor}</Id><Nm>Mine</Nm></DbtrAcct>"
        "<DbtrAgt><FinInstnId><BICFI>OWNBDEFFXXX</BICFI></FinInstnId></DbtrAgt>"
        "<CdtrAgt><FinInstnId><BICFI>OTHRFRPPXXX</BICFI></FinInstnId></CdtrAgt>"
        f"<Cdtr>{creditor_party or party('B. Nobody')}</Cdtr><CdtrAcct><Id>{creditor}</Id></CdtrAcct>"
        f"<Purp><Cd>RENT</Cd></Purp>{extra}<RmtInf><Ustrd>{remittance}</Ustrd></RmtInf></CdtTrfTxInf>"
    )


def pacs008(
    *transfers: str,
    version: int = 8,
    header: str = "<CreDtTm>2024-05-01T10:05:00Z</CreDtTm><NbOfTxs>1</NbOfTxs>",
    prolog: str = '<?xml version="1.0" encoding="UTF-8"?>',
) -> bytes:
    """A whole message."""
    return (
        f'{prolog}<Document xmlns="{PACS.format(version=version)}"><FIToFICstmrCdtTrf><GrpHdr><MsgId>M1</MsgId>'
        f"{header}<SttlmInf><SttlmMtd>CLRG</SttlmMtd></SttlmInf></GrpHdr>"
        f"{''.join(transfers)}</FIToFICstmrCdtTrf></Document>"
    ).encode()


def entry(
    *details: str,
    n: int = 1,
    amount: str = "12.30",
    currency: str = "EUR",
    indicator: str = "CRDT",
    status: str = "<Cd>BOOK</Cd>",
    booked: str = "<BookgDt><DtTm>2024-05-01T10:00:00Z</DtTm></BookgDt>",
    code: tuple[str, str, str] = ("PMNT", "RCDT", "ESCT"),
    extra: str = "",
    reference: str | None = None,
) -> str:
    """One `Ntry`."""
    domain, family, sub = code
    ref = f"<AcctSvcrRef>REF-{n}</AcctSvcrRef>" if reference is None else reference
    return (
        f'<Ntry><NtryRef>N{n}</NtryRef><Amt Ccy="{currency}">{amount}</Amt><CdtDbtInd>{indicator}</CdtDbtInd>'
        f"{extra}<Sts>{status}</Sts>{booked}<ValDt><Dt>2024-05-01</Dt></ValDt>{ref}"
        f"<BkTxCd><Domn><Cd>{domain}</Cd><Fmly><Cd>{family}</Cd><SubFmlyCd>{sub}</SubFmlyCd></Fmly></Domn></BkTxCd>"
        f"<NtryDtls>{''.join(details)}</NtryDtls></Ntry>"
    )


def details(
    *,
    ids: str = "<EndToEndId>NOTPROVIDED</EndToEndId>",
    amount: str = "",
    parties: str | None = None,
    extra: str = "",
    debtor_party: str | None = None,
    tail: str = "",
) -> str:
    """One `TxDtls`."""
    if parties is None:
        parties = (
            f"<RltdPties><Dbtr><Pty>{debtor_party or party()}</Pty></Dbtr>"
            f"<DbtrAcct><Id><IBAN>{OTHER}</IBAN></Id></DbtrAcct>"
            f"<Cdtr><Pty>{party('Me')}</Pty></Cdtr><CdtrAcct><Id><IBAN>{OWN}</IBAN></Id></CdtrAcct></RltdPties>"
            "<RltdAgts><DbtrAgt><FinInstnId><BICFI>OTHRFRPPXXX</BICFI></FinInstnId></DbtrAgt></RltdAgts>"
        )
    return f"<TxDtls><Refs>{ids}</Refs>{amount}{extra}{parties}<Purp><Cd>SALA</Cd></Purp>{tail}</TxDtls>"


def camt054(
    *entries: str,
    version: int = 8,
    account: str = f"<IBAN>{OWN}</IBAN>",
    servicer: str = "<Svcr><FinInstnId><BICFI>OWNBDEFFXXX</BICFI></FinInstnId></Svcr>",
) -> bytes:
    """A whole message."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Document xmlns="{CAMT.format(version=version)}">'
        "<BkToCstmrDbtCdtNtfctn><GrpHdr><MsgId>M1</MsgId><CreDtTm>2024-05-01T10:05:00Z</CreDtTm></GrpHdr>"
        f"<Ntfctn><Id>1</Id><Acct><Id>{account}</Id><Ownr><Nm>Me</Nm></Ownr>{servicer}</Acct>"
        f"{''.join(entries)}</Ntfctn></BkToCstmrDbtCdtNtfctn></Document>"
    ).encode()
