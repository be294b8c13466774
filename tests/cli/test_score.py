"""Scoring against labels: every figure on data small enough to count by hand."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import score
from benchmarks.score import DAY, Alert, evaluate, found_at, page, read_alerts, read_data, wilson

FIRST = datetime.datetime(2024, 1, 1)  # noqa: DTZ001 - as the data: without a zone


def _ts(day: float) -> datetime.datetime:
    return FIRST + datetime.timedelta(days=day)


def _us(day: float) -> int:
    return int(_ts(day).replace(tzinfo=datetime.UTC).timestamp() * 1_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Hub H collects from six people on day 1 and pays T on day 2; X and Y live on."""
    rows = [(number, _ts(1 + number / 100), f"P{number}", "H", 100.0) for number in range(6)]
    rows += [(6, _ts(2), "H", "T", 590.0), (7, _ts(0), "X", "Y", 5.0), (8, _ts(29), "X", "Y", 5.0)]
    names = ("tx_id", "ts", "src", "dst", "amount")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), tmp_path / "tx.parquet"
    )
    accounts = ["H", "T", "X", "Y", *(f"P{number}" for number in range(6))]
    illicit = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    pq.write_table(
        pa.table({"account": accounts, "active": [1] * 10, "illicit": illicit}), tmp_path / "accounts.parquet"
    )
    pq.write_table(
        pa.table({"tx_id": list(range(7)), "illicit": [1] * 7, "pattern_id": [1] * 7}),
        tmp_path / "labels.parquet",
    )
    pattern = {
        "pattern_id": [1], "illicit": [1], "pattern_type": ["fan_in"], "first_ts": [_ts(1)], "last_ts": [_ts(2)],
        "accounts": ["H P0 P1 P2 P3 P4 P5"],
    }  # fmt: skip
    pq.write_table(pa.table(pattern), tmp_path / "patterns.parquet")
    return tmp_path


def _file(folder: Path, *bodies: tuple[str, float, str, list[str]]) -> Path:
    path = folder / "recommendations.jsonl"
    lines = [
        {
            "subject_account": account,
            "event_time": _us(day),
            "action": action,
            "reasons": [{"indicator": "x", "tx_ids": ids}],
        }
        for account, day, action, ids in bodies
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_wilson_interval_of_a_textbook_value() -> None:
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_main_account_is_derived_from_the_pattern(folder: Path) -> None:
    assert read_data(folder).patterns[0].main == "H"


def test_observed_days_run_from_first_to_last_transaction(folder: Path) -> None:
    # H: days 1-2; T: 1; X, Y: 30 each; six payers: 1 each
    assert read_data(folder).account_days == 2 + 1 + 60 + 6


def test_found_needs_a_member_its_evidence_and_its_time(folder: Path) -> None:
    pattern = read_data(folder).patterns[0]
    right = Alert("H", _us(1.5), frozenset({"3"}))
    assert found_at(pattern, [right]) == right.time
    assert found_at(pattern, [Alert("H", _us(1.5), frozenset({"7"}))]) is None
    assert found_at(pattern, [Alert("X", _us(1.5), frozenset({"3"}))]) is None
    assert found_at(pattern, [Alert("H", _us(2) + DAY, frozenset({"3"}))]) is not None
    assert found_at(pattern, [Alert("H", _us(2) + DAY + 1, frozenset({"3"}))]) is None


def test_half_of_the_members_find_a_pattern_too(folder: Path) -> None:
    pattern = read_data(folder).patterns[0]
    alerts = [Alert(f"P{number}", _us(1.2) + number, frozenset({str(number)})) for number in range(4)]
    assert found_at(pattern, alerts[:3]) is None
    assert found_at(pattern, alerts) == alerts[3].time


def test_every_figure(folder: Path) -> None:
    path = _file(folder, ("H", 1.5, "hold-and-review", ["0", "1"]), ("X", 5, "monitor", ["7"]))
    result = evaluate(folder, path)
    every, cases = result["safehold"]["monitor or above"], result["safehold"]["hold-and-review or above"]
    assert every["alerts"] == 2
    assert every["accounts"]["precision"] == 0.5
    assert cases["accounts"]["precision"] == 1.0
    assert cases["patterns"]["all"]["recall"] == 1.0
    assert cases["patterns"]["fan_in"]["of"] == 1
    assert cases["patterns"]["all"]["saveable"] == round(590 / 1190, 4)
    assert cases["transactions"]["precision"] == 1.0
    assert cases["transactions"]["recall"] == round(2 / 7, 4)
    assert every["per_1000_accounts_30_days"] == round(2 * 30_000 / 69, 2)
    assert result["naive"]["fan-in"]["patterns"]["all"]["found"] == 1
    assert "naive fan-in" in page(result)


def test_the_action_is_a_lower_bound(folder: Path) -> None:
    path = _file(folder, ("H", 1, "monitor", []), ("H", 2, "freeze", []), ("H", 3, "safeguard-first", []))
    assert [alert.action for alert in read_alerts(path, "freeze")] == ["freeze", "safeguard-first"]


def test_naive_rules_see_what_they_should(folder: Path) -> None:
    alerts = score.naive(read_data(folder))
    assert [alert.account for alert in alerts["fan-in"]] == ["H"]
    assert alerts["fan-out"] == []
    # day 1 and day 2 lie in one span of two days only if their number divides so
    assert {alert.account for alert in alerts["pass-through"]} <= {"H"}


def test_the_command_writes_its_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder / "figures.json"
    assert score.main([str(folder), "--json", str(target)]) == 0
    assert json.loads(target.read_text())["transactions"] == 9
    assert "observed account-days" in capsys.readouterr().out
