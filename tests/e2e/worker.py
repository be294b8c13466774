"""A worker as a process: `python -m tests.e2e.worker SETTINGS [--session MS] [--raise-at N]`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from streams import app
from streams.settings import Settings, load


def short_sessions(milliseconds: int) -> None:
    """A member that is silent for so long has left."""
    original = app.kafka_options

    def options(settings: Settings) -> Any:
        return dataclasses.replace(original(settings), session_timeout_ms=milliseconds)

    app.kafka_options = options


def raise_at(number: int) -> None:
    """The n-th step that judges legs raises, as a defect in the fold would."""
    original = app.make_fold
    passed = 0

    def fold(*arguments: Any) -> Any:
        made = original(*arguments)

        def step(state: Any, frames: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == number + 1:  # the first one is the warm-up
                raise ArithmeticError("a step that fails")
            return made.step(state, frames)

        return dataclasses.replace(made, step=step)

    app.make_fold = fold


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=Path)
    parser.add_argument("--session", type=int, default=0)
    parser.add_argument("--raise-at", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.session:
        short_sessions(chosen.session)
    if chosen.raise_at:
        raise_at(chosen.raise_at)
    sys.exit(app.run(load(chosen.settings, {})))
