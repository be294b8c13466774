"""A small constant cut stays behind: the holder is paid for passing money on.

AUSTRAC reports commissions of about 10 %. One pass-through proves nothing; the same share kept of four and more of them
looks like a fee.
"""

from __future__ import annotations

import numpy as np

from detectors.evidence import episodes, evidence
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
from detectors.strength import ramp, settle

SPEC = DetectorSpec(
    id="commission-retention",
    title="A constant cut stays behind",
    summary="Of four or more credits that went out again, the same small share stayed. It says that someone is paid to "
    "pass money on; it does not say that they know what for.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.LIFECYCLE,
    roles=(Role.MULE,),
    points=2,
    strength="Half at min_episodes, full at full_episodes.",
    sentence="Of {kept_episodes} credits that went out again in {window} (from {min_episodes}), {kept_median} stayed "
    "each time ({kept_low} to {kept_high}), with a spread of {kept_iqr} (up to {max_iqr}).",
    sources=(
        cite(
            "AU24",
            "commission (page not seen)",
            "About 10% commission for students' accounts; the band is ours.",
        ),
        cite("FC20M", "money mule indicators (page not seen)", "The mule keeps a part of what passes."),
    ),
    params=(
        duration(
            "window",
            30 * DAY,
            7 * DAY,
            30 * DAY,
            "look-back in which episodes are counted",
            "four paid errands seldom fit into a week; longer does not fit into what the state holds",
        ),
        count("min_episodes", 4, 3, 50, "episodes from which it fires", "three shares agree by chance"),
        count(
            "full_episodes",
            8,
            3,
            100,
            "episodes at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
        ratio(
            "kept_low", 30_000, 0, 500_000, "smallest share kept", "less is rounding and fees", tag=Tag.DRV
        ),
        ratio(
            "kept_high",
            150_000,
            10_000,
            500_000,
            "largest share kept",
            "what rapid-pass-through.share_out leaves at most",
            tag=Tag.DRV,
        ),
        ratio(
            "max_iqr",
            40_000,
            1_000,
            200_000,
            "largest spread between the quartiles of the share kept",
            "a fee is a rate; chance is not",
        ),
    ),
    trigger=None,
    measures=("kept_episodes", "kept_median", "kept_iqr"),
    window="window",
    lots=True,
    ordered=(("min_episodes", "full_episodes"), ("kept_low", "kept_high")),
    look_alikes=(
        LookAlike(
            text="A letting manager who pays owners every month: regular payees do not count as leaving",
            case="letting_manager",
        ),
        LookAlike(text="A savings-club treasurer who keeps nothing", case="savings_club_treasurer"),
        LookAlike(text="A seller whose margins differ from sale to sale", case="seller_with_margins"),
    ),
    misses=(
        "Mules who are paid separately, in cash or in kind, or not at all.",
        "Commissions above 15%: the credit is then no episode.",
    ),
    runbook=(
        "Compute the kept share of each episode of the last 30 days and compare: one rate, or one amount?",
        "Look for an offer of work that came before the first episode; a recruited holder may be a victim of a fake job.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    kept = m.kept_median
    steady = (kept >= p.kept_low) & (kept <= p.kept_high) & (m.kept_iqr <= p.max_iqr)
    strength = np.where(steady, ramp(m.kept_episodes, p.min_episodes, p.full_episodes), 0)
    return settle(strength, m, "kept_episodes", "kept_median", "kept_iqr")


def explain(view: AccountView, p: Params) -> Evidence:
    """The episodes whose share was compared."""
    found = episodes(view, p.window)
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(("kept_episodes", "min_episodes"), ("kept_median", "kept_high"), ("kept_iqr", "max_iqr")),
        rows=[row for episode in found for row in episode.rows],
    )
