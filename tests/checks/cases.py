"""Cases of the detectors: rows of YAML become legs, measures and views, through the plain twin of the fold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from detectors.catalogue import ALL, IDS, POSITION, SPECS
from detectors.config import Config, demo_config
from detectors.model import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Channel,
    Fact,
    Flag,
    FlagState,
    PartyClass,
    TimePrecision,
)
from detectors.scoring import Verdict, plan, score, screen_all
from detectors.spec import MEASURE_INDEX, MEASURES, NOT_COMPUTABLE, AccountView, Kind, Measures, Params
from detectors.units import parse
from tests.core.twin import Account, measures
from tests.core.twin_rows import Leg, Settings, counting_flags

FOLDER = Path(__file__).parent.parent / "cases"
START = 19_000 * DAY
SUBJECT = 1
READINGS = ("high", "low")
_UNITS = {"d": DAY, "h": HOUR, "min": MINUTE, "s": SECOND, "ms": 1_000, "us": 1}
_OFFSET = re.compile(r"([+-]?)(\d+)(d|h|min|ms|us|s)")
_ROW = re.compile(
    r"(?:(?P<n>\d+) x )?(?P<offset>[+-]\S+)(?: every (?P<step>\S+))? (?P<side>in|out) (?P<amount>\d+\.\d\d) u"
    r"(?: rising (?P<rising>-?\d+\.\d\d) u)? (?:from|to) (?P<party>\S+) (?P<cls>[a-z]+)"
    r"(?: (?P<channel>other|transfer|instant|card|atm|cash-deposit|cash-counter|direct-debit|cheque|fee))?"
    r"(?: (?P<precision>minute|hour|day))?"
)


def offset(text: str) -> int:
    """`+7d-1us` in µs; a sign stays in force until the next."""
    if not re.fullmatch(f"(?:{_OFFSET.pattern})+", text):
        raise ValueError(f"not an offset: {text}")
    total, sign = 0, 1
    for mark, number, unit in _OFFSET.findall(text):
        sign = {"+": 1, "-": -1, "": sign}[mark]
        total += sign * int(number) * _UNITS[unit]
    return total


def party_id(name: str) -> int:
    """A name as a party; `-` is none."""
    return 0 if name == "-" else int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def cents(text: str) -> int:
    """`12.50` in cents."""
    return int(text.replace(".", ""))


def legs_of(rows: list[str]) -> list[Leg]:
    """The legs of a case in canonical order."""
    found: list[Leg] = []
    for row in rows:
        match = _ROW.fullmatch(row)
        if match is None:
            raise ValueError(f"not a row: {row}")
        step = offset(match["step"]) if match["step"] else 0
        for i in range(int(match["n"] or 1)):
            found.append(
                Leg(
                    leg=(len(found) + 1) * 2 + (match["side"] == "in"),
                    time=START + offset(match["offset"]) + i * step,
                    amount=cents(match["amount"]) + i * cents(match["rising"] or "0.00"),
                    party=party_id(match["party"].replace("{i}", str(i + 1))),
                    party_class=PartyClass[match["cls"].upper()],
                    channel=Channel[(match["channel"] or "transfer").replace("-", "_").upper()],
                    precision=TimePrecision[match["precision"].upper()]
                    if match["precision"]
                    else TimePrecision.EXACT,
                )
            )
    return sorted(found, key=lambda leg: leg.order)


@dataclass(frozen=True)
class Case:
    """One case of a detector."""

    detector: str
    id: str
    legs: list[Leg]
    facts: list[Fact]
    flags: list[Flag]
    params: dict[str, int]  # of the detector, changed
    expect: str
    expect_low: str
    strength: int | None
    seen: dict[str, int]
    boundary: list[str]
    at_most: str | None
    config: Config = field(default_factory=demo_config)

    @property
    def name(self) -> str:
        """For pytest."""
        return f"{self.detector}/{self.id}"

    def all_params(self, changes: dict[str, int] | None = None) -> dict[str, dict[str, int]]:
        """Parameters of every detector, with the case's own and further changes to its detector's."""
        tables = {name: dict(value.params) for name, value in self.config.detectors.items()}
        tables[self.detector] |= self.params | (changes or {})
        return tables

    def settings(self) -> Settings:
        """Of the twin."""
        shared = self.config.measures
        return Settings(
            observed_since=None,
            first_time_gap_days=shared["first_time_gap"],
            first_time_history=shared["first_time_history"],
            regular_payments=shared["regular_payments"],
            regular_spread_days=shared["regular_spread"],
        )

    def row(self, reading: str, changes: dict[str, int] | None = None) -> np.ndarray:
        """The measures of the judged leg."""
        values = measures(
            self.legs,
            len(self.legs) - 1,
            self.facts,
            self.flags,
            self.all_params(changes),
            self.settings(),
            reading,
        )
        return np.array([values[name] for name in MEASURES], np.int64)

    def measures(self, reading: str, changes: dict[str, int] | None = None) -> Measures:
        """The same as `screen` takes them."""
        judged = self.legs[-1]
        columns = {
            "side": judged.side,
            "amount_u": judged.u,
            "channel": judged.channel,
            "party_class": judged.party_class,
            "time": judged.time,
            "purpose": judged.purpose,
        }
        return Measures(
            self.row(reading, changes)[None, :],
            **{name: np.array([int(value)]) for name, value in columns.items()},
        )

    def screen(self, reading: str = "high", changes: dict[str, int] | None = None) -> int:
        """Strength of the judged leg."""
        position = POSITION[self.detector]
        params = Params(self.all_params(changes)[self.detector])
        return int(ALL[position].screen(self.measures(reading, changes), params)[0])

    def view(self, reading: str = "high") -> AccountView:
        """What `explain` takes."""
        account = Account(
            self.legs, len(self.legs) - 1, self.facts, self.flags, self.all_params(), self.settings(), reading
        )
        rows = account.all_visible

        def column(values: list[int], kind: Any = np.int64) -> np.ndarray:
            array = np.array(values, kind)
            array.flags.writeable = False
            return array

        return AccountView(
            time=column([r.time for r in rows]),
            leg=column([r.leg for r in rows], np.uint64),
            party=column([r.party for r in rows], np.uint64),
            amount=column([r.amount for r in rows]),
            amount_u=column([r.u for r in rows]),
            side=column([r.side for r in rows]),
            party_class=column([r.party_class for r in rows]),
            channel=column([r.channel for r in rows]),
            purpose=column([r.purpose for r in rows]),
            precision=column([r.precision for r in rows]),
            first_time=column([not account.ignored(r) and account.first(r) for r in rows], bool),
            regular=column([not account.ignored(r) and account.regular(r) for r in rows], bool),
            ignored=column([account.ignored(r) for r in rows], bool),
            reading=reading,
            measures=self.row(reading),
            flags={
                party: tuple(ids)
                for party, ids in counting_flags(self.flags, self.legs[-1].time, self.settings().open).items()
            },
            passing=Params(self.all_params()["rapid-pass-through"]),
        )

    def verdict(self) -> tuple[Verdict, np.ndarray, np.ndarray]:
        """What all detectors together make of the judged leg, and the strengths in both readings."""
        arrays = plan(self.config)
        high, low = (screen_all(self.measures(reading), arrays)[0] for reading in READINGS)
        m = self.measures("high")
        scores = score(high, low, arrays, sends=m.flagged_out > m.flagged_in, child=np.zeros(1, bool))
        return scores.verdict(0), high[0], low[0]


def outcome(strength: int) -> str:
    """The words of `expect`."""
    if strength < 0:
        return f"not computable {NOT_COMPUTABLE[strength]}"
    return "fired" if strength > 0 else "quiet"


def _case(detector: str, raw: dict[str, Any]) -> Case:
    spec = SPECS[POSITION[detector]]
    known = {
        "id",
        "legs",
        "known",
        "opened",
        "household",
        "flags",
        "params",
        "expect",
        "expect_low",
        "strength",
        "seen",
        "boundary",
        "at_most",
        "about",
    }
    if unknown := raw.keys() - known:
        raise ValueError(f"{detector}/{raw['id']}: {sorted(unknown)}")
    opened = raw.get("opened", "-900d")
    fact = Fact(
        record_id="f1",
        effective_at=START - 3_000 * DAY,
        subject=SUBJECT,
        opened=None if opened == "none" else START + offset(opened),
        observed_since=START + offset(raw.get("known", "-400d")),
        household=tuple(party_id(name) for name in raw.get("household", ())),
    )
    flags = [
        Flag(
            record_id=f"r{i}",
            effective_at=START + offset(flag["at"]),
            flag_id=f"flag-{flag['party']}",
            party=party_id(flag["party"]),
            state=FlagState(flag.get("state", "confirmed")),
            source="case",
            expires=START + offset(flag["expires"]) if "expires" in flag else None,
        )
        for i, flag in enumerate(raw.get("flags", ()))
    ]
    params = {}
    for name, text in raw.get("params", {}).items():
        value = parse(spec.param(name).kind, str(text))
        assert value is not None, f"{detector}/{raw['id']}: {name}: {text}"
        params[name] = value
    strength = parse(Kind.RATIO, raw["strength"]) if "strength" in raw else None
    return Case(
        detector=detector,
        id=raw["id"],
        legs=legs_of(raw["legs"]),
        facts=[fact],
        flags=flags,
        params=params,
        expect=raw["expect"],
        expect_low=raw.get("expect_low", raw["expect"]),
        strength=strength,
        seen=raw.get("seen", {}),
        boundary=raw.get("boundary", []),
        at_most=raw.get("at_most"),
    )


def load(detector: str) -> list[Case]:
    """The cases of one detector."""
    document = yaml.safe_load((FOLDER / f"{detector}.yaml").read_text(encoding="utf-8"))
    assert document["detector"] == detector
    cases = [_case(detector, raw) for raw in document["cases"]]
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids), f"{detector}: an id twice"
    return cases


def every_case() -> Iterator[Case]:
    """All cases of all detectors."""
    for detector in IDS:
        yield from load(detector)


def measure_of(row: np.ndarray, name: str) -> int:
    """One measure of a row."""
    return int(row[MEASURE_INDEX[name]])
