"""A worker on real Kafka and Redis: the answer is that of one process, and everything is accounted for."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.harness import Installation, balanced, bank_payments, expected, same


async def test_the_answer_is_that_of_one_process(install: Callable[..., Installation]) -> None:
    installation = install()
    worker = installation.worker()
    sent = await installation.send(bank_payments())
    counters = await installation.settled(sent)
    balanced(counters)
    same(counters, expected().counters)
    assert (await installation.latest()).bodies() == list(expected().bodies)
    assert len(expected().bodies) > 3
    worker.stop()
    assert not worker.running
