"""One to many: an account spreads value, to hide it or to pay a crew.

Ten first-time personal payees in a day, or twenty in a week (AMLSim uses 5 to 10 accounts; the numbers are starting
values).
"""

from __future__ import annotations

import numpy as np

from detectors.evidence import evidence
from detectors.model import DAY, HOUR, Family, Role, Stage
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
)
from detectors.strength import ramp, settle

SPEC = DetectorSpec(
    id="fan-out",
    title="One pays many",
    summary="Ten or more people are paid for the first time within a day, or twenty within a week. Payees paid before "
    "do not count. It does not see money that leaves through a payment firm or in cash.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.SHAPE,
    roles=(Role.CONTROLLER,),
    points=2,
    strength="The greater of the day and the week, each half at its threshold and full at its upper value.",
    sentence="{payees_first_day} people were paid for the first time within {day_window} (from {min_payees_day}), "
    "{payees_first} within {window} (from {min_payees}).",
    sources=(
        cite("AMLSIM", "fan_out", "5 to 10 accounts; raised for a bank's daily life."),
        cite("AMLW", "fan-out pattern", "One of eight laundering patterns."),
        cite("MITS", "dispersal (page not seen)", "Money is split across accounts."),
    ),
    params=(
        duration(
            "day_window", 24 * HOUR, 1 * HOUR, 3 * DAY, "short look-back", "crews are paid in one sitting"
        ),
        count(
            "min_payees_day",
            10,
            3,
            1_000,
            "first-time payees in the short look-back from which it fires",
            "above splitting a bill",
        ),
        count(
            "full_payees_day",
            20,
            3,
            2_000,
            "payees at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
        duration("window", 7 * DAY, 1 * DAY, 30 * DAY, "long look-back", "a week of payments"),
        count(
            "min_payees",
            20,
            3,
            1_000,
            "first-time payees in the long look-back from which it fires",
            "above a wedding's suppliers",
        ),
        count(
            "full_payees",
            40,
            3,
            2_000,
            "payees at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
    ),
    trigger=None,
    measures=("payees_first_day", "payees_first"),
    window="window",
    ordered=(("day_window", "window"), ("min_payees_day", "full_payees_day"), ("min_payees", "full_payees")),
    look_alikes=(
        LookAlike(text="A small employer who pays the same people every month", case="small_payroll"),
        LookAlike(text="A wedding: caterer, band, hall", case="wedding_suppliers"),
        LookAlike(
            text="A club that gives money back to its members once: it is seen, and alone nothing comes of it",
            case="club_refunds",
        ),
    ),
    misses=("Payments through a payment firm or in cash.", "The same few payees many times."),
    runbook=(
        "Look at what the payees of the last 24 hours did next: onward payment or cash within a day?",
        "Check whether the payees were paid by others in the same way; some of them may be used.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    strength = np.maximum(
        ramp(m.payees_first_day, p.min_payees_day, p.full_payees_day),
        ramp(m.payees_first, p.min_payees, p.full_payees),
    )
    return settle(strength, m, "payees_first_day", "payees_first")


def explain(view: AccountView, p: Params) -> Evidence:
    """The first-time debits to people."""
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(("payees_first_day", "min_payees_day"), ("payees_first", "min_payees")),
        rows=view.within(p.window) & view.debits() & view.personal() & (view.first_time != 0),
    )
