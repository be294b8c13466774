"""Messages of the control topics, and the dated records that they become.

People and other systems write JSON; accounts are named exactly as payments name them (`account`, hashed here by the same
function and forgotten; `bank` is never put before it) or by pseudonym (`subject`, sixteen hexadecimal digits). Times are
RFC 3339 or µs. A record without `effective_at` is in force from the moment that the broker took it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

import msgspec

from detectors.config import Config
from detectors.model import (
    PPM,
    SECOND,
    AccountKind,
    Barrier,
    Baselines,
    ConfigRecord,
    Control,
    Customer,
    Decision,
    Fact,
    Flag,
    FlagState,
    Kind,
    Rates,
)
from streams.pseudonyms import Pseudonyms

Moment = int | str
T = TypeVar("T")
DECISIONS = ("freeze", "hold", "monitor", "safeguard", "clear", "escalate")
FOUR_EYES = "four-eyes"
INVALID = "invalid"
EARLIEST, LATEST = (
    int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) * SECOND for year in (1800, 2200)
)
"""Moments outside of these are mistakes. What is in the ledger must fit the fold's columns, or it stops every partition."""
LARGEST = 10**15
"""Of an income or a limit."""
LEAST_HUB = 16
"""Smallest limit of a hub: `FoldSettings.check` holds the deployment's own to the same."""


class BadControl(ValueError):
    """A control message that becomes no record. `reason` is for the dead letter."""

    def __init__(self, detail: str, reason: str = INVALID) -> None:
        super().__init__(detail)
        self.reason = reason


class FlagMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Topic flags: a state of one flag."""

    flag_id: str
    state: FlagState
    source: str
    account: str = ""
    bank: str = ""
    subject: str = ""
    source_kind: str = "reviewer"
    confidence: int = PPM
    handling: str = "TLP:AMBER"
    reason: str = ""
    basis: str = ""
    created: Moment | None = None
    expires: Moment | None = None
    confirmed_by: list[str] = []
    effective_at: Moment | None = None
    record_id: str = ""


class CustomerMessage(msgspec.Struct, omit_defaults=True):
    """A customer of an account, as the bank numbers them."""

    customer: str
    role: str = "holder"


class AccountMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Topic accounts: what a bank says of one of its accounts."""

    account: str = ""
    bank: str = ""
    subject: str = ""
    domain: str = ""
    kind: AccountKind = AccountKind.UNKNOWN
    opened: Moment | None = None
    status: str = "open"
    customers: list[CustomerMessage] = []
    household: list[str] = []
    alias_of: str = ""
    observed_since: Moment | None = None
    income_band: int | None = None
    effective_at: Moment | None = None
    record_id: str = ""


class DecisionMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Topic decisions: what people decided of a recommendation."""

    recommendation_id: str
    subject: str
    decision: str
    role: str = "unknown"
    deciders: list[str] = []
    reason: str = ""
    evidence_digest: str = ""
    effective_at: Moment | None = None
    record_id: str = ""


class NewConfig(msgspec.Struct, kw_only=True, tag="config", tag_field="kind"):
    """Topic config: a whole detector configuration, made by one person and approved by another."""

    version: str
    document: msgspec.Raw
    author: str
    approver: str
    reason: str
    effective_at: Moment | None = None
    record_id: str = ""


class NewBaselines(msgspec.Struct, kw_only=True, tag="baselines", tag_field="kind"):
    """Topic config: numbers computed over many accounts."""

    version: str
    hub_bucket_legs: int | None = None
    hub_counterparties: int | None = None
    quantiles: dict[str, int] = {}
    corridors: dict[str, int] = {}
    effective_at: Moment | None = None
    record_id: str = ""


class NewRates(msgspec.Struct, kw_only=True, tag="rates", tag_field="kind"):
    """Topic config: a table of rates, u-cents per 10^6 minor units."""

    version: str
    u_micro: dict[str, int]
    source: str = ""
    effective_at: Moment | None = None
    record_id: str = ""


class NewBarrier(msgspec.Struct, kw_only=True, tag="barrier", tag_field="kind"):
    """Topic config: an upgrade or a new ledger generation starts here."""

    reason: str
    generation: str = ""
    effective_at: Moment | None = None
    record_id: str = ""


ConfigMessage = NewConfig | NewBaselines | NewRates | NewBarrier

_flag = msgspec.json.Decoder(FlagMessage)
_account = msgspec.json.Decoder(AccountMessage)
_decision = msgspec.json.Decoder(DecisionMessage)
_config: msgspec.json.Decoder[ConfigMessage] = msgspec.json.Decoder(ConfigMessage)


class Placed(msgspec.Struct, frozen=True):
    """A control record, and where it goes: to its subject's partition, or (None) to every one."""

    kind: Kind
    record: Control
    subject: int | None = None


def moment(value: Moment, name: str) -> int:
    """RFC 3339 with a zone, or µs; between the years 1800 and 2200."""
    found = value if isinstance(value, int) else _parsed(value, name)
    if not EARLIEST <= found < LATEST:
        raise BadControl(f"{name}: not between the years 1800 and 2200")
    return found


def _parsed(value: str, name: str) -> int:
    try:
        parsed = datetime.datetime.fromisoformat(value)
    except ValueError:
        raise BadControl(f"{name}: not a time") from None
    if parsed.tzinfo is None:
        raise BadControl(f"{name}: a time without its zone")
    return (parsed - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)


class Controls:
    """From the messages of the control topics to records."""

    def __init__(self, pseudonyms: Pseudonyms, digest: Callable[[Config], str]) -> None:
        """`digest(config)`: of everything besides the records that an answer depends on."""
        self._pseudonyms = pseudonyms
        self._config_digest = digest

    def flag(self, value: bytes, appended: int) -> Placed:
        """A state of a flag, for every partition. Only what people confirmed counts, so a confirmed one must name them."""
        message = _decode(_flag.decode, value)
        if not message.flag_id:
            raise BadControl("flag_id: empty")
        if message.state is FlagState.CONFIRMED and not message.confirmed_by:
            raise BadControl("confirmed_by: a confirmed flag names who confirmed it")
        if not 0 <= message.confidence <= PPM:
            raise BadControl(f"confidence: 0 to {PPM} (ppm)")
        at = self._effective(message.effective_at, appended)
        party = self._subject(message.subject, message.account)
        name = f"{party:016x}/{message.flag_id}"
        return Placed(
            Kind.FLAGS,
            Flag(
                # Partners number their flags and records on their own: only with the account is an id one flag's.
                record_id=f"{name}/{message.record_id}"
                if message.record_id
                else _record_id("flag", name, message.state.value, str(at)),
                effective_at=at,
                flag_id=message.flag_id,
                party=party,
                state=message.state,
                source=message.source,
                source_kind=message.source_kind,
                confidence=message.confidence,
                handling=message.handling,
                reason=message.reason,
                basis=message.basis,
                created=at if message.created is None else moment(message.created, "created"),
                expires=None if message.expires is None else moment(message.expires, "expires"),
                confirmed_by=tuple(message.confirmed_by),
            ),
        )

    def account(self, value: bytes, appended: int) -> Placed:
        """What a bank says of an account, for the account's partition."""
        message = _decode(_account.decode, value)
        if message.status not in ("open", "closed", "blocked", "deceased"):
            raise BadControl("status: open, closed, blocked or deceased")
        _between(message.income_band, 0, "income_band")
        subject = self._subject(message.subject, message.account)
        at = self._effective(message.effective_at, appended)
        hashed = self._pseudonyms
        return Placed(
            Kind.FACTS,
            Fact(
                record_id=message.record_id or _record_id("fact", f"{subject:016x}", str(at), _digest(value)),
                effective_at=at,
                subject=subject,
                entity=message.bank,
                domain=message.domain,
                kind=message.kind,
                opened=None if message.opened is None else moment(message.opened, "opened"),
                status=message.status,
                customers=tuple(
                    Customer(hashed.customer(customer.customer), customer.role)
                    for customer in message.customers
                ),
                household=tuple(self._subject("", account) for account in message.household),
                alias_of=self._subject("", message.alias_of) if message.alias_of else None,
                observed_since=(
                    None
                    if message.observed_since is None
                    else moment(message.observed_since, "observed_since")
                ),
                income_band=message.income_band,
            ),
            subject,
        )

    def decision(self, value: bytes, appended: int) -> Placed:
        """What people decided, for the subject's partition. A freeze takes two different people."""
        message = _decode(_decision.decode, value)
        if message.decision not in DECISIONS:
            raise BadControl(f"decision: one of {', '.join(DECISIONS)}")
        people = {person.strip().casefold() for person in message.deciders} - {""}
        if message.decision == "freeze" and len(people) < 2:
            raise BadControl("deciders: a freeze takes two different people", FOUR_EYES)
        subject = self._subject(message.subject, "")
        at = self._effective(message.effective_at, appended)
        return Placed(
            Kind.DECISIONS,
            Decision(
                record_id=message.record_id
                or _record_id("decision", message.recommendation_id, str(at), _digest(value)),
                effective_at=at,
                subject=subject,
                recommendation_id=message.recommendation_id,
                decision=message.decision,
                role=message.role,
                deciders=tuple(message.deciders),
                reason=message.reason,
                evidence_digest=message.evidence_digest,
            ),
            subject,
        )

    def config(self, value: bytes, appended: int) -> Placed:
        """A configuration, baselines, rates or a barrier, for every partition."""
        message = _decode(_config.decode, value)
        at = self._effective(message.effective_at, appended)
        record_id = message.record_id or _record_id("config", str(at), _digest(value))
        if isinstance(message, NewConfig):
            return Placed(Kind.CONFIG, _new_config(message, record_id, at, self._config_digest))
        if isinstance(message, NewBaselines):
            _between(message.hub_bucket_legs, LEAST_HUB, "hub_bucket_legs")
            _between(message.hub_counterparties, LEAST_HUB, "hub_counterparties")
            return Placed(
                Kind.BASELINES,
                Baselines(
                    record_id=record_id,
                    effective_at=at,
                    version=message.version,
                    hub_bucket_legs=message.hub_bucket_legs,
                    hub_counterparties=message.hub_counterparties,
                    quantiles=message.quantiles,
                    corridors=message.corridors,
                ),
            )
        if isinstance(message, NewRates):
            if not message.u_micro or min(message.u_micro.values()) <= 0:
                raise BadControl("u_micro: at least one rate, all of them above 0")
            return Placed(
                Kind.RATES,
                Rates(
                    record_id=record_id,
                    effective_at=at,
                    version=message.version,
                    source=message.source,
                    u_micro=message.u_micro,
                ),
            )
        return Placed(
            Kind.BARRIER,
            Barrier(
                record_id=record_id, effective_at=at, reason=message.reason, generation=message.generation
            ),
        )

    def _effective(self, given: Moment | None, appended: int) -> int:
        return appended if given is None else moment(given, "effective_at")

    def _subject(self, pseudonym: str, account: str) -> int:
        if pseudonym:
            try:
                subject = int(pseudonym, 16)
            except ValueError:
                subject = 0
            if len(pseudonym) != 16 or not subject:
                raise BadControl("subject: sixteen hexadecimal digits")
            return subject
        if not account.strip():
            raise BadControl("account: neither account nor subject is given")
        try:
            return self._pseudonyms.account(account)
        except ValueError as problem:  # its text never holds the account
            raise BadControl(str(problem)) from None


def _new_config(message: NewConfig, record_id: str, at: int, digest: Callable[[Config], str]) -> ConfigRecord:
    author, approver = message.author.strip().casefold(), message.approver.strip().casefold()
    if not author or not approver or author == approver:
        raise BadControl("author, approver: two different people", FOUR_EYES)
    document = bytes(message.document)
    try:
        config = Config.from_json(document)
    except (ValueError, msgspec.MsgspecError) as problem:
        raise BadControl(f"document: {problem}") from None
    return ConfigRecord(
        record_id=record_id,
        effective_at=at,
        version=message.version,
        digest=digest(config),
        document=config.canonical(),
        author=message.author,
        approver=message.approver,
        reason=message.reason,
    )


def _decode(decode: Callable[[bytes], T], value: bytes) -> T:
    try:
        return decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise BadControl(str(problem)) from None


def _between(number: int | None, least: int, name: str) -> None:
    if number is not None and not least <= number <= LARGEST:
        raise BadControl(f"{name}: {least} to {LARGEST}")


def _digest(value: bytes) -> str:
    return blake2b(value, digest_size=16).hexdigest()


def _record_id(*words: str) -> str:
    return blake2b("\0".join(words).encode(), digest_size=16).hexdigest()
