"""Payments with own accounts and the declared household are left out of every measure.

The catalogue takes four points from such a leg; since the leg is not measured at all, nothing of it can give points, and
nothing is taken from the others. It is shown so that the reviewer knows what was left out.
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
    duration,
)
from detectors.strength import settle

SPEC = DetectorSpec(
    id="own-account-or-household",
    title="Own accounts and household, left out",
    summary="Legs with the holder's own accounts, a declared household, or payees protected from display are left out of "
    "every measure. The points of the catalogue (-4) concern that leg, which gives none; other legs keep theirs.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.MITIGATOR,
    roles=(Role.UNKNOWN,),
    points=0,
    strength="Full as soon as min_legs were left out; it takes no points.",
    sentence="{own_legs} legs of the last {window} with own, household or protected accounts were left out.",
    sources=(
        cite("NATCEN24", "cautions", "Household ties are not links between suspects."),
        cite("FC20", "caution on single indicators (page not seen)", "No indicator is proof on its own."),
    ),
    params=(
        duration(
            "window", 30 * DAY, 30 * DAY, 30 * DAY, "look-back of the count", "fixed: the measure's own"
        ),
        count("min_legs", 1, 1, 100, "legs from which it is shown", "any leg left out is worth knowing"),
    ),
    trigger=None,
    measures=("own_legs",),
    window="window",
    look_alikes=(
        LookAlike(text="A person who is not declared as household: nothing is left out", case="not_declared"),
    ),
    misses=("Household members whom the bank has not recorded: they count as people.",),
    runbook=(
        "Check that the recorded household is true: a controller can be recorded as a relative.",
        "Ask the bank's own records, not the names.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Full strength where legs were left out."""
    return settle(np.where(m.own_legs >= p.min_legs, PPM, 0).astype(np.int64), m, "own_legs")


def explain(view: AccountView, p: Params) -> Evidence:
    """The count only: a protected payee is never named."""
    return evidence(view, SPEC, p, window=p.window, compared=(("own_legs", "min_legs"),), rows=())
