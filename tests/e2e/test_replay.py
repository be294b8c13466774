"""A file in random orders within the lateness, and a monitor that stands still: every time the answer of one process.

`benchmarks/replay_contract.py` is the same at full length, on published data.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from detectors.model import HOUR
from detectors.settings import FoldSettings
from tests.e2e import contract
from tests.e2e.harness import Installation, bank_payments, expected

SIZE = (170, 95)
"""Households and days: some 20,000 payments."""

LENGTHS = FoldSettings()


def test_an_order_keeps_the_premise() -> None:
    times = [payment.time for payment in bank_payments()]
    orders = [contract.shuffled(times, LENGTHS.lateness, seed) for seed in (1, 2)]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == list(range(len(times)))
        moved = contract.disorder(times, order)
        assert LENGTHS.lateness // 2 < moved.behind <= LENGTHS.lateness
        assert moved.overtaken > len(times) // 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "backlog", "stand"),
    [(1, False, False), (2, True, False), (3, True, True)],
    ids=["while-it-runs", "as-a-backlog", "stopped-monitor"],
)
async def test_any_order_gives_the_answer_of_one_process(
    seed: int, backlog: bool, stand: bool, install: Callable[..., Installation]
) -> None:
    payments, answer = bank_payments(*SIZE), expected(*SIZE)
    assert len(payments) > 18_000
    assert len(answer.bodies) > 3
    messages = contract.Messages.of_payments(payments)
    order = contract.shuffled(messages.times, LENGTHS.lateness, seed)
    installation = install()
    if backlog:
        await contract.send(installation, messages, order)
    worker = installation.worker(stand_at=sorted(messages.times)[len(payments) // 2] if stand else 0)
    if not backlog:
        await contract.send(installation, messages, order)
    await installation.settled(len(payments), within=180)
    found = await contract.outcome(installation)
    assert found.problems(answer.bodies, len(payments)) == []
    assert found.ledger_legs == answer.counters["judged"] == found.counters["judged"]
    if stand:
        said = contract.stood(worker.log)
        assert said["held_by"] == "short-ledger"
        ahead = said["intake_after"] - said["judged_to"]
        # At most A ahead of the newest mark that is applied; a partition's own last leg may be a little older than that.
        assert 18 * HOUR < ahead <= LENGTHS.spread + LENGTHS.lateness
