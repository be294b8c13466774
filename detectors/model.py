"""The words of the core: enumerations, the leg record, and the dated control records of the ledger.

Money is integer minor units (`amount`) and integer cents of the currency-normalised unit (`amount_u`; 100 = 1 u = 1
EUR-equivalent). Time is integer microseconds UTC. Subjects, counterparties and leg ids are unsigned 64-bit keyed hashes.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec
import numpy as np

ENGINE_VERSION = "0.1.0"
"""Version of the core. It is part of the digest of every body: another engine is another answer."""

LAYOUT_VERSION = 1
"""Version of the ledger records. That of the packed state is `packing.STATE_LAYOUT`. A difference refuses to start."""

MICROSECOND = 1
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

PPM = 1_000_000
"""Strengths, shares and ratios are integers in parts per million."""

MAX_AMOUNT = 10**12
"""Largest amount (minor units, and u-cents) that intake accepts; both fit into 40 bits of the window."""


class Side(IntEnum):
    """Whose side of the payment a leg is. It is the lowest bit of the leg id."""

    DEBIT = 0
    CREDIT = 1


class PartyClass(IntEnum):
    """What the counterparty of a leg is. `UNKNOWN` is scored both ways (as personal, and as not)."""

    UNKNOWN = 0
    PERSONAL = 1
    MERCHANT = 2
    BILLER = 3
    EMPLOYER = 4
    GOVERNMENT = 5
    PSP = 6
    CHARITY = 7
    REMITTER = 8
    VASP = 9
    CASH = 10
    OWN = 11
    """Own account or declared household: the leg is ignored by every measure."""
    BANK = 12
    """Fees, interest, suspense, nostro and ledger accounts of a bank."""
    BUSINESS = 13
    SENSITIVE = 14
    """Legal aid, refuges, unions, faith bodies, medical: never scored, never displayed, stops every trace."""


class ClassSource(IntEnum):
    """Who says what the counterparty is."""

    UNKNOWN = 0
    BANK_MASTER = 1
    MCC = 2
    DIRECTORY = 3
    LEARNED = 4
    MAPPING = 5


class Channel(IntEnum):
    """How the money moved."""

    OTHER = 0
    TRANSFER = 1
    INSTANT = 2
    CARD = 3
    ATM = 4
    """Cash withdrawn at a machine."""
    CASH_DEPOSIT = 5
    CASH_COUNTER = 6
    """Cash withdrawn at a counter."""
    DIRECT_DEBIT = 7
    CHEQUE = 8
    FEE = 9


class Purpose(IntEnum):
    """ISO 20022 purpose codes that a measure may read; everything else is `NONE`."""

    NONE = 0
    SALA = 1
    PAYR = 2
    RENT = 3
    FAMI = 4
    SSBE = 5
    PENS = 6
    CHAR = 7
    LOAN = 8


class TimePrecision(IntEnum):
    """How finely the feed knows the time. Measures finer than it are not computable."""

    EXACT = 0
    MINUTE = 1
    HOUR = 2
    DAY = 3


PRECISION_US = (MICROSECOND, MINUTE, HOUR, DAY)
"""Length of one step of each `TimePrecision`, in microseconds."""


class Status(IntEnum):
    """Only booked legs enter sums. `RETURNED` and `REVERSED` remove the leg that has the same leg id."""

    BOOKED = 0
    RETURNED = 1
    REVERSED = 2


class Kind(StrEnum):
    """Kinds of ledger record."""

    LEGS = "legs"
    COUNTS = "counts"
    TRACES = "traces"
    LINKS = "links"
    FACTS = "facts"
    FLAGS = "flags"
    DECISIONS = "decisions"
    CONFIG = "config"
    BASELINES = "baselines"
    RATES = "rates"
    BARRIER = "barrier"
    QUARANTINE = "quarantine"  # never in the ledger: what stands where a frame was that people set aside


LEG = np.dtype(
    [
        ("subject", "<u8"),  # the account whose side this is
        ("leg", "<u8"),  # 63 bits of the keyed hash of (reporting bank, its transaction id), then the side
        ("party", "<u8"),  # the counterparty; 0 = none usable
        ("time", "<i8"),  # event time, µs
        ("received", "<i8"),  # append time of the bank's own record, µs
        ("amount", "<i8"),  # minor units of `currency`, 1..MAX_AMOUNT
        ("amount_u", "<i8"),  # u-cents, 0..MAX_AMOUNT
        ("payment", "<u8"),  # payment identity: UETR, else own reference + amount + date, hashed; 0 = none
        ("coordinate", "<i8"),  # source offset << 20 | index of the record inside the source message
        ("place", "<u4"),  # hash of the place at city grain; 0 = unknown
        ("source", "<u2"),  # index into the frame's `sources`
        ("bank", "<u2"),  # index into the frame's `banks`: the legal bank that holds the subject
        ("currency", "S3"),  # ISO 4217
        ("party_class", "u1"),  # PartyClass
        ("class_source", "u1"),  # ClassSource
        ("channel", "u1"),  # Channel
        ("purpose", "u1"),  # Purpose
        ("precision", "u1"),  # TimePrecision
        ("status", "u1"),  # Status
        ("learn", "u1"),  # 1: state fills, nothing is said
        ("lexicon", "u1"),  # bit set of lexicon hits (the text itself ends at intake)
    ]
)
"""One row of a `legs` frame."""

COUNT = np.dtype(
    [
        ("coordinate", "<i8"),  # source offset << 20
        ("source", "<u2"),  # index into the frame's `sources`
        ("day", "<i4"),  # day of the bank record's append time, days since 1970-01-01
        ("accepted", "<u4"),  # transactions accepted from this message
        ("rejected", "<u4"),  # transactions (or the whole message: 1) sent to the dead letters
        (
            "no_effect",
            "<u4",
        ),  # accepted transactions of amount 0 or from an account to itself: both sides without a leg
        (
            "no_leg",
            "<u4",
        ),  # sides of accepted transactions that made no leg (includes both sides of `no_effect`)
    ]
)
"""One row of a `counts` frame: what one source message became. 2 x accepted = ledger legs + no_leg."""


class AccountKind(StrEnum):
    """What kind of account a subject is."""

    UNKNOWN = "unknown"
    PERSONAL = "personal"
    BUSINESS = "business"
    YOUTH = "youth"
    INTERNAL = "internal"


class Customer(msgspec.Struct, frozen=True):
    """A customer of an account, by keyed hash."""

    customer: int
    role: str = "holder"  # holder, joint, signatory, attorney, minor


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag="fact"):
    """What the bank says of an account, from `effective_at` on. Goes to the account's partition."""

    record_id: str
    effective_at: int
    subject: int
    entity: str = ""  # the legal bank
    domain: str = ""  # sharing domain
    kind: AccountKind = AccountKind.UNKNOWN
    opened: int | None = None  # µs
    status: str = "open"  # open, closed, blocked, deceased
    customers: tuple[Customer, ...] = ()
    household: tuple[int, ...] = ()  # accounts of the same holder or household (declared)
    alias_of: int | None = None
    observed_since: int | None = None  # µs
    income_band: int | None = None  # declared annual income, whole u


class FlagState(StrEnum):
    """Life of a flag. Only `confirmed` counts; the others end it."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    DISPUTED = "disputed"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class Flag(msgspec.Struct, frozen=True, kw_only=True, tag="flag"):
    """What a partner or a reviewer has said of an account. Goes to every partition.

    Records with the same `flag_id` are states of one flag, in (`effective_at`, `record_id`) order.
    """

    record_id: str
    effective_at: int
    flag_id: str
    party: int  # the flagged account
    state: FlagState
    source: str
    source_kind: str = "reviewer"  # reviewer, bank, ngo, platform, law-enforcement
    confidence: int = PPM  # ppm
    handling: str = "TLP:AMBER"
    reason: str = ""
    basis: str = ""  # legal basis or agreement id
    created: int = 0
    expires: int | None = None
    confirmed_by: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True, tag="decision"):
    """What people decided of a recommendation. Goes to the subject's partition."""

    record_id: str
    effective_at: int
    subject: int
    recommendation_id: str
    decision: str  # freeze, hold, monitor, safeguard, clear, escalate
    role: str = "unknown"
    deciders: tuple[str, ...] = ()
    reason: str = ""
    evidence_digest: str = ""


class ConfigRecord(msgspec.Struct, frozen=True, kw_only=True, tag="config"):
    """A detector configuration, whole. Goes to every partition."""

    record_id: str
    effective_at: int
    version: str
    digest: str
    document: bytes  # canonical JSON of detectors.config.Config
    author: str = ""
    approver: str = ""
    reason: str = ""


class Baselines(msgspec.Struct, frozen=True, kw_only=True, tag="baselines"):
    """Numbers computed over many accounts outside the fold. Goes to every partition."""

    record_id: str
    effective_at: int
    version: str
    hub_bucket_legs: int | None = None  # M: legs in one aligned bucket of length L
    hub_counterparties: int | None = None  # counterparties in 90 days
    quantiles: dict[str, int] = {}
    corridors: dict[str, int] = {}


class Rates(msgspec.Struct, frozen=True, kw_only=True, tag="rates"):
    """FX rates. Goes to every partition. `u_micro[ccy]` = u-cents per 10^6 minor units."""

    record_id: str
    effective_at: int
    version: str
    source: str = ""
    u_micro: dict[str, int] = {}


class Trace(msgspec.Struct, frozen=True, kw_only=True, tag="trace"):
    """Where a payment's money came from: filled by a later release."""

    record_id: str
    subject: int
    leg: int
    cause: int
    hops: int
    origins: tuple[tuple[int, int, int, int, str], ...] = ()  # account, hops, time, amount_u, kind of money


class Link(msgspec.Struct, frozen=True, kw_only=True, tag="link"):
    """An identifier's holders crossed a step: filled by a later release."""

    record_id: str
    effective_at: int
    subject: int
    identifier: int
    identifier_kind: str
    holders: tuple[int, ...] = ()
    retracted: bool = False


class Barrier(msgspec.Struct, frozen=True, kw_only=True, tag="barrier"):
    """An upgrade or a new ledger generation starts here. Goes to every partition."""

    record_id: str
    effective_at: int
    reason: str
    generation: str = ""


class QuarantinedLeg(msgspec.Struct, frozen=True, array_like=True):
    """What the balance needs of a leg that is set aside with its frame."""

    source: int  # index into the record's `sources`
    coordinate: int
    day: int  # of the bank record's append time, days since 1970-01-01


class QuarantinedCount(msgspec.Struct, frozen=True, array_like=True):
    """A row of a `counts` frame that is set aside: `COUNT`."""

    coordinate: int
    source: int
    day: int
    accepted: int
    rejected: int
    no_effect: int
    no_leg: int


class Quarantine(msgspec.Struct, frozen=True, kw_only=True, tag="quarantine"):
    """A ledger frame that two people set aside, in the place of that frame. Everything that the fold knows of it."""

    record_id: str  # generation/partition/offset
    effective_at: int  # append time of the signature that completed it, µs
    by: tuple[str, ...]
    reason: str
    digest: str  # BLAKE2b of the message, hexadecimal
    kind: str = ""  # of the frame; empty = not even its header can be read
    n: int = 0  # records, as its header says
    sources: tuple[str, ...] = ()
    legs: tuple[QuarantinedLeg, ...] = ()
    counts: tuple[QuarantinedCount, ...] = ()
    accounts: tuple[
        tuple[int, int, int], ...
    ] = ()  # subject, earliest and latest time of its records; sorted
    unread: int = 0  # records of the balance that cannot be read: the days that they are of stay broken


Control = Fact | Flag | Decision | ConfigRecord | Baselines | Rates | Trace | Link | Barrier


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One ledger message, decoded: a batch of records of one kind for one partition.

    `rows` holds `LEG` or `COUNT` rows for those kinds; `records` holds control records for the others.
    `sources` are `topic/partition` names that the rows' `source` column indexes; `banks` likewise.
    """

    kind: Kind
    offset: int
    appended: int = 0  # ledger append time, µs: latency metrics only, never the fold
    sources: tuple[str, ...] = ()
    banks: tuple[str, ...] = ()
    rows: np.ndarray = np.zeros(0, LEG)
    records: tuple[Control | Quarantine, ...] = ()


class Action(IntEnum):
    """The ladder. Safeguard-first ranks above the rest: it replaces hold and freeze, it is not a weaker one."""

    NONE = 0
    MONITOR = 1
    HOLD_AND_REVIEW = 2
    FREEZE = 3
    SAFEGUARD_FIRST = 4


ACTION_NAMES = ("none", "monitor", "hold-and-review", "freeze", "safeguard-first")


class Role(StrEnum):
    """What the account holder probably is."""

    CONTROLLER = "controller"
    MULE = "mule"
    LIKELY_VICTIM = "likely-victim"
    PAYER = "payer"
    FRONT_BUSINESS = "front-business"
    UNKNOWN = "unknown"


class Stage(StrEnum):
    """Stage of the trafficking-finance model. One primary stage a detector."""

    RECRUIT = "recruit"
    CONTROL_EXPLOIT = "control-exploit"
    PROFIT_LAUNDER = "profit-launder"


class Family(StrEnum):
    """Indicator families. Points inside a family are capped."""

    FLOW = "flow"
    LIFECYCLE = "lifecycle"
    SHAPE = "shape"
    AMOUNT = "amount"
    LINK = "link"
    LABOUR = "labour"
    SEX_LOGISTICS = "sex-logistics"
    SCAM = "scam"
    CORRIDOR = "corridor"
    INTEL = "intel"
    MITIGATOR = "mitigator"


class Mode(StrEnum):
    """What is said of an entity: nothing, to the observe topic only, or to the review topic."""

    LEARN = "learn"
    OBSERVE = "observe"
    ADVISE = "advise"
