"""A worker as a process: `python -m tests.e2e.worker SETTINGS [options]`; each option breaks something."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

from detectors.model import Kind
from streams import app, feeds, monitor, watching
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


def raise_on(amount: int) -> None:
    """The fold raises on every frame that has a leg of this amount, as a defect in it would."""
    original = app.make_fold

    def fold(*arguments: Any) -> Any:
        made = original(*arguments)

        def step(state: Any, frames: Any) -> Any:
            for number, frame in enumerate(frames):
                if frame.kind is Kind.LEGS and (frame.rows["amount"] == amount).any():
                    made.step(state, frames[:number])
                    raise ArithmeticError("a frame that it fails on")
            return made.step(state, frames)

        return dataclasses.replace(made, step=step)

    app.make_fold = fold


STOOD = "the monitor stood still "
QUIET_SECONDS = 2.0
LONGEST_SECONDS = 300.0


def stand_at(event_time: int) -> None:
    """From this event time on nothing is judged and nothing flushed, until intake may run no further ahead; then go on."""
    original, assemble = app.make_fold, app.assemble
    intakes: list[Any] = []
    fronts: dict[int, int] = {}
    stood = False

    def assembled(*arguments: Any, **options: Any) -> Any:
        parts = assemble(*arguments, **options)
        intakes.append(parts.intake)
        return parts

    def stand() -> None:
        """Blocks the one thread that steps and packs. Looks from outside at what intake does meanwhile."""
        sources = intakes[0]._sources
        before, seen, moved, started = sources.front, sources.front, time.monotonic(), time.monotonic()
        while time.monotonic() - moved < QUIET_SECONDS and time.monotonic() - started < LONGEST_SECONDS:
            time.sleep(0.05)
            if sources.front != seen or sources.held_by != "short-ledger":
                seen, moved = sources.front, time.monotonic()
        said = {
            "judged_to": min(fronts.values()),  # of the partition that is furthest behind
            "intake_before": before,
            "intake_after": sources.front,
            "held_by": sources.held_by,
            "seconds": round(time.monotonic() - started, 1),
        }
        print(STOOD + json.dumps(said), file=sys.stderr, flush=True)

    def fold(*arguments: Any) -> Any:
        made = original(*arguments)

        def step(state: Any, frames: Any) -> Any:
            nonlocal stood
            if intakes:
                fronts[state.head.partition] = state.head.front
                legs = any(frame.kind is Kind.LEGS for frame in frames)
                if legs and not stood and min(fronts.values()) >= event_time:
                    stood = True
                    stand()
            return made.step(state, frames)

        return dataclasses.replace(made, step=step)

    app.make_fold, app.assemble = fold, assembled


HANG_ALLOWED = 3.0
"""How long a loop may take here before it counts as hanging, in seconds."""


def hang(folder: Path) -> None:
    """Each loop hangs where it asks somebody else for something, for as long as a file of its name is in `folder`."""
    watching.ALLOWED_SECONDS = HANG_ALLOWED
    feeds.WATCH_SECONDS = 0.5
    original_fold, assemble = app.make_fold, app.assemble

    def awaiting(loop: str, call: Any) -> Any:
        @functools.wraps(call)
        async def waiting(*arguments: Any, **options: Any) -> Any:
            while (folder / loop).exists():
                await asyncio.sleep(0.02)
            return await call(*arguments, **options)

        return waiting

    def fold(*arguments: Any) -> Any:
        made = original_fold(*arguments)

        def step(state: Any, frames: Any) -> Any:
            while (folder / "judging").exists():
                time.sleep(0.02)
            return made.step(state, frames)

        return dataclasses.replace(made, step=step)

    def assembled(*arguments: Any, **options: Any) -> Any:
        parts = assemble(*arguments, **options)
        parts.reconciler._every = 0.5
        for loop, owner, name in (
            ("intake", parts.intake, "_look_at_ends"),
            ("append", parts.intake, "_append_next"),
            ("flush", parts.store, "write_accounts"),
            ("feeds", parts.feeds, "_delivered"),
            ("expiry", parts.feeds, "_fetch"),
            ("exchange", parts.progress, "exchange"),
            ("member", parts.store, "renew_member"),
            ("balance", parts.reconciler, "look"),
        ):
            setattr(owner, name, awaiting(loop, getattr(owner, name)))
        return parts

    class Consumer(monitor.AIOKafkaConsumer):
        getmany = awaiting("ledger", monitor.AIOKafkaConsumer.getmany)

    monitor.AIOKafkaConsumer = Consumer
    app.make_fold, app.assemble = fold, assembled


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=Path)
    parser.add_argument("--session", type=int, default=0)
    parser.add_argument("--raise-at", type=int, default=0)
    parser.add_argument("--stand-at", type=int, default=0)
    parser.add_argument("--hang", type=Path)
    parser.add_argument("--raise-on", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.hang:
        hang(chosen.hang)
    if chosen.session:
        short_sessions(chosen.session)
    if chosen.raise_on:
        raise_on(chosen.raise_on)
    if chosen.raise_at:
        raise_at(chosen.raise_at)
    if chosen.stand_at:
        stand_at(chosen.stand_at)
    sys.exit(app.run(load(chosen.settings, {})))
