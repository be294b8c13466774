"""The benchmarks run, and their invented bank is what they say it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import kernel, population, report
from detectors.model import DAY
from detectors.step import step
from streams.formats import canonical
from streams.payment import DecodeContext, Payment


def test_every_account_has_its_legs_and_messages_decode() -> None:
    people = population.Population(500)
    moves = people.moves(0, 20)
    rows = population.legs(moves, population.account_ids(0, people.accounts))
    assert len(rows) / people.accounts / 20 == pytest.approx(population.LEGS_A_DAY, rel=0.05)
    assert len(np.unique(rows["leg"])) == len(rows)
    assert (np.diff(rows["time"]) >= 0).all()
    context = DecodeContext(bank=population.BANK)
    for (_, value), time in zip(population.messages(moves), moves.time.tolist(), strict=True):
        (item,) = canonical.decode(value, context)
        assert isinstance(item, Payment)
        assert item.time == time


def test_a_late_row_stays_within_its_lateness() -> None:
    people = population.Population(500)
    rows = population.legs(people.moves(0, 20), population.account_ids(0, people.accounts))
    late = population.delayed(rows, 0.05, kernel.LATE_MOST)
    behind = np.maximum.accumulate(late["time"]) - late["time"]
    assert 0 < behind.max() <= kernel.LATE_MOST
    assert (behind > 0).mean() > 0.04
    state = population.empty_state()
    for frame in population.frames(late):
        step(state, [frame])
    assert state.totals()["late"] == 0


def test_a_copy_is_the_same_bank_under_other_names() -> None:
    copies = population.Copies(population.Population(200), 20)
    state = population.empty_state()
    for subjects, blobs in copies.many(400):
        for subject, blob in zip(subjects.tolist(), blobs, strict=True):
            state.load(subject, blob)
    half = state.n_acc // 2
    held = state.acc["len"][: state.n_acc]
    assert (held[:half] == held[half:]).all()
    assert len(np.unique(state.acc["subject"][: state.n_acc])) == state.n_acc
    for slot in range(state.n_acc):
        first, n = int(state.acc["poff"][slot]), int(state.acc["plen"][slot])
        assert (np.diff(state.parties["party"][first : first + n].astype(object)) > 0).all()
    moves = population.uniform(copies, 400, 300)
    assert moves.time.min() >= population.START + 20 * DAY
    ids = np.concatenate([population.account_ids(0, 200), population.account_ids(200, 400)])
    for frame in population.frames(population.legs(moves, ids, first_leg=1 << 40)):
        step(state, [frame])
    assert state.totals()["late"] == 0


@pytest.mark.slow
def test_the_kernel_figure_runs_and_is_written_down(tmp_path: Path) -> None:
    result = kernel.run(quick=True)
    page = report.save(result, tmp_path).read_text()
    assert "Legs a second" in page
    kept = msgspec.json.decode(next(tmp_path.glob("*/kernel.json")).read_bytes(), type=report.Result)
    assert kept.figures["clean_legs_per_cpu_second"] > 0


def test_pages_for_the_docs_are_whole_and_each_folded_under_its_account() -> None:
    from benchmarks.first_run import folded

    pages = [f"MONITOR: watch\n────\naccount  {name} at bank\nwhy      more\n" for name in ("a1", "b2")]
    text = folded(pages)
    assert text.count("<details open>") == 1
    assert text.count("<details") == text.count("</details>") == 2
    assert "<summary>MONITOR: watch (account b2 at bank)</summary>" in text
    assert all(page.strip() in text for page in pages)
