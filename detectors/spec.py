"""What a detector is made of: its specification, the measures it reads, and the evidence that it returns.

Everything a reader, an analyst or a test needs to know of a detector is in its `DetectorSpec`: pages, configuration,
schema and the uniform check suite are generated from it. Values are integers: durations in microseconds, money in u-cents
(100 = 1 u), shares in parts per million, days as whole days.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.model import DAY, PRECISION_US, Channel, Family, PartyClass, Role, Side, Stage

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_EVIDENCE: Final = 200
"""Most legs that one reason names; `truncated` says when there were more."""


class Kind(StrEnum):
    """What a number is, and so how it is written and shown."""

    DURATION = "duration"  # µs; written 72h
    DAYS = "days"  # whole days; written 90d
    MONEY = "money"  # u-cents; written 300.00 u
    RATIO = "ratio"  # ppm; written 85%
    COUNT = "count"  # written 8
    POINTS = "points"  # millionths of a point; written 6 or 0.5


class Tag(StrEnum):
    """Where a figure comes from."""

    SRC = "SRC"  # stated in the source
    DRV = "DRV"  # derived from a figure in the source
    START = "START"  # starting value, to be tuned on the bank's own history


class Read(StrEnum):
    """How a source was read by whoever wrote the detector."""

    FULL = "whole text"
    EXCERPT = "excerpt of the primary page"
    SECONDARY = "secondary summary that lists the primary's content"
    REPOSITORY = "read in its repository"
    PRIOR = "prior knowledge, not checked"


class Maturity(StrEnum):
    """`experimental` gives hits but no points; `retired` is kept so that its id is never used again."""

    EXPERIMENTAL = "experimental"
    PRODUCTION = "production"
    RETIRED = "retired"


NOT_COMPUTABLE: Final[dict[int, str]] = {
    -1: "history_too_short",
    -2: "time_precision_too_coarse",
    -3: "fact_missing",
    -4: "detector_error",
}
"""Reason of each negative measure or strength. A value that could not be computed is never zero."""

DETECTOR_ERROR: Final = -4


class _Measure(NamedTuple):
    name: str
    kind: Kind
    text: str


_MEASURES: Final = (
    _Measure("pass_episodes", Kind.COUNT, "credits that went out again almost whole"),
    _Measure("pass_dwell", Kind.DURATION, "median time that such a credit stayed"),
    _Measure("kept_episodes", Kind.COUNT, "credits that went out again almost whole, long window"),
    _Measure("kept_median", Kind.RATIO, "median share of such a credit that stayed"),
    _Measure("kept_iqr", Kind.RATIO, "spread of that share between the quartiles"),
    _Measure("payers", Kind.COUNT, "people who paid in"),
    _Measure("payers_first", Kind.COUNT, "people who paid in for the first time"),
    _Measure("payees", Kind.COUNT, "people who were paid"),
    _Measure("payees_first", Kind.COUNT, "people who were paid for the first time"),
    _Measure("payees_first_day", Kind.COUNT, "people who were paid for the first time, short window"),
    _Measure("gather_in", Kind.MONEY, "money from people"),
    _Measure("gather_out", Kind.MONEY, "money to people, cash, crypto and money transfer"),
    _Measure("gather_payers", Kind.COUNT, "people who paid in"),
    _Measure("gather_payees", Kind.COUNT, "people who were paid"),
    _Measure("both_ways", Kind.COUNT, "people who paid in and were paid"),
    _Measure("age_days", Kind.DAYS, "age of the account"),
    _Measure("life_payers", Kind.COUNT, "people who paid in"),
    _Measure("life_credits", Kind.MONEY, "money that came in"),
    _Measure("life_episodes", Kind.COUNT, "credits that went out again almost whole"),
    _Measure("quiet_days", Kind.DAYS, "days without the customer doing anything"),
    _Measure("wake_credits", Kind.MONEY, "money that came in since"),
    _Measure("wake_credits_first", Kind.MONEY, "money that came in since, from first-time payers"),
    _Measure("wake_payers", Kind.COUNT, "payers since"),
    _Measure("band_deposits", Kind.COUNT, "deposits just below the limit"),
    _Measure("band_total", Kind.MONEY, "sum of those deposits"),
    _Measure("band_payers", Kind.COUNT, "different payers of those deposits"),
    _Measure("cash_outs", Kind.COUNT, "credits that were taken out in cash at once"),
    _Measure("collect_payers", Kind.COUNT, "people who paid in for the first time"),
    _Measure("collect_one_off", Kind.RATIO, "share of them who paid once, or ever more"),
    _Measure("collect_credits", Kind.MONEY, "money that they paid"),
    _Measure("collect_forwarded", Kind.RATIO, "share of that money that went on"),
    _Measure("flagged_in", Kind.MONEY, "money from confirmed flagged accounts"),
    _Measure("flagged_in_n", Kind.COUNT, "payments from confirmed flagged accounts"),
    _Measure("flagged_out", Kind.MONEY, "money to confirmed flagged accounts"),
    _Measure("flagged_out_n", Kind.COUNT, "payments to confirmed flagged accounts"),
    _Measure("tenure_days", Kind.DAYS, "how long this regular counterparty has been known"),
    _Measure("own_legs", Kind.COUNT, "legs with own, household or protected accounts, left out"),
    _Measure("unknown_legs", Kind.COUNT, "legs whose counterparty is of unknown kind"),
    _Measure("history", Kind.DURATION, "time that the account has been known"),
)

MEASURES: Final[tuple[str, ...]] = tuple(m.name for m in _MEASURES)
"""Names of the measures, in the order of the kernel's columns (docs/state.md)."""

MEASURE_INDEX: Final[dict[str, int]] = {m.name: i for i, m in enumerate(_MEASURES)}
MEASURE_KIND: Final[dict[str, Kind]] = {m.name: m.kind for m in _MEASURES}
MEASURE_TEXT: Final[dict[str, str]] = {m.name: m.text for m in _MEASURES}

LEG_COLUMNS: Final = ("side", "amount_u", "channel", "party_class", "time", "purpose")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where an indicator was published, and how we read it."""

    key: str  # as in the list of sources
    publisher: str
    title: str
    year: int
    section: str  # page, section or indicator number; "not seen" where only a summary was read
    read: Read
    note: str  # what it says, in our words, and what we changed


class Param(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a detector that an analyst may change."""

    name: str
    kind: Kind
    default: int
    min: int
    max: int
    text: str  # what it is
    why: str  # why this default, and what the bounds keep
    tag: Tag = Tag.START
    shapes: bool = False  # it shapes the strength only, and never decides alone whether the detector fires


def _param(kind: Kind) -> Callable[..., Param]:
    def make(
        name: str,
        default: int,
        low: int,
        high: int,
        text: str,
        why: str,
        *,
        tag: Tag = Tag.START,
        shapes: bool = False,
    ) -> Param:
        return Param(
            name=name,
            kind=kind,
            default=default,
            min=low,
            max=high,
            text=text,
            why=why,
            tag=tag,
            shapes=shapes,
        )

    return make


duration = _param(Kind.DURATION)
days = _param(Kind.DAYS)
money = _param(Kind.MONEY)
ratio = _param(Kind.RATIO)
count = _param(Kind.COUNT)


class LookAlike(msgspec.Struct, frozen=True, kw_only=True):
    """Lawful life that resembles the indicator.

    `case` names a case of `tests/cases/<id>.yaml` that shows that at most a place on the watch-list comes of it.
    """

    text: str
    case: str


class DetectorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a detector except the two functions."""

    id: str  # = module name with hyphens, configuration key, case file, page, metric label
    title: str
    summary: str  # what it finds, and what it does not
    stage: Stage
    family: Family
    roles: tuple[Role, ...]  # what the holder of such an account usually is; a hint, never a finding
    points: int  # at full strength: 1 weak, 2 moderate, 4 strong; negative for a mitigator
    strength: str  # how strength grows between the threshold and full
    sentence: str  # template: {measure} and {parameter} are filled in and formatted by detectors.render
    sources: tuple[Source, ...]
    params: tuple[Param, ...]
    trigger: Side | None  # which legs are judged; None = both sides
    measures: tuple[str, ...]  # that `screen` reads
    window: str | None  # the parameter that bounds the look-back
    lots: bool = False  # the look-back is longer by the lots that reach into it
    ordered: tuple[tuple[str, ...], ...] = ()  # parameters whose values must not fall from left to right
    look_alikes: tuple[LookAlike, ...]
    misses: tuple[str, ...]  # blind spots and ways around it
    runbook: tuple[str, ...]  # two or three steps for the person who looks at it
    maturity: Maturity
    since: str

    @property
    def module(self) -> str:
        """Name of the module that holds it."""
        return self.id.replace("-", "_")

    def param(self, name: str) -> Param:
        """The parameter with this name."""
        for param in self.params:
            if param.name == name:
                return param
        raise KeyError(f"{self.id} has no parameter {name}")

    def defaults(self) -> Params:
        """Its parameters as shipped."""
        return Params({param.name: param.default for param in self.params})


class Params:
    """Parameter values by attribute, all `int`. Cannot be changed."""

    __slots__ = ("_values",)
    _values: dict[str, int]

    def __init__(self, values: dict[str, int]) -> None:
        object.__setattr__(self, "_values", dict(values))

    def __getattr__(self, name: str) -> int:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no parameter {name}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("parameters cannot be changed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Params, (self._values,))

    def __repr__(self) -> str:
        return f"Params({self._values!r})"

    def replace(self, **changes: int) -> Params:
        """A copy with some values changed."""
        unknown = changes.keys() - self._values.keys()
        if unknown:
            raise KeyError(f"no parameter {sorted(unknown)}")
        return Params(self._values | changes)

    def as_dict(self) -> dict[str, int]:
        """A copy of the values."""
        return dict(self._values)


class Measures:
    """One reading of the measures of n judged legs: `m.payers` is an int64 array of length n.

    `matrix` has one row a leg and one column a measure, in the order of `MEASURES`; the columns of the judged legs
    themselves (`side`, `amount_u`, `channel`, `party_class`, `time`, `purpose`) stand beside it.
    """

    __slots__ = ("amount_u", "channel", "matrix", "party_class", "purpose", "side", "time")

    def __init__(
        self,
        matrix: Ints,
        *,
        side: NDArray[Any],
        amount_u: NDArray[Any],
        channel: NDArray[Any],
        party_class: NDArray[Any],
        time: NDArray[Any],
        purpose: NDArray[Any],
    ) -> None:
        self.matrix = matrix
        self.side = side
        self.amount_u = amount_u
        self.channel = channel
        self.party_class = party_class
        self.time = time
        self.purpose = purpose

    def __len__(self) -> int:
        return len(self.matrix)

    def rows(self, first: int, last: int) -> Measures:
        """A part of the legs."""
        return Measures(
            self.matrix[first:last], **{name: getattr(self, name)[first:last] for name in LEG_COLUMNS}
        )

    def __getattr__(self, name: str) -> Ints:
        try:
            column = MEASURE_INDEX[name]
        except KeyError:
            raise AttributeError(f"no measure {name}") from None
        return self.matrix[:, column]


class Observed(msgspec.Struct, frozen=True):
    """One measured value beside the value it is compared with."""

    measure: str
    value: int
    unit: Kind
    threshold: int | None = None
    param: str = ""  # the parameter that the threshold is
    tag: Tag | None = None  # where the threshold comes from


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector saw. `rows` are positions in the view, oldest first; no prose."""

    observed: tuple[Observed, ...]
    baseline: tuple[Observed, ...]
    window_from: int
    window_to: int
    rows: tuple[int, ...]


class Detector(Protocol):
    """What a module of the catalogue offers."""

    SPEC: DetectorSpec

    def screen(self, m: Measures, p: Params) -> Ints:
        """Strength of each leg in ppm; negative where it could not be computed."""
        ...

    def explain(self, view: AccountView, p: Params) -> Evidence:
        """Evidence for the leg that ends the view."""
        ...


_OUT_CLASSES: Final = (PartyClass.CASH, PartyClass.VASP, PartyClass.REMITTER)
_COUNTED_CLASSES: Final = (PartyClass.BUSINESS, PartyClass.REMITTER, PartyClass.VASP, PartyClass.CASH)
_CASH_CHANNELS: Final = (Channel.ATM, Channel.CASH_COUNTER)


class _Plain(NamedTuple):
    time: list[int]
    precision: list[int]
    amount: list[int]
    credit: list[bool]
    ignored: list[bool]
    out: list[bool]


class AccountView:
    """The rows of one account that are visible at the judged leg, oldest first, the judged leg last; read only.

    Columns: `time, leg, party, amount, amount_u, side, party_class, channel, purpose, precision, first_time, regular,
    ignored`. `flags` maps a counterparty to the ids of its flags that count at the judged leg. Void rows are not in it.
    """

    __slots__ = (
        "_followed",
        "_lists",
        "amount",
        "amount_u",
        "channel",
        "first_time",
        "flags",
        "ignored",
        "leg",
        "measures",
        "party",
        "party_class",
        "passing",
        "precision",
        "purpose",
        "reading",
        "regular",
        "side",
        "time",
    )

    def __init__(
        self,
        *,
        time: NDArray[Any],
        leg: NDArray[Any],
        party: NDArray[Any],
        amount: NDArray[Any],
        amount_u: NDArray[Any],
        side: NDArray[Any],
        party_class: NDArray[Any],
        channel: NDArray[Any],
        purpose: NDArray[Any],
        precision: NDArray[Any],
        first_time: NDArray[Any],
        regular: NDArray[Any],
        ignored: NDArray[Any],
        reading: str,
        measures: Ints,  # the row of the judged leg in this reading
        flags: dict[int, tuple[str, ...]],
        passing: Params,  # those of rapid-pass-through: they say what an episode is
    ) -> None:
        self.time = time
        self.leg = leg
        self.party = party
        self.amount = amount
        self.amount_u = amount_u
        self.side = side
        self.party_class = party_class
        self.channel = channel
        self.purpose = purpose
        self.precision = precision
        self.first_time = first_time
        self.regular = regular
        self.ignored = ignored
        self.reading = reading
        self.measures = measures
        self.flags = flags
        self.passing = passing
        self._lists: _Plain | None = None
        self._followed: dict[int, tuple[tuple[int, int], ...]] = {}

    @property
    def hi(self) -> int:
        """Number of rows; the judged leg is at `hi - 1`."""
        return len(self.time)

    @property
    def now(self) -> int:
        """Event time of the judged leg."""
        return int(self.time[-1])

    def measure(self, name: str) -> int:
        """A measure of the judged leg in this reading."""
        return int(self.measures[MEASURE_INDEX[name]])

    def within(self, window: int) -> Bools:
        """Rows that count, with time in `(now - window, now]`."""
        return (self.time > self.now - window) & (self.ignored == 0)

    def personal(self) -> Bools:
        """Rows whose counterparty is a person in this reading."""
        known = self.party_class == PartyClass.PERSONAL
        if self.reading == "high":
            known = known | (self.party_class == PartyClass.UNKNOWN)
        return known

    def credits(self) -> Bools:
        """Rows that pay in."""
        return self.side == Side.CREDIT

    def debits(self) -> Bools:
        """Rows that pay out."""
        return self.side == Side.DEBIT

    def cash(self) -> Bools:
        """Rows that hand out cash."""
        return np.isin(self.channel, _CASH_CHANNELS) | (self.party_class == PartyClass.CASH)

    def taken(self) -> Bools:
        """Debits to people, cash, crypto or money transfer, regular payees included."""
        away = (
            self.personal() | np.isin(self.party_class, _OUT_CLASSES) | np.isin(self.channel, _CASH_CHANNELS)
        )
        return self.debits() & away

    def out(self) -> Bools:
        """Debits that take money away: `taken` without regular payees."""
        return self.taken() & (self.regular == 0)

    def counted(self) -> Bools:
        """Credits that count as money come in."""
        return self.credits() & (self.personal() | np.isin(self.party_class, _COUNTED_CLASSES))

    def elapsed(self, first: int, second: int) -> int:
        """Time from one row to another as finely as both are known."""
        rows = self._plain()
        step = PRECISION_US[max(rows.precision[first], rows.precision[second])]
        return (rows.time[second] // step - rows.time[first] // step) * step

    def _plain(self) -> _Plain:
        """The columns that lots need, as lists: rows are walked one by one here."""
        if self._lists is None:
            self._lists = _Plain(
                time=self.time.tolist(),
                precision=self.precision.tolist(),
                amount=self.amount_u.tolist(),
                credit=(self.side == Side.CREDIT).tolist(),
                ignored=(self.ignored != 0).tolist(),
                out=self.out().tolist(),
            )
        return self._lists

    def follow(self, credit: int) -> tuple[tuple[int, int], ...]:
        """`(debit, u-cents)` of a credit that left within the horizon, first in first out; not only `out` debits."""
        found = self._followed.get(credit)
        if found is None:
            found = self._followed[credit] = self._follow(credit)
        return found

    def _follow(self, credit: int) -> tuple[tuple[int, int], ...]:
        horizon = self.passing.horizon
        rows = self._plain()
        started = rows.time[credit]
        queue: deque[list[int]] = deque()  # [row, u-cents left]
        taken: list[tuple[int, int]] = []
        first = bisect_right(rows.time, started - horizon)
        last = bisect_right(rows.time, started + horizon + DAY)  # a day: times may be coarse
        for row in range(first, last):
            if rows.ignored[row]:
                continue
            if rows.time[row] >= started and self.elapsed(credit, row) > horizon:
                continue
            amount = rows.amount[row]
            if rows.credit[row]:
                queue.append([row, amount])
                continue
            while queue and self.elapsed(queue[0][0], row) > horizon:
                queue.popleft()
            while queue and amount > 0:
                lot = queue[0]
                part = min(lot[1], amount)
                amount -= part
                lot[1] -= part
                if lot[0] == credit and part > 0:
                    taken.append((row, part))
                if lot[1] == 0:
                    queue.popleft()
            if row > credit and (not queue or queue[0][0] > credit):
                break  # the credit is gone, or was dropped
        return tuple(taken)

    def gone(self, credit: int) -> int:
        """u-cents of a credit that were taken away within the horizon."""
        out = self._plain().out
        return sum(part for row, part in self.follow(credit) if out[row])
