"""`safehold judge`: the same bytes every time, the file's own names, one clear line for what cannot be judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams import opening
from streams.cli.exits import Exit
from streams.formats import canonical
from tests.cli.samples import BANK, COLLECTOR, MULE, canonical_lines, payments, write_csv


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The sample as CSV, its mapping, and its accounts."""
    file, mapping = write_csv(tmp_path)
    accounts = tmp_path / "accounts.csv"
    accounts.write_text(f"account,opened,kind\n{COLLECTOR},2024-01-10,personal\n{MULE},2024-01-15,personal\n")
    return file, mapping, accounts


def _judge(cli, files: tuple[Path, Path, Path], out: Path, *more: str) -> tuple[list[dict], dict]:
    file, mapping, accounts = files
    ran = cli("judge", file, "--mapping", mapping, "--accounts", accounts, "--out", out, *more)
    assert ran.code == Exit.OK, ran.err
    lines = (out / "recommendations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads((out / "summary.json").read_text())


def test_the_file_is_judged_and_everything_adds_up(cli, files, tmp_path: Path) -> None:
    found, summary = _judge(cli, files, tmp_path / "out")
    assert summary["transactions"] == len(payments())
    assert summary["judged"] == summary["legs"] > 0
    assert summary["late"] == summary["duplicates"] == summary["conflicts"] == summary["rejects"] == 0
    assert summary["balanced"]
    assert summary["recommendations"] == len(found) == sum(summary["by_action"].values())
    assert summary["legs_per_second"] > 0


def test_every_line_has_what_a_reader_relies_on(cli, files, tmp_path: Path) -> None:
    found, _ = _judge(cli, files, tmp_path / "out")
    assert found
    for body in found:
        assert {
            "recommendation_id",
            "subject_account",
            "event_time",
            "action",
            "typology",
            "role",
        } <= body.keys()
        assert body["reasons"]
        for reason in body["reasons"]:
            assert reason["indicator"]
            assert reason["points"] > 0
            assert reason["tx_ids"]
            assert reason["plain_sentence"]
    order = [(body["event_time"], body["recommendation_id"]) for body in found]
    assert order == sorted(order)


def test_reveal_writes_the_files_own_names(cli, files, tmp_path: Path) -> None:
    hidden, _ = _judge(cli, files, tmp_path / "hidden")
    shown, _ = _judge(cli, files, tmp_path / "shown", "--reveal")
    assert {body["subject_account"] for body in shown} == {COLLECTOR, MULE}
    own = {payment.tx_id: payment for payment in payments()}
    for body in shown:
        assert body["trigger_tx"] in own
        for reason in body["reasons"]:
            for tx_id in reason["tx_ids"]:
                ends = {own[tx_id].debtor.account, own[tx_id].creditor.account}
                assert body["subject_account"] in ends, (tx_id, body["subject_account"])
    assert not {MULE, COLLECTOR} & {body["subject_account"] for body in hidden}
    text = (tmp_path / "hidden" / "recommendations.jsonl").read_text()
    assert "T00" not in text
    assert "north/9" not in text
    # Nothing else differs.
    for one, other in zip(hidden, shown, strict=True):
        assert one["recommendation_id"] == other["recommendation_id"]
        assert one["points_low"] == other["points_low"]


@pytest.mark.parametrize("partitions", [1, 4])
def test_the_same_bytes_whatever_the_partitions(cli, files, tmp_path: Path, partitions: int) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    _judge(cli, files, first)
    _judge(cli, files, second, "--partitions", str(partitions))
    assert (first / "recommendations.jsonl").read_bytes() == (second / "recommendations.jsonl").read_bytes()


def test_the_same_bytes_as_canonical_json(cli, files, tmp_path: Path) -> None:
    """The two ways through a file, columns and payments one by one, cannot differ."""
    lines = tmp_path / "payments.jsonl"
    lines.write_bytes(canonical_lines())
    _, mapping, accounts = files
    mapping.write_text(mapping.read_text().replace("observed_since: first-record\n", ""))
    _judge(cli, files, tmp_path / "columns")
    out = tmp_path / "canonical"
    ran = cli("judge", lines, "-m", "canonical", "--bank", BANK, "--accounts", accounts, "--out", out)
    assert ran.code == Exit.OK, ran.err
    for name in ("columns", "canonical"):
        for line in (tmp_path / name / "recommendations.jsonl").read_text().splitlines():
            assert json.loads(line)["reasons"]
    assert (out / "recommendations.jsonl").read_bytes() == (
        tmp_path / "columns" / "recommendations.jsonl"
    ).read_bytes()


def test_a_configuration_changes_what_is_said(cli, files, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet.yaml"
    quiet.write_text("version: quiet\nmode: advise\nmax_action: monitor\n")
    found, _ = _judge(cli, files, tmp_path / "out", "--config", str(quiet))
    assert {body["action"] for body in found} == {"monitor"}
    assert {body["config_version"] for body in found} == {"quiet"}


def test_rejects_are_counted_and_listed_with_their_row(cli, files, tmp_path: Path) -> None:
    file, *_ = files
    lines = file.read_text().splitlines()
    lines[3] = lines[3].replace("T0002", "").replace(lines[3].split(",")[1], "yesterday")
    file.write_text("\n".join(lines) + "\n")
    _, summary = _judge(cli, files, tmp_path / "out")
    assert summary["rejects"] == 1
    (reject,) = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert reject["row"] == 3  # line 4 of the file: the header is no row
    assert summary["rejects_by_reason"] == {reject["reason"]: 1}


def test_a_row_is_the_same_whoever_refuses_it(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the decoder, or later by what a ledger row can hold; in any batch; empty lines are no rows."""
    monkeypatch.setattr(opening, "BATCH", 2)
    good = json.loads(canonical.encode(payments()[0]))

    def one(number: int, **changes: object) -> str:
        return json.dumps({**good, "transaction_id": f"T{number}", **changes})

    rows = [one(1), one(2, currency="??"), one(3), one(4, amount="99999999999999999.00")]
    rows.append("[" + ", ".join([one(5), one(6), one(7, amount="-1.00")]) + "]")
    file = tmp_path / "payments.jsonl"
    file.write_text("\n" + "\n\n".join(rows) + "\n{\n")
    ran = cli("judge", file, "-m", "canonical", "--bank", BANK, "--out", tmp_path / "out")
    assert ran.code == Exit.OK, ran.err
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert sorted(reject["row"] for reject in rejects) == [2, 4, 5, 6]


def test_a_second_copy_of_the_file_is_only_duplicates(cli, files, tmp_path: Path) -> None:
    file, *_ = files
    before, _ = _judge(cli, files, tmp_path / "once")
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *(row for row in rows for _ in range(2))]) + "\n")
    after, summary = _judge(cli, files, tmp_path / "twice")
    assert summary["duplicates"] == summary["judged"] > 0
    assert after == before


def test_json_is_the_summary(cli, files, tmp_path: Path) -> None:
    file, mapping, _ = files
    ran = cli("judge", file, "-m", mapping, "--out", tmp_path / "out", "--json")
    assert ran.json == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert ran.err == ""


def test_explain_reads_the_file(cli, files, tmp_path: Path) -> None:
    found, _ = _judge(cli, files, tmp_path / "out", "--reveal")
    best = max(found, key=lambda body: body["points_low"])
    ran = cli("explain", best["recommendation_id"][:12], "--file", tmp_path / "out" / "recommendations.jsonl")
    assert ran.code == Exit.OK
    for part in (
        "Why: ",
        "What speaks against it",
        "What would change this",
        "What is not known",
        best["subject_account"],
    ):
        assert part in ran.out
    assert best["reasons"][0]["tx_ids"][-1] in ran.out
    assert cli("explain", "zz", "--file", tmp_path / "out" / "recommendations.jsonl").code == Exit.FAILED
    assert cli("explain", "zz", "--file", tmp_path / "nowhere.jsonl").code == Exit.INPUT


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no file", "is not there"),
        ("no mapping", "mapping"),
        ("bad mapping", "sample.yaml:"),
        ("no column", "no column"),
        ("no booked", "booked"),
        ("bad accounts", "every row needs `account`"),
        ("bad config", "no usable configuration"),
    ],
)
def test_what_cannot_be_judged_is_one_clear_line(cli, files, tmp_path: Path, change: str, said: str) -> None:
    file, mapping, accounts = files
    config: list[str] = []
    match change:
        case "no file":
            file = tmp_path / "nowhere.csv"
        case "no mapping":
            mapping = tmp_path / "nowhere.yaml"
        case "bad mapping":
            mapping.write_text(mapping.read_text().replace("currency: EUR", "currency: EVR"))
        case "no column":
            mapping.write_text(mapping.read_text().replace("amount: amount", "amount: sum"))
        case "no booked":
            mapping.write_text(mapping.read_text().replace("booked: true", "booked: false"))
        case "bad accounts":
            accounts.write_text("number\n1\n")
        case "bad config":
            (tmp_path / "c.yaml").write_text("mode: advise\n")
            config = ["--config", str(tmp_path / "c.yaml")]
    ran = cli("judge", file, "-m", mapping, "--accounts", accounts, "--out", tmp_path / "out", *config)
    assert ran.code == Exit.INPUT
    assert said in ran.err
    assert not (tmp_path / "out" / "recommendations.jsonl").exists()


def test_an_accounts_file_is_read_by_name_and_nothing_else(tmp_path: Path) -> None:
    from streams.opening import ACCOUNT_COLUMNS, read_accounts

    file = tmp_path / "accounts.csv"
    file.write_text("account,opened,illicit,role,name\nA,2024-01-31,1,mule,Somebody\n")
    assert read_accounts(file) == [{"account": "A", "opened": "2024-01-31"}]
    assert not {"illicit", "role", "name", "nationality"} & set(ACCOUNT_COLUMNS)
