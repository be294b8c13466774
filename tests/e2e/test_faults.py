"""What happens around a living worker: zombies, a second process, a Redis or a broker that dies, workers that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detectors.state import ALWAYS
from streams.app import NOT_OURS
from streams.balance import add_up, difference
from tests.e2e.harness import Installation, bank_payments, expected
from tests.rigs.kafka import KafkaBroker
from tests.rigs.redis import RedisServer

SESSION = 3_000


def halves(parts: int = 2) -> list[Any]:
    """The payments in so many shares."""
    payments = bank_payments()
    share = -(-len(payments) // parts)
    return [payments[at : at + share] for at in range(0, len(payments), share)]


async def test_a_zombie_changes_nothing(install: Callable[..., Installation]) -> None:
    """Paused past its session while another takes over, then woken with all that it had in memory."""
    installation = install(flush_interval="20s")
    first, second, third = halves(3)
    sent = await installation.send(first)
    zombie = installation.worker("w1", session=SESSION)
    await installation.appended(sent)
    zombie.pause()
    heir = installation.worker("w2", session=SESSION)
    sent += await installation.send(second)
    await installation.appended(sent)
    zombie.resume()
    sent += await installation.send(third)
    await installation.appended(sent)
    heir.stop()
    zombie.stop()
    installation.options["flush_interval"] = "500ms"
    installation.worker("w2", session=SESSION)
    await installation.as_one_process(expected(), sent)


async def test_a_second_process_with_the_same_member_id_does_not_start(
    install: Callable[..., Installation],
) -> None:
    installation = install()
    first, second = halves()
    sent = await installation.send(first)
    worker = installation.worker("w1")
    await installation.received(1)
    twin = installation.worker("w1")
    await installation.gone(twin)
    assert twin.returncode == NOT_OURS
    sent += await installation.send(second)
    await installation.as_one_process(expected(), sent)
    assert worker.running


@pytest.fixture
def own_redis(redis_here: None, tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Servers that the test may break."""
    made: list[RedisServer] = []

    def make(**options: Any) -> RedisServer:
        made.append(RedisServer(tmp_path / f"redis{len(made)}", **options).start())
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def on_own(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path
) -> Iterator[Callable[[RedisServer], Installation]]:
    """An installation on a Redis of its own."""
    made: list[Installation] = []

    def make(server: RedisServer) -> Installation:
        folder = tmp_path / "installation"
        folder.mkdir()
        made.append(Installation(kafka, server.url(), folder, topic_prefix))
        made[-1].create()
        return made[-1]

    yield make
    for installation in made:
        installation.end()


@pytest.mark.parametrize("persistence", [False, True], ids=["emptied", "kept"])
async def test_redis_dies_and_comes_back(
    persistence: bool, own_redis: Callable[..., RedisServer], on_own: Callable[[RedisServer], Installation]
) -> None:
    server = own_redis(persistence=persistence, fsync="always")
    installation = on_own(server)
    first, second = halves()
    sent = await installation.send(first)
    installation.worker()
    await installation.received(len(first) // 2)
    server.kill()
    sent += await installation.send(second)
    server.restart()
    await installation.as_one_process(expected(), sent)


async def test_redis_loses_its_last_second_under_a_living_worker(
    own_redis: Callable[..., RedisServer], on_own: Callable[[RedisServer], Installation]
) -> None:
    server = own_redis(persistence=True, fsync="always")
    installation = on_own(server)
    first, second = halves()
    sent = await installation.send(first)
    installation.worker()
    await installation.received(len(first) // 4)
    mark = server.mark()
    await installation.received(len(first))
    server.lose_since(mark)
    sent += await installation.send(second)
    await installation.as_one_process(expected(), sent)


async def test_the_broker_dies_and_comes_back(
    kafka_here: None, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    broker = KafkaBroker(tmp_path / "kafka").start()
    installation = Installation(broker, redis_url, tmp_path, topic_prefix)
    try:
        installation.create()
        first, second = halves()
        sent = await installation.send(first)
        installation.worker()
        await installation.received(len(first) // 4)
        broker.kill()
        broker.restart()
        sent += await installation.send(second)
        await installation.as_one_process(expected(), sent)
    finally:
        installation.end()
        broker.kill()


@pytest.mark.slow
async def test_two_workers_join_and_leave_under_load(install: Callable[..., Installation]) -> None:
    installation = install()
    first, second, third, fourth = halves(4)
    sent = await installation.send(first)
    one = installation.worker("w1", session=SESSION)
    await installation.received(len(first) // 4)
    two = installation.worker("w2", session=SESSION)
    sent += await installation.send(second)
    await installation.received(sent)
    one.stop()
    sent += await installation.send(third)
    await installation.received(sent)
    installation.worker("w1", session=SESSION)
    sent += await installation.send(fourth)
    two.kill()
    await installation.as_one_process(expected(), sent)


async def test_a_ledger_that_is_shorter_than_the_state_needs_stops_its_partition(
    install: Callable[..., Installation], kafka: KafkaBroker
) -> None:
    installation = install()
    sent = await installation.send(halves(4)[0])
    worker = installation.worker()
    await installation.settled(sent)
    worker.stop()
    kafka.delete_records_before(installation.names.ledger, 0, 3)
    installation.options["redis_namespace"] = (
        "another"  # an empty store: the state is gone, and so is the log
    )
    heir = installation.worker("w2")
    await installation.until(lambda: "log starts at offset 3" in heir.tail(500), 40, "a refusal")
    heir.stop()
    installation.options["accept_gap"] = True
    bold = installation.worker("w2")
    await installation.until(lambda: "ledger gap accepted" in bold.tail(500), 40, "an accepted gap")
    rest = halves(4)[1]
    await installation.send(rest)
    await installation.received(len(rest))
    bold.stop()
    assert [(gap.first, gap.last) for gap in (await installation.heads())[0].gaps] == [(0, 2)]
    # It is written down: from here on nobody has to accept it again, and the days of what was lost stay broken.
    del installation.options["accept_gap"]
    installation.worker("w2")
    await installation.settled(len(rest))
    heads = await installation.heads()
    assert heads[0].gaps[0].history_from < ALWAYS
    assert any(difference(sums) for sums in add_up(heads.values()).values())
