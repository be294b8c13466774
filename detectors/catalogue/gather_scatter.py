"""Collect, then disperse at one account: the hub of a laundering ring.

Many payers and many other payees in one week, and about as much out as in (AMLSim and AMLworld patterns; the numbers are
starting values).
"""

from __future__ import annotations

import numpy as np

from detectors.evidence import evidence
from detectors.model import DAY, Family, Role, Stage
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
    count,
    duration,
    ratio,
)
from detectors.strength import at_least, at_most, ramp, settle

SPEC = DetectorSpec(
    id="gather-scatter",
    title="Collects and spreads",
    summary="Within a week many people pay in, many others are paid, and about as much leaves as came. Purchases at "
    "shops and bills do not count. It does not see collection and spreading by two accounts.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.SHAPE,
    roles=(Role.CONTROLLER, Role.MULE),
    points=4,
    strength="By the smaller of payers and payees: half at the threshold, full at full_parties.",
    sentence="Within {window}, {gather_payers} people paid in (from {min_payers}) and {gather_payees} were paid (from "
    "{min_payees}), {both_ways} of them both; {gather_in} came in and {gather_out} went out ({ratio_low} to {ratio_high}).",
    sources=(
        cite("AMLSIM", "gather_scatter", "The pattern; numbers are ours."),
        cite("AMLW", "gather-scatter pattern", "One of eight laundering patterns."),
        cite("AMLT", "T0011", "Collection and distribution through one account."),
    ),
    params=(
        duration("window", 7 * DAY, 1 * DAY, 30 * DAY, "look-back of both sides", "as fan-in and fan-out"),
        count("min_payers", 10, 3, 1_000, "distinct personal payers from which it fires", "as fan-in"),
        count("min_payees", 10, 3, 1_000, "distinct personal payees from which it fires", "as fan-out"),
        count(
            "full_parties",
            20,
            3,
            2_000,
            "payers and payees at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
        ratio(
            "ratio_low",
            800_000,
            100_000,
            1_000_000,
            "least money out, of the money in",
            "a fifth may stay as commission or for costs",
        ),
        ratio(
            "ratio_high",
            1_020_000,
            1_000_000,
            2_000_000,
            "most money out, of the money in",
            "more would come from elsewhere",
        ),
        ratio(
            "max_overlap",
            200_000,
            10_000,
            1_000_000,
            "parties on both sides, of the smaller side: below this",
            "refunds and savings groups pay the payers",
        ),
    ),
    trigger=None,
    measures=("gather_payers", "gather_payees", "gather_in", "gather_out", "both_ways"),
    window="window",
    ordered=(("min_payers", "full_parties"), ("min_payees", "full_parties"), ("ratio_low", "ratio_high")),
    look_alikes=(
        LookAlike(
            text="An event treasurer: many pay in, shops and the hall are paid", case="event_treasurer"
        ),
        LookAlike(
            text="A lottery syndicate that pays the winnings to those who paid in", case="lottery_syndicate"
        ),
        LookAlike(
            text="A savings group's pay-out day: the members are on both sides", case="savings_group_pay_out"
        ),
    ),
    misses=(
        "Rings whose collecting and paying accounts differ.",
        "Balances built up for longer than the window before they are spread.",
    ),
    runbook=(
        "Lay the credits of the last 7 days beside the debits: which payee got whose money?",
        "Look at the payees' banks and at what the payees did within a day.",
        "Name the amount still in the account: only that can be held.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    payers, payees, into = m.gather_payers, m.gather_payees, m.gather_in
    fewer = np.minimum(payers, payees)
    enough = (payers >= p.min_payers) & (payees >= p.min_payees)
    conserved = at_least(m.gather_out, into, p.ratio_low) & at_most(m.gather_out, into, p.ratio_high)
    apart = ~at_least(m.both_ways, fewer, p.max_overlap)
    strength = np.where(
        enough & conserved & apart, ramp(fewer, min(p.min_payers, p.min_payees), p.full_parties), 0
    )
    return settle(strength, m, "gather_payers", "gather_payees", "gather_in", "gather_out", "both_ways")


def explain(view: AccountView, p: Params) -> Evidence:
    """Both sides of the week."""
    sides = (view.credits() & view.personal()) | view.taken()
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(
            ("gather_payers", "min_payers"),
            ("gather_payees", "min_payees"),
            ("gather_in", ""),
            ("gather_out", ""),
            ("both_ways", ""),
        ),
        rows=view.within(p.window) & sides,
    )
