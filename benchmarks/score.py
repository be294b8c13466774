"""Scores recommendations against labelled data, with the naive floor of the same data beside every figure.

    python -m benchmarks.score DATA_FOLDER RECOMMENDATIONS.jsonl [--json FILE] [--least hold-and-review]

DATA_FOLDER holds `tx.parquet`, `accounts.parquet` and, where there are labels, `labels.parquet` and `patterns.parquet`.
RECOMMENDATIONS.jsonl comes from `safehold judge --reveal`: it must carry the data's own account and transaction ids.

- a pattern is found if recommendations name its main account, or at least half of its members, with at least one of its
  transactions as evidence, no later than one day after its last transaction. Where the data name no main account, the one
  that takes part in more than half of the pattern's transactions is it;
- an account is right if it belongs to an illicit pattern that the recommendation's time falls into (to one day after);
- load is per 1,000 accounts and 30 days, from the days between each account's own first and last transaction;
- saveable is the share of a pattern's money that had not moved yet when it was found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DAY = 86_400_000_000
ACTIONS = ("none", "monitor", "hold-and-review", "freeze", "safeguard-first")
NAIVE_DEGREE = 5
NAIVE_SHARE = (0.80, 1.05)
NAIVE_SPAN_DAYS = 2
PER_ACCOUNTS, PER_DAYS = 1_000, 30
WILSON_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Alert:
    """One claim: this account, at this time, because of these transactions."""

    account: str
    time: int
    evidence: frozenset[str]
    action: str = "monitor"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One labelled pattern."""

    id: str
    kind: str
    illicit: bool
    members: frozenset[str]
    main: str | None
    first: int
    last: int
    moves: dict[str, tuple[int, float]]  # transaction → (time, amount)


@dataclass(frozen=True, slots=True)
class Data:
    """What is known of a folder."""

    patterns: tuple[Pattern, ...]
    accounts: frozenset[str]
    illicit_accounts: frozenset[str]
    illicit_transactions: frozenset[str]
    account_days: int
    transactions: int
    tx: pa.Table


def wilson(found: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if of == 0:
        return 0.0, 1.0
    share, z2 = found / of, WILSON_Z**2
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = WILSON_Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return max(0.0, centre - half), min(1.0, centre + half)


# -- reading --------------------------------------------------------------------------------------------------------


def read_alerts(path: Path, least: str) -> list[Alert]:
    """The recommendations of at least this action."""
    bar = ACTIONS.index(least)
    alerts = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            body = json.loads(line)
            if ACTIONS.index(body["action"]) >= bar:
                evidence = {str(tx) for reason in body["reasons"] for tx in reason.get("tx_ids", ())}
                alerts.append(
                    Alert(
                        str(body["subject_account"]),
                        int(body["event_time"]),
                        frozenset(evidence),
                        body["action"],
                    )
                )
    return alerts


def _micros(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy())


def read_data(folder: Path) -> Data:
    """A folder of labelled data."""
    tx = pq.read_table(folder / "tx.parquet", columns=["tx_id", "ts", "src", "dst", "amount"])
    accounts = pq.read_table(folder / "accounts.parquet").to_pylist()
    active = frozenset(row["account"] for row in accounts if row.get("active", 1))
    illicit = frozenset(row["account"] for row in accounts if row.get("illicit"))
    time = _micros(tx["ts"])
    tx = pa.table(
        {
            "tx_id": tx["tx_id"].cast(pa.string()),
            "time": time,
            "src": tx["src"],
            "dst": tx["dst"],
            "amount": tx["amount"],
        }
    )
    labels_file, patterns_file = folder / "labels.parquet", folder / "patterns.parquet"
    labels = pq.read_table(labels_file).to_pylist() if labels_file.exists() else []
    wanted = {str(row["tx_id"]): row for row in labels}
    rows = tx.filter(pc.is_in(tx["tx_id"], pa.array(list(wanted), pa.string()))).to_pylist() if wanted else []
    by_pattern: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_pattern[str(wanted[row["tx_id"]].get("pattern_id"))].append(row)
    found = pq.read_table(patterns_file).to_pylist() if patterns_file.exists() else []
    patterns = tuple(_pattern(row, by_pattern[str(row["pattern_id"])]) for row in found)
    return Data(
        patterns=patterns,
        accounts=active,
        illicit_accounts=illicit,
        illicit_transactions=frozenset(tx_id for tx_id, row in wanted.items() if row["illicit"] == 1),
        account_days=_account_days(tx, active),
        transactions=tx.num_rows,
        tx=tx,
    )


def _pattern(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Pattern:
    members = frozenset(row["accounts"].split())
    main = row.get("main_account") or None
    if main is None and rows:
        taking_part: dict[str, int] = defaultdict(int)
        for move in rows:
            for account in {move["src"], move["dst"]} & members:
                taking_part[account] += 1
        most = max(taking_part.values(), default=0)
        first = [account for account, count in sorted(taking_part.items()) if count == most]
        main = first[0] if len(first) == 1 and most * 2 > len(rows) else None
    micros = [
        int(row[name].timestamp() * 1_000_000) if row[name].tzinfo else _naive(row[name])
        for name in ("first_ts", "last_ts")
    ]
    return Pattern(
        id=str(row["pattern_id"]),
        kind=row["pattern_type"],
        illicit=row["illicit"] == 1,
        members=members,
        main=main,
        first=micros[0],
        last=micros[1],
        moves={move["tx_id"]: (move["time"], float(move["amount"])) for move in rows},
    )


def _naive(moment: Any) -> int:
    return int(np.datetime64(moment, "us").astype(np.int64))


def _account_days(tx: pa.Table, active: frozenset[str]) -> int:
    """Days between each account's first and last transaction, both included, over the active accounts."""
    spans: dict[str, tuple[int, int]] = {}
    for side in ("src", "dst"):
        grouped = tx.group_by(side).aggregate([("time", "min"), ("time", "max")])
        for row in grouped.to_pylist():
            first, last = row["time_min"], row["time_max"]
            old = spans.get(row[side], (first, last))
            spans[row[side]] = min(first, old[0]), max(last, old[1])
    return sum(
        last // DAY - first // DAY + 1 for account, (first, last) in spans.items() if account in active
    )


# -- scoring --------------------------------------------------------------------------------------------------------


def found_at(pattern: Pattern, alerts: Iterable[Alert]) -> int | None:
    """When the pattern was found, or None."""
    usable = sorted(
        (
            alert
            for alert in alerts
            if alert.time <= pattern.last + DAY
            and alert.account in pattern.members
            and not alert.evidence.isdisjoint(pattern.moves)
        ),
        key=lambda alert: alert.time,
    )
    named: set[str] = set()
    for alert in usable:
        named.add(alert.account)
        if alert.account == pattern.main or 2 * len(named) >= len(pattern.members):
            return alert.time
    return None


def score(data: Data, alerts: Sequence[Alert]) -> dict[str, Any]:
    """Every figure of one set of alerts."""
    alerts = [alert for alert in alerts if alert.account in data.accounts]
    by_account: dict[str, list[Alert]] = defaultdict(list)
    for alert in alerts:
        by_account[alert.account].append(alert)
    scale = PER_ACCOUNTS * PER_DAYS / max(1, data.account_days)
    result: dict[str, Any] = {
        "alerts": len(alerts),
        "alerted_accounts": len(by_account),
        "per_1000_accounts_30_days": round(len(alerts) * scale, 2),
        "accounts_per_1000_accounts_30_days": round(len(by_account) * scale, 2),
    }
    result["accounts"] = _accounts(data, by_account)
    if data.illicit_transactions:
        named = {tx for alert in alerts for tx in alert.evidence}
        right = len(named & data.illicit_transactions)
        precision, recall = right / max(1, len(named)), right / len(data.illicit_transactions)
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        result["transactions"] = {
            "named": len(named),
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "f1": round(f1, 4),
        }
    if any(pattern.illicit for pattern in data.patterns):
        result["patterns"] = _patterns(data, by_account)
        decoys = [pattern for pattern in data.patterns if not pattern.illicit]
        if decoys:
            hit = sum(found_at(pattern, _of(pattern, by_account)) is not None for pattern in decoys)
            result["decoys_alerted"] = f"{hit} of {len(decoys)}"
    return result


def _of(pattern: Pattern, by_account: dict[str, list[Alert]]) -> list[Alert]:
    return [alert for account in pattern.members for alert in by_account.get(account, ())]


def _accounts(data: Data, by_account: dict[str, list[Alert]]) -> dict[str, Any]:
    illicit = [pattern for pattern in data.patterns if pattern.illicit]
    if illicit:
        spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for pattern in illicit:
            for account in pattern.members:
                spans[account].append((pattern.first, pattern.last + DAY))
        right = sum(
            any(first <= alert.time <= last for alert in alerts for first, last in spans.get(account, ()))
            for account, alerts in by_account.items()
        )
    else:
        right = sum(account in data.illicit_accounts for account in by_account)
    low, high = wilson(right, len(by_account))
    return {
        "right": right,
        "precision": round(right / len(by_account), 4) if by_account else None,
        "precision_95": [round(low, 4), round(high, 4)],
        "illicit": len(data.illicit_accounts),
    }


def _patterns(data: Data, by_account: dict[str, list[Alert]]) -> dict[str, Any]:
    groups: dict[str, list[Pattern]] = defaultdict(list)
    for pattern in data.patterns:
        if pattern.illicit:
            groups[pattern.kind].append(pattern)
            groups["all"].append(pattern)
    result = {}
    for kind, patterns in sorted(groups.items(), key=lambda item: (item[0] == "all", item[0])):
        times = [found_at(pattern, _of(pattern, by_account)) for pattern in patterns]
        found = sum(time is not None for time in times)
        low, high = wilson(found, len(patterns))
        total = sum(amount for pattern in patterns for _, amount in pattern.moves.values())
        left = sum(
            amount
            for pattern, time in zip(patterns, times, strict=True)
            if time is not None
            for moved, amount in pattern.moves.values()
            if moved > time
        )
        result[kind] = {
            "found": found,
            "of": len(patterns),
            "recall": round(found / len(patterns), 4),
            "recall_95": [round(low, 4), round(high, 4)],
            "saveable": round(left / total, 4) if total else 0.0,
        }
    return result


# -- the naive floor ------------------------------------------------------------------------------------------------


def naive(data: Data) -> dict[str, list[Alert]]:
    """What three one-line rules would raise: one alert per account and calendar span."""
    tx = data.tx
    day = pc.divide(tx["time"], DAY)
    week = pc.divide(pc.add(day, 3), 7)  # 1970-01-01 was a Thursday
    table = tx.append_column("week", week).append_column("day", day)
    return {
        "fan-in": _degree(table, "dst", "src", data.accounts),
        "fan-out": _degree(table, "src", "dst", data.accounts),
        "pass-through": _pass_through(table, data.accounts),
    }


def _degree(table: pa.Table, subject: str, other: str, accounts: frozenset[str]) -> list[Alert]:
    grouped = table.group_by([subject, "week"]).aggregate(
        [(other, "count_distinct"), ("time", "max"), ("tx_id", "list")]
    )
    grouped = grouped.filter(pc.greater_equal(grouped[f"{other}_count_distinct"], NAIVE_DEGREE))
    return [
        Alert(row[subject], row["time_max"], frozenset(row["tx_id_list"]))
        for row in grouped.to_pylist()
        if row[subject] in accounts
    ]


def _pass_through(table: pa.Table, accounts: frozenset[str]) -> list[Alert]:
    table = table.append_column("span", pc.divide(table["day"], NAIVE_SPAN_DAYS))
    sides: list[dict[tuple[str, int], dict[str, Any]]] = []
    for subject in ("dst", "src"):
        grouped = table.group_by([subject, "span"]).aggregate(
            [("amount", "sum"), ("time", "max"), ("tx_id", "list")]
        )
        sides.append(
            {(row[subject], row["span"]): row for row in grouped.to_pylist() if row[subject] in accounts}
        )
    into, out = sides
    alerts = []
    for key, arrived in into.items():
        left = out.get(key)
        if left is None or arrived["amount_sum"] <= 0:
            continue
        if NAIVE_SHARE[0] <= left["amount_sum"] / arrived["amount_sum"] <= NAIVE_SHARE[1]:
            evidence = frozenset(arrived["tx_id_list"]) | frozenset(left["tx_id_list"])
            alerts.append(Alert(key[0], max(arrived["time_max"], left["time_max"]), evidence))
    return alerts


# -- the page -------------------------------------------------------------------------------------------------------


def evaluate(
    folder: Path, recommendations: Path | None, least: Sequence[str] = ("monitor", "hold-and-review")
) -> dict[str, Any]:
    """Every figure of one data set: ours by action, and the floor."""
    data = read_data(folder)
    result: dict[str, Any] = {
        "data": folder.name,
        "transactions": data.transactions,
        "active_accounts": len(data.accounts),
        "account_days": data.account_days,
        "safehold": {},
        "naive": {name: score(data, alerts) for name, alerts in naive(data).items()},
    }
    if recommendations is not None:
        for action in least:
            result["safehold"][f"{action} or above"] = score(data, read_alerts(recommendations, action))
    return result


def page(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"{result['data']}: {result['transactions']:,} transactions, {result['active_accounts']:,} active accounts, "
        f"{result['account_days']:,} observed account-days",
        "",
        "| | alerts | accounts | per 1,000 accounts, 30 d | account precision | pattern recall [95 %] | saveable | tx F1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [(f"safehold, {name}", figures) for name, figures in result["safehold"].items()]
    rows += [(f"naive {name}", figures) for name, figures in result["naive"].items()]
    for name, figures in rows:
        whole = figures.get("patterns", {}).get("all")
        recall = (
            f"{whole['recall']:.2f} [{whole['recall_95'][0]:.2f}, {whole['recall_95'][1]:.2f}]"
            if whole
            else "–"
        )
        saveable = f"{whole['saveable']:.0%}" if whole else "–"
        precision = figures["accounts"]["precision"]
        lines.append(
            f"| {name} | {figures['alerts']:,} | {figures['alerted_accounts']:,} | "
            f"{figures['per_1000_accounts_30_days']:g} | {'–' if precision is None else f'{precision:.2f}'} | {recall} | "
            f"{saveable} | {figures.get('transactions', {}).get('f1', '–')} |"
        )
    kinds = sorted({kind for _, figures in rows for kind in figures.get("patterns", {}) if kind != "all"})
    if kinds:
        lines += ["", "| found, by pattern | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
        for name, figures in rows:
            cells = [figures["patterns"].get(kind) for kind in kinds]
            lines.append(
                f"| {name} | "
                + " | ".join(f"{cell['found']} of {cell['of']}" if cell else "–" for cell in cells)
                + " |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.score", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument(
        "recommendations", type=Path, nargs="?", help="recommendations.jsonl of judge --reveal"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen = parser.parse_args(arguments)
    result = evaluate(chosen.data, chosen.recommendations)
    with contextlib.suppress(BrokenPipeError):
        print(page(result))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
