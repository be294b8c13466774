"""The compiled kernel against its twin: every measure of every leg, on streams drawn by chance."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings

from detectors.config import Config
from detectors.model import DAY
from detectors.settings import FoldSettings
from tests.core import twin
from tests.core.driver import SETTINGS, by_name, measured, run, sharp_config, twin_params, twin_settings
from tests.core.strategies import (
    START,
    WITHOUT_SHRINKING,
    Entry,
    Mix,
    World,
    arrival,
    picture,
    seeds,
    smallest,
    world,
)
from tests.core.twin_rows import canonical, hub_start

READINGS = ("high", "low")
Gaps = tuple[tuple[int, int], ...]
Differences = list[tuple[int, int, str, str, int, int]]


def differences(
    entries: Sequence[Entry],
    fold: FoldSettings,
    config: Config,
    rows_per_frame: int,
    frames_per_step: int,
    gaps: Gaps = (),
) -> Differences:
    """(subject, leg, reading, measure, twin, kernel) wherever the two differ."""
    with measured() as seen:
        run(
            entries,
            rows_per_frame=rows_per_frame,
            frames_per_step=frames_per_step,
            settings=fold,
            config=config,
            gaps=gaps,
        )
    whole = World(0, sorted({entry.subject for entry in entries if entry.leg is not None}), list(entries))
    params, lengths = twin_params(config), dataclasses.replace(twin_settings(fold, config), gaps=gaps)
    out: Differences = []
    for subject in whole.subjects:
        rows = canonical(whole.records(subject), lengths).rows
        facts, flags = whole.facts(subject), whole.flags()
        hub = hub_start(rows, lengths)
        for index, reading in enumerate(READINGS):
            for e, row in enumerate(rows):
                if row.void or (hub is not None and row.time >= hub):
                    continue
                expected = twin.measures(rows, e, facts, flags, params, lengths, reading)
                if (subject, row.leg) not in seen:
                    out.append((subject, row.leg, reading, "not judged", 0, 0))
                    continue
                got = by_name(seen[subject, row.leg][index])
                out += [
                    (subject, row.leg, reading, name, expected[name], got[name])
                    for name in got
                    if name not in expected or not same(name, expected[name], got[name])
                ]
    return out


def same(name: str, expected: int, got: int) -> bool:
    """Equal; an unlimited history may be any length that nothing exceeds."""
    if name == "history" and expected >= twin.UNLIMITED:
        return got >= twin.UNLIMITED
    return expected == got


def controls_first(entries: Sequence[Entry]) -> list[Entry]:
    """Every control record before every leg: what the kernel measured then is what it would measure now."""
    return sorted(entries, key=lambda entry: entry.leg is not None)


def check(mix: Mix, seed: int, *, fold: FoldSettings = SETTINGS, gaps: Gaps = ()) -> None:
    """Compare on the world of a seed, in an order of arrival; shrink and draw what differs."""
    rng = random.Random(seed)
    config = sharp_config()
    order = controls_first(arrival(world(seed, mix).entries, rng))
    rows_per_frame, frames_per_step = rng.choice([(1, 1), (2, 3), (7, 2), (10**6, 1)])

    def fails(entries: Sequence[Entry]) -> bool:
        return bool(differences(entries, fold, config, rows_per_frame, frames_per_step, gaps))

    if fails(order):
        few = smallest(order, fails)
        found = differences(few, fold, config, rows_per_frame, frames_per_step, gaps)
        lines = [f"{s:x} leg {leg:x} {r} {name}: twin {x}, kernel {y}" for s, leg, r, name, x, y in found]
        pytest.fail(
            f"seed {seed}, {rows_per_frame} rows a frame, {frames_per_step} frames a step\n"
            + picture(few)
            + "\n"
            + "\n".join(lines),
            pytrace=False,
        )


@settings(phases=WITHOUT_SHRINKING, max_examples=25)
@given(seed=seeds)
def test_kernel_equals_twin(seed: int) -> None:
    """Everything at once."""
    check(Mix(accounts=2), seed)


@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_kernel_equals_twin_on_dense_short_streams(seed: int) -> None:
    """No silences: many rows visible, so that K cuts and lots queue up."""
    check(Mix(accounts=1, scenes=25, gaps=False, months=False, parties=5), seed)


@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_kernel_equals_twin_on_clean_streams(seed: int) -> None:
    """Without returns, conflicts and facts: a difference here is one of the measures themselves."""
    mix = Mix(
        accounts=1, scenes=20, returns=0.0, conflicts=0.0, repeats=0.0, facts=False, own=0.0, coarse=0.0
    )
    check(mix, seed)


@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_kernel_equals_twin_on_coarse_times(seed: int) -> None:
    """Days, hours and minutes side by side."""
    check(Mix(accounts=1, scenes=15, coarse=1.0), seed)


@settings(phases=WITHOUT_SHRINKING, max_examples=10)
@given(seed=seeds)
def test_kernel_equals_twin_on_young_accounts(seed: int) -> None:
    """Nothing says since when the feeds are complete: history starts at the first leg."""
    check(Mix(accounts=1, scenes=15), seed, fold=FoldSettings(keep=16))


@settings(phases=WITHOUT_SHRINKING, max_examples=15)
@given(seed=seeds)
def test_kernel_equals_twin_where_records_were_lost(seed: int) -> None:
    """One or two accepted gaps: no history before them, but for what was judged before they could matter."""
    rng = random.Random(~seed)
    moments = sorted(START + rng.randint(-30, 200) * DAY + rng.randrange(DAY) for _ in range(4))
    gaps = tuple(zip(moments[::2], moments[1::2], strict=True))[: rng.choice([1, 1, 2])]
    check(Mix(accounts=1, scenes=15), seed, fold=rng.choice([SETTINGS, FoldSettings(keep=16)]), gaps=gaps)


@settings(phases=WITHOUT_SHRINKING, max_examples=8)
@given(seed=seeds)
def test_kernel_equals_twin_on_the_greatest_amounts(seed: int) -> None:
    """Up to 10^12: no product of an amount and a share overflows."""
    check(Mix(accounts=1, scenes=20, gaps=False, scale=10**6), seed)


@settings(phases=WITHOUT_SHRINKING, max_examples=12)
@given(seed=seeds)
def test_kernel_equals_twin_on_returns_that_come_late(seed: int) -> None:
    """A leg that was taken back weeks later stands for what was judged before its return, and for nothing after it."""
    check(Mix(accounts=1, scenes=25, gaps=False, returns=0.3, returned_after=40 * DAY), seed)
