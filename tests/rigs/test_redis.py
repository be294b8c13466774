"""The Redis rig: what is kept and what is lost when the server dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.rigs.proxy import FaultProxy
from tests.rigs.redis import RedisServer

ONCE = Retry(NoBackoff(), 0)


@pytest.fixture
def start(redis_here: None, tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers that the test may break, and ends them."""
    started: list[RedisServer] = []

    def begin(**options: object) -> RedisServer:
        server = RedisServer(tmp_path / f"redis{len(started)}", **options)  # type: ignore[arg-type]
        started.append(server)
        return server.start()

    yield begin
    for server in started:
        server.kill()


def test_killed_without_persistence_is_empty(start: Callable[..., RedisServer]) -> None:
    server = start()
    server.client().set("key", "value")
    server.kill()
    with pytest.raises(redis.ConnectionError):
        server.client().ping()
    server.restart()
    assert server.client().get("key") is None


def test_killed_with_persistence_keeps_what_it_acknowledged(start: Callable[..., RedisServer]) -> None:
    server = start(persistence=True, fsync="always")
    port = server.port
    server.client().set("key", "value")
    server.kill()
    server.restart()
    assert (server.port, server.client().get("key")) == (port, b"value")


def test_the_last_moments_can_be_lost(start: Callable[..., RedisServer]) -> None:
    server = start(persistence=True, fsync="always")
    server.client().set("early", "1")
    mark = server.mark()
    server.client().set("late", "1")
    server.lose_since(mark)
    assert server.client().mget("early", "late") == [b"1", None]


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
def test_the_eviction_policy_is_what_was_asked(start: Callable[..., RedisServer], policy: str) -> None:
    server = start(policy=policy)
    assert server.client().config_get("maxmemory-policy") == {"maxmemory-policy": policy}


def test_a_unix_socket_serves(start: Callable[..., RedisServer]) -> None:
    server = start(unix_socket=True)
    assert server.url(3).startswith("unix://")
    assert server.client(3).ping()


def test_a_frozen_server_answers_nobody_until_resumed(start: Callable[..., RedisServer]) -> None:
    server = start()
    impatient = redis.Redis(port=server.port, socket_timeout=0.3, retry=ONCE)
    assert impatient.ping()
    server.pause()
    with pytest.raises(redis.TimeoutError):
        impatient.ping()
    server.resume()
    assert server.client().ping()


def test_databases_are_fresh_for_each_test(redis_url: str, redis_server: RedisServer) -> None:
    client = redis.Redis.from_url(redis_url)
    assert client.dbsize() == 0
    client.set("mine", "1")
    assert redis_server.client(0).get("mine") is None


def test_the_proxy_breaks_on_command_and_heals(redis_server: RedisServer) -> None:
    with FaultProxy(redis_server.port) as proxy:
        client = redis.Redis(port=proxy.port, socket_timeout=0.3, socket_connect_timeout=0.3, retry=ONCE)
        assert client.ping()
        proxy.cut()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        assert client.ping(), "a cut connection is made again"
        proxy.refuse()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()
        proxy.heal()
        assert client.ping()
        proxy.swallow()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.heal()
        proxy.delay = 0.6
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.heal()
        assert client.ping()
