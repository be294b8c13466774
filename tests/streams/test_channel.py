"""What lies between the ledger consumer and its partitions: a Faust channel and agent, with the traps of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import faust
import pytest

from streams.monitor import Batch, LedgerChannel


@pytest.fixture
def app(tmp_path: Path) -> faust.App:
    return faust.App(
        "test",
        broker="kafka://127.0.0.1:1",
        datadir=str(tmp_path),
        autodiscover=False,
        web_enabled=False,
        set_as_current=False,
    )


def batch(number: int) -> Batch:
    return Batch(number, 0, [])


async def started(app: faust.App, channel: faust.Channel) -> tuple[list[int], asyncio.Event, faust.Agent]:
    """An agent that waits at a gate before it takes what comes."""
    seen: list[int] = []
    gate = asyncio.Event()

    async def judge(stream: AsyncIterator[Batch]) -> None:
        async for item in stream:
            await gate.wait()
            seen.append(item.partition)

    agent = app.agent(channel, name="judge")(judge)
    app.finalize()
    app.flow_control.resume()
    await agent.start()
    while not channel.subscriber_count:
        await asyncio.sleep(0)
    return seen, gate, agent


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("ours", [True, False], ids=["ledger-channel", "plain-channel"])
async def test_a_rebalance_of_fausts_topics_empties_a_plain_channel_but_not_ours(
    app: faust.App, ours: bool
) -> None:
    channel = LedgerChannel(app, maxsize=8) if ours else app.channel(maxsize=8)
    seen, gate, agent = await started(app, channel)
    for number in range(4):
        await channel.put(batch(number))
    await turns()
    app.flow_control.suspend()  # what Faust does when its own group rebalances
    app.flow_control.clear()
    app.flow_control.resume()
    gate.set()
    await turns()
    assert seen == ([0, 1, 2, 3] if ours else [0])
    await agent.stop()


async def test_a_full_channel_makes_the_reader_wait(app: faust.App) -> None:
    channel = LedgerChannel(app, maxsize=2)
    seen, gate, agent = await started(app, channel)
    putting = asyncio.create_task(_put_all(channel, 6))
    await turns()
    assert not putting.done()
    gate.set()
    await putting
    await turns()
    assert seen == [0, 1, 2, 3, 4, 5]
    await agent.stop()


async def _put_all(channel: LedgerChannel, count: int) -> None:
    for number in range(count):
        await channel.put(batch(number))


async def test_a_put_before_the_agent_runs_goes_nowhere(app: faust.App) -> None:
    """Why the reader waits for a subscriber first."""
    channel = LedgerChannel(app, maxsize=8)
    assert channel.subscriber_count == 0
    await channel.put(batch(0))
    seen, gate, agent = await started(app, channel)
    gate.set()
    await channel.put(batch(1))
    await turns()
    assert seen == [1]
    await agent.stop()
