"""A decoded transaction before pseudonyms, and what could not become one.

Every format ends here. Nothing below this module knows JSON, XML or column names; nothing above it knows pseudonyms.
Names, addresses, birth data and identity numbers have no field here: a format cannot pass them on
(docs/formats.md, "What never gets further").
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from detectors.model import HOUR, Channel, ClassSource, PartyClass, Purpose, Status, TimePrecision


class Reason(StrEnum):
    """Why something is not a payment that can be judged. Closed: metrics and dead letters are labelled by it."""

    UNDECODABLE = "undecodable"
    """The bytes are not the format that the topic or the file is declared to have."""
    OVERSIZED = "oversized"
    """More bytes, depth or transactions than one message may have."""
    FORBIDDEN_XML = "forbidden-xml"
    """A document type declaration or an entity: never needed by a payment, and refused unread."""
    UNSUPPORTED = "unsupported-message"
    """A well-formed message of another kind or of a version before .001.08."""
    INVALID = "invalid"
    """A field is missing, has the wrong type, or a value that it cannot have."""
    MISSING_ID = "missing-id"
    MISSING_ACCOUNT = "missing-account"
    """Neither side names an account."""
    MISSING_TIME = "missing-time"
    INVALID_TIME = "invalid-time"
    FUTURE_DATED = "future-dated"
    """Later than the bank's own record allows (append time + tolerance)."""
    INVALID_AMOUNT = "invalid-amount"
    """Not a plain decimal number, negative, or finer than the currency's minor unit."""
    ABSURD_AMOUNT = "absurd-amount"
    """Above 10^12 minor units or u-cents."""
    UNKNOWN_CURRENCY = "unknown-currency"
    NO_RATE = "no-rate"
    """The currency is known, its worth in u is not."""
    NOT_BOOKED = "not-booked"
    """Pending, rejected or only informative: never enters a sum."""
    NO_ORIGINAL = "no-original"
    """A return or reversal that does not say of what."""
    WRONG_BANK = "wrong-bank"
    """The message says that another bank reports it than the topic's own."""


class Party(msgspec.Struct, gc=False):
    """One end of a payment: an account, or what is known in place of one."""

    account: str = ""
    """IBAN, or an identifier that is unique over all feeds (`BANK/number`). Empty: none usable."""
    bank: str = ""
    """Code of the bank that holds it. The reporting bank's own codes are already replaced by its name."""
    cls: int = PartyClass.UNKNOWN
    class_source: int = ClassSource.UNKNOWN
    external: bool = False
    """Never an account of a bank that Safehold serves: no leg of its own, whatever the bank code says."""


class Payment(msgspec.Struct, gc=False):
    """One payment, cash movement or card event as one bank reports it."""

    bank: str
    """Who reports it. Part of the leg id."""
    tx_id: str
    time: int
    """Event time, µs UTC."""
    amount: int
    """Minor units of `currency`, never negative: money flows debtor → creditor."""
    currency: str
    debtor: Party
    creditor: Party
    precision: int = TimePrecision.EXACT
    channel: int = Channel.OTHER
    purpose: int = Purpose.NONE
    status: int = Status.BOOKED
    refers_to: str = ""
    """Of a return or reversal: transaction id of the payment that it undoes. The sides are those of that payment."""
    uetr: str = ""
    end_to_end_id: str = ""
    """Never `NOTPROVIDED`."""
    place: str = ""
    """Town, as written. Hashed at once."""
    lexicon: int = 0
    """Bit set of lexicon hits. The text that they were found in ends in the decoder."""
    only_side: int = -1
    """A report of one account's entry (`camt.054`): the side it is of. -1: both sides are reported."""


class Rejected(msgspec.Struct, gc=False, frozen=True):
    """One transaction, or a whole message, that was refused."""

    reason: Reason
    detail: str
    """For an operator: the place and the rule, never the value. Holds no personal data."""
    index: int = 0
    """Number of the transaction in its message, or of the row in its file."""


class DecodeContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder knows of the feed, apart from the bytes. One a topic (or file)."""

    bank: str
    """Name of the bank that reports: `Payment.bank`, and the bank of its review topic."""
    bank_codes: frozenset[str] = frozenset()
    """BICs and other codes that mean this bank."""
    zone: str = "UTC"
    """Zone of times that name none."""
    system_wide: bool = False
    """The feed reports every leg of every bank; `reporting_bank` in a message may name any."""
    currency: str = ""
    """Currency of messages that name none."""
    party_class: int = PartyClass.UNKNOWN
    """Class of accounts of which the message says nothing."""
    class_source: int = ClassSource.UNKNOWN
    lexicon: Callable[[str], int] | None = None
    """Remittance text → bit set. None: the text is dropped unread."""
    max_bytes: int = 16 * 1024 * 1024
    max_transactions: int = 100_000


FUTURE_TOLERANCE = HOUR
"""How far a bank's clock may run ahead of the append time of its own record."""
