"""The slow, plain twin of the fold: what one leg's measures are, read off docs/state.md and nothing else.

Every function looks at the whole canonical prefix of one account. Nothing is kept, closed or dropped, so no
answer can depend on when something arrived. Where docs/state.md leaves a choice, it is marked `choice:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from detectors.model import DAY, PPM, PRECISION_US, Channel, Fact, Flag, PartyClass, TimePrecision
from tests.core.twin_rows import (
    Leg,
    Params,
    Settings,
    as_of,
    counting_flags,
    elapsed,
    first_time,
    hub_start,
    is_ignored,
    regular,
    relationship,
    visible,
)

HISTORY_TOO_SHORT = -1
TOO_COARSE = -2
FACT_MISSING = -3
UNLIMITED = 2**62
"""`history` of an account opened while it was observed: choice of a number, longer than any history."""

CENSUS = 30 * DAY
CASH_CHANNELS = (Channel.ATM, Channel.CASH_COUNTER)
FIRST_TIME_BUSINESS = (PartyClass.BUSINESS, PartyClass.REMITTER, PartyClass.VASP)
COUNTED = (*FIRST_TIME_BUSINESS, PartyClass.CASH)


def lower_median(values: Sequence[int]) -> int:
    """The lower of the two middle values."""
    return sorted(values)[(len(values) - 1) // 2]


def spread_of(values: Sequence[int]) -> int:
    """The interquartile range, by positions."""
    s = sorted(values)
    return s[3 * (len(s) - 1) // 4] - s[(len(s) - 1) // 4]


@dataclass
class Consumed:
    """One bite out of a lot."""

    debit: Leg
    amount: int


def lot(seen: Sequence[Leg], credit: Leg, horizon: int) -> list[Consumed]:
    """FIFO over what `seen` (visible, not ignored) holds around one credit: which debit took how much."""
    queue: list[list] = []  # [credit, what is left of it]
    bites: list[Consumed] = []
    for row in seen:
        if row.time <= credit.time - horizon:
            continue
        if row.time >= credit.time and elapsed(credit, row) > horizon:
            continue
        if row.credit:
            queue.append([row, row.u])
            continue
        while queue and elapsed(queue[0][0], row) > horizon:
            queue.pop(0)
        left = row.u
        while queue and left > 0:
            owner, there = queue[0]
            taken = min(left, there)
            if owner.leg == credit.leg and taken > 0:
                bites.append(Consumed(row, taken))
            left -= taken
            queue[0][1] -= taken
            if queue[0][1] == 0:
                queue.pop(0)
    return bites


@dataclass
class Account:
    """One account as of leg `e`: the words of docs/state.md as small functions."""

    rows: Sequence[Leg]
    e: int
    facts: Sequence[Fact]
    flags: Sequence[Flag]
    params: Params
    settings: Settings
    reading: str  # "high" or "low"

    def __post_init__(self) -> None:
        self.leg = self.rows[self.e]
        self.now = self.leg.time
        self.prefix = [row for row in self.rows[: self.e + 1] if not row.void]
        self.counted = [row for row in self.prefix if not self.ignored(row)]
        self.fact = as_of(self.facts, self.now)
        self.all_visible = visible(self.rows, self.e, self.settings)
        self.seen = [row for row in self.all_visible if not self.ignored(row)]
        self._first: dict[int, bool] = {}
        self._regular: dict[int, bool] = {}

    def param(self, detector: str, name: str) -> int:
        """One parameter."""
        return self.params[detector][name]

    def ignored(self, row: Leg) -> bool:
        """Left out of every measure."""
        return is_ignored(row, self.facts)

    def personal(self, row: Leg) -> bool:
        """A natural person; in the high reading also who is not known."""
        if row.party_class == PartyClass.PERSONAL:
            return True
        return row.party_class == PartyClass.UNKNOWN and self.reading == "high"

    def first(self, row: Leg) -> bool:
        """`first_time`."""
        if row.leg not in self._first:
            self._first[row.leg] = first_time(self.counted, row, self.settings)
        return self._first[row.leg]

    def regular(self, row: Leg) -> bool:
        """`regular`."""
        if row.leg not in self._regular:
            self._regular[row.leg] = regular(self.counted, row, self.settings)
        return self._regular[row.leg]

    def away(self, row: Leg) -> bool:
        """A debit to a person, in cash, to crypto or a money transmitter: regular or not."""
        return (
            self.personal(row)
            or row.party_class in (PartyClass.CASH, PartyClass.VASP, PartyClass.REMITTER)
            or row.channel in CASH_CHANNELS
        )

    def out(self, row: Leg) -> bool:
        """A debit that takes money away; never a regular payee."""
        return self.away(row) and not self.regular(row)

    def counted_credit(self, row: Leg) -> bool:
        """A credit that can be part of a flow."""
        return self.personal(row) or row.party_class in COUNTED

    def within(self, time: int, window: int) -> bool:
        """`(t_e - w, t_e]`."""
        return self.now - window < time <= self.now

    def window(self, detector: str, name: str = "window") -> list[Leg]:
        """The rows of one window."""
        return [row for row in self.seen if self.within(row.time, self.param(detector, name))]

    def gone(self, credit: Leg) -> int:
        """What of a credit went away, as of the judged leg."""
        horizon = self.param("rapid-pass-through", "horizon")
        return sum(bite.amount for bite in lot(self.seen, credit, horizon) if self.out(bite.debit))

    def completed(self, credit: Leg) -> Leg | None:
        """The debit at which `gone` reached the share of a pass-through, if any."""
        total = 0
        for bite in lot(self.seen, credit, self.param("rapid-pass-through", "horizon")):
            if self.out(bite.debit):
                total += bite.amount
                if total * PPM >= self.param("rapid-pass-through", "share_out") * credit.u:
                    return bite.debit
        return None

    def episodes(self, window: int) -> list[tuple[Leg, Leg]]:
        """(credit, completing debit) of every pass-through that completed inside the window."""
        found = []
        for row in self.seen:
            if not row.credit or row.u < self.param("rapid-pass-through", "min_inflow"):
                continue
            first_business = row.party_class in FIRST_TIME_BUSINESS and self.first(row)
            if not (self.personal(row) or first_business):
                continue
            debit = self.completed(row)
            if debit is not None and self.within(debit.time, window):
                found.append((row, debit))
        return found

    def since(self) -> int:
        """Since when the account is watched without a gap: as told, else its first leg, void or not."""
        return max([self.watched(), *self.whole_from()])

    def whole_from(self) -> list[int]:
        """Where the history begins after each loss of records that may concern the judged leg."""
        return [history_from for lost, history_from in self.settings.gaps if lost <= self.now]

    def watched(self) -> int:
        """Since when the account is watched, whatever was lost since."""
        if self.fact is not None and self.fact.observed_since is not None:
            return self.fact.observed_since
        if self.settings.observed_since is not None:
            return self.settings.observed_since
        return self.rows[0].time

    @property
    def known(self) -> bool:
        """Seen for long enough to say that somebody pays for the first time."""
        return self.history() >= self.settings.first_time_history

    def history(self) -> int:
        """How much was seen before the judged leg. choice: never below 0, which would be a code."""
        since = self.since()
        if self.fact is not None and self.fact.opened is not None and self.fact.opened >= since:
            return UNLIMITED
        return max(self.now - since, 0)

    def first_payers(self, rows: Sequence[Leg]) -> tuple[set[int], set[int]]:
        """(parties of these rows, those of them whose first row is first_time)."""
        parties: dict[int, bool] = {}
        for row in rows:
            if row.party not in parties:
                parties[row.party] = self.first(row)
        return set(parties), {party for party, new in parties.items() if new}


def flow(a: Account) -> dict[str, int]:
    """Money in, money out."""
    m: dict[str, int] = {}
    episodes = a.episodes(a.param("rapid-pass-through", "window"))
    m["pass_episodes"] = len(episodes)
    # choice: an ignored row that knows only the day is a visible row too, here and in cash_outs
    if any(row.precision == TimePrecision.DAY for row in a.all_visible):
        m["pass_dwell"] = TOO_COARSE
    elif not episodes:
        m["pass_dwell"] = HISTORY_TOO_SHORT
    else:
        m["pass_dwell"] = lower_median([elapsed(credit, debit) for credit, debit in episodes])
    long = a.episodes(a.param("commission-retention", "window"))
    kept = [PPM - a.gone(credit) * PPM // credit.u for credit, _ in long]
    m["kept_episodes"] = len(kept)
    m["kept_median"] = lower_median(kept) if kept else 0
    m["kept_iqr"] = spread_of(kept) if kept else 0
    m["cash_outs"] = cash_outs(a)
    return m


def shape(a: Account) -> dict[str, int]:
    """Many people on one side or on both."""
    m: dict[str, int] = {}
    rows = a.window("fan-in")
    payers, payers_first = a.first_payers([row for row in rows if row.credit and a.personal(row)])
    m["payers"] = len(payers)
    m["payers_first"] = len(payers_first) if a.known else HISTORY_TOO_SHORT

    rows = a.window("fan-out")
    payees, payees_first = a.first_payers([row for row in rows if not row.credit and a.personal(row)])
    m["payees"] = len(payees)
    m["payees_first"] = len(payees_first) if a.known else HISTORY_TOO_SHORT

    rows = a.window("fan-out", "day_window")
    _, payees_first = a.first_payers([row for row in rows if not row.credit and a.personal(row)])
    m["payees_first_day"] = len(payees_first) if a.known else HISTORY_TOO_SHORT

    rows = a.window("gather-scatter")
    paid_in = [row for row in rows if row.credit and a.personal(row)]
    m["gather_in"] = sum(row.u for row in paid_in)
    m["gather_out"] = sum(row.u for row in rows if not row.credit and a.away(row))
    gather_payers = {row.party for row in paid_in}
    gather_payees = {row.party for row in rows if not row.credit and a.personal(row)}
    m["gather_payers"] = len(gather_payers)
    m["gather_payees"] = len(gather_payees)
    m["both_ways"] = len(gather_payers & gather_payees)
    return m


def lifecycle(a: Account) -> dict[str, int]:
    """Young accounts, and accounts that wake up."""
    m: dict[str, int] = {}
    opened = a.fact.opened if a.fact is not None else None
    m["age_days"] = FACT_MISSING if opened is None else max((a.now - opened) // DAY, 0)

    rows = a.window("new-account-velocity")
    m["life_payers"] = len({row.party for row in rows if row.credit and a.personal(row)})
    m["life_credits"] = sum(row.u for row in rows if row.credit and a.counted_credit(row))
    m["life_episodes"] = len(a.episodes(a.param("new-account-velocity", "window")))

    rows = a.window("dormant-reactivation")
    m["quiet_days"] = quiet_days(a, rows[0]) if rows else 0
    wake = [row for row in rows if row.credit and a.counted_credit(row)]
    m["wake_credits"] = sum(row.u for row in wake)
    m["wake_credits_first"] = sum(row.u for row in wake if a.first(row)) if a.known else HISTORY_TOO_SHORT
    m["wake_payers"] = len({row.party for row in wake})
    return m


def quiet_days(a: Account, woke: Leg) -> int:
    """Days from the customer's last own debit to the row that `woke` the account."""
    active = [
        row.time
        for row in a.counted
        if row.order < woke.order
        and not row.credit
        and row.channel != Channel.FEE
        and row.party_class != PartyClass.BANK
    ]
    if active:
        last = max([active[-1], *a.whole_from()])
    elif a.fact is not None and a.fact.opened is not None:
        last = max(a.since(), a.fact.opened)
    else:
        return FACT_MISSING
    return max((woke.time - last) // DAY, 0)


def amount(a: Account) -> dict[str, int]:
    """Deposits just below a limit."""
    low, limit = a.param("structuring", "band_low"), a.param("structuring", "limit")
    band = [
        row
        for row in a.window("structuring")
        if row.credit
        and (row.party_class == PartyClass.CASH or row.channel == Channel.CASH_DEPOSIT or a.personal(row))
        and low * limit <= row.u * PPM
        and row.u < limit
    ]
    return {
        "band_deposits": len(band),
        "band_total": sum(row.u for row in band),
        "band_payers": len({row.party for row in band}),
    }


def scam(a: Account) -> dict[str, int]:
    """Many people who pay for the first time. choice: all four need the history, for all four rest on it."""
    if not a.known:
        names = ("collect_payers", "collect_one_off", "collect_credits", "collect_forwarded")
        return dict.fromkeys(names, HISTORY_TOO_SHORT)
    rows = [row for row in a.window("victim-collection-account") if row.credit and a.personal(row)]
    _, collected = a.first_payers(rows)
    of = [row for row in rows if row.party in collected]
    one_off = 0
    for party in collected:
        amounts = [row.u for row in of if row.party == party]
        if all(x < y for x, y in pairwise(amounts)):
            one_off += 1
    total = sum(row.u for row in of)
    return {
        "collect_payers": len(collected),
        "collect_one_off": one_off * PPM // len(collected) if collected else 0,
        "collect_credits": total,
        "collect_forwarded": sum(a.gone(row) for row in of) * PPM // total if total else 0,
    }


def link(a: Account) -> dict[str, int]:
    """Flagged counterparties, the regular one, and who was left out."""
    flagged = counting_flags(a.flags, a.now, a.settings.open)
    rows = [row for row in a.window("flagged-counterparty") if row.party in flagged]
    census = [row for row in a.all_visible if a.within(row.time, CENSUS)]
    counted = [row for row in census if not a.ignored(row)]
    tenure = 0
    if a.regular(a.leg) and not a.ignored(a.leg):
        tenure = a.now // DAY - relationship(a.counted, a.leg)[0].time // DAY
    return {
        "flagged_in": sum(row.u for row in rows if row.credit),
        "flagged_in_n": sum(1 for row in rows if row.credit),
        "flagged_out": sum(row.u for row in rows if not row.credit),
        "flagged_out_n": sum(1 for row in rows if not row.credit),
        "tenure_days": tenure,
        "own_legs": len(census) - len(counted),
        "unknown_legs": sum(1 for row in counted if row.party_class == PartyClass.UNKNOWN),
        "history": a.history(),
    }


def measures(
    legs: Sequence[Leg],
    e_index: int,
    facts: Sequence[Fact],
    flags: Sequence[Flag],
    params: Params,
    settings: Settings,
    reading: str,
) -> dict[str, int]:
    """Every measure of docs/state.md as of row `e_index` of the canonical list `legs`."""
    a = Account(legs, e_index, facts, flags, params, settings, reading)
    return flow(a) | shape(a) | lifecycle(a) | amount(a) | scam(a) | link(a)


def cash_outs(a: Account) -> int:
    """Personal credits that became cash."""
    cash_horizon = a.param("rapid-cash-out", "horizon")
    if any(PRECISION_US[row.precision] > cash_horizon for row in a.all_visible):
        return TOO_COARSE
    found = 0
    for credit in a.seen:
        if (
            not credit.credit
            or not a.personal(credit)
            or credit.u < a.param("rapid-cash-out", "min_credit")
            or credit.u == 0
        ):
            continue
        total = 0
        for bite in lot(a.seen, credit, a.param("rapid-pass-through", "horizon")):
            cash = bite.debit.channel in CASH_CHANNELS or bite.debit.party_class == PartyClass.CASH
            if not cash or elapsed(credit, bite.debit) > cash_horizon:
                continue
            total += bite.amount
            if total * PPM >= a.param("rapid-cash-out", "share") * credit.u:
                if a.within(bite.debit.time, a.param("rapid-cash-out", "window")):
                    found += 1
                break
    return found


def all_measures(
    rows: Sequence[Leg],
    facts: Sequence[Fact],
    flags: Sequence[Flag],
    params: Params,
    settings: Settings,
    reading: str,
) -> list[dict[str, int] | None]:
    """The measures of every judged row; None for void rows and for those from a hub's start on."""
    start = hub_start(rows, settings)
    return [
        None
        if row.void or (start is not None and row.time >= start)
        else measures(rows, e, facts, flags, params, settings, reading)
        for e, row in enumerate(rows)
    ]
