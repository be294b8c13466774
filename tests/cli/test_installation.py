"""Commands that talk to topics, on the embedded broker."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from streams.cli.exits import Exit
from streams.controls import AccountMessage, FlagMessage
from streams.publish import ACTION, CAUSE, WITHDRAWN, Cause, Message, cloud_event, dead_letter
from tests.cli.conftest import BANK, Installation

HASH = "00000000000000ab"


def _said(
    installation: Installation,
    identity: str,
    *,
    action: str,
    offset: int,
    time: int = 10**15,
    withdrawn: bool = False,
    typology: str = "money-mule-network",
) -> Message:
    body = {
        "recommendation_id": identity,
        "event_time": time,
        "action": action,
        "subject_account": HASH,
        "typology": typology,
        "points_low": 12_340_000,
        "points_high": 13_000_000,
    }
    headers = [
        *cloud_event("safehold.recommendation.v1", identity, "test"),
        (CAUSE, str(Cause("g1", 0, offset, 0)).encode()),
        (ACTION, action.encode()),
    ]
    if withdrawn:
        headers.append((WITHDRAWN, b"true"))
    value = b"{}" if withdrawn else json.dumps(body).encode()
    return Message(installation.names.review(BANK), HASH.encode(), value, headers)


# -- topics ---------------------------------------------------------------------------------------------------------


def test_topics_check_passes_and_create_has_nothing_left(cli, installation: Installation) -> None:
    assert cli("topics", "check", "-s", installation.settings).code == Exit.OK
    made = cli("topics", "create", "-s", installation.settings, "--json")
    assert made.code == Exit.OK
    assert made.json == {"created": [], "problems": []}


def test_topics_create_makes_what_is_missing(cli, installation: Installation) -> None:
    before = cli("topics", "check", "-s", installation.settings, "--bank", "south")
    assert before.code == Exit.FAILED
    assert "does not exist" in before.err
    made = cli("topics", "create", "-s", installation.settings, "--bank", "south", "--json")
    assert made.json["created"] == [installation.names.review("south")]
    assert cli("topics", "check", "-s", installation.settings, "--bank", "south").code == Exit.OK


def test_topics_check_shows_a_topic_of_the_bank_that_is_missing(
    cli, installation: Installation, tmp_path: Path
) -> None:
    document = json.loads(installation.settings.read_text())
    document["topics"].append({"name": "nowhere", "bank": BANK})
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(document))
    ran = cli("topics", "create", "-s", other, "--json")
    assert ran.code == Exit.FAILED
    assert ran.json["created"] == []
    assert "nowhere" in ran.json["problems"][0]
    for command in ("create", "check"):
        said = cli("topics", command, "-s", other).err
        assert "the bank creates its own topics; Safehold never does" in said
        assert "topics create" not in said  # it would not help
    (kafka,) = [
        found for found in cli("doctor", "-s", other, "--json").json["findings"] if found["name"] == "kafka"
    ]
    assert "the bank creates its own topics" in kafka["found"]
    assert "topics create" not in kafka["do"]


def test_a_broker_that_says_no_is_not_one_that_does_not_answer(installation: Installation) -> None:
    import aiokafka.errors
    import kafka.errors

    from streams.cli.connect import admin, run, settings_of
    from streams.cli.exits import CliError

    chosen = settings_of(installation.settings)

    async def raises(problem: Exception) -> None:
        raise problem

    def through_admin(problem: Exception) -> None:
        with admin(chosen):
            raise problem

    for through, errors in (
        (through_admin, kafka.errors),
        (lambda problem: run(chosen, raises(problem)), aiokafka.errors),
    ):
        with pytest.raises(CliError, match=r"refused \(TopicAuthorizationFailedError") as no:
            through(errors.TopicAuthorizationFailedError("a raw request"))
        assert no.value.code == Exit.FAILED
        assert "raw request" not in str(no.value)
        with pytest.raises(CliError, match="does not answer") as away:
            through(errors.RequestTimedOutError())
        assert away.value.code == Exit.UNREACHABLE


# -- alerts and explain ---------------------------------------------------------------------------------------------


def test_alerts_list_shows_the_latest_word_on_each(cli, installation: Installation) -> None:
    installation.send(
        _said(installation, "aa", action="monitor", offset=1),
        _said(installation, "bb", action="monitor", offset=2, time=2 * 10**15),
        _said(installation, "aa", action="freeze", offset=5),
        _said(installation, "aa", action="monitor", offset=3),  # a zombie's late word
        _said(installation, "cc", action="hold-and-review", offset=6),
        _said(installation, "cc", action="hold-and-review", offset=7, withdrawn=True),
    )
    listed = cli("alerts", "list", "-s", installation.settings, "--json").json
    assert [(item["recommendation_id"], item["action"], item["revision"]) for item in listed] == [
        ("bb", "monitor", 1),
        ("aa", "freeze", 2),
    ]
    assert [
        x["recommendation_id"]
        for x in cli("alerts", "list", "-s", installation.settings, "--json", "--withdrawn").json
    ] == [
        "bb",
        "aa",
        "cc",
    ]
    text = cli("alerts", "list", "-s", installation.settings, "--least", "freeze").out
    assert "aa" in text
    assert "bb" not in text
    (row,) = text.splitlines()[2:]
    assert "12.34+" in row.split()
    assert max(len(line) for line in text.splitlines()) <= 80


def test_alerts_list_fits_eighty_characters_at_its_longest(cli, installation: Installation) -> None:
    from detectors.model import ACTION_NAMES

    messages = [
        _said(
            installation, f"{number:032x}", action=action, offset=number, typology="unattributed-laundering"
        )
        for number, action in enumerate(ACTION_NAMES[1:], 1)
    ]
    installation.send(*messages)
    lines = cli("alerts", "list", "-s", installation.settings).out.splitlines()
    assert max(map(len, lines)) <= 80
    for number, action in enumerate(ACTION_NAMES[1:], 1):
        (row,) = [line for line in lines if action in line]
        assert row.startswith(f"{number:032x}"[:8] + "  ")
        assert HASH in row


def test_alerts_list_says_where_to_look_when_there_are_none(cli, installation: Installation) -> None:
    listed = cli("alerts", "list", "-s", installation.settings)
    assert listed.out == "none on the review topics; mode is observe: add --observe\n"
    assert (
        cli("alerts", "list", "--observe", "-s", installation.settings).out == "none on the observe topic\n"
    )
    missing = cli("explain", "aa", "--observe", "-s", installation.settings)
    assert "safehold alerts list --observe" in missing.err


def test_alerts_tail_prints_revisions_and_withdrawals_in_order(cli, installation: Installation) -> None:
    installation.send(
        _said(installation, "aa", action="monitor", offset=1),
        _said(installation, "aa", action="freeze", offset=2),
        _said(installation, "aa", action="freeze", offset=3, withdrawn=True),
    )
    ran = cli("alerts", "tail", "-s", installation.settings, "--from-beginning", "--count", "3", "--json")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [(line["revision"], line["withdrawn"]) for line in lines] == [(1, False), (2, False), (3, True)]
    assert [line["action"] for line in lines] == ["monitor", "freeze", "freeze"]
    assert f"waiting for {installation.names.review(BANK)}" in ran.err


def test_an_unknown_action_or_bank_is_refused(cli, installation: Installation) -> None:
    assert cli("alerts", "list", "-s", installation.settings, "--least", "block").code == Exit.USAGE
    for command in ("list", "tail"):
        ran = cli("alerts", command, "-s", installation.settings, "--bank", "elsewhere")
        assert ran.code == Exit.USAGE
        assert "the settings do not name the bank 'elsewhere'" in ran.err
        assert BANK in ran.err


def test_explain_finds_by_the_beginning_of_an_id(cli, installation: Installation) -> None:
    installation.send(
        _said(installation, "aa1", action="monitor", offset=1),
        _said(installation, "aa2", action="monitor", offset=2),
    )
    assert cli("explain", "aa1", "-s", installation.settings, "--json").json["recommendation_id"] == "aa1"
    several = cli("explain", "aa", "-s", installation.settings)
    assert several.code == Exit.FAILED
    assert "could be any of 2" in several.err
    assert cli("explain", "zz", "-s", installation.settings).code == Exit.FAILED


# -- dead letters ---------------------------------------------------------------------------------------------------


def _letter(installation: Installation, offset: int, reason: str, value: bytes = b"{broken") -> Message:
    return dead_letter(
        installation.names.deadletters,
        coordinate=f"{installation.source}/1/{offset}/0",
        reason=reason,
        detail="why",
        value=value,
        key=b"k",
        received=1_700_000_000_000_000,
    )


def test_dlq_lists_each_letter_once_and_counts_reasons(cli, installation: Installation) -> None:
    installation.send(
        _letter(installation, 4, "undecodable"),
        _letter(installation, 4, "undecodable"),
        _letter(installation, 9, "invalid"),
    )
    listed = cli("dlq", "list", "-s", installation.settings, "--json").json
    assert listed["total"] == 2
    assert listed["by_reason"] == {"invalid": 1, "undecodable": 1}
    text = cli("dlq", "list", "-s", installation.settings).out
    assert "{broken" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    shown = cli("dlq", "show", f"{installation.source}/1/4/0", "-s", installation.settings, "--json").json
    assert shown["value"] == "{broken"
    assert cli("dlq", "show", "no/such/one/0", "-s", installation.settings).code == Exit.FAILED


def test_dlq_replay_sends_the_same_bytes_to_the_same_partition(cli, installation: Installation) -> None:
    installation.send(_letter(installation, 4, "invalid", b"again"), _letter(installation, 5, "undecodable"))
    assert cli("dlq", "replay", "-s", installation.settings).code == Exit.USAGE
    dry = cli("dlq", "replay", "--reason", "invalid", "--dry-run", "-s", installation.settings, "--json").json
    assert dry == {"sent": 0, "messages": [f"{installation.source}/1/4"]}
    sent = cli("dlq", "replay", "--reason", "invalid", "-s", installation.settings, "--json").json
    assert sent["sent"] == 1
    (record,) = installation.read(installation.source)
    assert (record.partition, record.key, record.value) == (1, b"k", b"again")
    assert dict(record.headers)["safehold-as-of"] == b"1700000000000000"


# -- flags and accounts ---------------------------------------------------------------------------------------------


def test_a_flag_is_added_listed_and_withdrawn(cli, installation: Installation) -> None:
    added = cli(
        "flags", "add", "--account", "north/17", "--bank", BANK, "--source", "partner", "--reason", "seen", "--by", "ada",
        "--expires", "2030-01-01", "--id", "f1", "-s", installation.settings, "--json",
    )  # fmt: skip
    assert added.json["flags"] == [{"flag_id": "f1", "state": "confirmed"}]
    (listed,) = cli("flags", "list", "-s", installation.settings, "--json").json
    assert (listed["account"], listed["confirmed_by"], listed["expires"]) == (
        "north/17",
        ["ada"],
        1_893_456_000_000_000,
    )
    ended = cli("flags", "withdraw", "f1", "--reason", "a mistake", "-s", installation.settings, "--json")
    assert ended.json["flags"] == [{"flag_id": "f1", "state": "withdrawn"}]
    assert cli("flags", "list", "-s", installation.settings, "--json").json == []
    assert cli("flags", "list", "-s", installation.settings).out.startswith("no flags")
    again = cli("flags", "withdraw", "f1", "--reason", "twice", "-s", installation.settings)
    assert again.code == Exit.FAILED
    assert "flag f1 was withdrawn already" in again.err
    assert len(installation.read(installation.names.flags)) == 2
    (gone,) = cli("flags", "list", "--all", "-s", installation.settings, "--json").json
    assert (gone["state"], gone["reason"]) == ("withdrawn", "a mistake")
    assert cli("flags", "withdraw", "f2", "--reason", "x", "-s", installation.settings).code == Exit.FAILED


def test_when_a_flag_ends_is_a_date(cli, installation: Installation, tmp_path: Path) -> None:
    common = ("--source", "partner", "--reason", "seen", "--by", "ada", "-s", installation.settings)
    refused = cli("flags", "add", "--account", "north/16", "--expires", "2020-01-31", *common)
    assert refused.code == Exit.USAGE
    assert "in the past" in refused.err
    assert installation.read(installation.names.flags) == []
    cli("flags", "add", "--account", "north/17", "--expires", "2190-01-31", "--id", "f1", *common)
    old = tmp_path / "old.csv"
    old.write_text("flag_id,account,source,confirmed_by,expires\nf2,north/18,ngo,bo,2020-01-31\n")
    cli("flags", "import", old, "-s", installation.settings)
    shown = cli("flags", "list", "-s", installation.settings).out
    assert "2190-01-31" in shown
    assert "f2" not in shown
    everything = cli("flags", "list", "--all", "-s", installation.settings).out
    (ended,) = [line.split() for line in everything.splitlines() if line.startswith("f2")]
    assert ended[1:4] == ["expired", "2020-01-31", "north/18"]
    assert max(len(line) for line in everything.splitlines()) <= 80


def test_a_flag_that_nobody_confirmed_is_only_proposed(cli, installation: Installation) -> None:
    added = cli(
        "flags",
        "add",
        "--subject",
        HASH,
        "--source",
        "p",
        "--reason",
        "r",
        "-s",
        installation.settings,
        "--json",
    )
    assert added.json["flags"][0]["state"] == "proposed"
    assert (
        cli("flags", "add", "--source", "p", "--reason", "r", "-s", installation.settings).code == Exit.USAGE
    )


def test_what_flags_and_accounts_send_is_what_the_worker_reads(
    cli, installation: Installation, tmp_path: Path
) -> None:
    """The messages go through the worker's own reader."""
    from streams.controls import Controls
    from streams.pseudonyms import PUBLIC_KEY, Pseudonyms

    flags = tmp_path / "flags.csv"
    flags.write_text(
        "flag_id,account,bank,source,reason,confirmed_by,expires\nf1,north/1,north,ngo,seen,ada;bo,2030-01-01\n"
    )
    accounts = tmp_path / "accounts.csv"
    accounts.write_text(
        "account,opened,kind,household,illicit\nnorth/1,2024-01-31,personal,north/2;north/3,1\n"
    )
    assert cli("flags", "import", flags, "-s", installation.settings).code == Exit.OK
    assert cli("accounts", "import", accounts, "--bank", BANK, "-s", installation.settings).code == Exit.OK
    controls = Controls(Pseudonyms(PUBLIC_KEY), lambda config: "")
    (flag,) = installation.read(installation.names.flags)
    (account,) = installation.read(installation.names.accounts)
    assert controls.flag(flag.value, 0).record.confirmed_by == ("ada", "bo")
    fact = controls.account(account.value, 0).record
    assert fact.opened == 1_706_659_200_000_000
    assert len(fact.household) == 2
    assert fact.subject == controls.flag(flag.value, 0).record.party
    assert b"illicit" not in account.value
    assert msgspec.json.decode(flag.value, type=FlagMessage).flag_id == "f1"
    assert msgspec.json.decode(account.value, type=AccountMessage).bank == BANK


def test_of_two_flags_with_one_id_the_account_says_which(cli, installation: Installation) -> None:
    for account in ("DE89 3704 0044 0532 0130 00", "south/17"):
        cli(
            "flags", "add", "--account", account, "--source", "p", "--reason", "r", "--by", "ada", "--id", "f1",
            "-s", installation.settings,
        )  # fmt: skip
    listed = cli("flags", "list", "-s", installation.settings, "--json").json
    assert sorted(flag["account"] for flag in listed) == ["DE89 3704 0044 0532 0130 00", "south/17"]
    which = cli("flags", "withdraw", "f1", "--reason", "x", "-s", installation.settings)
    assert which.code == Exit.USAGE
    assert "south/17" in which.err
    ended = ("flags", "withdraw", "f1", "--reason", "x", "--account", "de89370400440532013000")
    assert cli(*ended, "-s", installation.settings).code == Exit.OK
    (left,) = cli("flags", "list", "-s", installation.settings, "--json").json
    assert left["account"] == "south/17"
    nobody = cli(
        "flags", "withdraw", "f1", "--reason", "x", "--account", "south/18", "-s", installation.settings
    )
    assert nobody.code == Exit.FAILED


@pytest.mark.parametrize("numbers", ["900", "north/900", "DE89370400440532013000"])
def test_facts_apply_to_the_accounts_that_payments_name_alike(
    cli, installation: Installation, tmp_path: Path, numbers: str
) -> None:
    """Import accounts, send payments that name the same ids: the age of the account is known where it is judged."""
    from detectors.config import default_config
    from streams.controls import Controls
    from streams.formats import canonical
    from streams.judge import FileJudge
    from streams.payment import DecodeContext, Payment
    from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
    from tests.cli.samples import MULE, payments

    accounts = tmp_path / "accounts.csv"
    accounts.write_text(f"account,opened\n{numbers},2024-01-15\n")
    assert cli("accounts", "import", accounts, "--bank", BANK, "-s", installation.settings).code == Exit.OK
    (message,) = installation.read(installation.names.accounts)
    fact = Controls(Pseudonyms(PUBLIC_KEY), lambda config: "").account(message.value, 0).record
    sent = [
        canonical.encode(payment).replace(f'"{MULE}"'.encode(), f'"{numbers}"'.encode())
        for payment in payments()
    ]
    batch = [item for value in sent for item in canonical.decode(value, DecodeContext(bank=BANK))]
    assert all(isinstance(item, Payment) for item in batch)
    missing = []
    for known in ([], [fact]):
        judge = FileJudge(default_config())
        judge.control(known)
        judge.take(batch)
        judge.finish(1.0)
        bodies = [said.body for said in judge.standing.values() if said.subject == fact.subject]
        assert bodies
        missing.append({item.indicator for body in bodies for item in body.not_computable})
    assert "new-account-velocity" in missing[0] - missing[1]


def test_accounts_are_written_as_iso_20022_feeds_name_them(
    cli, installation: Installation, tmp_path: Path
) -> None:
    accounts = tmp_path / "accounts.csv"
    accounts.write_text("account,household\n17,18;ALPHDEFF/19\nDE89 3704 0044 0532 0130 00,\n")
    ran = cli(
        "accounts",
        "import",
        accounts,
        "--bank",
        "alpha",
        "--qualify",
        "ALPHDEFF",
        "-s",
        installation.settings,
    )
    assert ran.code == Exit.OK, ran.err
    found = [
        msgspec.json.decode(record.value, type=AccountMessage)
        for record in installation.read(installation.names.accounts)
    ]
    assert [(message.account, message.household) for message in found] == [
        ("ALPHDEFF/17", ["ALPHDEFF/18", "ALPHDEFF/19"]),
        ("DE89370400440532013000", []),
    ]


def test_an_import_with_a_bad_row_sends_nothing(cli, installation: Installation, tmp_path: Path) -> None:
    flags = tmp_path / "flags.jsonl"
    flags.write_text(
        '{"account": "north/1", "source": "ngo"}\n{"source": "ngo"}\n{"account": "a", "source": ""}\n'
    )
    ran = cli("flags", "import", flags, "-s", installation.settings)
    assert ran.code == Exit.INPUT
    assert "2 of 3 rows" in ran.err
    assert "row 2: needs account or subject" in ran.err
    assert installation.read(installation.names.flags) == []


@pytest.mark.parametrize(
    ("text", "expected"), [("account\nA\n", 0), ("number\nA\n", Exit.INPUT), ("account,opened\nA,soon\n", 3)]
)
def test_accounts_import_checks_the_file_first(cli, tmp_path: Path, text: str, expected: int) -> None:
    file = tmp_path / "accounts.csv"
    file.write_text(text)
    assert cli("accounts", "import", file, "--dry-run").code == expected


# -- replay ---------------------------------------------------------------------------------------------------------


def test_replay_sends_canonical_messages_in_order(cli, installation: Installation, tmp_path: Path) -> None:
    from streams.formats import canonical
    from streams.payment import DecodeContext
    from tests.cli.samples import canonical_lines, payments

    file = tmp_path / "payments.jsonl"
    file.write_bytes(canonical_lines() + b"not json\n")
    ran = cli(
        "replay",
        file,
        "--topic",
        installation.source,
        "-m",
        "canonical",
        "--bank",
        BANK,
        "-s",
        installation.settings,
        "--json",
    )
    assert ran.code == Exit.OK
    assert (ran.json["sent"], ran.json["rejected"]) == (len(payments()), 1)
    records = installation.read(installation.source)
    got = [canonical.decode(record.value, DecodeContext(bank=BANK))[0] for record in records]
    assert sorted(got, key=lambda p: p.tx_id) == sorted(payments(), key=lambda p: p.tx_id)
    for partition in {record.partition for record in records}:
        times = [p.time for p, record in zip(got, records, strict=True) if record.partition == partition]
        assert times == sorted(times)


def test_a_paced_replay_says_how_long_it_takes(cli, installation: Installation, tmp_path: Path) -> None:
    from tests.cli.samples import canonical_lines, payments

    file = tmp_path / "payments.jsonl"
    file.write_bytes(canonical_lines())
    common = ("--topic", installation.source, "-m", "canonical", "--bank", BANK, "-s", installation.settings)
    ran = cli("replay", file, "--speed", "1000/s", *common)
    assert ran.code == Exit.OK, ran.err
    assert f"{len(payments())} payments, 2024-01-01 09:00 to 2024-02-0" in ran.err
    assert "at 1000/s this takes 0:00" in ran.err.splitlines()[0]


def test_replay_refuses_a_topic_or_a_speed_that_is_none(
    cli, installation: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "payments.jsonl"
    file.write_bytes(b"")
    common = ("-m", "canonical", "--bank", BANK, "-s", str(installation.settings))
    assert cli("replay", file, "--topic", "nowhere", *common).code == Exit.FAILED
    assert cli("replay", file, "--topic", installation.source, "--speed", "fast", *common).code == Exit.USAGE
