"""How far the labelled patterns of a data set come: which thresholds their accounts reach, and which they miss.

    python -m benchmarks.reach DATA_FOLDER --mapping NAME [--json FILE]

The file is judged as `safehold judge` does. Of every member of an illicit pattern, the legs between the pattern's first
transaction and one day after its last are looked at: the greatest value of each measure, the greatest strength of each
indicator, the most points of one leg. Nothing is changed and nothing is chosen by the labels: this explains a figure of
`benchmarks.score`, it does not tune one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.score import DAY, Data, Pattern, read_data
from detectors import judging
from detectors.catalogue import IDS
from detectors.config import Config, demo_config
from detectors.measures import HIGH
from detectors.model import PPM
from detectors.scoring import Plan, Reading, plan, read
from detectors.spec import Bools, Measures, Params
from detectors.strength import at_least, at_most
from streams.judge import FileJudge, fold_settings, judge
from streams.opening import open_payments

POINT = 1_000_000

Condition = Callable[[Measures, Params], Bools]

CONDITIONS: dict[str, tuple[tuple[str, Condition], ...]] = {
    "rapid-pass-through": (("episodes", lambda m, p: m.pass_episodes >= p.min_episodes),),
    "commission-retention": (
        ("episodes", lambda m, p: m.kept_episodes >= p.min_episodes),
        (
            "the kept share is in the band",
            lambda m, p: (m.kept_median >= p.kept_low) & (m.kept_median <= p.kept_high),
        ),
        ("and steady", lambda m, p: m.kept_iqr <= p.max_iqr),
    ),
    "fan-in": (
        ("payers", lambda m, p: m.payers >= p.min_payers),
        (
            "enough of them for the first time",
            lambda m, p: at_least(m.payers_first, m.payers, p.first_time_share),
        ),
    ),
    "fan-out": (
        (
            "first-time payees, in a week or a day",
            lambda m, p: (m.payees_first >= p.min_payees) | (m.payees_first_day >= p.min_payees_day),
        ),
    ),
    "gather-scatter": (
        ("payers", lambda m, p: m.gather_payers >= p.min_payers),
        ("and payees", lambda m, p: m.gather_payees >= p.min_payees),
        (
            "as much out as in",
            lambda m, p: (
                at_least(m.gather_out, m.gather_in, p.ratio_low)
                & at_most(m.gather_out, m.gather_in, p.ratio_high)
            ),
        ),
        (
            "payers and payees differ",
            lambda m, p: ~at_least(m.both_ways, np.minimum(m.gather_payers, m.gather_payees), p.max_overlap),
        ),
    ),
    "new-account-velocity": (
        (
            "payers, credits or episodes",
            lambda m, p: (m.life_payers >= p.min_payers) | (m.life_credits >= p.min_credits),
        ),
        ("the opening date is known", lambda m, p: m.age_days >= 0),
    ),
    "dormant-reactivation": (("quiet days", lambda m, p: m.quiet_days >= p.min_quiet),),
    "structuring": (("deposits below the limit", lambda m, p: m.band_deposits >= p.min_deposits),),
    "rapid-cash-out": (
        ("times are fine enough", lambda m, p: m.cash_outs >= 0),
        ("cash-outs", lambda m, p: m.cash_outs >= p.min_events),
    ),
    "victim-collection-account": (
        ("first-time payers", lambda m, p: m.collect_payers >= p.min_payers),
        ("who paid once", lambda m, p: m.collect_one_off >= p.one_off_share),
        ("and whose money went on", lambda m, p: m.collect_forwarded >= p.forward_share),
    ),
    "flagged-counterparty": (
        ("payments with a flagged account", lambda m, p: m.flagged_in_n + m.flagged_out_n > 0),
    ),
}
"""What a detector asks, condition after condition, each together with those before it."""


@dataclass
class Reach:
    """What one account came to inside one pattern."""

    strengths: np.ndarray | None = None
    points: int = 0
    families: int = 0
    indicators: int = 0

    def take(self, strengths: np.ndarray, scored: Reading) -> None:
        """Judged legs of it: rows of strengths, and what they came to."""
        most = strengths.max(axis=0)
        self.strengths = most if self.strengths is None else np.maximum(self.strengths, most)
        self.points = max(self.points, int(scored.total.max()))
        self.families = max(self.families, int(scored.families.max()))
        self.indicators = max(self.indicators, int(scored.present.sum(axis=1).max()))


@dataclass
class Watch:
    """Looks on while legs are judged."""

    config: Config
    spans: dict[int, list[tuple[int, int, str]]]
    """Account → (from, to, pattern)"""
    reached: dict[tuple[str, int], Reach] = field(default_factory=lambda: defaultdict(Reach))
    held: dict[tuple[str, str], set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    """(detector, condition) → (pattern, account) on which it held, "" for accounts of no pattern at any time."""

    def install(self) -> None:
        """Stand behind `_Batch.strengths`: every judged leg passes there."""
        original: Any = judging._Batch.strengths
        chosen = plan(self.config)

        def strengths(batch: Any, matrix: np.ndarray, judged: np.ndarray) -> Any:
            result = original(batch, matrix, judged)
            measures = judging._measures(matrix[:, HIGH], judged)
            subjects = batch.state.acc["subject"][batch.slots]
            self._conditions(measures, subjects, batch.times)
            self._points(result[0], subjects, batch.times, chosen)
            return result

        place: Any = judging._Batch
        place.strengths = strengths

    def _conditions(self, measures: Measures, subjects: np.ndarray, times: np.ndarray) -> None:
        for detector, conditions in CONDITIONS.items():
            params, holds = self.config.params(detector), np.ones(len(measures), bool)
            for name, condition in conditions:
                holds = holds & condition(measures, params)
                place = self.held[detector, name]
                for row in np.flatnonzero(holds).tolist():
                    place.update(self._inside(int(subjects[row]), int(times[row])))

    def _inside(self, subject: int, time: int) -> list[tuple[str, int]]:
        spans = self.spans.get(subject)
        if spans is None:
            return [("", subject)]
        return [(pattern, subject) for first, last, pattern in spans if first <= time <= last]

    def _points(self, high: np.ndarray, subjects: np.ndarray, times: np.ndarray, chosen: Plan) -> None:
        mine = np.flatnonzero(np.isin(subjects, np.array(sorted(self.spans), np.uint64)))
        for subject in np.unique(subjects[mine]).tolist():
            own = mine[subjects[mine] == subject]
            for first, last, pattern in self.spans[subject]:
                rows = own[(times[own] >= first) & (times[own] <= last)]
                if len(rows):
                    self.reached[pattern, subject].take(high[rows], read(high[rows], chosen))


def own_shapes(data: Data, worth: float) -> dict[str, dict[str, list[int]]]:
    """What the patterns' own transactions would show of one account, of the fullest one of each pattern.

    By kind, sorted: distinct payers and payees in any 7 days; credits of 300 u or more of which the account sent at least
    85 % on, in transactions of the pattern, by the end of the next day. `worth`: u of one unit of the data's currency.
    """
    wanted = sorted({tx for pattern in data.patterns for tx in pattern.moves})
    rows = {
        row["tx_id"]: row
        for row in data.tx.filter(pc.is_in(data.tx["tx_id"], pa.array(wanted, pa.string()))).to_pylist()
    }
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for pattern in data.patterns:
        if pattern.illicit:
            moves = sorted((rows[tx] for tx in pattern.moves), key=lambda row: int(row["time"]))
            found[pattern.kind]["payers in 7 days"].append(_degree(moves, "dst", "src"))
            found[pattern.kind]["payees in 7 days"].append(_degree(moves, "src", "dst"))
            found[pattern.kind]["credits passed on"].append(_passed(moves, worth))
    return {kind: {name: sorted(values) for name, values in shapes.items()} for kind, shapes in found.items()}


def _degree(moves: Sequence[dict[str, Any]], account: str, other: str) -> int:
    most = 0
    for last in moves:
        mine = [
            row
            for row in moves
            if row[account] == last[account] and last["time"] - 7 * DAY < row["time"] <= last["time"]
        ]
        most = max(most, len({row[other] for row in mine}))
    return most


def _passed(moves: Sequence[dict[str, Any]], worth: float) -> int:
    count: dict[str, int] = defaultdict(int)
    for credit in moves:
        sent = sum(
            row["amount"]
            for row in moves
            if row["src"] == credit["dst"]
            and credit["time"] <= row["time"]
            and row["time"] // DAY <= credit["time"] // DAY + 1
        )
        if credit["amount"] * worth >= 300 and sent >= 0.85 * credit["amount"]:
            count[credit["dst"]] += 1
    return max(count.values(), default=0)


def reach(folder: Path, mapping: str) -> dict[str, Any]:
    """Judge the folder's transactions and say how far each pattern came."""
    payments = open_payments(folder / "tx.parquet", mapping)
    assert payments.mapping is not None
    config = demo_config()
    judge_ = FileJudge(config, settings=fold_settings(payments), system_wide=payments.mapping.system_wide)
    data = read_data(folder)
    patterns = {pattern.id: pattern for pattern in data.patterns if pattern.illicit}
    spans: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    for pattern in patterns.values():
        for account in pattern.members:
            subject = judge_.pseudonyms.account(account)
            spans[subject].append((pattern.first, pattern.last + DAY, pattern.id))
    watch = Watch(config, dict(spans))
    watch.install()
    judge(payments, judge_)
    result = summary(config, patterns, watch)
    everybody = {judge_.pseudonyms.account(account) for account in data.accounts}
    result["accounts"]["others"] = len(everybody - spans.keys())
    result["shapes"] = own_shapes(data, judge_.rates[payments.mapping.currency] / PPM)
    return result


def summary(config: Config, patterns: dict[str, Pattern], watch: Watch) -> dict[str, Any]:
    """By measure and by rung of the ladder."""
    by_pattern: dict[str, list[Reach]] = defaultdict(list)
    for (pattern, _), reached in watch.reached.items():
        by_pattern[pattern].append(reached)
    kinds = sorted({pattern.kind for pattern in patterns.values()})
    of = {kind: [p for p in patterns.values() if p.kind == kind] for kind in kinds}
    gates = []
    for detector, conditions in CONDITIONS.items():
        for name, _ in conditions:
            held = watch.held[detector, name]
            inside = {place for place in held if place[0]}
            gates.append(
                {
                    "detector": detector,
                    "condition": name,
                    "members": len(inside),
                    "patterns": len({pattern for pattern, _ in inside}),
                    "others": len(held) - len(inside),
                }
            )
    fired = {
        name: {
            kind: sum(
                any(r.strengths is not None and r.strengths[column] > 0 for r in by_pattern[p.id])
                for p in of[kind]
            )
            for kind in kinds
        }
        for column, name in enumerate(IDS)
    }
    scoring = config.scoring
    rungs = {
        kind: {
            "patterns": len(of[kind]),
            "some_points": sum(any(r.points > 0 for r in by_pattern[p.id]) for p in of[kind]),
            "half_of_monitor": sum(
                any(2 * r.points >= scoring["monitor"] for r in by_pattern[p.id]) for p in of[kind]
            ),
            "monitor": sum(any(r.points >= scoring["monitor"] for r in by_pattern[p.id]) for p in of[kind]),
            "hold_points": sum(any(r.points >= scoring["hold"] for r in by_pattern[p.id]) for p in of[kind]),
            "two_families": sum(
                any(r.families >= scoring["hold_families"] for r in by_pattern[p.id]) for p in of[kind]
            ),
            "most_points": max((r.points for p in of[kind] for r in by_pattern[p.id]), default=0) / POINT,
        }
        for kind in kinds
    }
    accounts = {
        "members_judged_inside_their_pattern": len(watch.reached),
        "with_points": sum(r.points > 0 for r in watch.reached.values()),
        "watched": sum(r.points >= scoring["monitor"] for r in watch.reached.values()),
    }
    return {"accounts": accounts, "gates": gates, "fired": fired, "rungs": rungs}


def page(result: dict[str, Any]) -> str:
    """As Markdown tables."""
    members, others = result["accounts"]["members_judged_inside_their_pattern"], result["accounts"]["others"]
    lines = [
        f"| indicator | and then | of {members:,} members inside their pattern | of {others:,} accounts of no pattern, ever | "
        "patterns with one |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['detector']} | {row['condition']} | {row['members']:,} ({row['members'] / members:.0%}) | "
        f"{row['others']:,} ({row['others'] / others:.0%}) | {row['patterns']} |"
        for row in result["gates"]
    ]
    kinds = list(result["rungs"])
    lines += [
        "",
        "| fired on a member, patterns | " + " | ".join(kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for name, by_kind in result["fired"].items():
        lines.append(f"| {name} | " + " | ".join(str(by_kind[kind]) for kind in kinds) + " |")
    lines += [
        "",
        "| best member came to, patterns | " + " | ".join(kinds) + " |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for name in next(iter(result["rungs"].values())):
        cells = [result["rungs"][kind][name] for kind in kinds]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(f"{cell:g}" for cell in cells) + " |")
    names = list(next(iter(result["shapes"].values())))
    lines += ["", "| the pattern itself | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for kind, shapes in sorted(result["shapes"].items()):
        lines.append(f"| {kind} | " + " | ".join(", ".join(map(str, shapes[name])) for name in names) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reach", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--mapping", required=True, help="what the columns mean")
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen = parser.parse_args(arguments)
    result = reach(chosen.data, chosen.mapping)
    print(json.dumps(result["accounts"]))
    print(page(result))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
