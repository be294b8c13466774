"""Alert rules: checked and run by promtool, each with a runbook, each shown firing and quiet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import promql

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


RULES = rules()
NAMES = [rule["alert"] for rule in RULES]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
    ids=lambda arguments: arguments[2],
)
def test_promtool_accepts(promtool: str, arguments: tuple[str, ...]) -> None:
    done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_reads_only_what_a_worker_shows(rule: dict[str, Any]) -> None:
    assert promql.problems(rule["expr"]) == []


def test_a_misspelt_metric_would_be_seen() -> None:
    assert promql.problems("sum by (reason) (safehold_ded_letters_total)") == [
        "safehold_ded_letters_total is not shown by a worker",
        "nothing here has a label reason",
    ]
    assert promql.problems('safehold_legs_total{account="1"}') == ["safehold_legs_total has no label account"]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_says_what_to_do(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert {"summary", "description", "runbook_url"} == set(notes)
    assert rule["labels"]["severity"] in {"page", "ticket"}
    text = (ROOT / notes["runbook_url"]).read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    assert f"`{rule['labels']['severity']}`" in text
    steps = re.findall(r"^(\d)\. \*\*(.+?)\*\*", text, re.MULTILINE)
    assert 2 <= len(steps) <= 3, "two or three steps, each with a time"
    timed = r"\d+ (minutes?|hours?|days?)|hour|day|days|[Aa]fter|[Ii]f "
    assert all(re.search(timed, when) for _, when in steps), steps


def test_every_runbook_belongs_to_an_alert() -> None:
    named = {Path(rule["annotations"]["runbook_url"]).name for rule in RULES}
    assert {path.name for path in RUNBOOKS.glob("*.md")} == named


def test_every_alert_is_shown_firing_and_quiet() -> None:
    cases = yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
    fires = {t["alertname"] for case in cases for t in case["alert_rule_test"] if t["exp_alerts"]}
    quiet = {t["alertname"] for case in cases for t in case["alert_rule_test"] if not t["exp_alerts"]}
    assert (sorted(set(NAMES) - fires), sorted(set(NAMES) - quiet)) == ([], [])
