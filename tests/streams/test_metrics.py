"""The table of metrics: names by the rules, documentation current."""

from __future__ import annotations

import re
from pathlib import Path

from streams.metrics import Metrics, markdown


def test_the_page_is_current(checkout: Path) -> None:
    assert (checkout / "docs/metrics.md").read_text() == markdown(), (
        "write it again: safehold docs or streams.metrics.markdown()"
    )


def test_names_follow_the_rules_of_prometheus() -> None:
    offenders = []
    for row in Metrics().rows:
        good = re.fullmatch(r"safehold_[a-z]+(_[a-z]+)*", row.name) is not None
        good &= row.name.endswith("_total") == (row.kind == "counter")
        if row.kind == "histogram":
            good &= row.name.endswith("_seconds") and list(row.buckets) == sorted(set(row.buckets))
        good &= row.about.endswith(".") and not set(row.labels) & {
            "account",
            "subject",
            "transaction",
            "leg",
            "case",
        }
        if not good:
            offenders.append(row.name)
    assert offenders == []


def test_every_row_is_in_the_registry_of_its_own_and_shown() -> None:
    one, other = Metrics(), Metrics()
    one.judged_legs.inc(3)
    assert b"safehold_judged_legs_total 3.0" in one.render()
    assert b"safehold_judged_legs_total 0.0" in other.render()
    text = one.render().decode()
    for row in one.rows:
        assert f"# HELP {row.name} " in text
    assert "_created" not in text


def test_the_latest_configuration_is_the_only_one_shown() -> None:
    metrics = Metrics()
    for digest in ("a1", "b2"):
        metrics.use_config(digest)
    assert [
        line for line in metrics.render().decode().splitlines() if line.startswith("safehold_config")
    ] == ['safehold_config_version_info{digest="b2"} 1.0']


def test_names_that_rules_and_boards_may_ask_for() -> None:
    names = Metrics().names()
    assert {"safehold_latency_seconds_bucket", "safehold_judged_legs_total"} <= names
    assert "safehold_latency_seconds" not in names
