"""Many to one: an account collects from many people who have nothing to do with each other.

AMLSim's generator uses 5 to 10 accounts over 5 to 20 days; the threshold here is 10 people in a week, most of whom never
paid here before.
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
    Tag,
    count,
    duration,
    ratio,
)
from detectors.strength import at_least, ramp, settle

SPEC = DetectorSpec(
    id="fan-in",
    title="Many pay in",
    summary="Ten or more people pay in within a week, most for the first time. It cannot see whether they know each "
    "other, and so gives few points alone.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.SHAPE,
    roles=(Role.CONTROLLER, Role.MULE),
    points=2,
    strength="Half at min_payers, full at full_payers.",
    sentence="{payers} people paid in within {window} (from {min_payers}), {payers_first} of them for the first time "
    "(from {first_time_share}).",
    sources=(
        cite("AMLSIM", "fan_in", "5 to 10 accounts over 5 to 20 days; raised to 10 for one week."),
        cite("AMLW", "fan-in pattern", "One of eight laundering patterns."),
        cite("FC14", "Appendix B (page not seen)", "Many unrelated people pay one account."),
        cite("AMLT", "IND03019", "Multiple unrelated payers."),
    ),
    params=(
        duration(
            "window",
            7 * DAY,
            1 * DAY,
            30 * DAY,
            "look-back in which payers are counted",
            "long enough for weekly collections",
        ),
        count(
            "min_payers",
            10,
            3,
            1_000,
            "distinct personal payers from which it fires",
            "above a household, a table of friends and a small team",
            tag=Tag.DRV,
        ),
        count(
            "full_payers",
            25,
            3,
            2_000,
            "payers at which strength is full",
            "beyond most private occasions",
            shapes=True,
        ),
        ratio(
            "first_time_share",
            600_000,
            0,
            1_000_000,
            "least share of first-time payers",
            "clubs and landlords are paid by the same people",
        ),
    ),
    trigger=None,
    measures=("payers", "payers_first"),
    window="window",
    ordered=(("min_payers", "full_payers"),),
    look_alikes=(
        LookAlike(text="A sports club paid by its members every month", case="sports_club"),
        LookAlike(
            text="A rotating savings group: the same people every month", case="rotating_savings_group"
        ),
        LookAlike(text="A childminder paid every week by the same parents", case="childminder"),
        LookAlike(
            text="A whip-round for a wedding: it is seen, and alone nothing comes of it",
            case="wedding_whip_round",
        ),
    ),
    misses=(
        "Collections through a payment firm: the payer is then the firm.",
        "The same few people paying many times: see victim-collection-account and structuring.",
    ),
    runbook=(
        "Ask what the payments of the last 7 days have in common: event, goods, advert, reference.",
        "Check whether payers complained or recalled; each of them may be a victim.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    strangers = at_least(m.payers_first, m.payers, p.first_time_share)
    strength = np.where(strangers, ramp(m.payers, p.min_payers, p.full_payers), 0)
    return settle(strength, m, "payers_first", "payers")


def explain(view: AccountView, p: Params) -> Evidence:
    """The credits from people."""
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(("payers", "min_payers"), ("payers_first", "")),
        rows=view.within(p.window) & view.credits() & view.personal(),
    )
