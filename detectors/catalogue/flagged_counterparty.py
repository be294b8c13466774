"""Money to or from an account that people have confirmed as involved.

Direction matters: who receives from a flagged account may be its mule; who sends to a flagged collection account is
usually someone who is being harmed. A flag that a machine proposed never counts, and being near a flag is no indicator.
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
    money,
    ratio,
)
from detectors.strength import settle

SPEC = DetectorSpec(
    id="flagged-counterparty",
    title="Payments with a confirmed account",
    summary="Payments with an account under an active flag that people confirmed. Receiving from it counts whole, "
    "sending to it half and as a sign of a payer who may be harmed. Flags that expired or were withdrawn count as "
    "never set.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.LINK,
    roles=(Role.MULE, Role.PAYER),
    points=2,
    strength="Full when receiving; sent_strength when only sending.",
    sentence="With confirmed accounts within {window}: {flagged_in} received in {flagged_in_n} payments, {flagged_out} "
    "sent in {flagged_out_n} (from {min_amount} or {min_payments} payments).",
    sources=(
        cite(
            "FC14", "relationship-level review (page not seen)", "Look at who deals with those already known."
        ),
        cite("NECC23", "items 1 to 7", "Payments with known mule accounts."),
        cite("AMLT", "T0011", "Links to known participants."),
    ),
    params=(
        duration("window", 30 * DAY, 1 * DAY, 30 * DAY, "look-back of payments", "a month of dealings"),
        money("min_amount", 100_00, 0, 1_000_000_00, "sum from which it fires", "a shared lunch is less"),
        count("min_payments", 2, 1, 100, "or payments from which it fires", "once may be by mistake"),
        ratio(
            "sent_strength",
            500_000,
            1,
            1_000_000,
            "strength when money was only sent",
            "weak: those who send are mostly harmed by the account, not part of it",
            shapes=True,
        ),
    ),
    trigger=None,
    measures=("flagged_in", "flagged_in_n", "flagged_out", "flagged_out_n"),
    window="window",
    look_alikes=(
        LookAlike(text="The landlord of a suspect, paid once and little", case="one_small_payment"),
        LookAlike(text="Someone whose flag was withdrawn", case="withdrawn_flag"),
        LookAlike(text="Someone whom only a machine has proposed", case="proposed_flag"),
        LookAlike(text="A victim who pays: weak, and safeguarded before anything else", case="a_victim_pays"),
    ),
    misses=("Accounts that nobody has flagged yet.", "Dealings through a third account."),
    runbook=(
        "Read the flag: who confirmed it, on what, and until when.",
        "If the customer only sent, call them by a channel believed to be their own: they are probably harmed.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    received = (m.flagged_in_n >= p.min_payments) | ((m.flagged_in >= p.min_amount) & (m.flagged_in_n > 0))
    sent = (m.flagged_out_n >= p.min_payments) | ((m.flagged_out >= p.min_amount) & (m.flagged_out_n > 0))
    strength = np.where(received, PPM, np.where(sent, p.sent_strength, 0)).astype(np.int64)
    return settle(strength, m, "flagged_in", "flagged_in_n", "flagged_out", "flagged_out_n")


def explain(view: AccountView, p: Params) -> Evidence:
    """The payments with flagged accounts."""
    flagged = np.isin(view.party, np.array(sorted(view.flags), dtype=np.uint64))
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(
            ("flagged_in", "min_amount"),
            ("flagged_in_n", "min_payments"),
            ("flagged_out", "min_amount"),
            ("flagged_out_n", "min_payments"),
        ),
        rows=view.within(p.window) & flagged,
    )
