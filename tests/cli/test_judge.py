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
        ("no column", 'payments.csv has no column sum; it has: "id", "at", "amount", '),
        ("wrong delimiter", '"id;at;amount;payer;payee;payer_bank;payee_bank;how" (is `delimiter` right?)'),
        ("no booked", "booked"),
        ("bad accounts", "every row needs `account`; there is no such column"),
        ("empty account", "every row needs `account`; row 2 has none"),
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
        case "wrong delimiter":
            file.write_text(file.read_text().replace(",", ";"))
        case "empty account":
            accounts.write_text("account,kind\n1,personal\n,personal\n")
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


def test_the_last_line_is_what_to_type_next(cli, files, tmp_path: Path) -> None:
    file, mapping, accounts = files
    out = tmp_path / "out"
    ran = cli("judge", file, "-m", mapping, "--accounts", accounts, "--out", out)
    found = [json.loads(line) for line in (out / "recommendations.jsonl").read_text().splitlines()]
    lines = ran.out.splitlines()
    words = lines[-1].split()
    assert words[:3] == ["next:", "safehold", "explain"]
    (meant,) = [body for body in found if body["recommendation_id"].startswith(words[3])]
    actions = ("monitor", "hold-and-review", "freeze")
    assert actions.index(meant["action"]) == max(actions.index(body["action"]) for body in found)
    assert cli(*words[2:]).code == Exit.OK
    assert [line for line in lines[:-1] if len(line) > 80 and str(out) not in line] == []
    assert "about 2 accounts" in ran.out


def test_rejects_name_their_file(cli, files, tmp_path: Path) -> None:
    file, mapping, _ = files
    file.write_text(file.read_text() + "broken\n")
    ran = cli("judge", file, "-m", mapping, "--out", tmp_path / "out")
    assert ran.code == Exit.OK
    assert f"see {tmp_path / 'out' / 'rejects.jsonl'}" in ran.err


@pytest.mark.parametrize(
    ("change", "said", "look"),
    [
        ("no leg", "no payment has a side at the bank 'north'", "`bank_codes`, or `empty_bank: reporting`"),
        ("canonical", "no payment has a side at the bank 'elsewhere'", "--bank must be the `agent`"),
        ("all refused", "every payment was refused", "rejects.jsonl"),
        ("nothing", "the file holds no payments", ""),
    ],
)
def test_where_nothing_was_judged_it_says_why_and_ends_with_one(
    cli, files, tmp_path: Path, change: str, said: str, look: str
) -> None:
    file, mapping, _ = files
    more: list[str] = []
    match change:
        case "no leg":
            mapping.write_text(mapping.read_text().replace("bank_codes: [N]", "bank_codes: [Z]"))
        case "canonical":
            file, mapping, more = tmp_path / "p.jsonl", Path("canonical"), ["--bank", "elsewhere"]
            file.write_bytes(canonical_lines())
        case "all refused":
            head, *rows = file.read_text().splitlines()
            file.write_text("\n".join([head, *("," + row.partition(",")[2] for row in rows)]) + "\n")
        case "nothing":
            file.write_text(file.read_text().partition("\n")[0] + "\n")
    ran = cli("judge", file, "-m", mapping, "--out", tmp_path / "out", *more)
    assert ran.code == Exit.FAILED
    assert f"nothing was judged: {said}" in ran.err
    assert look in ran.err
    assert (tmp_path / "out" / "summary.json").exists()


def test_the_mapping_of_the_docs_judges_a_file(cli, tmp_path: Path, checkout: Path) -> None:
    page = (checkout / "docs" / "formats.md").read_text()
    example = page.partition("A whole one")[2].partition("```yaml\n")[2].partition("```")[0]
    mapping, file = tmp_path / "my.yaml", tmp_path / "export.csv"
    mapping.write_text(example)
    head = page.partition("with the header `")[2].partition("`")[0]
    file.write_text(f"{head}\n1,2024-05-01T12:00:00,12.30,A,B\n2,2024-05-01T13:00:00,7.00,B,C\n")
    ran = cli("judge", file, "-m", mapping, "--out", tmp_path / "out", "--json")
    assert ran.code == Exit.OK, ran.err
    assert (ran.json["transactions"], ran.json["judged"], ran.json["rejects"]) == (2, 4, 0)


def test_a_file_that_holds_no_recommendations_is_told_by_line(cli, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    for text, said in (("nonsense\n", "line 1 is not JSON"), ('\n{"a": 1}\n', "line 2 is no recommendation")):
        file.write_text(text)
        ran = cli("explain", "aa", "--file", file)
        assert ran.code == Exit.INPUT
        assert said in ran.err


def test_kinds_that_are_none_are_told(cli, tmp_path: Path) -> None:
    file = tmp_path / "accounts.csv"
    file.write_text("account,kind\n1,personal\n2,privat\n3,privat\n4,\n")
    ran = cli("accounts", "import", file, "--dry-run")
    assert "'privat' (2)" in ran.err
    assert cli("accounts", "import", file, "--dry-run", "--json").json["unknown_kinds"] == {"privat": 2}
