"""A file of payments, or of accounts, with what its columns mean: the one way `judge` and `replay` read files."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from detectors.model import DAY, AccountKind, Fact
from streams.controls import AccountMessage
from streams.formats import canonical
from streams.formats.files import BadFile, LegRows, read_columns, read_file
from streams.formats.mapping import Mapping as ColumnMapping
from streams.formats.mapping import load_mapping, mappings
from streams.located import Misplaced
from streams.payment import DecodeContext, Payment, Rejected
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms, qualify

CANONICAL = "canonical"
BATCH = 4_096
Batches = Iterator[list[Payment | Rejected]]


class CannotOpen(ValueError):
    """A file or mapping that cannot be used, in one line, with what is wrong in detail and a place to look."""

    def __init__(self, message: str, *, details: Sequence[str] = (), look: str = "") -> None:
        super().__init__(message)
        self.details = tuple(details)
        self.look = look


@dataclass(frozen=True, slots=True)
class Opened:
    """Payments that can be gone through as often as needed."""

    path: Path
    bank: str
    mapping: ColumnMapping | None
    """None: canonical JSON, one transaction a line."""
    total: int | None
    """How many payments there are, where the file says so."""

    def payments(self) -> Batches:
        """As payments, in the order of the file. `Rejected.index` is the row, from 0; empty lines are no rows."""
        if self.mapping is not None:
            with _readable(self.path):
                yield from read_file(self.path, self.mapping, batch=BATCH)
            return
        for batch, _ in self.numbered():
            yield batch

    def numbered(self) -> Iterator[tuple[list[Payment | Rejected], list[int]]]:
        """Canonical JSON as payments, each with its row. A row may be an array of several."""
        context = DecodeContext(bank=self.bank)
        with _readable(self.path), self.path.open("rb") as lines:
            filled = enumerate(line for line in lines if line.strip())
            while chunk := list(islice(filled, BATCH)):
                batch: list[Payment | Rejected] = []
                rows: list[int] = []
                for row, line in chunk:
                    for item in canonical.decode(line, context):
                        refused = isinstance(item, Rejected)
                        batch.append(msgspec.structs.replace(item, index=row) if refused else item)
                        rows.append(row)
                yield batch, rows

    def rows(self, pseudonyms: Pseudonyms, rates: Mapping[str, int]) -> Iterator[LegRows]:
        """As ledger rows, several times as fast. Not for canonical JSON."""
        if self.mapping is None:
            raise ValueError("canonical JSON is read as payments")
        with _readable(self.path):
            yield from read_columns(self.path, self.mapping, pseudonyms, rates)

    def first_time(self) -> int | None:
        """Event time of the earliest payment of the first batch."""
        for batch in self.payments():
            times = [item.time for item in batch if isinstance(item, Payment)]
            if times:
                return min(times)
        return None

    def observed_since(self) -> int | None:
        """Since when accounts are observed whole, as the mapping says."""
        if self.mapping is None:
            return None
        if self.mapping.observed_since != "first-record":
            return self.mapping.observed_since_us
        first = self.first_time()
        return None if first is None else first // DAY * DAY


class _readable:  # noqa: N801 - reads as a statement
    """Turns what goes wrong with a file into one clear line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: object
    ) -> None:
        if isinstance(problem, BadFile):
            raise CannotOpen(
                str(problem), look="the mapping's columns, and safehold judge --help"
            ) from problem
        if isinstance(problem, OSError):
            raise CannotOpen(f"{self.path} cannot be read: {problem.strerror or problem}") from problem


def open_payments(path: Path, mapping: str, *, bank: str = "") -> Opened:
    """A file with a mapping that ships, one from a file, or canonical JSON lines."""
    if not path.is_file():
        raise CannotOpen(f"{path} is not there, or is no file")
    if mapping == CANONICAL:
        return Opened(path, bank, None, None)
    try:
        chosen = load_mapping(mapping)
    except Misplaced as wrong:
        raise CannotOpen(
            f"the mapping {mapping} cannot be used",
            details=wrong.problems,
            look=f"mappings that ship: {', '.join([*mappings(), CANONICAL])}",
        ) from wrong
    total = None
    if path.suffix.lower() == ".parquet":
        with _readable(path):
            try:
                total = pq.read_metadata(path).num_rows
            except Exception as problem:
                raise CannotOpen(f"{path} is no Parquet file ({problem})") from problem
    return Opened(path, chosen.bank, chosen, total)


# -- accounts -------------------------------------------------------------------------------------------------------

ACCOUNT_COLUMNS = (
    "account",
    "bank",
    "kind",
    "opened",
    "status",
    "observed_since",
    "household",
    "income_band",
    "domain",
)
"""Columns of an accounts file that are read, by these names. Every other column is never looked at."""

STATUSES = ("open", "closed", "blocked", "deceased")
_KINDS = {kind.value for kind in AccountKind}


def read_accounts(path: Path) -> list[dict[str, Any]]:
    """The rows of an accounts file (Parquet, CSV or JSONL), only the columns of `ACCOUNT_COLUMNS`."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise CannotOpen(f"{path} is not there, or is no file")
    try:
        if suffix == ".parquet":
            names = [name for name in pq.read_schema(path).names if name in ACCOUNT_COLUMNS]
            rows = pq.read_table(path, columns=names).to_pylist() if names else []
        elif suffix in (".jsonl", ".ndjson"):
            with path.open("rb") as lines:
                rows = [msgspec.json.decode(line, type=dict[str, Any]) for line in lines if line.strip()]
        elif suffix == ".csv":
            import csv

            with path.open(encoding="utf-8", newline="") as lines:
                rows = list(csv.DictReader(lines))
        else:
            raise CannotOpen(f"{path}: neither .parquet, .csv nor .jsonl")
    except CannotOpen:
        raise
    except Exception as problem:
        raise CannotOpen(
            f"{path} cannot be read as accounts ({type(problem).__name__}: {problem})"
        ) from problem
    empty = [number for number, row in enumerate(rows, 1) if not str(row.get("account") or "").strip()]
    if empty:
        which = "there is no such column" if len(empty) == len(rows) else f"row {empty[0]} has none"
        more = f", nor have {len(empty) - 1} others" if len(empty) < len(rows) and len(empty) > 1 else ""
        raise CannotOpen(
            f"{path}: every row needs `account`; {which}{more}",
            look=f"columns that are read: {', '.join(ACCOUNT_COLUMNS)}",
        )
    return [{name: row[name] for name in ACCOUNT_COLUMNS if row.get(name) not in (None, "")} for row in rows]


def unknown_kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Kinds that are none, and how many rows say so. Those accounts count as of unknown kind."""
    found: dict[str, int] = {}
    for row in rows:
        kind = str(row.get("kind", ""))
        if kind and kind.lower() not in _KINDS:
            found[kind] = found.get(kind, 0) + 1
    return dict(sorted(found.items()))


def facts_of(
    rows: Sequence[Mapping[str, Any]], pseudonyms: Pseudonyms, *, bank: str, qualified: bool = False
) -> list[Fact]:
    """Account rows as facts that hold from the beginning of time."""

    def subject(account: object, holder: str) -> int:
        return pseudonyms.account(qualify(str(account), holder) if qualified else str(account))

    facts = []
    for number, row in enumerate(rows):
        holder = str(row.get("bank", bank))
        opened = moment_of(row["opened"], f"row {number + 1}: opened") if "opened" in row else None
        since = (
            moment_of(row["observed_since"], f"row {number + 1}: observed_since")
            if "observed_since" in row
            else None
        )
        household = row.get("household", ())
        names = household.replace(",", ";").split(";") if isinstance(household, str) else list(household)
        kind, status = str(row.get("kind", "")).lower(), str(row.get("status", "open")).lower()
        facts.append(
            Fact(
                record_id=f"accounts-file:{number}",
                effective_at=min(0, opened or 0),
                subject=subject(row["account"], holder),
                entity=holder,
                domain=str(row.get("domain", "")),
                kind=AccountKind(kind) if kind in _KINDS else AccountKind.UNKNOWN,
                opened=opened,
                status=status if status in STATUSES else "open",
                household=tuple(subject(name.strip(), holder) for name in names if str(name).strip()),
                observed_since=since,
                income_band=int(row["income_band"]) if "income_band" in row else None,
            )
        )
    return facts


def messages_of(rows: Sequence[Mapping[str, Any]], *, bank: str = "", code: str = "") -> list[AccountMessage]:
    """Account rows as messages for the accounts topic: they hold from the beginning of time.

    An account is what the payments call it. `code`: they call it `code/number` where it is no IBAN.
    """

    def named(account: object) -> str:
        text = str(account).strip()
        return text if code and text.startswith(f"{code}/") else qualify(text, code)

    messages = []
    for fact, row in zip(_plain_facts(rows, bank), rows, strict=True):
        household = row.get("household", ())
        names = household.replace(",", ";").split(";") if isinstance(household, str) else list(household)
        messages.append(
            AccountMessage(
                account=named(row["account"]),
                bank=fact.entity,
                domain=fact.domain,
                kind=fact.kind,
                opened=fact.opened,
                status=fact.status,
                household=[named(name) for name in names if str(name).strip()],
                observed_since=fact.observed_since,
                income_band=fact.income_band,
                effective_at=fact.effective_at,
            )
        )
    return messages


def _plain_facts(rows: Sequence[Mapping[str, Any]], bank: str) -> list[Fact]:
    """The facts without their hashes."""
    bare = [{name: value for name, value in row.items() if name != "household"} for row in rows]
    return facts_of(bare, Pseudonyms(PUBLIC_KEY), bank=bank)


def moment_of(value: object, where: str) -> int:
    """A date or timestamp in one of the usual spellings, in µs UTC: 2024-01-31, 20240131, 2024-01-31T10:00:00Z."""
    if isinstance(value, datetime.datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
    elif isinstance(value, datetime.date):
        moment = datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC)
    else:
        text = str(value).strip()
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise CannotOpen(f"{where}: {text!r} is no date such as 2024-01-31 or 20240131") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (moment - epoch) // datetime.timedelta(microseconds=1)
