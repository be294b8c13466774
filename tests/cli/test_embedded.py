"""The embedded broker and store: both protocols, and nothing left behind."""

from __future__ import annotations

import importlib.util
import os

import pytest
import redis

from streams import embedded
from streams.embedded import Embedded, EmbeddedMissing
from streams.topics import TopicNames, admin_client, check, create, wanted


def test_speaks_both_protocols_and_passes_the_topic_check() -> None:
    specs = wanted(TopicNames("demo"), partitions=4, banks=["bank"])
    with Embedded() as parts:
        with admin_client(parts.kafka) as admin:
            assert len(create(admin, specs)) == len(specs)
            assert check(admin, specs) == []
        with redis.Redis.from_url(parts.redis) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_leaves_nothing_behind() -> None:
    parts = Embedded()
    parts.start()
    folder, process = parts._folder, parts._process
    assert folder is not None
    assert process is not None
    parts.stop()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    parts.stop()  # twice does no harm


def test_two_at_once_do_not_meet() -> None:
    with Embedded() as one, Embedded() as two:
        assert one.kafka != two.kafka
        assert one.redis != two.redis


def test_says_so_when_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedMissing, match="not installed"):
        Embedded().start()


def test_says_so_when_the_binary_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    broken = tmp_path / "noida-db"
    broken.write_text("#!/bin/sh\necho no such library; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "binary", lambda: broken)
    with pytest.raises(EmbeddedMissing, match="no such library"):
        Embedded().start()
