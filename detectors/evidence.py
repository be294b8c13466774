"""What `explain` functions share: observed values beside their thresholds, and the rows that matter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from detectors.model import DAY, PPM, PartyClass
from detectors.spec import MEASURE_KIND, AccountView, Bools, DetectorSpec, Evidence, Observed, Params


def observe(view: AccountView, spec: DetectorSpec, p: Params, measure: str, param: str = "") -> Observed:
    """One measure of the judged leg, beside the parameter it is compared with."""
    kind = MEASURE_KIND[measure]
    if not param:
        return Observed(measure, view.measure(measure), kind)
    return Observed(measure, view.measure(measure), kind, getattr(p, param), param, spec.param(param).tag)


def evidence(
    view: AccountView,
    spec: DetectorSpec,
    p: Params,
    *,
    window: int,
    compared: Iterable[tuple[str, str]],
    baseline: Iterable[str] = ("history",),
    rows: Bools | Iterable[int],
) -> Evidence:
    """Evidence from a mask or a list of rows. The window reaches back to the oldest row where that is older."""
    picked = np.flatnonzero(rows).tolist() if isinstance(rows, np.ndarray) else sorted(set(rows))
    start = view.now - window
    if picked:
        start = min(start, int(view.time[picked[0]]))
    return Evidence(
        observed=tuple(observe(view, spec, p, measure, param) for measure, param in compared),
        baseline=tuple(observe(view, spec, p, measure) for measure in baseline),
        window_from=start,
        window_to=view.now,
        rows=tuple(picked),
    )


class Episode(NamedTuple):
    """A credit that went out again almost whole."""

    credit: int
    done: int  # the debit at which the share was reached
    rows: tuple[int, ...]  # the credit and the debits that took it, up to `done`


_FIRST_TIME_CLASSES = (PartyClass.BUSINESS, PartyClass.REMITTER, PartyClass.VASP)


def episodes(view: AccountView, window: int) -> list[Episode]:
    """Pass-through episodes that completed inside the window, oldest credit first."""
    p = view.passing
    payer = view.personal() | (np.isin(view.party_class, _FIRST_TIME_CLASSES) & (view.first_time != 0))
    candidates = view.credits() & (view.ignored == 0) & payer & (view.amount_u >= p.min_inflow)
    candidates &= view.time > view.now - window - p.horizon - DAY  # a day: times may be coarse
    out = view.out()
    found = []
    for credit in np.flatnonzero(candidates).tolist():
        gone, amount, rows = 0, int(view.amount_u[credit]), [credit]
        for debit, part in view.follow(credit):
            if not out[debit]:
                continue
            gone += part
            rows.append(debit)
            if gone * PPM >= amount * p.share_out:
                if view.time[debit] > view.now - window:
                    found.append(Episode(credit, debit, tuple(rows)))
                break
    return found


def cash_outs(view: AccountView, window: int, min_credit: int, share: int, horizon: int) -> list[Episode]:
    """Credits from people that were taken out in cash within the horizon, completed inside the window."""
    cash = view.cash() & view.debits()
    candidates = view.credits() & (view.ignored == 0) & view.personal() & (view.amount_u >= min_credit)
    candidates &= view.time > view.now - window - horizon - DAY
    found = []
    for credit in np.flatnonzero(candidates).tolist():
        gone, amount, rows = 0, int(view.amount_u[credit]), [credit]
        for debit, part in view.follow(credit):
            if not cash[debit] or view.elapsed(credit, debit) > horizon:
                continue
            gone += part
            rows.append(debit)
            if gone * PPM >= amount * share:
                if view.time[debit] > view.now - window:
                    found.append(Episode(credit, debit, tuple(rows)))
                break
    return found
