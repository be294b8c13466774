"""What a figure is written down with: the machine, the command, tables, and where the time goes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numba
import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
ORDER = ("kernel", "memory", "stream", "latency", "restart", "scale")


class Table(msgspec.Struct):
    """One small table."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def lines(self) -> list[str]:
        """As Markdown."""
        head = "| " + " | ".join(self.columns) + " |"
        body = ["| " + " | ".join(row) + " |" for row in self.rows]
        return [self.title, "", head, "|---" * len(self.columns) + "|", *body, ""]


class Result(msgspec.Struct, kw_only=True):
    """One figure, as it came out of one run."""

    name: str
    title: str
    command: str
    machine: dict[str, Any]
    tables: list[Table] = []
    notes: list[str] = []
    figures: dict[str, float] = {}

    def add(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table and print it."""
        table = Table(title, list(columns), [[str(cell) for cell in row] for row in rows])
        self.tables.append(table)
        print("\n".join(table.lines()), flush=True)

    def note(self, text: str) -> None:
        """Add a sentence and print it."""
        self.notes.append(text)
        print(f"- {text}", flush=True)


def machine() -> dict[str, Any]:
    """What the figures depend on, and how busy the machine was before."""
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "?")
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "revision": _revision(),
        "load_before": round(os.getloadavg()[0], 1),
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
    }


def _revision() -> str:
    """The commit, with a plus where the code that runs is not exactly it."""
    commands = (
        ["git", "rev-parse", "--short", "HEAD"],
        ["git", "status", "--porcelain", "detectors", "streams"],
    )
    try:
        head, changed = (
            subprocess.run(
                c, cwd=FOLDER.parents[1], capture_output=True, text=True, check=True
            ).stdout.strip()
            for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return "?"
    return head + ("+" if changed else "")


def new(name: str, title: str, quick: bool) -> Result:
    """A figure that is about to be measured."""
    result = Result(
        name=name,
        title=title,
        command=f"make bench BENCH='{name}{' --quick' if quick else ''}'",
        machine=machine(),
    )
    print(f"\n== {title} (load before: {result.machine['load_before']}) ==", flush=True)
    return result


def save(result: Result, folder: Path = FOLDER) -> Path:
    """Write the figure down and the day's page again. Returns the page."""
    day = str(result.machine["at"])[:10]
    kept = folder / day
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"{result.name}.json").write_text(
        json.dumps(msgspec.to_builtins(result), indent=2, ensure_ascii=False) + "\n"
    )
    page = folder / f"{day}.md"
    page.write_text("\n".join(_page(day, kept)))
    return page


def _page(day: str, kept: Path) -> list[str]:
    lines = [
        f"# Benchmarks, {day}",
        "",
        "Written by `make bench`; the same figures as JSON lie beside this page.",
        "",
    ]
    found = {path.stem: path for path in kept.glob("*.json")}
    for name in sorted(found, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        result = msgspec.json.decode(found[name].read_bytes(), type=Result)
        m = result.machine
        lines += [
            f"## {result.title}",
            "",
            f"`{result.command}` · {m['at']} · {m['cores']} cores ({m['cpu']}), Python {m['python']}, numpy {m['numpy']}, "
            f"numba {m['numba']}, revision {m.get('revision', '?')}, load average before {m['load_before']}",
            "",
        ]
        for table in result.tables:
            lines += table.lines()
        lines += [f"- {note}" for note in result.notes]
        lines += [""] if result.notes else []
    if (notes := kept / "notes.md").exists():  # where the time goes, by hand
        lines += notes.read_text().splitlines()
    return [*lines, ""] if lines[-1] else lines


def against(value: float, target: float, *, more: bool = True) -> str:
    """How a figure stands to its target: reached, or short by how much."""
    if (value >= target) if more else (value <= target):
        return "reached"
    gap = 1 - value / target if more else value / target - 1
    return f"short by {gap:.0%}" if more else f"over by {gap:.0%}"
