"""Named patterns that several indicators add up to. A pattern is data: later ones are further entries of `TYPOLOGIES`.

A name is given only where its gate holds. Points alone are called `unattributed-laundering`, and nothing here is ever
called human trafficking on points alone.
"""

from __future__ import annotations

from typing import Final

import msgspec

from detectors.model import Family

FALLBACK: Final = "unattributed-laundering"
FALLBACK_TITLE: Final = "Unattributed laundering"
TOO_DENSE: Final = "too-dense-to-judge"
"""An account with so many legs or counterparties that it is counted instead of judged."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """One condition of a gate: at least so many of these indicators."""

    name: str  # key in the configuration
    text: str
    at_least: int
    indicators: tuple[str, ...] = ()
    families: tuple[Family, ...] = ()  # every indicator of these families


class Typology(msgspec.Struct, frozen=True, kw_only=True):
    """A named pattern."""

    id: str
    code: str  # as in the catalogue of typologies
    title: str
    needs: tuple[Need, ...]  # all must hold
    weights: dict[str, int]  # evidence by indicator: where several gates hold, the heaviest names the pattern
    look_alikes: tuple[str, ...]  # to rule out, shown to the reviewer


TYPOLOGIES: Final[tuple[Typology, ...]] = (
    Typology(
        id="money-mule-network",
        code="T-MULE",
        title="Money-mule network",
        needs=(
            Need(
                name="core",
                text="money collected or passed on",
                at_least=2,
                indicators=("rapid-pass-through", "gather-scatter", "victim-collection-account"),
            ),
            Need(
                name="support",
                text="a life-cycle indicator or a link to a confirmed account",
                at_least=1,
                families=(Family.LIFECYCLE, Family.LINK),
            ),
        ),
        weights={
            "rapid-pass-through": 4,
            "gather-scatter": 4,
            "victim-collection-account": 3,
            "new-account-velocity": 2,
            "dormant-reactivation": 2,
            "commission-retention": 2,
            "rapid-cash-out": 2,
            "flagged-counterparty": 2,
            "fan-in": 1,
            "fan-out": 1,
            "structuring": 1,
        },
        look_alikes=(
            "Someone who collects for a group and pays what the group bought.",
            "Someone whose account is used by others: most mule traffic is fraud, and the holder may be its victim.",
        ),
    ),
)

NAMES: Final[tuple[str, ...]] = (*(t.id for t in TYPOLOGIES), FALLBACK)
"""Typology of each index that scoring returns; the last is the fallback."""
