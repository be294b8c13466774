"""Every case of every detector says what it should."""

from __future__ import annotations

import pytest

from detectors.catalogue import IDS
from detectors.model import ACTION_NAMES, Action
from tests.checks.cases import FOLDER, Case, every_case, measure_of, outcome

CASES = list(every_case())
BY_NAME = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@BY_NAME
def test_outcome(case: Case) -> None:
    high, low = case.screen("high"), case.screen("low")
    assert (outcome(high), outcome(low)) == (case.expect, case.expect_low)
    if case.strength is not None:
        assert high == case.strength


@BY_NAME
def test_measures(case: Case) -> None:
    row = case.row("high")
    assert {name: measure_of(row, name) for name in case.seen} == case.seen


@pytest.mark.parametrize("case", [case for case in CASES if case.at_most], ids=lambda case: case.name)
def test_nothing_more_comes_of_it(case: Case) -> None:
    """With every detector on: a look-alike gives at most what the case says, never a hold."""
    verdict, _, _ = case.verdict()
    assert case.at_most in ("none", "monitor")
    assert verdict.action <= ACTION_NAMES.index(case.at_most), ACTION_NAMES[verdict.action]
    assert verdict.action <= Action.MONITOR


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in CASES for name in case.boundary],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_boundary(case: Case, name: str) -> None:
    """Exactly at the threshold it fires; one step of the parameter further it is quiet; one step back it still fires."""
    value = case.all_params()[case.detector][name]
    steps = {outcome(case.screen("high", {name: value + step})) for step in (-1, 1)}
    assert case.expect == "fired"
    assert steps == {"fired", "quiet"}


def test_no_case_file_without_a_detector() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(IDS)
