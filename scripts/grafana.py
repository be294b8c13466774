"""Writes deploy/grafana/safehold.json: the one board. Change a row here, then run `make docs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BOARD = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "safehold.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
ONLY = 'instance=~"$instance"'

# Title, what the reader should see in it, unit, and (legend, expression) of each line.
Panel = tuple[str, str, str, list[tuple[str, str]]]

ROWS: list[tuple[str, list[Panel]]] = [
    (
        "Is it well?",
        [
            (
                "Seconds since each loop got on",
                "Since it got something done, or had nothing to do. Page at 120 s; no-progress.md says what each loop is.",
                "s",
                [
                    (
                        "{{instance}} {{loop}}",
                        "time() - max by (instance, loop) (safehold_last_progress_timestamp_seconds{%s})",
                    )
                ],
            ),
            (
                "Ledger lag",
                "Messages (batches of records) that wait to be judged. It may rise with a burst, and must fall again.",
                "short",
                [("partition {{partition}}", "sum by (partition) (safehold_ledger_lag_records{%s})")],
            ),
            (
                "Latency, message in to recommendation out",
                "p99 at most 500 ms at 5,000 payments a second.",
                "s",
                [
                    (
                        "p50",
                        "histogram_quantile(0.5, sum by (le) (rate(safehold_latency_seconds_bucket{%s}[5m])))",
                    ),
                    (
                        "p99",
                        "histogram_quantile(0.99, sum by (le) (rate(safehold_latency_seconds_bucket{%s}[5m])))",
                    ),
                ],
            ),
        ],
    ),
    (
        "Intake",
        [
            (
                "Messages by source and outcome",
                "What each bank's topic brings.",
                "cps",
                [
                    (
                        "{{source}} {{outcome}}",
                        "sum by (source, outcome) (rate(safehold_intake_messages_total{%s}[5m]))",
                    )
                ],
            ),
            (
                "Rejects by reason",
                "Bad input costs only itself; each one is in the dead-letter topic.",
                "cps",
                [
                    ("{{reason}}", "sum by (reason) (rate(safehold_intake_rejected_total{%s}[5m]))"),
                    (
                        "dead letter: {{reason}}",
                        "sum by (reason) (rate(safehold_dead_letters_total{%s}[5m]))",
                    ),
                ],
            ),
            (
                "Event time behind the newest source",
                "How far each source's front is behind. Aligned intake keeps backlogs together.",
                "s",
                [
                    (
                        "{{source}} {{partition}}",
                        "scalar(max(safehold_intake_front_timestamp_seconds{%s}))"
                        " - max by (source, partition) (safehold_intake_front_timestamp_seconds{%s})",
                    )
                ],
            ),
        ],
    ),
    (
        "Judging",
        [
            (
                "Judged legs",
                "One payment has up to two legs.",
                "cps",
                [("{{instance}}", "sum by (instance) (rate(safehold_judged_legs_total{%s}[5m]))")],
            ),
            (
                "Legs by outcome",
                "Late, duplicate and conflicting legs are counted, never dropped in silence.",
                "cps",
                [("{{outcome}}", "sum by (outcome) (rate(safehold_legs_total{%s}[5m]))")],
            ),
            (
                "Detectors: fired and errors",
                "A detector that raises is contained, and blind where it raised.",
                "cps",
                [
                    ("{{detector}}", "sum by (detector) (rate(safehold_detector_fired_total{%s}[15m]))"),
                    (
                        "error: {{detector}}",
                        "sum by (detector) (rate(safehold_detector_errors_total{%s}[15m])) > 0",
                    ),
                ],
            ),
        ],
    ),
    (
        "What it says",
        [
            (
                "Recommendations per hour",
                "Recommendations only: people decide.",
                "short",
                [
                    (
                        "{{action}} ({{mode}})",
                        "sum by (action, mode) (increase(safehold_recommendations_total{%s}[1h]))",
                    )
                ],
            ),
            (
                "Withdrawals per hour",
                "Corrected by later facts, such as a flag that was taken back.",
                "short",
                [("withdrawn", "sum(increase(safehold_withdrawals_total{%s}[1h]))")],
            ),
            (
                "Reconciliation, fence and configuration",
                "Breaks must be zero. More than one digest means workers judge by different rules.",
                "short",
                [
                    ("balance breaks", "sum(safehold_balance_breaks{%s})"),
                    ("fence lost", "sum(safehold_fence_lost_total{%s})"),
                    ("configurations", "count(count by (digest) (safehold_config_version_info{%s} == 1))"),
                ],
            ),
        ],
    ),
    (
        "State",
        [
            (
                "Accounts held",
                "Accounts with state, by ledger partition.",
                "short",
                [("partition {{partition}}", "sum by (partition) (safehold_state_accounts{%s})")],
            ),
            (
                "One step and one flush, p99",
                "A step above its usual value is heavy accounts; a flush above a second is the store.",
                "s",
                [
                    (
                        "step",
                        "histogram_quantile(0.99, sum by (le) (rate(safehold_step_seconds_bucket{%s}[5m])))",
                    ),
                    (
                        "flush",
                        "histogram_quantile(0.99, sum by (le) (rate(safehold_flush_seconds_bucket{%s}[5m])))",
                    ),
                ],
            ),
            (
                "State store errors",
                "Judging stops before unsaved state grows too large.",
                "short",
                [("{{instance}}", "sum by (instance) (increase(safehold_state_store_errors_total{%s}[5m]))")],
            ),
        ],
    ),
]


def board() -> dict[str, Any]:
    """The whole board."""
    panels: list[dict[str, Any]] = []
    for row, (title, row_panels) in enumerate(ROWS):
        top = row * 9
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
                "panels": [],
            }
        )
        for column, panel in enumerate(row_panels):
            place = {"x": column * 8, "y": top + 1, "w": 8, "h": 8}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
    return {
        "uid": "safehold",
        "title": "Safehold",
        "description": "From a bank's topic to a recommendation. Each alert has a runbook under docs/runbooks.",
        "tags": ["safehold"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "annotations": {"list": []},
        "templating": {"list": [_datasource(), _instance()]},
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    title, description, unit, lines = panel
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "min": 0,
                "custom": {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": expression.replace("%s", ONLY),
                "legendFormat": legend,
            }
            for number, (legend, expression) in enumerate(lines)
        ],
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
        "hide": 0,
    }


def _instance() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Worker",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": "label_values(safehold_build_info, instance)", "refId": "instance"},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def text() -> str:
    """The file's content."""
    return json.dumps(board(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    BOARD.write_text(text(), encoding="utf-8")
    print(f"wrote {BOARD.name}: {sum(panel['type'] != 'row' for panel in board()['panels'])} panels")
