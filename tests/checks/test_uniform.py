"""The uniform suite: what must hold for every detector. A new file in the catalogue is tested before its author writes a test."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import random
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import msgspec
import numpy as np
import pytest

from detectors import catalogue
from detectors.catalogue import ALL, IDS, RETIRED
from detectors.config import HOLD, demo_config
from detectors.model import PPM, Family, Side
from detectors.render import placeholders, sentence
from detectors.scoring import plan, screen_all
from detectors.spec import MEASURE_INDEX, MEASURES, NOT_COMPUTABLE, Evidence, Kind, Maturity, Measures, Params
from detectors.units import parse, show
from tests.checks.cases import Case, legs_of, load, outcome
from tests.core.twin_rows import canonical

EVERY = pytest.mark.parametrize("module", ALL, ids=IDS)
DAY_SHIFT = 37 * 86_400_000_000


def cases_of(module: ModuleType) -> list[Case]:
    return load(module.SPEC.id)


def fired(module: ModuleType) -> Iterator[tuple[Case, Evidence]]:
    for case in cases_of(module):
        if case.expect == "fired":
            yield case, module.explain(case.view(), Params(case.all_params()[case.detector]))


def rows_of(n: int, seed: int) -> Measures:
    """Measures drawn by chance, negative codes among them."""
    chance = np.random.default_rng(seed)
    matrix = chance.integers(-3, 40, (n, len(MEASURES)))
    large = chance.integers(0, 2, (n, len(MEASURES))).astype(bool)
    matrix = np.where(large & (matrix >= 0), matrix * chance.integers(1, 10**7, (n, len(MEASURES))), matrix)
    small = {
        name: chance.integers(0, 2, n)
        for name in ("side", "amount_u", "channel", "party_class", "time", "purpose")
    }
    return Measures(matrix.astype(np.int64), **small)


@EVERY
def test_spec_is_complete(module: ModuleType) -> None:
    spec = module.SPEC
    assert module.__name__ == f"detectors.catalogue.{spec.module}"
    assert spec.id == spec.id.lower()
    assert spec.id not in RETIRED
    for text in (spec.title, spec.summary, spec.strength, spec.sentence, spec.since):
        assert text.strip() == text != ""
    assert spec.sources
    assert all(s.section and s.note and s.publisher and s.year > 1990 for s in spec.sources)
    assert spec.points in ((-4, -3, -2, 0) if spec.family == Family.MITIGATOR else (1, 2, 4))
    assert spec.measures
    assert set(spec.measures) <= set(MEASURES)
    assert spec.look_alikes
    assert spec.misses
    assert 2 <= len(spec.runbook) <= 3
    assert spec.roles
    assert spec.trigger in (None, *Side)
    assert spec.maturity != Maturity.RETIRED


@EVERY
def test_parameters_have_bounds_units_and_reasons(module: ModuleType) -> None:
    spec = module.SPEC
    names = [p.name for p in spec.params]
    assert len(set(names)) == len(names)
    assert "state" not in names
    for p in spec.params:
        assert p.min <= p.default <= p.max, p.name
        assert p.text
        assert p.why
        for value in (p.min, p.default, p.max):
            assert parse(p.kind, show(p.kind, value)) == value, p.name
    for chain in spec.ordered:
        assert set(chain) <= set(names)
        defaults = [spec.param(name).default for name in chain]
        assert defaults == sorted(defaults)
    if spec.window is not None:
        assert spec.param(spec.window).kind == Kind.DURATION
        assert spec.param(spec.window).max <= HOLD


@EVERY
def test_sentence_uses_known_names_only(module: ModuleType) -> None:
    spec = module.SPEC
    names = set(placeholders(spec.sentence))
    assert names & set(spec.measures), "a sentence without a measured value"
    assert names <= set(spec.measures) | {p.name for p in spec.params}
    for case, seen in fired(module):
        text = sentence(spec, seen.observed, Params(case.all_params()[case.detector]))
        assert "{" not in text
        assert text == text.strip()


@EVERY
def test_look_alikes_name_cases_that_say_how_far_it_may_go(module: ModuleType) -> None:
    cases = {case.id: case for case in cases_of(module)}
    for look_alike in module.SPEC.look_alikes:
        assert look_alike.case in cases, look_alike.text
        case = cases[look_alike.case]
        assert case.expect == "quiet" or case.at_most is not None, (
            f"{case.name} fires, and says not how far it may go"
        )
        assert case.at_most is not None


@EVERY
def test_cases_cover_what_they_must(module: ModuleType) -> None:
    cases = cases_of(module)
    assert any(case.expect == "fired" for case in cases)
    assert any(case.expect == "quiet" for case in cases)
    assert any("unknown" in case.id for case in cases) or module.SPEC.id in (
        "flagged-counterparty",  # looks at who, not at what kind
        "own-account-or-household",
    )
    first_time = {"payers_first", "payees_first", "payees_first_day", "wake_credits_first", "collect_payers"}
    if first_time & set(module.SPEC.measures):
        assert any(case.expect == "not computable history_too_short" for case in cases)


@EVERY
def test_each_parameter_has_a_boundary_case(module: ModuleType) -> None:
    """Which is then run one step to either side (test_cases)."""
    shown = {name for case in cases_of(module) for name in case.boundary}
    wanted = {p.name for p in module.SPEC.params if not p.shapes and p.min < p.max}
    assert shown == wanted


COPIED = (
    ". Leave out a copied `window`: a shared measure looks back over the window of the detector that owns it"
)


@EVERY
def test_each_parameter_is_alive(module: ModuleType) -> None:
    """Moving it across its range changes the outcome of a case."""
    cases = cases_of(module)
    for p in module.SPEC.params:
        if p.min == p.max:
            continue
        assert any(
            len({case.screen("high", {p.name: value}) for value in (p.min, p.default, p.max)}) > 1
            for case in cases
        ), f"{p.name} changes nothing in any case" + (COPIED if p.name == module.SPEC.window else "")


@EVERY
def test_strength_stays_in_range_and_negative_measures_stay_codes(module: ModuleType) -> None:
    spec = module.SPEC
    m = rows_of(3_000, 7)
    strength = module.screen(m, spec.defaults())
    assert strength.dtype == np.int64
    assert strength.shape == (3_000,)
    assert strength.max() <= PPM
    assert set(strength[strength < 0].tolist()) <= set(NOT_COMPUTABLE)
    for name in spec.measures:
        clean = Measures(
            np.abs(m.matrix),
            **{c: getattr(m, c) for c in ("side", "amount_u", "channel", "party_class", "time", "purpose")},
        )
        clean.matrix[:, MEASURE_INDEX[name]] = -3
        if name == "pass_dwell":  # a stay that is not known counts as slow
            continue
        assert (module.screen(clean, spec.defaults()) == -3).all(), name


@EVERY
def test_screen_is_pure_and_looks_at_each_leg_alone(module: ModuleType) -> None:
    m = rows_of(500, 11)
    before = m.matrix.copy()
    p = module.SPEC.defaults()
    whole = module.screen(m, p)
    assert (module.screen(m, p) == whole).all()
    assert (m.matrix == before).all()
    for size in (1, 2, 7):
        parts = [module.screen(m.rows(i, min(i + size, 500)), p) for i in range(0, 500, size)]
        assert (np.concatenate(parts) == whole).all()
    assert len(module.screen(m.rows(0, 0), p)) == 0


@EVERY
def test_screen_reads_only_the_measures_of_its_spec(module: ModuleType) -> None:
    m = rows_of(500, 13)
    p = module.SPEC.defaults()
    whole = module.screen(m, p)
    other = rows_of(500, 14)
    for name in module.SPEC.measures:
        other.matrix[:, MEASURE_INDEX[name]] = m.matrix[:, MEASURE_INDEX[name]]
    other.side = m.side
    assert (module.screen(other, p) == whole).all()


@EVERY
def test_more_than_the_threshold_never_weakens(module: ModuleType) -> None:
    """No amount of the first measure overflows."""
    m = rows_of(50, 17)
    m.matrix[:] = 10**15
    strength = module.screen(m, module.SPEC.defaults())
    assert ((strength >= 0) & (strength <= PPM)).all()


@EVERY
def test_evidence(module: ModuleType) -> None:
    """Inside the window, of this account, oldest first, the same twice, as measured, and through JSON unchanged."""
    spec = module.SPEC
    for case, seen in fired(module):
        view = case.view()
        assert module.explain(case.view(), Params(case.all_params()[case.detector])) == seen
        assert list(seen.rows) == sorted(set(seen.rows))
        if spec.id != "own-account-or-household":
            assert seen.rows, case.name
        for row in seen.rows:
            assert seen.window_from <= view.time[row] <= seen.window_to
            assert not view.ignored[row]
        assert seen.window_to == view.now
        assert seen.observed
        assert seen.baseline
        for item in (*seen.observed, *seen.baseline):
            assert item.value == view.measure(item.measure)
            assert (item.threshold is None) == (item.param == "")
        assert {item.measure for item in seen.observed} <= set(spec.measures)
        assert msgspec.json.decode(msgspec.json.encode(seen), type=Evidence) == seen


COUNTED = {
    "rapid-pass-through": "pass_episodes",
    "rapid-cash-out": "cash_outs",
    "commission-retention": "kept_episodes",
    "structuring": "band_deposits",
    "fan-in": "payers",
    "victim-collection-account": "collect_payers",
}


@pytest.mark.parametrize("module", [m for m in ALL if m.SPEC.id in COUNTED], ids=lambda m: m.SPEC.id)
def test_evidence_agrees_with_the_measure(module: ModuleType) -> None:
    """The rows that `explain` finds are as many as the measure counted."""
    for case, seen in fired(module):
        view = case.view()
        credits = [row for row in seen.rows if view.side[row] == Side.CREDIT]
        by_party = module.SPEC.id in ("fan-in", "victim-collection-account")
        found = len({int(view.party[row]) for row in credits}) if by_party else len(credits)
        assert found == view.measure(COUNTED[module.SPEC.id]), case.name


@EVERY
def test_moving_all_times_by_days_changes_nothing(module: ModuleType) -> None:
    for case in cases_of(module):
        moved = replace(
            case,
            legs=[replace(leg, time=leg.time + DAY_SHIFT) for leg in case.legs],
            facts=[
                msgspec.structs.replace(
                    fact,
                    opened=None if fact.opened is None else fact.opened + DAY_SHIFT,
                    observed_since=None if fact.observed_since is None else fact.observed_since + DAY_SHIFT,
                )
                for fact in case.facts
            ],
            flags=[
                msgspec.structs.replace(
                    flag,
                    effective_at=flag.effective_at + DAY_SHIFT,
                    expires=None if flag.expires is None else flag.expires + DAY_SHIFT,
                )
                for flag in case.flags
            ],
        )
        assert moved.screen() == case.screen(), case.name


@EVERY
def test_what_came_long_before_the_look_back_changes_nothing(module: ModuleType) -> None:
    """An old payment of a stranger, outside every window."""
    for case in cases_of(module):
        old = replace(legs_of(["-399d in 77.00 u from STRANGER merchant card"])[0], leg=99_999 * 2 + 1)
        if case.detector == "dormant-reactivation" or (case.facts[0].observed_since or 0) > old.time:
            continue  # the whole prefix matters there; or nothing can be that old
        assert (
            replace(case, legs=sorted([old, *case.legs], key=lambda leg: leg.order)).screen() == case.screen()
        ), case.name


@EVERY
def test_arrival_order_and_duplicates_change_nothing(module: ModuleType) -> None:
    for case in cases_of(module):
        records = [*case.legs, *case.legs[::2]]
        random.Random(5).shuffle(records)
        assert canonical(records).rows == case.legs, case.name


@EVERY
def test_no_loop_and_no_threshold_in_screen(module: ModuleType) -> None:
    """Numbers in `screen` are 0, 1, 2 (halves) or named; everything else is a parameter."""
    tree = ast.parse(inspect.getsource(module.screen))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.ListComp)]
    numbers = [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, int | float)
    ]
    assert set(numbers) <= {0, 1, 2}


def test_the_registry_holds_every_file() -> None:
    files = {name for _, name, _ in pkgutil.iter_modules(catalogue.__path__)}
    assert files == {module.SPEC.module for module in ALL}
    assert len(set(IDS)) == len(IDS)


def test_catalogue_files_stay_readable() -> None:
    for module in ALL:
        source = inspect.getsource(importlib.import_module(module.__name__))
        assert len(source.splitlines()) <= 300, module.__name__
        defined = {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert defined == {"screen", "explain"}, module.__name__


def test_a_detector_that_raises_costs_only_its_own_legs(monkeypatch: pytest.MonkeyPatch) -> None:
    m = rows_of(40, 19)
    arrays = plan(demo_config())
    m.time[:] = np.arange(40)
    before, errors = screen_all(m, arrays)
    assert not errors
    module = ALL[3]
    real = module.screen

    def sour(part: Measures, p: Params) -> np.ndarray:
        if (part.time == 5).any():
            raise ZeroDivisionError
        return real(part, p)

    monkeypatch.setattr(module, "screen", sour)
    after, errors = screen_all(m, arrays)
    assert errors == [(module.SPEC.id, "ZeroDivisionError")]
    assert after[5, 3] == -4
    before[5, 3] = -4
    assert (after == before).all()


def test_outcome_words() -> None:
    assert [outcome(v) for v in (0, 1, -1)] == ["quiet", "fired", "not computable history_too_short"]
