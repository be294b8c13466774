"""Sentences from measures. The one place where what a detector saw becomes prose: uniform, and translatable."""

from __future__ import annotations

from collections.abc import Iterable
from string import Formatter
from typing import Final

from detectors.spec import MEASURE_KIND, DetectorSpec, Kind, Observed, Params
from detectors.units import say

UNKNOWN: Final = "not known"


def placeholders(template: str) -> list[str]:
    """Names that a sentence fills in, in order."""
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def sentence(spec: DetectorSpec, observed: Iterable[Observed], params: Params) -> str:
    """What a detector saw, in plain words: its template filled with measured values and parameters."""
    values = {item.measure: item.value for item in observed}
    words: dict[str, str] = {}
    for name in placeholders(spec.sentence):
        if name in values:
            value = values[name]
            words[name] = UNKNOWN if value < 0 else say(MEASURE_KIND[name], value)
        else:
            words[name] = say(spec.param(name).kind, getattr(params, name))
    text = spec.sentence.format_map(words)
    return text[0].upper() + text[1:]


def points(value: int) -> str:
    """Points with two decimals at most."""
    return say(Kind.POINTS, value)
