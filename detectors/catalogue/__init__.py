"""Every detector, in the order of the columns of the strengths. A detector exists because it is in `ALL`."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from detectors.catalogue import (
    commission_retention,
    dormant_reactivation,
    fan_in,
    fan_out,
    flagged_counterparty,
    gather_scatter,
    new_account_velocity,
    own_account_or_household,
    rapid_cash_out,
    rapid_pass_through,
    regular_relationship,
    structuring,
    victim_collection_account,
)
from detectors.spec import DetectorSpec

ALL: Final[tuple[ModuleType, ...]] = (
    rapid_pass_through,
    rapid_cash_out,
    new_account_velocity,
    dormant_reactivation,
    commission_retention,
    fan_in,
    fan_out,
    gather_scatter,
    structuring,
    flagged_counterparty,
    victim_collection_account,
    regular_relationship,
    own_account_or_household,
)

SPECS: Final[tuple[DetectorSpec, ...]] = tuple(module.SPEC for module in ALL)
IDS: Final[tuple[str, ...]] = tuple(spec.id for spec in SPECS)
POSITION: Final[dict[str, int]] = {name: i for i, name in enumerate(IDS)}

RETIRED: Final[dict[str, str]] = {}
"""Ids that were detectors once, with the reason. An id is never used again."""
