"""The Grafana board: written by its script, every expression parses and reads only what a worker shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import grafana
from tests.deploy import promql

ROOT = Path(__file__).resolve().parents[2]
BOARD: dict[str, Any] = json.loads(grafana.BOARD.read_text(encoding="utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
LINES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def test_is_what_the_script_writes() -> None:
    assert grafana.BOARD.read_text(encoding="utf-8") == grafana.text(), "run `make docs`"


@pytest.mark.parametrize(
    ("title", "expression"), LINES, ids=[f"{title}-{n}" for n, (title, _) in enumerate(LINES)]
)
def test_reads_only_what_a_worker_shows(title: str, expression: str) -> None:
    assert promql.problems(expression) == []


def test_shows_what_an_operator_needs() -> None:
    text = " ".join(expression for _, expression in LINES)
    for metric in (
        "intake_messages_total",
        "intake_rejected_total",
        "ledger_lag_records",
        "judged_legs_total",
        "recommendations_total",
        "latency_seconds_bucket",
    ):
        assert f"safehold_{metric}" in text


def test_is_provisioned_with_the_source_it_names() -> None:
    assert BOARD["uid"] == "safehold"
    assert BOARD["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert variables["datasource"]["current"]["value"] in {source["uid"] for source in sources}
    for panel in PANELS:
        assert {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])} == {
            "${datasource}"
        }
        assert panel["description"]


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
