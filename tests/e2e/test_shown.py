"""What a running worker shows: a loop that hangs is named by /livez and /readyz, and every declared metric has a sample."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from streams.formats import canonical
from streams.metrics import Metrics
from streams.watching import LOOPS
from tests.e2e.harness import Installation, bank_payments
from tests.rigs.process import free_port

NEEDS_WORK = ("judging", "flush")
"""Loops that are measured only while payments wait for them."""

LATER = {
    "safehold_intake_stuck": "a source has to give nothing for `stuck_after` first",
    "safehold_detector_errors_total": "no detector fails",
}
"""Metrics that have no sample here, and why: each one has a label whose values are not known before it happens."""


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a page; status 0 while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def failing(port: int, path: str) -> set[str]:
    """The checks that fail on a page that answers 503, and none on one that answers 200."""
    status, body = get(port, path)
    checks: list[dict[str, Any]] = json.loads(body)["checks"] if body else []
    names = {check["name"] for check in checks if not check["ok"]}
    assert status == (503 if names else 200)
    return names


async def put(installation: Installation, topic: str, value: bytes) -> None:
    """One message."""
    producer = AIOKafkaProducer(bootstrap_servers=installation.bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


def flag(number: int) -> bytes:
    """A flag, as a partner puts it."""
    said = {"flag_id": f"f{number}", "state": "confirmed", "source": "unit", "account": "someone/1"}
    return json.dumps(said).encode()


async def test_each_loop_that_hangs_is_named_and_forgiven_when_it_goes_on(
    install: Callable[..., Installation], tmp_path: Path
) -> None:
    port, gates = free_port(), tmp_path / "hang"
    gates.mkdir()
    installation = install(health_port=port)
    worker = installation.worker(hang=gates)
    await installation.until(lambda: get(port, "/readyz")[0] == 200, 120.0, "a worker that is ready")
    assert {check["name"] for check in json.loads(get(port, "/livez")[1])["checks"]} == set(LOOPS)
    payments = bank_payments()
    share = len(payments) // len(LOOPS)
    for number, loop in enumerate(LOOPS):
        (gates / loop).touch()
        if loop in NEEDS_WORK:
            await installation.send(payments[number * share : (number + 1) * share])
        if loop == "feeds":
            await put(installation, installation.names.flags, flag(number))
        await installation.until(
            lambda loop=loop: loop in failing(port, "/livez"), 60.0, f"/livez to name {loop}"
        )
        assert loop in failing(port, "/readyz")
        (gates / loop).unlink()
        await installation.until(lambda: get(port, "/livez")[0] == 200, 60.0, f"{loop} to be forgiven")
    worker.stop()


async def test_every_declared_metric_has_a_sample(install: Callable[..., Installation]) -> None:
    port = free_port()
    installation = install(health_port=port)
    worker = installation.worker()
    payments = bank_payments()
    good = json.loads(canonical.encode(payments[0]))
    late = json.dumps({**good, "transaction_id": "an-old-one"}).encode()
    sent = await installation.send(payments, between=lambda number: [b"{"] if number == 5 else [])
    await put(installation, installation.names.flags, flag(0))
    await installation.settled(sent)
    await put(installation, installation.topic, late)
    await installation.settled(sent + 1)
    declared = {row.name for row in Metrics().rows}

    def without() -> set[str]:
        families = text_string_to_metric_families(get(port, "/metrics")[1].decode())
        names = {sample.name for family in families for sample in family.samples}
        return {name for name in declared if not names & {name, f"{name}_bucket"}}

    await installation.until(lambda: without() <= LATER.keys(), 30.0, "a sample of every metric")
    assert without() == LATER.keys()
    worker.stop()
