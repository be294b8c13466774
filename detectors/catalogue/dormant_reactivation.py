"""A sleeping account is bought, rented or taken, and put to work.

Half a year without anything that the customer did, then within two weeks money from people who never paid here before.
The bands of dormancy are those of Tazama's rule life-cycle (3, 6, 12 months); amounts are starting values.
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
    days,
    duration,
    money,
    ratio,
)
from detectors.strength import at_least, ramp, settle

SPEC = DetectorSpec(
    id="dormant-reactivation",
    title="A sleeping account wakes up",
    summary="After half a year without anything the customer did, money or several payers arrive within two weeks, most "
    "of it from first-time payers. It does not see accounts that were kept warm by small payments.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.LIFECYCLE,
    roles=(Role.MULE,),
    points=2,
    strength="Half at min_quiet, full at full_quiet.",
    sentence="After {quiet_days} without activity of the customer (from {min_quiet}), {wake_credits} came in within "
    "{window} from {wake_payers} payers, {wake_credits_first} of it from first-time payers (from {first_time_share}).",
    sources=(
        cite(
            "TAZ", "Product/…/Tazama-Rules-Life-Cycle.md", "Dormancy bands of more than 3, 6 and 12 months."
        ),
        cite("LN24", "accounts left idle (page not seen)", "Accounts left idle and then used."),
        cite("AMLT", "IND02467", "Dormant account becomes active."),
    ),
    params=(
        days(
            "min_quiet",
            180,
            30,
            730,
            "days without customer activity from which it fires",
            "the second of the published bands",
            tag=Tag.SRC,
        ),
        days(
            "full_quiet",
            365,
            30,
            1_460,
            "days at which strength is full",
            "the third band",
            tag=Tag.SRC,
            shapes=True,
        ),
        duration("window", 14 * DAY, 1 * DAY, 30 * DAY, "look-back after waking", "a fortnight of use"),
        money(
            "min_credits",
            1_000_00,
            10_00,
            1_000_000_00,
            "credits since from which it fires",
            "a birthday present is less",
        ),
        count("min_payers", 5, 2, 200, "or payers since from which it fires", "a family is fewer"),
        ratio(
            "first_time_share",
            700_000,
            0,
            1_000_000,
            "least share of the money from first-time payers",
            "people who come back are paid by those they know",
        ),
    ),
    trigger=None,
    measures=("quiet_days", "wake_credits", "wake_credits_first", "wake_payers"),
    window="window",
    ordered=(("min_quiet", "full_quiet"),),
    look_alikes=(
        LookAlike(text="A returning emigrant whose family pays them as before", case="returning_emigrant"),
        LookAlike(text="A seasonal worker paid by the employer again", case="seasonal_worker"),
        LookAlike(text="A savings account filled from the holder's own account", case="savings_account"),
        LookAlike(text="Maternity or illness: the employer and the state pay", case="maternity_leave"),
    ),
    misses=(
        "Accounts kept warm by a payment now and then.",
        "Accounts that slept longer than the data goes back.",
    ),
    runbook=(
        "Find out who used the account in the last 14 days: new device, new phone, new address?",
        "Reach the holder by the contact of before the silence, not by one given since.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    woke = (m.wake_credits >= p.min_credits) | (m.wake_payers >= p.min_payers)
    strangers = at_least(m.wake_credits_first, m.wake_credits, p.first_time_share)
    strength = np.where(woke & strangers, ramp(m.quiet_days, p.min_quiet, p.full_quiet), 0)
    return settle(strength, m, "quiet_days", "wake_credits_first", "wake_credits", "wake_payers")


def explain(view: AccountView, p: Params) -> Evidence:
    """The credits since the account woke."""
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(
            ("quiet_days", "min_quiet"),
            ("wake_credits", "min_credits"),
            ("wake_payers", "min_payers"),
            ("wake_credits_first", ""),
        ),
        rows=view.within(p.window) & view.counted(),
    )
