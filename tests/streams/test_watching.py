"""What a worker shows is set, its loops have one set of names, and the balance speaks when it is off and settled, not before."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from detectors.config import demo_config
from detectors.model import ENGINE_VERSION
from detectors.state import COUNTERS, Head
from streams import app, versions, watching
from streams.balance import SETTLED_SECONDS, Balance, difference
from streams.health import Health, HealthServer
from streams.judge import FileJudge
from streams.metrics import Metrics
from streams.settings import load
from tests.streams.assembled import ENVIRONMENT

SOURCE = "bank-a.payments/0"


def test_every_metric_of_the_table_is_set_somewhere(checkout: Path) -> None:
    """Declared and never set is an alert that can never fire."""
    code = "\n".join(
        path.read_text() for path in (checkout / "streams").rglob("*.py") if path.name != "metrics.py"
    )
    set_by = {"config_version": "use_config"}
    declared = [name for name, value in vars(Metrics()).items() if isinstance(value, MetricWrapperBase)]
    assert len(declared) == len(Metrics().rows)
    unset = [name for name in declared if not re.search(rf"metrics\.{set_by.get(name, name)}\b[.(]", code)]
    assert unset == []


def test_the_runbook_names_every_loop_and_no_other(checkout: Path) -> None:
    runbook = (checkout / "docs/runbooks/no-progress.md").read_text()
    named = re.findall(r"`(\w+)`: ", runbook.split("\n1. ")[1])
    assert sorted(named) == sorted(watching.LOOPS)


def head(applied: int, **counts: int) -> Head:
    row = [counts.get(name, 0) for name in COUNTERS]
    return Head(
        partition=0, partitions=2, generation="g1", key_id="k1", applied=applied, counters={SOURCE: {1: row}}
    )


COUNTED = {"received": 3, "accepted": 2, "rejected": 1, "no_leg": 1}


def test_counts_in_one_partition_and_legs_in_another_balance() -> None:
    balance = Balance()
    heads = {0: head(4, **COUNTED), 1: head(9, judged=2, duplicate=1)}
    for now in (0.0, SETTLED_SECONDS, 10 * SETTLED_SECONDS):
        assert balance.look(heads, {0: 4, 1: 9}, now) == []
    assert balance.broken == {}


#   now 0 ── off ── SETTLED: broken ── legs found: whole again
def test_a_leg_that_is_missing_is_said_once_it_has_settled_and_until_it_is_there() -> None:
    balance = Balance()
    heads, ends = {0: head(4, **COUNTED), 1: head(9, judged=2)}, {0: 4, 1: 9}
    assert balance.look(heads, ends, 0.0) == []
    assert balance.look(heads, ends, SETTLED_SECONDS - 1) == []
    assert balance.look(heads, ends, SETTLED_SECONDS) == [(SOURCE, 1)]
    assert "judged 2" in balance.broken[SOURCE, 1]
    assert balance.look(heads, ends, SETTLED_SECONDS + 60) == []
    assert balance.broken
    heads[1] = head(10, judged=3)
    assert balance.look(heads, ends, SETTLED_SECONDS + 120) == []
    assert balance.broken == {}


def test_what_the_ledger_still_holds_is_not_missing() -> None:
    balance = Balance()
    heads = {0: head(4, **COUNTED), 1: head(9, judged=2)}
    for now in (0.0, SETTLED_SECONDS, 10 * SETTLED_SECONDS):
        assert balance.look(heads, {0: 4, 1: 10}, now) == []


def test_each_term_is_named() -> None:
    sums = dict.fromkeys(COUNTERS, 0) | COUNTED | {"received": 4}
    assert difference(sums) == (
        "received 4 is not accepted 2 + rejected 1; "
        "2 x accepted 2 is not no leg 1 + judged 0 + late 0 + duplicate 0 + conflict 0 + hub 0 + quarantined 0"
    )


def test_worker_and_judge_have_one_digest_and_the_zone_data_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = demo_config()

    def both() -> tuple[str, str]:
        lengths = app.fold_settings(load(None, ENVIRONMENT), "k1")
        worker = app.make_fold(1, lengths, config).new_state(0)
        return worker.head.config_digest, FileJudge(config)._states[0].head.config_digest

    worker, judge = both()
    assert worker == judge == config.digest(engine=ENGINE_VERSION, tzdata=versions.zone_data())
    monkeypatch.setattr(versions, "zone_data", lambda: "1970.1")
    other, its_judge = both()
    assert other == its_judge != worker


async def test_a_health_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = HealthServer(Health(Metrics()), port=taken.getsockname()[1])
        with pytest.raises(app.CannotStart, match="is taken by another process") as refused:
            await app.listen(server)
    assert refused.value.code == app.CHECK_FAILED
    assert len(refused.value.problems) == 1
