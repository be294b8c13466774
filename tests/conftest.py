"""Shared by every test: the real parts, fresh names in them, and how random tests choose."""

from __future__ import annotations

import itertools
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from streams import compiled

compiled.use_own_folder()  # before anything imports numba; the processes that tests start inherit it

from tests.rigs import parts  # noqa: E402
from tests.rigs.kafka import KafkaBroker  # noqa: E402
from tests.rigs.redis import DATABASES, RedisServer  # noqa: E402

REQUIRE_RIGS = os.environ.get("SAFEHOLD_REQUIRE_RIGS") == "1"
PROFILE = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")

hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.register_profile("deep", deadline=None, print_blob=True, max_examples=2_000)
hypothesis.settings.load_profile(PROFILE)

_database = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed here, so that it can be printed and given back with --hypothesis-seed."""
    if PROFILE != "ci" and config.option.hypothesis_seed is None and not hasattr(config, "workerinput"):
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what this run depends on."""
    seed = "derandomized" if PROFILE == "ci" else f"--hypothesis-seed={config.option.hypothesis_seed}"
    missing = [part.name for part in parts.system_parts() if part.found is None]
    if parts.kafka_libs() is None:
        missing.append(f"Apache Kafka {parts.KAFKA_VERSION}")
    rigs = (
        f"missing: {', '.join(missing)}"
        if missing
        else f"Apache Kafka {parts.KAFKA_VERSION}, Redis, promtool"
    )
    return [f"hypothesis: profile {PROFILE}, {seed}", f"real parts: {rigs}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a server, so that it can be left out."""
    for item in items:
        if {"kafka_here", "redis_here"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.rigs)


def _need(*needed: object, name: str) -> None:
    if all(needed):
        return
    reason = f"{name} is not on this machine: run `python -m tests.rigs.parts install`"
    if REQUIRE_RIGS:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_here() -> None:
    """For a test that starts a broker of its own: fails or skips where that cannot be done."""
    _need(parts.find_java(), parts.kafka_libs(), name=f"Apache Kafka {parts.KAFKA_VERSION}")


@pytest.fixture(scope="session")
def redis_here() -> None:
    """For a test that starts a Redis of its own: fails or skips where that cannot be done."""
    _need(parts.find_redis(), name="a Redis server")


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    found = parts.find_promtool()
    _need(found, name="promtool")
    return str(found)


@pytest.fixture(scope="session")
def kafka(kafka_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One broker for the whole run. A test that kills or stops a broker starts its own."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def redis_server(redis_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the whole run, without persistence. A test that kills a server starts its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty database of the shared server."""
    database = next(_database) % DATABASES
    with redis_server.client(database) as client:
        client.flushdb()
    return redis_server.url(database)


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test uses, for the topics and groups of one test."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).resolve().parents[1]
