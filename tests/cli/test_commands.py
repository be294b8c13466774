"""Commands that need no broker: help, exit codes, one clear line for each failure."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streams.cli.exits import Exit

COMMANDS = (
    "demo", "worker", "judge", "replay", "explain", "check-config", "doctor",
    "topics create", "topics check", "alerts list", "alerts tail", "flags add", "flags import", "flags withdraw", "flags list",
    "accounts import", "dlq list", "dlq show", "dlq replay", "detectors list", "detectors show",
)  # fmt: skip
READS = ("alerts list", "alerts tail", "flags list", "dlq list", "dlq show", "detectors list", "detectors show", "topics check",
         "explain", "doctor", "check-config")  # fmt: skip
HEAVY = (
    "numpy",
    "numba",
    "pyarrow",
    "aiokafka",
    "faust",
    "kafka",
    "redis",
    "rich",
    "lxml",
    "msgspec",
    "yaml",
)


def test_help_names_every_command_and_the_exit_codes(cli) -> None:
    ran = cli("--help")
    assert ran.code == Exit.OK
    for command in COMMANDS:
        assert command.partition(" ")[0] in ran.out
    assert "130 interrupted" in " ".join(ran.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli, command: str) -> None:
    ran = cli(*command.split(), "--help")
    assert ran.code == Exit.OK
    assert "Usage: safehold " + command in ran.out


@pytest.mark.parametrize("command", ["", "topics", "alerts", "flags", "accounts", "dlq", "detectors"])
def test_without_a_command_it_explains_itself(cli, command: str) -> None:
    ran = cli(*command.split())
    assert ran.code == Exit.OK
    assert ran.out == cli(*command.split(), "--help").out
    assert ran.err == ""


@pytest.mark.parametrize("command", READS)
def test_every_read_offers_json(cli, command: str) -> None:
    assert "--json" in cli(*command.split(), "--help").out


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_answers_at_once_imports_nothing_heavy(option: str) -> None:
    """What `--help` costs is what it imports."""
    code = f"""
import sys
from streams.cli import main
assert main([{option!r}]) == 0
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(ran.stderr.replace("'", '"'))) <= ({"msgspec"} if option == "--version" else set())


def test_what_reads_topics_does_not_wait_for_the_compiler() -> None:
    """`alerts`, `explain`, `dlq`, `topics`, `flags`: numba alone takes half a second."""
    modules = "publish, latest, page, topics, reading, settings, pseudonyms"
    code = f"import sys\nfrom streams import {modules}\nprint({{'numba', 'pyarrow', 'faust'}} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_python_dash_m_is_the_same_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "streams.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SAFEHOLD_REVISION": "abc123"},
    )
    assert re.fullmatch(r"safehold \d+\.\d+\.\d+, revision abc123\n", ran.stdout)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["judge"], ["detectors", "show"], ["judge", "--no-such-option"]]
)
def test_a_wrong_command_line_is_two(cli, arguments: list[str]) -> None:
    ran = cli(*arguments)
    assert ran.code == Exit.USAGE
    assert ran.err


# -- detectors ------------------------------------------------------------------------------------------------------


def test_detectors_list_has_every_detector(cli) -> None:
    from detectors.catalogue import SPECS

    listed = cli("detectors", "list", "--json").json
    assert [item["id"] for item in listed] == [spec.id for spec in SPECS]
    text = cli("detectors", "list").out
    assert all(spec.title in " ".join(text.split()) for spec in SPECS)
    assert max(len(line) for line in text.splitlines()) <= 80


def test_detectors_show_gives_numbers_with_units_and_sources(cli) -> None:
    out = cli("detectors", "show", "rapid-pass-through").out
    assert "300.00 u" in out
    assert "sources" in out
    assert "look-alikes" in out


def test_an_unknown_detector_is_one_line_with_a_hint(cli) -> None:
    ran = cli("detectors", "show", "fan-im")
    assert ran.code == Exit.FAILED
    assert "did you mean fan-in?" in ran.err
    assert "look: safehold detectors list" in ran.err


# -- check-config ---------------------------------------------------------------------------------------------------


def test_the_shipped_configuration_is_valid(cli) -> None:
    ran = cli("check-config", "--json")
    assert ran.code == Exit.OK
    assert ran.json["valid"]
    assert ran.json["mode"] == "observe"


def test_check_config_reports_every_problem_with_its_place(cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("version: mine\nmode: adwise\ndetectors:\n  fan-in:\n    min_payers: 1\n  fan-uot: {}\n")
    ran = cli("check-config", file)
    assert ran.code == Exit.INPUT
    for place in ("mine.yaml:2:7", "mine.yaml:5:17", "mine.yaml:6:3"):
        assert place in ran.err
    answer = cli("check-config", file, "--json")
    assert answer.code == Exit.INPUT
    assert [problem["line"] for problem in answer.json["problems"]] == [2, 5, 6]


# -- doctor ---------------------------------------------------------------------------------------------------------


def test_doctor_without_settings_looks_at_the_machine(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAFEHOLD_BOOTSTRAP_SERVERS", raising=False)
    ran = cli("doctor", "--json")
    assert ran.code == Exit.OK
    names = {finding["name"]: finding["state"] for finding in ran.json["findings"]}
    assert names["python"] == names["packages"] == names["name streams"] == names["name detectors"] == "ok"
    assert names["settings"] == "skip"


def test_doctor_says_what_is_wrong_with_an_installation(cli, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("not a key")
    key.chmod(0o644)
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        json.dumps(
            {
                "bootstrap_servers": ["127.0.0.1:1"],
                "topics": [{"name": "payments", "bank": "north"}],
                "member_id": "w1",
                "redis_url": "redis://127.0.0.1:1/0",
                "pseudonym_key_file": str(key),
            }
        )
    )
    ran = cli("doctor", "--settings", settings, "--json")
    assert ran.code == Exit.FAILED
    states = {finding["name"]: finding for finding in ran.json["findings"]}
    assert states["kafka"]["state"] == "fail"
    assert "start the brokers" in states["kafka"]["do"]
    assert not [
        finding for finding in states.values() if "doctor" in finding["do"]
    ]  # who reads it has just run it
    assert states["store"]["state"] == "fail"
    assert "chmod 600" in states["pseudonym key"]["found"]
    assert all(
        finding["do"]
        for finding in states.values()
        if finding["state"] == "fail" and finding["name"] != "vault key"
    )


def test_doctor_reports_every_problem_of_the_settings(cli, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("member_id: w1\nledger_partitions: none\n")
    ran = cli("doctor", "--settings", settings)
    assert ran.code == Exit.FAILED
    assert max(len(line) for line in ran.out.splitlines()) <= 80
    starts = [line[20:] for line in ran.out.splitlines()]
    for name in ("bootstrap_servers is needed", "ledger_partitions must be"):
        assert [line for line in starts if line.startswith(name)]  # each problem begins a line


# -- settings and broker --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["topics check", "alerts list", "flags list", "dlq list", "worker"])
def test_settings_that_cannot_be_used_are_listed(cli, tmp_path: Path, command: str) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("member_id: w1\n")
    ran = cli(*command.split(), "--settings", settings)
    assert ran.code == Exit.INPUT
    assert "topics" in ran.err
    assert "docs/settings.md" in ran.err


@pytest.mark.parametrize("command", ["topics check", "alerts list", "flags list", "dlq list"])
def test_a_broker_that_does_not_answer_is_one_line(cli, tmp_path: Path, command: str) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        json.dumps(
            {
                "bootstrap_servers": ["127.0.0.1:1"],
                "topics": [{"name": "payments", "bank": "north"}],
                "member_id": "w1",
                "redis_url": "redis://127.0.0.1:1/0",
                "pseudonym_key_file": "k",
            }
        )
    )
    ran = cli(*command.split(), "--settings", settings)
    assert ran.code == Exit.UNREACHABLE
    assert "Kafka at 127.0.0.1:1 does not answer" in ran.err
    assert "safehold doctor" in ran.err
    # What the client logs itself only shows in a process of its own.
    alone = subprocess.run(
        [sys.executable, "-m", "streams.cli", *command.split(), "--settings", settings],
        capture_output=True,
        text=True,
        check=False,
    )
    first, look = alone.stderr.splitlines()
    assert first.startswith("safehold: Kafka at 127.0.0.1:1 does not answer (")
    assert first.count("KafkaConnectionError") <= 1
    assert look.startswith("  look: ")


def test_every_exit_code_and_account_column_stands_in_the_docs(checkout: Path) -> None:
    from streams.opening import ACCOUNT_COLUMNS

    page = (checkout / "docs" / "cli.md").read_text()
    codes = page.partition("## Exit codes")[2].partition("## An accounts file")[0]
    assert [code for code in Exit if str(int(code)) not in codes] == []
    assert [
        name for name in ACCOUNT_COLUMNS if f"`{name}`" not in page.partition("## An accounts file")[2]
    ] == []
    assert [command for command in COMMANDS if command.partition(" ")[0] not in page] == []
