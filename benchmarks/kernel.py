"""Legs a second of `detectors.step.step` on one core, all measures and detectors on, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks import population, report
from detectors import judging, window
from detectors.model import DAY, HOUR, Frame
from detectors.state import PartitionState
from detectors.step import _Step, step

TARGETS = {"clean": 300_000, "late": 150_000}
LATE_SHARE = 0.05
LATE_MOST = int(5.9 * HOUR)
PLACES: tuple[tuple[Any, str, str], ...] = (
    (window, "insert", "insert"),
    (window, "dirty_positions", "derive"),
    (window, "derive", "derive"),
    (window, "items_of", "derive"),
    (judging, "measure", "measure"),
    (judging, "screen_all", "screen"),
    (judging, "score", "score"),
    (judging, "explain", "explain"),
    (_Step, "_after_insert", "count"),
    (_Step, "_redelivered", "count"),
)
PHASES = ("insert", "derive", "measure", "screen", "score", "explain", "count", "rest")


@contextmanager
def phases() -> Iterator[dict[str, float]]:
    """Time spent in each phase while the block runs. What is called inside another phase counts for the outer one."""
    spent = dict.fromkeys(PHASES, 0.0)
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in PLACES]
    busy = False

    def timed(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal busy
            if busy:
                return function(*arguments, **named)
            busy, start = True, time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                spent[phase] += time.process_time() - start
                busy = False

        return run

    for owner, name, phase in PLACES:
        setattr(owner, name, timed(getattr(owner, name), phase))
    try:
        yield spent
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)


def held_rows(state: PartitionState) -> tuple[float, float]:
    """Mean and p99 of the rows that an account holds."""
    held = state.acc["len"][: state.n_acc]
    return float(held.mean()), float(np.quantile(held, 0.99))


def timed(state: PartitionState, frames: Sequence[Frame]) -> tuple[int, float, float, int]:
    """Legs, process seconds, wall seconds and outputs of running these frames."""
    outputs = 0
    cpu, wall = time.process_time(), time.perf_counter()
    for frame in frames:
        outputs += len(step(state, [frame]).outputs)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return sum(len(frame.rows) for frame in frames), cpu, wall, outputs


def one(rows: np.ndarray, size: int, warm: int) -> dict[str, Any]:
    """Judge everything; what is measured begins at row `warm`, when the windows are full."""
    state = population.empty_state(population.ACCOUNTS)
    for frame in (filling := population.frames(rows[:warm], 0, population.FRAME_ROWS)):
        step(state, [frame])
    todo = population.frames(rows[warm:], len(filling), size)
    half = len(todo) // 2
    n, cpu, wall, outputs = timed(state, todo[:half])
    with phases() as spent:
        m, profiled, profiled_wall, _ = timed(state, todo[half:])
    spent["rest"] = profiled - sum(spent.values())
    mean, p99 = held_rows(state)
    return {
        "legs": n,
        "cpu_rate": max(n / cpu, m / profiled),
        "wall_rate": max(n / wall, m / profiled_wall),
        "phases": {name: 1e6 * took / m for name, took in spent.items()},
        "mean": mean,
        "p99": p99,
        "outputs": outputs,
        "late": state.totals()["late"],
    }


def run(quick: bool) -> report.Result:
    """The figure."""
    result = report.new("kernel", "Kernel: legs a second on one core", quick)
    people = population.Population()
    fill, days = (12, 6) if quick else (population.FILL_DAYS, population.DAYS - population.FILL_DAYS)
    rows = population.legs(people.moves(0, fill + days), population.account_ids(0, people.accounts))
    warm = int(np.searchsorted(rows["time"], population.START + fill * DAY))
    late = population.delayed(rows, LATE_SHARE, LATE_MOST)
    one(rows[:8_000], 4_000, 4_000)  # compile
    table, split = [], []
    for name, kind, data, size in (
        ("in order", "clean", rows, 4_000),
        (f"{LATE_SHARE:.0%} up to 6 h late", "late", late, 4_000),
        ("in order, small frames", "", rows, 500),
    ):
        runs = [one(data, size, warm) for _ in range(1 if quick else 3)]
        found = max(runs, key=lambda r: r["cpu_rate"])
        middle = float(np.median([r["cpu_rate"] for r in runs]))
        target = TARGETS.get(kind)
        result.figures[f"{kind or 'small'}_legs_per_cpu_second"] = round(found["cpu_rate"])
        table.append(
            [
                name,
                size,
                f"{found['mean']:.0f} / {found['p99']:.0f}",
                f"{found['cpu_rate']:,.0f}",
                f"{middle:,.0f}",
                f"{found['wall_rate']:,.0f}",
                f"{target:,}" if target else "",
                report.against(found["cpu_rate"], target) if target else "",
            ]
        )
        split.append([name, *(f"{found['phases'][phase]:.2f}" for phase in PHASES)])
        if found["late"]:
            result.note(f"{name}: {found['late']} legs came after their boundary")
    result.add(
        "Legs a second (process time: best and median of the runs; wall: best)",
        [
            "stream",
            "frame rows",
            "held rows, mean / p99",
            "process, best",
            "process, median",
            "wall",
            "target",
            "",
        ],
        table,
    )
    result.add("Where it goes, µs a leg", ["stream", *PHASES], split)
    return result
