"""Amounts are cut to stay under a limit (smurfing).

Three deposits within five days, each a little below the limit, together well above it. The limit is law or the bank's own
rule, never tuning: 10,000 is the US, Australian and Canadian figure for cash reports; set it for your market.
"""

from __future__ import annotations

import numpy as np

from detectors.evidence import evidence
from detectors.model import DAY, PPM, Channel, Family, PartyClass, Role, Stage
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
from detectors.strength import at_least, ramp, settle

SPEC = DetectorSpec(
    id="structuring",
    title="Just below the limit, again and again",
    summary="Three or more cash deposits or credits from people within five days, each just below the reporting limit, "
    "together above it; stronger when several people pay. It does not see many small amounts far below the limit.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.AMOUNT,
    roles=(Role.CONTROLLER, Role.MULE),
    points=4,
    strength="Half with one payer (moderate), full with min_depositors (strong), in a straight line.",
    sentence="{band_deposits} deposits within {window} (from {min_deposits}) lay between {band_low} of {limit} and "
    "{limit}, together {band_total} (from {min_total_ratio} of the limit), by {band_payers} known payers.",
    sources=(
        cite("FC14", "structuring (page not seen)", "10,000 USD cash reports."),
        cite("FC20", "financial indicators (page not seen)", "Deposits just below reporting thresholds."),
        cite("NECC23", "items 1 to 7", "Just below thresholds and just below round numbers."),
        cite("AUT", "case text", "10,000 AUD threshold."),
        cite("AMLT", "T0016", "Structuring and smurfing."),
    ),
    params=(
        money(
            "limit",
            10_000_00,
            100_00,
            1_000_000_00,
            "the limit that applies in this market",
            "the figure of several countries' cash reports; where there is none, the bank's own limit",
            tag=Tag.SRC,
        ),
        ratio(
            "band_low",
            800_000,
            500_000,
            990_000,
            "lower end of the band, of the limit",
            "people stay close to the limit",
        ),
        duration(
            "window", 5 * DAY, 1 * DAY, 30 * DAY, "look-back in which deposits are counted", "a working week"
        ),
        count("min_deposits", 3, 2, 100, "deposits from which it fires", "two are chance"),
        ratio(
            "min_total_ratio",
            1_200_000,
            1_000_000,
            100_000_000,
            "least sum, of the limit",
            "the sum must be what the cut hid",
        ),
        count(
            "min_depositors",
            3,
            2,
            100,
            "distinct payers at which strength is full",
            "several people who coordinate",
            shapes=True,
        ),
    ),
    trigger=None,
    measures=("band_deposits", "band_total", "band_payers"),
    window="window",
    look_alikes=(
        LookAlike(text="A cash business with takings of changing size", case="steady_takings"),
        LookAlike(text="A deposit machine's own limit, far below the legal one", case="machine_limit"),
        LookAlike(text="Weekly rents collected by a landlord", case="weekly_rents"),
    ),
    misses=(
        "Many amounts far below the limit.",
        "Deposits at several banks: each sees its own.",
        "Markets without a limit.",
    ),
    runbook=(
        "List the deposits of the last 5 days with place and depositor; look for one hand behind several.",
        "Compare with the account's own share of deposits near the limit over the previous 90 days.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    limit = np.full(len(m), p.limit, np.int64)
    fires = (m.band_deposits >= p.min_deposits) & at_least(m.band_total, limit, p.min_total_ratio)
    strength = np.where(fires, ramp(np.maximum(m.band_payers, 1), 1, p.min_depositors), 0)
    return settle(strength, m, "band_deposits", "band_total", "band_payers")


def explain(view: AccountView, p: Params) -> Evidence:
    """The deposits in the band."""
    cash = (view.party_class == PartyClass.CASH) | (view.channel == Channel.CASH_DEPOSIT)
    band = (view.amount_u * PPM >= p.band_low * p.limit) & (view.amount_u < p.limit)
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(
            ("band_deposits", "min_deposits"),
            ("band_total", "limit"),
            ("band_payers", "min_depositors"),
        ),
        rows=view.within(p.window) & view.credits() & (cash | view.personal()) & band,
    )
