"""What commands print: JSON for programs, tables for people, progress on a terminal and plain lines elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import typer

PLAIN_EVERY = 5.0
"""Seconds between two plain progress lines."""

LEAST_LAST = 12
"""Characters of a table's last column that are not given up for the sake of the width."""

JSON_OPTION = typer.Option(False, "--json", help="One JSON document instead of text.")


def emit(value: Any) -> None:
    """One JSON document, keys in the order given."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def emit_line(value: Any) -> None:
    """One JSON object on one line, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """A line for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """A line for people that is not the answer: to stderr, so that `--json` stays clean."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def terminal_width() -> int:
    """Characters a line, as the terminal says; 80 where nobody knows. Above 100 is hard to read, below 72 rows break."""
    return min(100, max(72, shutil.get_terminal_size((80, 24)).columns))


def paragraph(text: str, width: int, indent: str = "") -> None:
    """Lines for people, broken between words."""
    for line in textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent) or [""]:
        say(line)


def table(head: Sequence[str], rows: Iterable[Sequence[object]], width: int | None = None) -> None:
    """A plain table: columns as wide as they must be, no colours, safe in a pipe. With `width` the last column is broken, where a
    dozen characters are left for it."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[place]) for line in [list(head), *cells]) for place in range(len(head))]
    if width is not None:
        widths[-1] = max(LEAST_LAST, min(widths[-1], width - sum(widths[:-1]) - 2 * (len(widths) - 1)))
    say("  ".join(name.ljust(size) for name, size in zip(head, widths, strict=True)).rstrip())
    say("  ".join("─" * size for size in widths))
    for row in cells:
        broken = textwrap.wrap(row[-1], widths[-1]) if width is not None else [row[-1]]
        for number, last in enumerate(broken or [""]):
            line = [*([""] * (len(row) - 1) if number else row[:-1]), last]
            say("  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip())


def clock(seconds: float) -> str:
    """`75` → `1:15`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class Progress:
    """How far along something is: a bar with rate and ETA on a terminal, a plain line every few seconds elsewhere."""

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        now: Callable[[], float] = time.monotonic,
        quiet: bool = False,
    ) -> None:
        self.what, self.total, self.unit, self.now, self.quiet = what, total, unit, now, quiet
        self.done = 0
        self.extra = ""
        self._started = now()
        self._said = self._started
        self._live: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Live

            self._live = Live(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[extra]}"),
                console=Console(stderr=True),
            )
            self._live.start()
            self._task = self._live.add_task(self.what, total=self.total, rate="", extra="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif not self.quiet and problem is None:
            self._line()

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return self.done / max(1e-9, self.now() - self._started)

    def update(self, done: int, extra: str = "") -> None:
        """Say where it stands."""
        self.done, self.extra = done, extra
        if self._live is not None:
            rate = f"{self.rate:,.0f} {self.unit}/s"
            self._live.update(self._task, completed=done, rate=rate, extra=extra)
        elif not self.quiet and self.now() - self._said >= PLAIN_EVERY:
            self._line()

    def _line(self) -> None:
        self._said = self.now()
        parts = [f"{self.done:,}" + (f" of {self.total:,}" if self.total else "") + f" {self.unit}"]
        parts.append(f"{self.rate:,.0f}/s")
        if self.total and 0 < self.done < self.total:
            parts.append(f"ETA {clock((self.total - self.done) / self.rate)}")
        if self.extra:
            parts.append(self.extra)
        note(f"{self.what}: {' · '.join(parts)}")
