"""The health port, asked over real HTTP: progress decides, not existence."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams import health as module
from streams.health import Health, HealthServer, Loop
from streams.metrics import Metrics


class Worker:
    """A loop whose time, progress and backlog the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.last = 1_000.0
        self.backlog = 0
        self.problems: list[str] = []
        self.health = Health(Metrics(), clock=lambda: self.now)
        self.health.watch(Loop("monitor", lambda: self.last, lambda: self.backlog > 0, allowed=30))
        self.health.need("partitions", lambda: self.problems)


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
async def server(worker: Worker) -> AsyncIterator[HealthServer]:
    async with HealthServer(worker.health) as running:
        yield running


async def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    def ask() -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as problem:
            return problem.code, dict(problem.headers), problem.read()

    return await asyncio.to_thread(ask)


async def checks(server: HealthServer, path: str) -> tuple[int, bool, dict[str, Any]]:
    status, headers, body = await get(server, path)
    assert headers["Content-Type"] == "application/json"
    answer = json.loads(body)
    return status, answer["ok"], {check["name"]: check for check in answer["checks"]}


#   progress ──┐ 1000                     work arrives 5000        5030  5031
#   ───────────┴───────────── idle ───────────┬─────── allowed ──────┤ dead
async def test_an_idle_loop_is_well_and_work_that_waits_too_long_is_not(
    worker: Worker, server: HealthServer
) -> None:
    worker.now = 5_000.0
    assert await checks(server, "/livez") == (
        200,
        True,
        {"monitor": {"name": "monitor", "ok": True, "detail": "idle"}},
    )
    worker.backlog = 7
    assert (await checks(server, "/livez"))[:2] == (200, True)
    worker.now = 5_030.0
    status, ok, found = await checks(server, "/livez")
    assert (status, ok) == (200, True)
    assert found["monitor"]["detail"] == "last progress 30.0 s ago (allowed 30 s)"
    worker.now = 5_031.0
    status, ok, found = await checks(server, "/livez")
    assert (status, ok) == (503, False)
    assert found["monitor"]["detail"] == "work waits, no progress for 31.0 s (allowed 30 s)"
    assert (await checks(server, "/readyz"))[0] == 503
    worker.last = 5_031.0
    assert (await checks(server, "/livez"))[:2] == (200, True)


async def test_a_loop_that_drained_its_work_begins_anew(worker: Worker, server: HealthServer) -> None:
    worker.backlog = 1
    await checks(server, "/livez")
    worker.backlog, worker.now = 0, 1_020.0
    await checks(server, "/livez")
    worker.backlog, worker.now = 1, 1_100.0
    assert (await checks(server, "/livez"))[:2] == (200, True)


async def test_ready_asks_for_more_than_alive(worker: Worker, server: HealthServer) -> None:
    worker.problems = ["ledger partition 3 is loading", "ledger partition 5 is stopped"]
    assert (await checks(server, "/livez"))[0] == 200
    status, _, found = await checks(server, "/readyz")
    assert status == 503
    assert found["partitions"]["detail"] == "ledger partition 3 is loading; ledger partition 5 is stopped"
    worker.problems = []
    assert (await checks(server, "/readyz"))[0] == 200


async def test_metrics_are_prometheus_text(worker: Worker, server: HealthServer) -> None:
    worker.health.metrics.judged_legs.inc(12)
    status, headers, body = await get(server, "/metrics?name=x")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["safehold_judged_legs_total"] == 12
    assert not any(name.endswith("_created") for name in samples)


async def test_head_has_no_body(server: HealthServer) -> None:
    status, headers, body = await get(server, "/livez", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/metricsx", "GET", 404), ("/livez", "POST", 405)]
)
async def test_what_it_does_not_serve(server: HealthServer, path: str, method: str, status: int) -> None:
    assert (await get(server, path, method))[0] == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET /livez\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_rubbish_is_refused(server: HealthServer, sent: bytes, status: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    assert (await reader.readline()).split(b" ")[1] == status
    writer.close()
    assert (await checks(server, "/livez"))[0] == 200


async def test_a_client_that_says_nothing_is_let_go(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.read() == b""
    writer.close()


async def test_more_connections_than_it_serves_are_told_so(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    while len(server._open) < 2:
        await asyncio.sleep(0)
    assert (await get(server, "/livez"))[0] == 503
    for _, writer in silent:
        writer.close()
    while server._open:
        await asyncio.sleep(0)
    assert (await get(server, "/livez"))[0] == 200


async def test_it_listens_on_loopback_only_and_stops(worker: Worker) -> None:
    server = HealthServer(worker.health)
    await server.start()
    assert server._server is not None
    assert {socket.getsockname()[0] for socket in server._server.sockets} == {"127.0.0.1"}
    silent = await asyncio.open_connection("127.0.0.1", server.port)
    await server.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", server.port)
    silent[1].close()
