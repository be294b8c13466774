"""Numbers with their units, as text and back. Configuration files, pages and sentences all write them through here."""

from __future__ import annotations

import re
from typing import Final

from detectors.model import DAY, HOUR, MINUTE, PPM, SECOND
from detectors.spec import Kind

_DURATION_UNITS: Final = (("d", DAY), ("h", HOUR), ("min", MINUTE), ("s", SECOND), ("ms", 1_000), ("us", 1))
_DURATION: Final = re.compile(r"(\d{1,15})(d|h|min|s|ms|us)", re.ASCII)
_MONEY: Final = re.compile(r"(\d{1,13})(?:\.(\d{2}))? u", re.ASCII)
_RATIO: Final = re.compile(r"(\d{1,9})(?:\.(\d{1,4}))?%", re.ASCII)
_POINTS: Final = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,15}", re.ASCII)
_DAYS: Final = re.compile(r"(\d{1,9})d", re.ASCII)

HOW: Final[dict[Kind, str]] = {
    Kind.DURATION: "a duration with its unit, like 72h or 7d",
    Kind.DAYS: "whole days with their unit, like 90d",
    Kind.MONEY: "an amount with its unit, like 300.00 u",
    Kind.RATIO: "a share in percent, like 85%",
    Kind.COUNT: "a whole number, like 8",
    Kind.POINTS: "points, like 6 or 0.5",
}

PATTERN: Final[dict[Kind, str]] = {
    Kind.DURATION: f"^{_DURATION.pattern}$",
    Kind.DAYS: f"^{_DAYS.pattern}$",
    Kind.MONEY: f"^{_MONEY.pattern}$",
    Kind.RATIO: f"^{_RATIO.pattern}$",
    Kind.COUNT: f"^{_COUNT.pattern}$",
    Kind.POINTS: f"^{_POINTS.pattern}$",
}
"""Regular expressions for the JSON Schema."""


def _fraction(whole: str, digits: str | None, places: int) -> int:
    return int(whole) * 10**places + int((digits or "").ljust(places, "0") or "0")


def parse(kind: Kind, text: str) -> int | None:
    """The integer that a text means, or None where it is not written as its kind demands."""
    match kind:
        case Kind.DURATION:
            found = _DURATION.fullmatch(text)
            return int(found[1]) * dict(_DURATION_UNITS)[found[2]] if found else None
        case Kind.DAYS:
            found = _DAYS.fullmatch(text)
            return int(found[1]) if found else None
        case Kind.MONEY:
            found = _MONEY.fullmatch(text)
            return _fraction(found[1], found[2], 2) if found else None
        case Kind.RATIO:
            found = _RATIO.fullmatch(text)
            return _fraction(found[1], found[2], 4) if found else None
        case Kind.COUNT:
            return int(text) if _COUNT.fullmatch(text) else None
        case Kind.POINTS:
            found = _POINTS.fullmatch(text)
            return _fraction(found[1], found[2], 6) if found else None


def _decimal(value: int, places: int) -> str:
    sign = "-" if value < 0 else ""
    whole, rest = divmod(abs(value), 10**places)
    digits = f"{rest:0{places}d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def show(kind: Kind, value: int) -> str:
    """A value as a configuration file writes it; `parse` reads it back."""
    match kind:
        case Kind.DURATION:
            if value == 0:
                return "0s"
            unit, size = next((unit, size) for unit, size in _DURATION_UNITS if value % size == 0)
            return f"{value // size}{unit}"
        case Kind.DAYS:
            return f"{value}d"
        case Kind.MONEY:
            return f"{value // 100}.{value % 100:02d} u"
        case Kind.RATIO:
            return f"{_decimal(value, 4)}%"
        case Kind.COUNT:
            return str(value)
        case Kind.POINTS:
            return _decimal(value, 6)


def _number(value: int, word: str) -> str:
    return f"{value:,} {word}" if value == 1 else f"{value:,} {word}s"


def say(kind: Kind, value: int) -> str:
    """A value as a sentence writes it: rounded to what a reader needs, never up to the next unit."""
    match kind:
        case Kind.DURATION:
            for word, size in (("day", DAY), ("hour", HOUR), ("minute", MINUTE)):
                if value >= 2 * size or (value >= size and value % size == 0):
                    return _number(value // size, word)
            return _number(value // SECOND, "second")
        case Kind.DAYS:
            return _number(value, "day")
        case Kind.MONEY:
            return f"{value // 100:,}.{value % 100:02d} u"
        case Kind.RATIO:
            return f"{_decimal(value // (PPM // 1000) * 1000, 4)}%"
        case Kind.COUNT:
            return f"{value:,}"
        case Kind.POINTS:
            return _decimal(value // 10_000, 2)
