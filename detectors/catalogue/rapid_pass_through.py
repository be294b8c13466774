"""Money in, money out: the account is a pipe.

An episode is a credit from a person (or a first-time business payer) of which almost all leaves again within hours, to
people, cash, crypto or money transfer. FIN-2020-A008 lists payments that are withdrawn or moved on at once; the FCA's
reviews report dwell times of minutes.
"""

from __future__ import annotations

import numpy as np

from detectors.evidence import episodes, evidence
from detectors.model import DAY, HOUR, MINUTE, PPM, Family, Role, Stage
from detectors.sources import cite
from detectors.spec import (
    AccountView,
    DetectorSpec,
    Evidence,
    Ints,
    LookAlike,
    Maturity,
    Measures,
    Params,
    Tag,
    count,
    duration,
    money,
    ratio,
)
from detectors.strength import clamp, ramp, settle

SPEC = DetectorSpec(
    id="rapid-pass-through",
    title="Money in, money out",
    summary="Credits from people leave again almost whole within hours, twice or more in a week: the holder neither "
    "keeps nor uses the money. Bills, shops and payees paid regularly do not count as leaving. It does not see money "
    "that leaves slowly.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.FLOW,
    roles=(Role.MULE, Role.LIKELY_VICTIM),
    points=4,
    strength="Half at min_episodes, full at strong_episodes; times strength_slow at a median stay of dwell_slow, "
    "strength_mid at dwell_mid and 1 at dwell_fast, in straight lines. A stay that the feed's times cannot show counts "
    "as slow.",
    sentence="{pass_episodes} credits of {min_inflow} or more went out again within {horizon}, at least {share_out} of "
    "each, in {window} (from {min_episodes}). Median stay: {pass_dwell}.",
    sources=(
        cite("FC20", "financial indicators (page not seen)", "Payments immediately withdrawn or moved on."),
        cite(
            "FCA24M",
            "dispersal of funds (page not seen)",
            "Minutes of dwell; our bands are derived from that.",
        ),
        cite("NECC23", "items 1 to 7", "Money in and quickly out again."),
        cite("AMLT", "IND02686, IND00015", "Rapid movement of funds; account emptied after credits."),
    ),
    params=(
        money(
            "min_inflow",
            300_00,
            10_00,
            100_000_00,
            "smallest credit that can be an episode",
            "below it, small change between friends dominates",
        ),
        ratio(
            "share_out",
            850_000,
            500_000,
            1_000_000,
            "part of the credit that must leave",
            "leaves room for a commission of up to 15%",
        ),
        duration(
            "horizon",
            24 * HOUR,
            1 * HOUR,
            48 * HOUR,
            "longest stay of money that passes through",
            "a night and a banking day; with the longest window it must fit into what the state holds",
        ),
        duration(
            "window",
            7 * DAY,
            1 * DAY,
            30 * DAY,
            "look-back in which episodes are counted",
            "mule accounts are used in bursts of days",
        ),
        count(
            "min_episodes",
            2,
            1,
            50,
            "episodes from which it fires",
            "one is everybody who forwards a friend's share",
        ),
        count(
            "strong_episodes",
            3,
            1,
            100,
            "episodes at which their number is at full strength",
            "three in a week are no longer an occasion",
            shapes=True,
        ),
        duration(
            "dwell_slow",
            24 * HOUR,
            1 * HOUR,
            48 * HOUR,
            "median stay that counts as slow",
            "the horizon: nothing slower is an episode",
            tag=Tag.DRV,
            shapes=True,
        ),
        duration(
            "dwell_mid",
            6 * HOUR,
            30 * MINUTE,
            48 * HOUR,
            "median stay that counts as middling",
            "half a working day",
            tag=Tag.DRV,
            shapes=True,
        ),
        duration(
            "dwell_fast",
            1 * HOUR,
            1 * MINUTE,
            24 * HOUR,
            "median stay from which strength is full",
            "minutes are reported for mule accounts; an hour leaves room for work by hand",
            tag=Tag.DRV,
            shapes=True,
        ),
        ratio(
            "strength_slow",
            300_000,
            100_000,
            1_000_000,
            "strength at the slow stay",
            "a day's stay is common in honest life",
            shapes=True,
        ),
        ratio(
            "strength_mid",
            600_000,
            100_000,
            1_000_000,
            "strength at the middling stay",
            "between the two",
            shapes=True,
        ),
    ),
    trigger=None,
    measures=("pass_episodes", "pass_dwell"),
    window="window",
    lots=True,
    ordered=(
        ("min_episodes", "strong_episodes"),
        ("dwell_fast", "dwell_mid", "dwell_slow", "horizon"),
        ("strength_slow", "strength_mid"),
    ),
    look_alikes=(
        LookAlike(text="Payday, then bills and shops: those are not people", case="payday_and_bills"),
        LookAlike(
            text="Rent of a shared house, collected and passed to the landlord every month",
            case="rent_of_a_shared_house",
        ),
        LookAlike(text="One holiday split among friends", case="one_holiday"),
        LookAlike(text="A small trader who pays suppliers", case="trader_and_suppliers"),
        LookAlike(text="A family pools for a funeral and pays the undertaker", case="funeral_pool"),
    ),
    misses=(
        "Money that stays longer than the horizon, or leaves in goods bought at shops.",
        "Credits cut to below min_inflow.",
        "Feeds that know only the day: episodes count, their speed does not.",
    ),
    runbook=(
        "Read each credit beside the debits that took it; find who sent and who received, over the last 7 days.",
        "Compare with the account's own previous 90 days: wages, rent, shopping. None at all makes use by others likely.",
        "If the holder seems to be used by someone else, treat them as a victim first and keep essentials reachable.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    dwell = m.pass_dwell
    fast = clamp(dwell, p.dwell_fast, p.dwell_mid) - p.dwell_fast
    slow = clamp(dwell, p.dwell_mid, p.dwell_slow) - p.dwell_mid
    speed = PPM - fast * (PPM - p.strength_mid) // max(p.dwell_mid - p.dwell_fast, 1)
    speed -= slow * (p.strength_mid - p.strength_slow) // max(p.dwell_slow - p.dwell_mid, 1)
    speed = np.where(dwell < 0, p.strength_slow, speed)
    number = ramp(m.pass_episodes, p.min_episodes, p.strong_episodes)
    return settle(number * speed // PPM, m, "pass_episodes")


def explain(view: AccountView, p: Params) -> Evidence:
    """The episodes."""
    found = episodes(view, p.window)
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(("pass_episodes", "min_episodes"), ("pass_dwell", "dwell_slow")),
        rows=[row for episode in found for row in episode.rows],
    )
