"""kill -9 at every numbered step, one worker after another on the same installation: nothing lost, nothing doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streams.crash import POINTS
from tests.e2e.harness import Installation, bank_payments, expected

MONITOR = POINTS[: POINTS.index("before-stopped")]
"""Those at a frame that stops a partition are in `test_quarantine`."""
INTAKE = POINTS[POINTS.index("after-decode") :]


@pytest.mark.slow
@pytest.mark.parametrize(
    "points",
    [MONITOR[:5], MONITOR[5:], INTAKE[:3], INTAKE[3:]],
    ids=["monitor-1", "monitor-2", "intake-1", "intake-2"],
)
async def test_killed_at_each_step(points: tuple[str, ...], install: Callable[..., Installation]) -> None:
    installation = install()
    payments, sent = bank_payments(), 0
    share = len(payments) // (len(points) + 1)
    for number, point in enumerate(points):
        sent += await installation.send(payments[number * share : (number + 1) * share])
        worker = installation.worker(crash_at=f"{point}:{number % 2 + 1}")
        await installation.gone(worker)
        assert "cannot start" not in worker.tail(100)
    sent += await installation.send(payments[len(points) * share :])
    installation.worker()
    await installation.as_one_process(expected(), sent)


@pytest.mark.slow
async def test_killed_between_two_chunks_of_a_flush(install: Callable[..., Installation]) -> None:
    """A first flush of more than 500 accounts a partition, interrupted after 500."""
    shape = (330, 90, 11)
    installation = install(flush_interval="4s")
    sent = await installation.send(bank_payments(*shape))
    await installation.gone(installation.worker(crash_at="between-chunks"))
    installation.worker()
    await installation.as_one_process(expected(*shape), sent)


async def test_a_step_that_raises_stops_its_partition_and_loses_nothing(
    install: Callable[..., Installation],
) -> None:
    installation = install()
    sent = await installation.send(bank_payments())
    worker = installation.worker(raise_at=9)
    await installation.until(lambda: "partition stopped" in worker.tail(500), 40, "a stopped partition")
    assert worker.running
    worker.stop()
    installation.worker()
    await installation.as_one_process(expected(), sent)
