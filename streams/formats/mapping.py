"""Mapping files: what the columns of somebody's file or topic mean. Declarative; nothing in them runs.

Published as `docs/schemas/mapping.v1.schema.json`. The mappings that ship are named (`amlgentex`), others are paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from detectors.model import DAY, HOUR, MINUTE, SECOND
from streams.currencies import EXPONENTS
from streams.formats.canonical import ChannelName, PartyType, PrecisionName
from streams.located import Document, Misplaced, Place, load_file
from streams.shipped import shipped
from streams.zones import UnknownZone, zone

SCHEMA_ID = "https://safehold.example/schemas/mapping.v1.schema.json"

PurposeName = Literal["SALA", "PAYR", "RENT", "FAMI", "SSBE", "PENS", "CHAR", "LOAN"]
_Name = Annotated[str, Meta(min_length=1)]


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the columns. Columns that are not named here are never read."""

    transaction: Annotated[_Name, Meta(description="The reporting bank's transaction id.")]
    time: _Name
    amount: _Name
    debtor: Annotated[str, Meta(description="Account that the money leaves.")] = ""
    creditor: Annotated[str, Meta(description="Account that the money reaches.")] = ""
    debtor_bank: str = ""
    creditor_bank: str = ""
    account: Annotated[
        str,
        Meta(
            description="Instead of debtor and creditor: the bank's own account. The sign or `direction` tells its side."
        ),
    ] = ""
    counterparty: str = ""
    counterparty_bank: str = ""
    direction: str = ""
    currency: str = ""
    channel: Annotated[str, Meta(description="Only rules read it.")] = ""
    purpose: Annotated[str, Meta(description="An ISO 20022 purpose code.")] = ""
    status: Annotated[
        str, Meta(description="booked, returned or reversed; empty is booked; others are refused.")
    ] = ""
    refers_to: Annotated[str, Meta(description="Of a return: the transaction that it undoes.")] = ""
    uetr: str = ""
    end_to_end_id: str = ""
    place: str = ""
    extra: Annotated[tuple[_Name, ...], Meta(description="Further columns that rules read.")] = ()


class Time(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the time column is written."""

    precision: PrecisionName
    format: Annotated[
        str,
        Meta(description="`timestamp` (a timestamp or date column), `iso8601`, `epoch-s`, `epoch-ms`, `epoch-us`, `steps` "
             "(whole steps of the precision since `origin`), or a strptime pattern such as %d.%m.%Y."),
    ] = "timestamp"  # fmt: skip
    zone: Annotated[str, Meta(description="Zone of times without an offset.")] = "UTC"
    origin: Annotated[str, Meta(description="Date of step 0.")] = ""


class Amount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the amount column is written."""

    unit: Annotated[Literal["major", "minor"], Meta(description="12.30 or 1230.")] = "major"
    scale: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Multiply by this: 1000 for a file in thousands.")
    ] = 1
    decimal: Annotated[Literal[".", ","], Meta(description="Decimal sign of text.")] = "."
    rounding: Annotated[
        Literal["refuse", "half-even"], Meta(description="What to do with amounts finer than the minor unit.")
    ] = "refuse"
    sign: Annotated[
        Literal["unsigned", "credit-positive", "debit-positive"],
        Meta(description="With `columns.account`: which side a positive amount means."),
    ] = "unsigned"


class Direction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values of `columns.direction`."""

    debit: tuple[_Name, ...]
    credit: tuple[_Name, ...]


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A regular expression that the whole value must match."""

    pattern: _Name


class PartySetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule says of one side."""

    type: PartyType | None = None
    external: Annotated[
        bool | None, Meta(description="Never an account of a bank that is served: no leg of its own.")
    ] = None
    nameless: Annotated[
        bool | None,
        Meta(
            description="The value names nobody: many stand behind it (`EXT_SPEND`, `CASH`). Implies external."
        ),
    ] = None


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rule sets. `party` is the side whose account the rule's `when.account` matched."""

    channel: ChannelName | None = None
    purpose: PurposeName | None = None
    party: PartySetting | None = None
    debtor: PartySetting | None = None
    creditor: PartySetting | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For each attribute, the first rule that matches and sets it wins."""

    when: Annotated[
        dict[str, str | tuple[str, ...] | Pattern],
        Meta(description="`account` (either side), the name of a field in `columns`, or a column in `columns.extra`; each with "
             "a value, a list of values, or a pattern. All must match. '' matches an empty value."),
    ]  # fmt: skip
    set: Setting


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feed."""

    version: Literal[1]
    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_-]{0,40}$")]
    about: str
    bank: Annotated[_Name, Meta(description="The bank that reports.")]
    bank_codes: Annotated[tuple[_Name, ...], Meta(description="Values of bank columns that mean it.")] = ()
    booked: Annotated[
        bool, Meta(description="The feed holds booked payments. Only such a feed can be judged.")
    ]
    system_wide: Annotated[
        bool,
        Meta(description="The feed reports both sides, whoever holds them; each bank named in it is served."),
    ] = False
    empty_bank: Annotated[
        Literal["reporting", "outside"], Meta(description="Who holds an account whose bank is not named.")
    ] = "outside"
    qualify_accounts: Annotated[
        bool, Meta(description="Account numbers are unique in their bank only: write them as BANK/number.")
    ] = False
    lateness: Annotated[str, Meta(description="How late payments come: 6h, 4d.")] = "6h"
    observed_since: Annotated[
        str, Meta(description="`first-record`, a date, or empty: since when accounts are observed whole.")
    ] = ""
    columns: Columns
    time: Time
    amount: Amount = Amount()
    direction: Direction | None = None
    currency: Annotated[str, Meta(description="Of rows that name none.")] = ""
    accounts: Annotated[
        PartyType, Meta(description="What accounts of the served banks are, unless a rule says otherwise.")
    ] = "unknown"
    others: Annotated[PartyType, Meta(description="What other banks' accounts are.")] = "unknown"
    rules: tuple[Rule, ...] = ()
    delimiter: Annotated[str, Meta(description="Of CSV.")] = ","

    @property
    def lateness_us(self) -> int:
        """`lateness` in µs."""
        return _duration(self.lateness) or 0

    @property
    def observed_since_us(self) -> int | None:
        """The date in `observed_since` in µs UTC; None when there is none, or it is `first-record`."""
        if self.observed_since in ("", "first-record"):
            return None
        return (date.fromisoformat(self.observed_since) - date(1970, 1, 1)).days * DAY


_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_FORMATS = ("timestamp", "iso8601", "epoch-s", "epoch-ms", "epoch-us", "steps")


def _duration(text: str) -> int | None:
    parts = re.fullmatch(r"(\d{1,6})\s*([smhd])", text)
    return int(parts[1]) * _UNITS[parts[2]] if parts else None


def _date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


_KEYS = (
    "account", "debtor", "creditor", "debtor_bank", "creditor_bank", "currency", "channel", "purpose", "status", "place",
)  # fmt: skip


def _problems(m: Mapping) -> Iterator[tuple[Place, str]]:
    """What the types alone cannot see."""
    yield from _column_problems(m)
    if _duration(m.lateness) is None:
        yield ("lateness",), "must be a number and a unit out of s, m, h, d (for example 6h)"
    if m.observed_since not in ("", "first-record") and not _date(m.observed_since):
        yield ("observed_since",), "must be first-record or a date such as 2024-01-31"
    try:
        zone(m.time.zone)
    except UnknownZone as error:
        yield ("time", "zone"), str(error)
    if m.time.format not in _FORMATS and "%" not in m.time.format:
        yield ("time", "format"), f"must be one of {', '.join(_FORMATS)}, or a strptime pattern"
    if m.time.format == "steps" and (m.time.precision == "exact" or not _date(m.time.origin)):
        yield ("time", "origin"), "steps need an origin (a date) and a precision of minute, hour or day"
    if m.currency and m.currency not in EXPONENTS:
        yield ("currency",), "not a currency of ISO 4217"
    if not (m.currency or m.columns.currency):
        yield ("currency",), "missing: neither here nor in columns"
    if len(m.delimiter) != 1:
        yield ("delimiter",), "must be one character"
    for index, rule in enumerate(m.rules):
        yield from _rule_problems(m, rule, ("rules", index))


def _column_problems(m: Mapping) -> Iterator[tuple[Place, str]]:
    c = m.columns
    both, own = bool(c.debtor or c.creditor), bool(c.account)
    if both == own or (both and not (c.debtor and c.creditor)):
        yield ("columns",), "needs debtor and creditor, or account (with counterparty)"
    if own:
        signed = m.amount.sign != "unsigned"
        if signed == bool(c.direction):
            yield (
                ("amount", "sign"),
                "with columns.account, exactly one of amount.sign and columns.direction tells the side",
            )
        if m.system_wide:
            yield ("system_wide",), "a feed of one bank's own accounts is not system-wide"
        if c.debtor_bank or c.creditor_bank:
            yield ("columns",), "debtor_bank and creditor_bank go with debtor and creditor"
    elif m.amount.sign != "unsigned" or c.direction or c.counterparty or c.counterparty_bank:
        yield ("columns",), "sign, direction and counterparty go with columns.account"
    if bool(c.direction) != (m.direction is not None):
        yield ("direction",), "columns.direction and direction go together"
    if m.direction and set(m.direction.debit) & set(m.direction.credit):
        yield ("direction",), "a value cannot mean both sides"


def _rule_problems(m: Mapping, rule: Rule, place: Place) -> Iterator[tuple[Place, str]]:
    if not rule.when:
        yield (*place, "when"), "empty"
    for key, match in rule.when.items():
        known = key in m.columns.extra or (
            key in _KEYS
            and (
                key in ("account", "debtor", "creditor")
                or key in ("debtor_bank", "creditor_bank")
                or bool(getattr(m.columns, key))
            )
        )
        if not known:
            yield (*place, "when", key), "neither a field with a column nor listed in columns.extra"
        if isinstance(match, Pattern):
            try:
                re.compile(match.pattern)
            except re.error as error:
                yield (*place, "when", key, "pattern"), f"not a regular expression: {error}"
    if rule.set == Setting():
        yield (*place, "set"), "sets nothing"
    if rule.set.party is not None and "account" not in rule.when:
        yield (*place, "set", "party"), "needs when.account"


def mappings() -> list[str]:
    """Names of the mappings that ship."""
    return sorted(path.stem for path in shipped("mappings").glob("*.yaml"))


def load_mapping(name_or_path: str | Path) -> Mapping:
    """A mapping that ships, by name, or one from a file. Raises `located.Misplaced` with all that is wrong."""
    text = str(name_or_path)
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]*", text) and (path := shipped("mappings", f"{text}.yaml")).is_file():
        return check_mapping(load_file(path, Mapping))
    if not Path(text).is_file():
        raise Misplaced([f"{text}: neither a file nor one of {', '.join(mappings())}"])
    return check_mapping(load_file(Path(text), Mapping))


def check_mapping(document: Document[Mapping]) -> Mapping:
    """The mapping of a document, or all that the types alone cannot see."""
    problems = [document.problem(place, text) for place, text in _problems(document.value)]
    if problems:
        raise Misplaced(problems)
    return document.value
