"""Electronic money turned to cash at once: cash breaks the trail.

Typical last leg of a mule chain (FCA reviews; AUSTRAC case of large withdrawals in a short time). Numbers are starting
values.
"""

from __future__ import annotations

from detectors.evidence import cash_outs, evidence
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
    money,
    ratio,
)
from detectors.strength import ramp, settle

SPEC = DetectorSpec(
    id="rapid-cash-out",
    title="Straight to cash",
    summary="Most of a credit from a person is taken out in cash within half a day, three times or more in a month. "
    "Wages and benefits taken in cash do not count. It does not see cash-back in shops.",
    stage=Stage.PROFIT_LAUNDER,
    family=Family.FLOW,
    roles=(Role.MULE, Role.LIKELY_VICTIM),
    points=2,
    strength="Half at min_events, full at full_events.",
    sentence="{cash_outs} credits of {min_credit} or more were taken out in cash within {horizon}, at least {share} of "
    "each, in {window} (from {min_events}).",
    sources=(
        cite("FCA24M", "cash withdrawals (page not seen)", "Mule accounts emptied at machines."),
        cite("FC20", "financial indicators (page not seen)", "Payments immediately withdrawn."),
        cite("AUT", "case text", "Large withdrawals in a short time."),
        cite("AMLT", "IND01236", "Credits followed by cash withdrawals."),
    ),
    params=(
        money(
            "min_credit",
            200_00,
            10_00,
            100_000_00,
            "smallest credit that counts",
            "below it, daily life in cash",
        ),
        ratio(
            "share",
            700_000,
            300_000,
            1_000_000,
            "part of the credit taken in cash",
            "machines give round notes, and a little stays",
        ),
        duration(
            "horizon",
            12 * HOUR,
            1 * HOUR,
            48 * HOUR,
            "longest time to the cash",
            "the same day; not longer than rapid-pass-through.horizon, which bounds the lots",
        ),
        duration(
            "window", 30 * DAY, 1 * DAY, 30 * DAY, "look-back in which they are counted", "a month of use"
        ),
        count("min_events", 3, 1, 100, "times from which it fires", "twice happens to everybody"),
        count(
            "full_events",
            6,
            1,
            200,
            "times at which strength is full",
            "twice the threshold",
            shapes=True,
        ),
    ),
    trigger=None,
    measures=("cash_outs",),
    window="window",
    lots=True,
    ordered=(("min_events", "full_events"),),
    look_alikes=(
        LookAlike(text="Wages taken out in cash on payday", case="wages_in_cash"),
        LookAlike(text="A market trader who pays in cash and takes out change", case="market_trader"),
        LookAlike(text="Small gifts taken out in cash", case="small_gifts"),
    ),
    misses=("Cash-back, gift cards and prepaid cards.", "Feeds that know only the day."),
    runbook=(
        "List the machines and times of the withdrawals; several machines or the daily limit point to a runner.",
        "Consider that someone in danger at home may hide money as cash: ask before anything else.",
    ),
    maturity=Maturity.PRODUCTION,
    since="0.1.0",
)


def screen(m: Measures, p: Params) -> Ints:
    """Strength of each leg."""
    return settle(ramp(m.cash_outs, p.min_events, p.full_events), m, "cash_outs")


def explain(view: AccountView, p: Params) -> Evidence:
    """The credits and the withdrawals that took them."""
    found = cash_outs(view, p.window, p.min_credit, p.share, min(p.horizon, view.passing.horizon))
    return evidence(
        view,
        SPEC,
        p,
        window=p.window,
        compared=(("cash_outs", "min_events"),),
        rows=[row for episode in found for row in episode.rows],
    )
