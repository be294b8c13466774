"""The messages of these tests, and what the reader asks for, are what ISO 20022's schemas say.

Checked against the classes of pyiso20022 (locked), made from the XSDs: order of elements, how often each may come, one
alternative of a choice, facets of texts. The XSDs themselves are not in any package that we can lock.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

import pyiso20022.camt
import pyiso20022.pacs
import pytest

from streams.formats import iso20022
from tests.streams.formats.iso_schema import element_type, problems
from tests.streams.formats.messages import camt054, details, entry, pacs008, transfer

ACCEPTED = "<AccptncDtTm>2024-05-01T12:00:00.250+02:00</AccptncDtTm>"


def versions(package: object, kind: str) -> list[int]:
    """The versions from the first that we read on."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found = [int(match[1]) for name in names if (match := re.fullmatch(rf"{kind}_001_(\d\d)", name))]
    return sorted(version for version in found if version >= iso20022.FIRST_VERSION)


PACS = versions(pyiso20022.pacs, "pacs_008")
CAMT = versions(pyiso20022.camt, "camt_054")


def root(kind: str, version: int) -> type:
    name = f"{kind}_001_{version:02}"
    found: type = importlib.import_module(f"pyiso20022.{kind[:4]}.{name}.{name}").Document
    return found


def test_there_are_versions_to_hold_them_against() -> None:
    assert PACS[:6] == [8, 9, 10, 11, 12, 13]
    assert CAMT[:5] == [8, 9, 10, 11, 12]


@pytest.mark.parametrize("version", PACS)
def test_a_transfer_fits_the_schema(version: int) -> None:
    times = ACCEPTED if version < 13 else f"<AddtlDtTm>{ACCEPTED}</AddtlDtTm>"
    assert problems(pacs008(transfer(times=times), transfer(2, times=times), version=version)) == []


@pytest.mark.parametrize("version", CAMT)
def test_an_entry_fits_the_schema(version: int) -> None:
    assert problems(camt054(entry(details()), entry(details(), details(), n=2), version=version)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<ChrgBr>SLEV</ChrgBr>", "", "no ChrgBr"),
        ("<ChrgBr>SLEV</ChrgBr>", "<ChrgBr>SLEV</ChrgBr>" * 2, "2 times ChrgBr"),
        ("<ChrgBr>SLEV</ChrgBr>", "<ChrgBr>EVEN</ChrgBr>", "'EVEN' is no ChargeBearerType1Code"),
        ("<Purp><Cd>RENT</Cd></Purp>", "<Purp></Purp>", "a choice with 0 alternatives"),
        ("<Purp><Cd>RENT</Cd></Purp>", "<Purp><Cd>RENTAL</Cd></Purp>", "6 characters"),
        ("<Purp><Cd>RENT</Cd></Purp>", "<Purpose/>", "no element Purpose here"),
        (' Ccy="EUR"', "", "no attribute Ccy"),
        (">12.30<", ">12.300000<", "6 of them behind the point"),
        (">12.30<", ">twelve<", "'twelve' is no Decimal"),
        (ACCEPTED, "<AccptncDtTm>2024-05-01</AccptncDtTm>", "is no XmlDateTime"),
        ("BICFI>OWNBDEFFXXX<", "BICFI>OWNB<", "does not match"),
        ("<RmtInf>", "<UltmtCdtr/><RmtInf>", "UltmtCdtr after Purp"),
    ],
)
def test_what_differs_from_the_schema_is_said(old: str, new: str, said: str) -> None:
    message = pacs008(transfer()).decode()
    assert old in message
    found = problems(message.replace(old, new, 1).encode())
    assert len(found) == 1
    assert said in found[0]


# -- the reader


READ = [
    *(("pacs_008", PACS, f"FIToFICstmrCdtTrf/{at}", trie) for at, trie in (
        ("GrpHdr", iso20022._GROUP_HEADER), ("CdtTrfTxInf", iso20022._TRANSFER),
    )),
    *(("camt_054", CAMT, f"BkToCstmrDbtCdtNtfctn/Ntfctn/{at}", trie) for at, trie in (
        ("Acct", iso20022._OWN_ACCOUNT), ("Ntry", iso20022._ENTRY), ("Ntry/NtryDtls/TxDtls", iso20022._DETAILS),
    )),
]  # fmt: skip
MOVED = {"AccptncDtTm": range(8, 13), "AddtlDtTm/AccptncDtTm": range(13, 100)}
"""Elements of a transfer that not every version has in this place: the reader looks in both."""


def leaves(trie: iso20022.Trie, above: str = "") -> list[str]:
    """Every path that the reader looks at."""
    found = []
    for tag, node in trie.items():
        path = f"{above}/{tag}".strip("/")
        found += [path] if isinstance(node, str) else leaves(node, path)
    return found


@pytest.mark.parametrize(("kind", "chosen", "at", "trie"), READ, ids=[read[2] for read in READ])
def test_every_element_that_is_read_is_in_the_schema(
    kind: str, chosen: list[int], at: str, trie: iso20022.Trie
) -> None:
    """A misspelt one would never be found, and nothing would say so."""
    for version in chosen:
        document = root(kind, version)
        missing = [path for path in leaves(trie) if element_type(document, f"{at}/{path}") is None]
        expected = [path for path in MOVED if at.endswith("CdtTrfTxInf") and version not in MOVED[path]]
        assert missing == expected, f"version {version}"
