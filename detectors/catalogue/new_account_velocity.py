"""An account opened to be used, not to be lived with.

In its first three months it has many personal payers, high credits, or money that passes through (FCA reviews of mule
controls; AMLTRIX). Newness alone is nothing: people who are new to a country have new accounts.
"""

from __future__ import annotations

import numpy as np

from detectors.evidence import evidence
from detectors.model import DAY, PPM, Family, Role, Stage
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
    days,
    duration,
    money,
)
from detectors.strength import clamp, ramp, settle

SPEC = DetectorSpec(
    id="new-account-velocity",
    title="Young account, heavy use",
    summary="An account younger than three months with many personal payers, high credits or money that passes "
    "through. Wages, benefits and purchases at shops do not count. It says nothing without the opening date.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.LIFECYCLE,
    roles=(Role.MULE, Role.LIKELY_VICTIM),
    points=2,
    strength="The greatest of payers, credits and episodes, each half at its threshold and full at its upper value; "
    "falling in a straight line to 0 between max_age and zero_age.",
    sentence="The account is {age_days} old. In {window}: {life_payers} personal payers (from {min_payers}), "
    "{life_credits} in credits (from {min_credits}), {life_episodes} credits passed on (from {min_episodes}).",
    sources=(
        cite("FCA24M", "new accounts (page not seen)", "Heavy deposits into newly opened accounts."),
        cite("NECC23", "items 1 to 7", "New account used at once."),
        cite("AMLT", "IND01284, IND02288", "Activity out of line for a new account."),
    ),
    params=(
        days(
            "max_age",
            90,
            7,
            365,
            "age up to which strength is whole",
            "a quarter, as banks' own new-account rules use",
            shapes=True,
        ),
        days("zero_age", 180, 14, 730, "age from which nothing remains", "twice max_age: no cliff"),
        duration(
            "window",
            30 * DAY,
            1 * DAY,
            30 * DAY,
            "look-back of payers, credits and episodes",
            "a month of use; longer does not fit into what the state holds",
        ),
        count(
            "min_payers",
            8,
            3,
            500,
            "distinct personal payers from which it fires",
            "housemates, family and a few friends are fewer",
        ),
        count(
            "full_payers",
            16,
            3,
            1_000,
            "payers at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
        money(
            "min_credits",
            5_000_00,
            100_00,
            10_000_000_00,
            "credits from which it fires",
            "above most months of family support; wages and benefits are not in the sum",
        ),
        money(
            "full_credits",
            10_000_00,
            100_00,
            10_000_000_00,
            "credits at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
        count("min_episodes", 2, 1, 50, "pass-through episodes from which it fires", "as rapid-pass-through"),
        count(
            "full_episodes",
            4,
            1,
            100,
            "episodes at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
    ),
    trigger=None,
    measures=("age_days", "life_payers", "life_credits", "life_episodes"),
    window="window",
    lots=True,
    ordered=(
        ("max_age", "zero_age"),
        ("min_payers", "full_payers"),
        ("min_credits", "full_credits"),
        ("min_episodes", "full_episodes"),
    ),
    look_alikes=(
        LookAlike(text="Someone new to the country: wages, rent, phone, money sent home", case="newcomer"),
        LookAlike(text="A student in September with housemates and parents", case="student_in_september"),
        LookAlike(text="Someone who switched banks and has their wages paid here now", case="switcher"),
    ),
    misses=(
        "Accounts whose opening date the bank does not send.",
        "Accounts left to age before use: see dormant-reactivation.",
    ),
    runbook=(
        "Check the switch-service mark, and what was said at opening about the use of the account.",
        "Look at who paid in during the first 30 days and whether they know each other.",
        "Audit by cohort: newness goes with migration. Newness alone is no reason to act.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    use = np.maximum(
        ramp(m.life_payers, p.min_payers, p.full_payers),
        np.maximum(
            ramp(m.life_credits, p.min_credits, p.full_credits),
            ramp(m.life_episodes, p.min_episodes, p.full_episodes),
        ),
    )
    young = p.zero_age - clamp(m.age_days, p.max_age, p.zero_age)
    youth = young * PPM // max(p.zero_age - p.max_age, 1)
    return settle(use * youth // PPM, m, "age_days", "life_payers", "life_credits", "life_episodes")


def explain(view: AccountView, p: Params) -> Evidence:
    """The credits that count."""
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(
            ("age_days", "max_age"),
            ("life_payers", "min_payers"),
            ("life_credits", "min_credits"),
            ("life_episodes", "min_episodes"),
        ),
        rows=view.within(p.window) & view.counted(),
    )
