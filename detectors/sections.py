"""The numbers that belong to no single detector: shared measures, scoring, durations, essentials."""

from __future__ import annotations

from typing import Final

from detectors.model import DAY, HOUR
from detectors.spec import Kind, Param, count, days, duration, money, ratio

POINT: Final = 1_000_000
"""Points are counted in millionths."""


def _points(name: str, default: int, low: int, high: int, text: str, why: str) -> Param:
    return Param(name=name, kind=Kind.POINTS, default=default, min=low, max=high, text=text, why=why)


MEASURES: Final = (
    days(
        "first_time_gap",
        180,
        30,
        365,
        "silence after which a counterparty counts as new again",
        "the catalogue's definition of a first-time payee",
    ),
    duration(
        "first_time_history",
        30 * DAY,
        1 * DAY,
        365 * DAY,
        "history needed before anyone can be called new",
        "without it everybody is new; shorter history never raises load",
    ),
    count(
        "regular_payments",
        3,
        2,
        50,
        "earlier payments that make a counterparty regular",
        "the catalogue's definition of a regular payee",
    ),
    days(
        "regular_spread",
        60,
        14,
        365,
        "days from first to last of those payments",
        "the catalogue's definition of a regular payee",
    ),
)

SCORING: Final = (
    _points(
        "family_cap",
        6 * POINT,
        1 * POINT,
        20 * POINT,
        "most points of one family",
        "six views of the same pass-through are not six findings",
    ),
    _points(
        "corridor_cap",
        3 * POINT,
        0,
        6 * POINT,
        "most points of the corridor family",
        "where money goes says little; sending money home is normal",
    ),
    _points(
        "counts_from",
        POINT // 2,
        1,
        4 * POINT,
        "points from which an indicator or a family counts as present",
        "a trace of an indicator must not open a gate",
    ),
    _points(
        "strong_from",
        3 * POINT,
        1 * POINT,
        4 * POINT,
        "points from which an indicator is strong",
        "three quarters of a strong indicator",
    ),
    ratio(
        "role_share",
        400_000,
        250_000,
        1_000_000,
        "least share of the hints that names a role",
        "most indicators hint at two roles: below it the role stays unknown",
    ),
    _points(
        "monitor",
        4 * POINT,
        1 * POINT,
        100 * POINT,
        "points from which an account is watched",
        "one strong or two moderate indicators",
    ),
    _points(
        "hold",
        8 * POINT,
        1 * POINT,
        100 * POINT,
        "points from which a payment or an amount is held for review",
        "two strong indicators",
    ),
    count("hold_families", 2, 2, 10, "families that a hold needs", "one kind of evidence is never enough"),
    _points(
        "freeze",
        12 * POINT,
        1 * POINT,
        100 * POINT,
        "points from which a freeze is recommended",
        "three strong indicators",
    ),
    count("freeze_families", 3, 2, 10, "families that a freeze needs", "three kinds of evidence"),
)

DURATIONS: Final = (
    duration(
        "monitor",
        30 * DAY,
        1 * DAY,
        90 * DAY,
        "how long an account is watched",
        "a watch-list that never ends is a punishment",
    ),
    duration(
        "hold-and-review",
        24 * HOUR,
        1 * HOUR,
        7 * DAY,
        "how long a hold lasts unless people decide",
        "most holds are wrong or unneeded: small, short, reversible; the law's limit is shorter still in places",
    ),
    duration(
        "freeze",
        7 * DAY,
        1 * DAY,
        30 * DAY,
        "how long a freeze lasts unless people decide",
        "time for two people and an order of the authority",
    ),
    duration(
        "safeguard-first",
        7 * DAY,
        1 * DAY,
        30 * DAY,
        "how long a safeguarding task stays open",
        "time to reach the person by a channel of their own",
    ),
)

ESSENTIALS: Final = (
    money(
        "amount",
        1_500_00,
        0,
        100_000_00,
        "money that stays reachable in 30 days whatever is held",
        "rent, food, energy and travel of one person; set it to the protected amount of your law",
    ),
)

SECTIONS: Final[dict[str, tuple[Param, ...]]] = {
    "measures": MEASURES,
    "scoring": SCORING,
    "durations": DURATIONS,
    "essentials": ESSENTIALS,
}

SECTION_TEXT: Final[dict[str, str]] = {
    "measures": "what the shared measures mean by new and regular",
    "scoring": "from points to an action",
    "durations": "how long each action lasts unless people decide otherwise",
    "essentials": "what is never held: wages, benefits, rent, food and energy up to this amount",
}

ESSENTIAL_KINDS: Final = ("wages", "benefits", "rent", "food", "energy", "travel-to-work", "medicine")
"""Outgoings and income that every hold and freeze leaves alone."""
