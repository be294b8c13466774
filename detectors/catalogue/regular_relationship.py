"""The payee is someone the customer has paid regularly for half a year.

A mitigator: it takes points away at that leg, and is shown. What the customer does every month is their life.
"""

from __future__ import annotations

import numpy as np

from detectors.evidence import evidence
from detectors.model import DAY, PPM, Family, Role, Side, Stage
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
    days,
)
from detectors.strength import settle

SPEC = DetectorSpec(
    id="regular-relationship",
    title="A payee of long standing",
    summary="The judged payment goes to a payee whom the customer has paid regularly for half a year or longer. It "
    "takes points away at that payment only; other payments are judged without it.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.MITIGATOR,
    roles=(Role.UNKNOWN,),
    points=-2,
    strength="Full from min_tenure.",
    sentence="This payee has been paid regularly for {tenure_days} (from {min_tenure}).",
    sources=(
        cite(
            "NATCEN24", "cautions", "Ordinary relations of people near a suspect must not become suspicion."
        ),
        cite("FC20", "caution on single indicators (page not seen)", "No indicator is proof on its own."),
    ),
    params=(days("min_tenure", 180, 60, 1_825, "how long the relation must last", "two seasons of rent"),),
    trigger=Side.DEBIT,
    measures=("tenure_days",),
    window=None,
    look_alikes=(
        LookAlike(
            text="A payee paid three times in two months: too short to speak for the customer",
            case="two_months_only",
        ),
    ),
    misses=("Exploitation that has lasted for half a year looks regular too: a debt paid off every payday.",),
    runbook=(
        "Look at what the regular payment is for.",
        "Regular payments by several people to one payee right after payday can be control: see who else pays them.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Full strength for debits to a payee of long standing."""
    known = (m.side == Side.DEBIT) & (m.tenure_days >= p.min_tenure)
    return settle(np.where(known, PPM, 0).astype(np.int64), m, "tenure_days")


def explain(view: AccountView, p: Params) -> Evidence:
    """What is still held of the payments to this payee."""
    same = (view.party == view.party[-1]) & view.debits() & (view.ignored == 0)
    return evidence(
        view,
        SPEC,
        p,
        window=p.min_tenure * DAY,
        compared=(("tenure_days", "min_tenure"),),
        rows=same,
    )
