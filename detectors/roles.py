"""What the holder of an account probably is. The role is settled before the action: the account that looks worst is often a
victim's.

Hints of the indicators are weighed by their points. They name a controller or a mule at most; a likely victim is named by an
indicator of control, a payer by the direction of money. Whether a mule knows what they do is never guessed.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.catalogue import SPECS
from detectors.model import PPM, AccountKind, Fact, Role, Stage
from detectors.spec import Bools, Ints, Measures

ROLES: Final[tuple[Role, ...]] = tuple(Role)
CODE: Final[dict[Role, int]] = {role: code for code, role in enumerate(ROLES)}
PASSES: Final = ("rapid-pass-through", "gather-scatter", "victim-collection-account", "commission-retention")
"""Whoever shows one of these does not merely pay: money comes through the account."""

_NAMED_BY_HINTS: Final = (Role.MULE, Role.CONTROLLER, Role.FRONT_BUSINESS)


class RoleTables(msgspec.Struct, frozen=True):
    """Hints of the indicators as arrays, made once."""

    hints: Ints  # (D, roles) ppm of an indicator's points
    payer_hints: Ints  # the same where the customer mostly sends to flagged accounts
    passes: Bools  # (D,)
    control: Bools  # (D,) indicators that someone is controlled


def role_tables() -> RoleTables:
    """The tables of the catalogue."""
    hints = np.zeros((len(SPECS), len(ROLES)), np.int64)
    payer_hints = np.zeros_like(hints)
    for row, spec in enumerate(SPECS):
        usual = [role for role in spec.roles if role not in (Role.PAYER, Role.UNKNOWN)]
        for role in usual:
            hints[row, CODE[role]] = PPM // len(usual)
            payer_hints[row, CODE[role]] = PPM // len(usual)
        if Role.PAYER in spec.roles:
            payer_hints[row] = 0
            payer_hints[row, CODE[Role.PAYER]] = PPM
    return RoleTables(
        hints=hints,
        payer_hints=payer_hints,
        passes=np.array([spec.id in PASSES for spec in SPECS]),
        control=np.array([spec.stage == Stage.CONTROL_EXPLOIT for spec in SPECS]),
    )


def child_possible(fact: Fact | None) -> bool:
    """A youth account, or a minor among the customers."""
    if fact is None:
        return False
    return fact.kind == AccountKind.YOUTH or any(customer.role == "minor" for customer in fact.customers)


def mostly_sends(m: Measures) -> Bools:
    """More money was sent to flagged accounts than received from them."""
    return m.flagged_out > m.flagged_in


def payers(present: Bools, sends: Bools, tables: RoleTables) -> Bools:
    """Rows that mostly send to flagged accounts without passing other people's money on."""
    return sends & ~(present & tables.passes).any(axis=1)


def role_shares(points: Ints, pays: Bools, tables: RoleTables) -> Ints:
    """ppm of the hints for each role; rows without points are zero. `points` is (n, D), positive points only."""
    micro = points // 1_000  # thousandths: the products stay small
    weights = micro @ tables.hints
    if pays.any():
        weights = np.where(pays[:, None], micro @ tables.payer_hints, weights)
    total = weights.sum(axis=1)
    return weights * 1_000 // np.maximum(total // 1_000, 1)[:, None]


def roles(
    points: Ints, present: Bools, sends: Bools, tables: RoleTables, least: int
) -> tuple[NDArray[np.int8], Ints]:
    """Role codes and their confidence in ppm, by row. `least`: share of the hints that names a role."""
    pays = payers(present, sends, tables)
    shares = role_shares(points, pays, tables)
    role = np.full(len(points), CODE[Role.UNKNOWN], np.int8)
    confidence = np.zeros(len(points), np.int64)
    for candidate in _NAMED_BY_HINTS:
        share = shares[:, CODE[candidate]]
        better = (share >= least) & (share > confidence)
        role[better] = CODE[candidate]
        confidence = np.where(better, share, confidence)
    payer = pays & (shares[:, CODE[Role.PAYER]] > 0)
    role[payer] = CODE[Role.PAYER]
    confidence = np.where(payer, shares[:, CODE[Role.PAYER]], confidence)
    victim = (present & tables.control).any(axis=1) & (role == CODE[Role.UNKNOWN])
    role[victim] = CODE[Role.LIKELY_VICTIM]
    confidence = np.where(victim, shares[:, CODE[Role.LIKELY_VICTIM]], confidence)
    return role, np.minimum(confidence, PPM)
