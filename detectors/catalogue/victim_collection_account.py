"""Many small victims, one account: where a scam or an extortion gathers its takings.

Eight or more people pay for the first time within a fortnight, most of them once or with rising amounts, and most of the
money goes on within a day (FIN-2025-NTC2 on sextortion, FINTRAC on romance fraud; numbers are starting values).
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
from detectors.strength import ramp, settle

SPEC = DetectorSpec(
    id="victim-collection-account",
    title="Collects from first-time payers and passes on",
    summary="Eight or more people pay in for the first time within two weeks, once or with rising amounts, and most of "
    "their money goes on within the pass-through horizon. It does not know what they were told.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.SCAM,
    roles=(Role.MULE, Role.CONTROLLER),
    points=4,
    strength="The mean of payers (half at min_payers, full at full_payers) and of the share passed on (half at "
    "forward_share, full at full_forward).",
    sentence="{collect_payers} people paid in for the first time within {window} (from {min_payers}), "
    "{collect_one_off} of them only once or in ever larger amounts (from {one_off_share}); {collect_forwarded} of their "
    "{collect_credits} went on (from {forward_share}).",
    sources=(
        cite("FC25S", "mule side (page not seen)", "Many small payments from strangers, passed on."),
        cite("FT19", "indicators (page not seen)", "Victims' payments collected and moved on."),
        cite("FC20M", "money mule indicators (page not seen)", "Collection accounts of impostors."),
        cite("AMLT", "IND00568", "Deposits from many, followed by transfers out."),
    ),
    params=(
        duration(
            "window",
            14 * DAY,
            1 * DAY,
            30 * DAY,
            "look-back in which payers are counted",
            "a scam's account lives for weeks",
        ),
        count(
            "min_payers",
            8,
            3,
            1_000,
            "first-time personal payers from which it fires",
            "above a table of friends",
        ),
        count(
            "full_payers",
            16,
            3,
            2_000,
            "payers at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
        ratio(
            "one_off_share",
            700_000,
            0,
            1_000_000,
            "least share of payers who paid once or ever more",
            "customers come back for the same; victims are drained or leave",
        ),
        ratio(
            "forward_share",
            600_000,
            100_000,
            1_000_000,
            "least share of their money that went on",
            "sellers keep their takings",
        ),
        ratio(
            "full_forward",
            900_000,
            100_000,
            1_000_000,
            "share passed on at which strength is full",
            "what rapid-pass-through calls almost whole",
            shapes=True,
        ),
    ),
    trigger=None,
    measures=("collect_payers", "collect_one_off", "collect_credits", "collect_forwarded"),
    window="window",
    lots=True,
    ordered=(("min_payers", "full_payers"), ("forward_share", "full_forward")),
    look_alikes=(
        LookAlike(text="Tickets sold on: the takings stay", case="ticket_resale"),
        LookAlike(text="A club treasurer paid by members, who pays the hall", case="club_treasurer"),
        LookAlike(
            text="A new landlord who collects deposits and keeps them", case="deposits_of_a_new_landlord"
        ),
        LookAlike(text="A seller on a marketplace who pays the postage", case="marketplace_seller"),
    ),
    misses=(
        "Collections that stay for longer than the pass-through horizon.",
        "Victims who pay through a payment firm, by gift card or in crypto.",
        "Recalls and fraud claims: not read yet.",
    ),
    runbook=(
        "Ask the payers' banks whether anyone of the last 14 days has complained; warn by their own route.",
        "Find where the money went on within a day, and name what is still here.",
        "A young holder may have been extorted into this: treat as a victim first.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    payers = ramp(m.collect_payers, p.min_payers, p.full_payers)
    onward = ramp(m.collect_forwarded, p.forward_share, p.full_forward)
    fires = (payers > 0) & (onward > 0) & (m.collect_one_off >= p.one_off_share)
    strength = np.where(fires, (payers + onward) // 2, 0)
    return settle(strength, m, "collect_payers", "collect_one_off", "collect_credits", "collect_forwarded")


def explain(view: AccountView, p: Params) -> Evidence:
    """The credits of the first-time payers, and the debits that took them."""
    credits = view.within(p.window) & view.credits() & view.personal()
    rows: set[int] = set()
    seen: set[int] = set()
    strangers: set[int] = set()
    out = view.out()
    for row in np.flatnonzero(credits).tolist():
        party = int(view.party[row])
        if party not in seen:
            seen.add(party)
            if view.first_time[row]:
                strangers.add(party)
        if party in strangers:
            rows.add(row)
            rows.update(debit for debit, _ in view.follow(row) if out[debit])
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(
            ("collect_payers", "min_payers"),
            ("collect_one_off", "one_off_share"),
            ("collect_forwarded", "forward_share"),
            ("collect_credits", ""),
        ),
        rows=rows,
    )
