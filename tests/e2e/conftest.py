"""Installations for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Installation
from tests.rigs.kafka import KafkaBroker


@pytest.fixture
def install(
    kafka: KafkaBroker, redis_url: str, topic_prefix: str, tmp_path: Path
) -> Iterator[Callable[..., Installation]]:
    """Makes installations on the shared broker and Redis."""
    made: list[Installation] = []

    def make(**options: Any) -> Installation:
        prefix = topic_prefix if not made else f"{topic_prefix}n{len(made)}"
        folder = tmp_path / prefix
        folder.mkdir()
        installation = Installation(kafka, redis_url, folder, prefix, options)
        installation.create()
        made.append(installation)
        return installation

    yield make
    for installation in made:
        installation.end()
