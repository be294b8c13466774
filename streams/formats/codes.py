"""Words of the outside world → the enumerations of the core. Shared by all formats."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import TypeVar

from detectors.model import Channel, ClassSource, PartyClass, Purpose
from streams.payment import DecodeContext, Party

_Enum = TypeVar("_Enum", bound=IntEnum)


def slug(member: IntEnum) -> str:
    """`Channel.CASH_DEPOSIT` → `cash-deposit`: how the enumerations are written in messages and mappings."""
    return member.name.lower().replace("_", "-")


def by_slug(kind: type[_Enum]) -> dict[str, int]:
    """Slug → number of every member."""
    return {slug(member): int(member) for member in kind}


CHANNELS = by_slug(Channel)
CLASSES = by_slug(PartyClass)
CLASS_SOURCES = by_slug(ClassSource)
PURPOSES = {member.name: int(member) for member in Purpose if member}
"""Purpose codes as ISO 20022 writes them; any other code is `NONE`."""

CASH_OUT = frozenset({Channel.ATM, Channel.CASH_COUNTER})
CASH_IN = frozenset({Channel.CASH_DEPOSIT})


def merchant_class(code: str) -> int:
    """Class of a payee by its merchant category code (ISO 18245)."""
    if code in _MCC:
        return _MCC[code]
    if code[:2] in ("91", "92", "93", "94"):
        return PartyClass.GOVERNMENT
    return PartyClass.MERCHANT


_MCC: dict[str, int] = {
    "4829": PartyClass.REMITTER,  # money transfer
    "6010": PartyClass.CASH,  # cash over the counter
    "6011": PartyClass.CASH,  # cash machine
    "6012": PartyClass.PSP,  # financial institution, merchandise and services
    "6051": PartyClass.VASP,  # quasi cash: crypto, foreign currency
    "6540": PartyClass.PSP,  # stored value load
    "4900": PartyClass.BILLER,  # utilities
    "4814": PartyClass.BILLER,  # telephone
    "4899": PartyClass.BILLER,  # cable and pay television
    "6300": PartyClass.BILLER,  # insurance
    "8398": PartyClass.CHARITY,
    "8661": PartyClass.SENSITIVE,  # religious organisations
    "8651": PartyClass.SENSITIVE,  # political organisations
    "8111": PartyClass.SENSITIVE,  # legal services
    "8011": PartyClass.SENSITIVE,  # doctors
    "8062": PartyClass.SENSITIVE,  # hospitals
    "8099": PartyClass.SENSITIVE,  # medical services
}


def held_by(code: str, context: DecodeContext) -> str:
    """Bank code of a party; the reporting bank's own codes (a BIC with or without branch) become its name."""
    if not code or code == context.bank or not _means(code, context.bank, context.bank_codes):
        return code
    return context.bank


@lru_cache(maxsize=1 << 14)
def _means(code: str, bank: str, codes: frozenset[str]) -> bool:
    if code in codes:
        return True
    if not _BIC.fullmatch(code.upper()):
        return False
    # Branches of one bank share the first eight letters of a BIC.
    return any(_BIC.fullmatch(own.upper()) and own[:8].upper() == code[:8].upper() for own in (bank, *codes))


def own_code(context: DecodeContext) -> str:
    """What stands before the reporting bank's own account numbers: its first code, a BIC without its branch."""
    code = min(context.bank_codes, default=context.bank)
    return code[:8].upper() if _BIC.fullmatch(code.upper()) else code


_BIC = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}(?:[A-Z0-9]{3})?")


def complete(debtor: Party, creditor: Party, channel: int) -> None:
    """Say what the channel says of a side without an account: the other end of cash is cash, of a fee the bank itself."""
    if channel in CASH_OUT:
        nameless, cls = creditor, PartyClass.CASH
    elif channel in CASH_IN:
        nameless, cls = debtor, PartyClass.CASH
    elif channel == Channel.FEE:
        nameless, cls = (creditor, PartyClass.BANK) if not creditor.account else (debtor, PartyClass.BANK)
    else:
        return
    if not nameless.account and nameless.cls == PartyClass.UNKNOWN:
        nameless.cls = cls
        nameless.class_source = ClassSource.MAPPING
