"""The backends of the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from streams.state.base import StateStore
from tests.rigs.redis import RedisServer
from tests.streams.state.backends import Backend, MemoryBackend, RedisBackend, opened


@pytest.fixture(params=["memory", "redis"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "memory":
        return MemoryBackend()
    return RedisBackend(request.getfixturevalue("redis_url"))


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[StateStore]:
    """One worker."""
    found = await opened(backend)
    yield found
    await found.close()


@pytest.fixture
async def other(backend: Backend) -> AsyncIterator[StateStore]:
    """Another worker on the same server."""
    found = await opened(backend)
    yield found
    await found.close()


@pytest.fixture
def start_redis(redis_here: None, tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers that the test may break, and ends them."""
    started: list[RedisServer] = []

    def begin(**options: object) -> RedisServer:
        server = RedisServer(tmp_path / f"redis{len(started)}", **options)  # type: ignore[arg-type]
        started.append(server)
        return server.start()

    yield begin
    for server in started:
        server.kill()
