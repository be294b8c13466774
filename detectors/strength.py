"""Integer curves and comparisons that `screen` functions share: whole arrays, no floats, no overflow below 10^18."""

from __future__ import annotations

from typing import Final

import numpy as np

from detectors.model import PPM
from detectors.spec import Bools, Ints, Measures

HALF: Final = PPM // 2
"""Strength at the threshold where a catalogue entry gives no other: half there, full at the upper end."""


def ramp(value: Ints, low: int, high: int, at_low: int = HALF) -> Ints:
    """0 below `low`, `at_low` at it, growing in a straight line to full at `high`."""
    if high <= low:
        return np.where(value >= low, PPM, 0).astype(np.int64)
    within = clamp(value, low, high) - low
    return np.where(value >= low, at_low + within * (PPM - at_low) // (high - low), 0)


def clamp(value: Ints, low: int, high: int) -> Ints:
    """`np.clip`, which asks for the limits of its type each time: more than twice as long for a small frame."""
    return np.minimum(np.maximum(value, low), high)


def portion(whole: Ints, share: int) -> Ints:
    """The smallest integer that is at least `share` ppm of `whole`, without forming their product."""
    return (whole // PPM) * share - (-(whole % PPM) * share // PPM)


def at_least(part: Ints, whole: Ints, share: int) -> Bools:
    """`part / whole >= share`, exactly."""
    return part >= portion(whole, share)


def at_most(part: Ints, whole: Ints, share: int) -> Bools:
    """`part / whole <= share`, exactly."""
    return part <= (whole // PPM) * share + (whole % PPM) * share // PPM


def settle(strength: Ints, m: Measures, *needed: str) -> Ints:
    """The strength, or the code of the first needed measure that could not be computed."""
    result = strength
    for name in reversed(needed):
        column = getattr(m, name)
        result = np.where(column < 0, column, result)
    return result
