"""What happens on a machine where something is missing."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs import parts

ROOT = Path(__file__).resolve().parents[2]


def test_without_rights_the_line_to_run_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "find_redis", lambda: None)
    monkeypatch.setattr(parts, "find_promtool", lambda: None)
    monkeypatch.setattr(parts, "_root_prefix", lambda: None)
    assert not parts.install()
    said = capsys.readouterr().out
    assert "missing: Redis server, promtool" in said
    line = "apt-get install -y --no-install-recommends redis-server prometheus"
    assert f"sudo apt-get update && sudo {line}\n" in said


def test_a_half_filled_cache_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAFEHOLD_CACHE", str(tmp_path))
    libs = tmp_path / f"kafka-{parts.KAFKA_VERSION}"
    libs.mkdir()
    (libs / "kafka-clients.jar").touch()
    assert parts.kafka_libs() is None
    (libs / ".complete").touch()
    assert parts.kafka_libs() == libs


def test_maven_that_fails_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "bin" / "mvn"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho '[ERROR] no network today'\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SAFEHOLD_CACHE", str(tmp_path / "cache"))
    assert not parts.fetch_kafka()
    assert "no network today" in capsys.readouterr().out
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "21"', 21),
    ],
)
def test_javas_version_is_read(tmp_path: Path, printed: str, version: int) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{printed}' >&2\n")
    java.chmod(0o755)
    assert parts._java_version(str(java)) == version


def test_the_module_needs_the_standard_library_only() -> None:
    code = "import sys; sys.path.insert(0, '.'); import tests.rigs.parts"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_make_describes_every_target() -> None:
    targets = set(re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+) ", said, re.MULTILINE)) == targets
    assert {
        "setup",
        "demo",
        "test",
        "test-fast",
        "lint",
        "format",
        "typecheck",
        "bench",
        "docs",
        "clean",
    } <= targets
