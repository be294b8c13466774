"""Known answers of the twin, worked out by hand. Each picture shows the timeline that the test builds."""

from __future__ import annotations

from itertools import count

import pytest

from detectors.model import (
    DAY,
    HOUR,
    MINUTE,
    PPM,
    Channel,
    Fact,
    Flag,
    FlagState,
    PartyClass,
    Status,
    TimePrecision,
)
from tests.core import twin
from tests.core.twin_rows import Leg, Settings, canonical, hub_start, visible

START = 19_000 * DAY
U = 100  # u-cents
A, B, C, D = 11, 12, 13, 14

PARAMS = {
    "rapid-pass-through": {
        "window": 7 * DAY,
        "horizon": 24 * HOUR,
        "min_inflow": 300 * U,
        "share_out": 850_000,
    },
    "commission-retention": {"window": 30 * DAY},
    "fan-in": {"window": 7 * DAY},
    "fan-out": {"window": 7 * DAY, "day_window": DAY},
    "gather-scatter": {"window": 7 * DAY},
    "new-account-velocity": {"window": 30 * DAY},
    "dormant-reactivation": {"window": 14 * DAY},
    "structuring": {"window": 5 * DAY, "limit": 10_000 * U, "band_low": 800_000},
    "rapid-cash-out": {"window": 30 * DAY, "horizon": 12 * HOUR, "min_credit": 200 * U, "share": 700_000},
    "victim-collection-account": {"window": 14 * DAY},
    "flagged-counterparty": {"window": 30 * DAY},
}
WATCHED = Settings(observed_since=START - 1000 * DAY)
_ids = count(100)


def leg(side: int, at: int, u: int, party: int = A, cls: int = PartyClass.PERSONAL, **more: int) -> Leg:
    """One leg at START + `at`; ids grow, so equal times keep the order of writing."""
    return Leg(
        leg=next(_ids) << 1 | side, time=START + at, amount=u * U, party=party, party_class=cls, **more
    )


def credit(at: int, u: int, party: int = A, cls: int = PartyClass.PERSONAL, **more: int) -> Leg:
    """Money in."""
    return leg(1, at, u, party, cls, **more)


def debit(at: int, u: int, party: int = B, cls: int = PartyClass.PERSONAL, **more: int) -> Leg:
    """Money out."""
    return leg(0, at, u, party, cls, **more)


def last(
    rows: list[Leg],
    *,
    reading: str = "high",
    settings: Settings = WATCHED,
    facts: tuple[Fact, ...] = (),
    flags: tuple[Flag, ...] = (),
) -> dict[str, int]:
    """The measures as of the last row."""
    ordered = canonical(rows).rows
    return twin.measures(ordered, len(ordered) - 1, facts, flags, PARAMS, settings, reading)


def test_a_credit_that_leaves_whole_is_one_episode() -> None:
    #   h 0        6      9
    #   in  400·A
    #   out        200·B  150·C     gone 350 of 400 = 87.5 % at 9 h
    m = last([credit(0, 400), debit(6 * HOUR, 200, B), debit(9 * HOUR, 150, C)])
    assert m["pass_episodes"] == m["kept_episodes"] == m["life_episodes"] == 1
    assert m["pass_dwell"] == 9 * HOUR
    assert m["kept_median"] == 125_000
    assert m["kept_iqr"] == 0


def test_the_share_counts_at_the_limit_and_not_below_it() -> None:
    #   in  400·A at 0, out 340·B (85 %) or 339.99
    assert last([credit(0, 400), debit(HOUR, 340)])["pass_episodes"] == 1
    below = Leg(leg=2, time=START + HOUR, amount=340 * U - 1, party=B)
    assert last([credit(0, 400), below])["pass_episodes"] == 0


@pytest.mark.parametrize(("after", "episodes"), [(24 * HOUR, 1), (24 * HOUR + 1, 0)])
def test_the_horizon_is_closed(after: int, episodes: int) -> None:
    assert last([credit(0, 400), debit(after, 400)])["pass_episodes"] == episodes


def test_money_kept_for_longer_than_the_horizon_leaves_the_queue() -> None:
    #   h 0       30       31
    #   in 1000·A 400·B
    #   out                400·C     takes B's lot, not what is left of A's
    m = last([credit(0, 1000), credit(30 * HOUR, 400, B), debit(31 * HOUR, 400, C)])
    assert m["pass_episodes"] == 1
    assert m["pass_dwell"] == HOUR


def test_a_lot_in_front_is_consumed_first() -> None:
    #   h 0       1        2
    #   in 300·A  400·B
    #   out                400·C     300 of A's, 100 of B's
    m = last([credit(0, 300), credit(HOUR, 400, B), debit(2 * HOUR, 400, C)])
    assert m["pass_episodes"] == 1
    assert m["pass_dwell"] == 2 * HOUR


def test_a_bill_consumes_but_does_not_take_away() -> None:
    #   h 0       1              2
    #   in 400·A
    #   out       300·biller     100·B   only 25 % gone
    m = last([credit(0, 400), debit(HOUR, 300, C, PartyClass.BILLER), debit(2 * HOUR, 100)])
    assert m["pass_episodes"] == 0


def test_regular_payees_do_not_take_away() -> None:
    #   d -90   -60   -29      0 h     1 h
    #   in                     400·A
    #   out 1·B  1·B   1·B             400·B    three payments over 61 days: B is regular
    past = [debit(day * DAY, 1) for day in (-90, -60, -29)]
    m = last([*past, credit(0, 400), debit(HOUR, 400)])
    assert m["pass_episodes"] == 0
    assert m["tenure_days"] == 90
    # ... and one day less spread is not regular
    past = [debit(day * DAY, 1) for day in (-90, -60, -31)]
    m = last([*past, credit(0, 400), debit(HOUR, 400)])
    assert m["pass_episodes"] == 1
    assert m["tenure_days"] == 0


def test_kept_shares_have_lower_median_and_quartiles() -> None:
    #   five credits of 1000 u, two days apart; 850, 900, 930, 950, 1000 leave an hour later
    rows = []
    for i, out in enumerate((850, 900, 930, 950, 1000)):
        rows += [credit(i * 2 * DAY, 1000), debit(i * 2 * DAY + HOUR, out)]
    m = last(rows)
    assert m["kept_episodes"] == 5
    assert m["kept_median"] == 70_000  # of 0, 50, 70, 100, 150 thousand
    assert m["kept_iqr"] == 100_000 - 50_000
    assert m["pass_episodes"] == 4  # the first completed more than 7 days before the last


def test_day_precision_has_no_dwell_but_has_episodes() -> None:
    rows = [
        credit(5 * HOUR, 400, precision=TimePrecision.DAY),
        debit(28 * HOUR, 400, precision=TimePrecision.DAY),
    ]
    m = last(rows)
    assert m["pass_episodes"] == 1  # one day apart
    assert m["pass_dwell"] == twin.TOO_COARSE
    assert m["cash_outs"] == twin.TOO_COARSE


def test_unknown_is_personal_in_the_high_reading_only() -> None:
    rows = [credit(0, 400, A, PartyClass.UNKNOWN), debit(HOUR, 400, B, PartyClass.UNKNOWN)]
    high, low = last(rows), last(rows, reading="low")
    assert (high["pass_episodes"], high["payers"], high["payees"]) == (1, 1, 1)
    assert (low["pass_episodes"], low["payers"], low["payees"]) == (0, 0, 0)
    assert high["unknown_legs"] == low["unknown_legs"] == 2


def test_fan_in_and_first_time() -> None:
    #   d -179  -180   -1    0
    #   in 1·A  1·B    1·C   1·A 1·B 1·C     B silent for 180 days: first-time; C's first is in the window
    past = [credit(-179 * DAY, 1, A), credit(-180 * DAY, 1, B), credit(-DAY, 1, C)]
    m = last([*past, credit(0, 1, A), credit(1, 1, B), credit(2, 1, C)])
    assert m["payers"] == 3
    assert m["payers_first"] == 2
    assert m["collect_payers"] == 2
    assert m["collect_one_off"] == 500_000  # B paid once; C paid twice the same


def test_first_time_needs_history() -> None:
    rows = [credit(0, 1, A), credit(30 * DAY - 1, 1, B)]
    m = last(rows, settings=Settings())
    names = [
        "payers_first",
        "payees_first",
        "payees_first_day",
        "wake_credits_first",
        "collect_payers",
        "collect_one_off",
        "collect_credits",
        "collect_forwarded",
    ]
    assert [m[name] for name in names] == [twin.HISTORY_TOO_SHORT] * len(names)
    assert m["payers"] == 1
    assert m["history"] == 30 * DAY - 1
    assert last([rows[0], credit(30 * DAY, 1, B)], settings=Settings())["payers_first"] == 1
    opened = Fact(record_id="f", effective_at=0, subject=1, opened=START)
    m = last(rows, settings=Settings(), facts=(opened,))
    assert m["history"] == twin.UNLIMITED
    assert m["payers_first"] == 1
    assert m["age_days"] == 29


def test_rising_amounts_are_one_off_too() -> None:
    rows = [credit(i, amount, A) for i, amount in enumerate((1, 2, 3))]
    rows += [credit(10 + i, amount, B) for i, amount in enumerate((1, 2, 2))]
    m = last([*rows, credit(20, 5, C), debit(HOUR, 6, D)])
    assert m["collect_payers"] == 3
    assert m["collect_one_off"] == 2 * PPM // 3
    assert m["collect_credits"] == 16 * U
    assert m["collect_forwarded"] == 6 * PPM // 16


def test_gather_scatter_sums_both_sides() -> None:
    #   in 10·A 20·B        out 5·B  6 crypto  7 at a machine  8 to a shop
    rows = [
        credit(0, 10, A),
        credit(1, 20, B),
        debit(2, 5, B),
        debit(3, 6, C, PartyClass.VASP),
        debit(4, 7, 0, PartyClass.BANK, channel=Channel.ATM),
        debit(5, 8, D, PartyClass.MERCHANT),
    ]
    m = last(rows)
    assert (m["gather_in"], m["gather_out"]) == (30 * U, 18 * U)
    assert (m["gather_payers"], m["gather_payees"], m["both_ways"]) == (2, 1, 1)


def test_windows_leave_out_what_is_exactly_as_old_as_they_are_long() -> None:
    assert last([credit(0, 1, A), credit(7 * DAY, 1, B)])["payers"] == 1
    assert last([credit(1, 1, A), credit(7 * DAY, 1, B)])["payers"] == 2


def test_quiet_days_end_at_the_first_row_of_the_window() -> None:
    #   d -200     -50             0     5
    #   in                         9·A   9·B
    #   out 1·shop  1 fee                        a fee is not the customer's doing
    rows = [
        debit(-200 * DAY, 1, D, PartyClass.MERCHANT),
        debit(-50 * DAY, 1, D, PartyClass.BANK, channel=Channel.FEE),
        credit(0, 9, A),
        credit(5 * DAY, 9, B),
    ]
    m = last(rows)
    assert m["quiet_days"] == 200
    assert (m["wake_credits"], m["wake_credits_first"], m["wake_payers"]) == (18 * U, 18 * U, 2)
    # nothing before: since the account was opened, or is watched, whatever is later
    assert last(rows[2:])["quiet_days"] == twin.FACT_MISSING
    opened = Fact(record_id="f", effective_at=0, subject=1, opened=START - 90 * DAY)
    assert last(rows[2:], facts=(opened,))["quiet_days"] == 90
    opened = Fact(record_id="f", effective_at=0, subject=1, opened=START - 2000 * DAY)
    assert last(rows[2:], facts=(opened,))["quiet_days"] == 1000


def test_deposits_below_the_limit() -> None:
    #   limit 10,000, band from 8,000
    #   8000·cash yes, 7999·cash no, 9999·A yes, 10000·A no, 9000·biller no, 9000 deposit yes
    rows = [
        credit(0, 8000, 0, PartyClass.CASH),
        credit(1, 7999, 0, PartyClass.CASH),
        credit(2, 9999, A),
        credit(3, 10_000, A),
        credit(4, 9000, D, PartyClass.BILLER),
        credit(5, 9000, D, PartyClass.BANK, channel=Channel.CASH_DEPOSIT),
    ]
    m = last(rows)
    assert (m["band_deposits"], m["band_total"], m["band_payers"]) == (3, 26_999 * U, 3)


def test_cash_outs() -> None:
    #   h 0       11         13
    #   in 200·A
    #   out       140 ATM    60 ATM       70 % within twelve hours; the rest is too late
    atm = {"cls": PartyClass.CASH, "channel": Channel.ATM}
    assert last([credit(0, 200), debit(11 * HOUR, 140, 0, **atm)])["cash_outs"] == 1
    assert (
        last([credit(0, 200), debit(11 * HOUR, 139, 0, **atm), debit(13 * HOUR, 60, 0, **atm)])["cash_outs"]
        == 0
    )
    assert last([credit(0, 199), debit(11 * HOUR, 199, 0, **atm)])["cash_outs"] == 0
    assert last([credit(0, 200), debit(11 * HOUR, 200, B)])["cash_outs"] == 0


def flag(state: FlagState, at: int, party: int = A, expires: int | None = None) -> Flag:
    """One state of the flag `x`."""
    return Flag(
        record_id=f"{state}-{at}",
        effective_at=START + at,
        flag_id="x",
        party=party,
        state=state,
        source="s",
        expires=None if expires is None else START + expires,
    )


@pytest.mark.parametrize(
    ("records", "counts"),
    [
        ([], 0),
        ([(FlagState.PROPOSED, -5)], 0),
        ([(FlagState.CONFIRMED, 0)], 1),
        ([(FlagState.CONFIRMED, 1)], 0),
        ([(FlagState.CONFIRMED, 0), (FlagState.WITHDRAWN, 30 * DAY - 1)], 0),
        ([(FlagState.CONFIRMED, 0), (FlagState.WITHDRAWN, 30 * DAY)], 1),
        ([(FlagState.CONFIRMED, 0), (FlagState.DISPUTED, 1)], 0),
        ([(FlagState.CONFIRMED, 0), (FlagState.EXPIRED, 1)], 0),
    ],
)
def test_a_flag_counts(records: list[tuple[FlagState, int]], counts: int) -> None:
    m = last([credit(0, 7, A)], flags=tuple(flag(state, at) for state, at in records))
    assert (m["flagged_in_n"], m["flagged_in"]) == (counts, counts * 7 * U)


def test_an_expiry_ends_a_flag_at_that_instant() -> None:
    assert last([debit(0, 7, A)], flags=(flag(FlagState.CONFIRMED, -9, expires=1),))["flagged_out_n"] == 1
    assert last([debit(0, 7, A)], flags=(flag(FlagState.CONFIRMED, -9, expires=0),))["flagged_out_n"] == 0


def test_own_and_household_are_left_out_and_counted() -> None:
    household = Fact(record_id="f", effective_at=0, subject=1, household=(B,))
    rows = [
        credit(0, 400, A, PartyClass.OWN),
        credit(1, 400, B),
        credit(2, 9, C, PartyClass.SENSITIVE),
        debit(3, 400, C),
    ]
    m = last(rows, facts=(household,))
    assert (m["own_legs"], m["payers"], m["pass_episodes"], m["life_credits"]) == (3, 0, 0, 0)


def test_a_returned_leg_counts_nowhere_in_either_order() -> None:
    first = credit(0, 400)
    back = Leg(leg=first.leg, time=first.time + HOUR, amount=first.amount, party=A, status=Status.RETURNED)
    rest = debit(2 * HOUR, 400)
    for records in ([first, back, rest], [back, first, rest]):
        m = last(records)
        assert (m["payers"], m["pass_episodes"]) == (0, 0)
        assert [row.void for row in canonical(records).rows] == [True, True, False]


def test_the_smaller_of_two_contents_stays() -> None:
    one = credit(0, 400)
    other = Leg(leg=one.leg, time=one.time, amount=one.amount - 1, party=A)
    for records in ([one, other], [other, one], [one, other, one]):
        out = canonical(records)
        assert [row.amount for row in out.rows if not row.void] == [400 * U - 1]
        assert out.conflicts == {one.leg}


def test_k_cuts_old_rows_only() -> None:
    #   S = 7 d 6 h, K = 2:  d 0 1 2 | 9 9 9 10
    #   of the three old rows the newest two stay, the four young ones all stay
    settings = Settings(keep=2)
    rows = (
        [credit(day * DAY, 1) for day in (0, 1, 2)]
        + [credit(9 * DAY, 1) for _ in range(3)]
        + [credit(10 * DAY, 1)]
    )
    assert [(row.time - START) // DAY for row in visible(rows, len(rows) - 1, settings)] == [
        1,
        2,
        9,
        9,
        9,
        10,
    ]
    rows = [credit(0, 1), credit(settings.hold, 1)]
    assert visible(rows, 1, settings) == rows[1:]


def test_silence_of_more_than_400_days_starts_a_relationship_anew() -> None:
    past = [debit(day * DAY, 1) for day in (0, 30, 60)]
    assert last([*past, debit(460 * DAY, 1)])["tenure_days"] == 460
    assert last([*past, debit(461 * DAY, 1)])["tenure_days"] == 0


def test_hub_from_the_start_of_its_bucket() -> None:
    settings = Settings(hub_bucket_legs=3)
    base = START // settings.lateness * settings.lateness
    rows = [
        Leg(leg=2 * i, time=base + at, amount=1, party=i) for i, at in enumerate((-1, 0, HOUR, 6 * HOUR - 1))
    ]
    assert hub_start(rows, settings) == base
    assert hub_start(rows[:-1], settings) is None
    everything = twin.all_measures(rows, (), (), PARAMS, settings, "high")
    assert [m is None for m in everything] == [False, True, True, True]


def test_elapsed_is_as_fine_as_the_coarser_of_both() -> None:
    exact = credit(90 * MINUTE + 5, 1)
    hour = debit(3 * HOUR + 10 * MINUTE, 1, precision=TimePrecision.HOUR)
    assert twin.elapsed(exact, hour) == 2 * HOUR
