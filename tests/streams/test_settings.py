"""Settings: every problem at once and by name, nothing guessed, no secret shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from detectors.model import DAY, HOUR, SECOND, Mode
from streams.settings import FIELDS, TOPIC_FIELDS, BankTopic, Settings, SettingsError, load, markdown
from streams.settings_values import DURATION, REQUIRED, Field, Secret, duration, show_duration

LEAST: dict[str, Any] = {
    "bootstrap_servers": ["localhost:9092"],
    "member_id": "w1",
    "pseudonym_key_file": "pseudonym.key",
    "redis_url": "redis://localhost:6379/0",
    "topics": [{"name": "bank.payments"}],
}


def settings(tmp_path: Path, changes: dict[str, Any] | None = None, **environment: str) -> Settings:
    path = tmp_path / "safehold.yaml"
    path.write_text(yaml.safe_dump(LEAST | (changes or {})))
    return load(path, environment)


def problems(tmp_path: Path, changes: dict[str, Any] | None = None, **environment: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, changes, **environment)
    return refused.value.problems


def test_the_page_is_current(checkout: Path) -> None:
    assert (checkout / "docs/settings.md").read_text() == markdown()


def iso(name: str, **more: Any) -> dict[str, Any]:
    """A topic of bank alpha in ISO 20022."""
    return {"name": name, "format": "pacs008", "bank": "alpha", "bank_codes": ["ALPHDEFF"], **more}


def test_what_an_iso_20022_topic_says_of_its_bank(tmp_path: Path) -> None:
    (topic,) = settings(tmp_path, {"topics": [iso("p", zone="Europe/Berlin", party_class="personal")]}).topics
    assert (topic.bank_codes, topic.zone, topic.party_class) == (("ALPHDEFF",), "Europe/Berlin", "personal")


def test_the_table_and_the_types_agree() -> None:
    assert [field.name for field in FIELDS] == list(dict.fromkeys(field.name for field in FIELDS))
    assert {field.name for field in FIELDS} == set(Settings.__struct_fields__)
    assert {field.name for field in TOPIC_FIELDS} == set(BankTopic.__struct_fields__)


@pytest.mark.parametrize("field", [*FIELDS, *TOPIC_FIELDS], ids=lambda field: field.name)
def test_a_bound_has_its_reason_and_holds_the_default(field: Field) -> None:
    bounded = field.low is not None or field.high is not None
    assert bounded == bool(field.why)
    if bounded and isinstance(field.default, int):
        assert (field.low or 0) <= field.default <= (field.high or field.default)
    assert field.about.endswith((".", ")"))


def test_the_defaults(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert found.mode is Mode.OBSERVE
    assert (found.lateness, found.spread, found.flush_interval) == (6 * HOUR, 24 * HOUR, 10 * SECOND)
    assert found.topics == (BankTopic(name="bank.payments"),)
    assert found.observed_since is None
    assert found.health_host == "127.0.0.1"


def test_a_variable_overlays_the_file(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        {"lateness": "1h", "health_port": 1},
        SAFEHOLD_LATENESS="96h",
        SAFEHOLD_HEALTH_PORT="0",
        SAFEHOLD_REDIS_CLUSTER="true",
        SAFEHOLD_OBSERVED_SINCE="1970-01-03",
        SAFEHOLD_BOOTSTRAP_SERVERS="a:1, [::1]:2",
        SAFEHOLD_TOPICS='[{"name": "x", "format": "camt054", "bank": "alpha", "lateness": "4d"}]',
        OTHER="ignored",
    )
    assert (found.lateness, found.health_port, found.redis_cluster) == (96 * HOUR, 0, True)
    assert found.observed_since == 2 * DAY
    assert found.bootstrap_servers == ("a:1", "[::1]:2")
    assert found.topics == (BankTopic(name="x", format="camt054", bank="alpha", lateness=4 * DAY),)


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path) -> None:
    assert settings(tmp_path, {"lateness": "1h"}, SAFEHOLD_LATENESS="").lateness == HOUR


def test_without_a_file_variables_are_enough() -> None:
    found = load(
        None,
        {
            "SAFEHOLD_BOOTSTRAP_SERVERS": "k:9092",
            "SAFEHOLD_MEMBER_ID": "w1",
            "SAFEHOLD_PSEUDONYM_KEY_FILE": "k",
            "SAFEHOLD_REDIS_URL": "redis://r",
            "SAFEHOLD_TOPICS": "[{name: t}]",
        },
    )
    assert found.member_id == "w1"


def test_everything_that_is_needed_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, {})
    needed = [field.name for field in FIELDS if field.default is REQUIRED]
    assert [problem.split(" ")[0] for problem in refused.value.problems] == needed


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {
            "flush_interval": "31s",
            "lateness": 6,
            "health_prot": 1,
            "mode": "shout",
            "ledger_partitions": 0,
            "topics": [{"name": "a b"}, {"nme": "x"}, {"name": "ok", "format": "mapping"}, 7],
        },
        SAFEHOLD_SPRAED="1h",
    )
    assert sorted(found) == sorted(
        [
            "SAFEHOLD_SPRAED is not a setting (did you mean SAFEHOLD_SPREAD?)",
            "health_prot is not a setting (did you mean health_port?)",
            "flush_interval is above 30s (what a crash makes the worker judge again; at most 30 s is promised)",
            "lateness must be a number with a unit out of us, ms, s, m, h, d (for example 30s)",
            "mode must be one of learn, observe, advise, not 'shout'",
            "ledger_partitions is below 1 (more than one worker could ever use; the number is stored with the state)",
            "topics[0].name must be a Kafka topic name: letters, digits, dots, hyphens, underscores, at most 249",
            "topics[1].nme is not a setting (did you mean name?)",
            "topics[1].name is needed: Topic that the bank writes payments to. It must exist.",
            "topics[2].mapping is needed with format mapping",
            "topics[2].bank is needed with format mapping: such messages do not say who reports",
            "topics[3] must be a set of names and values",
        ]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"security_protocol": "SASL_SSL"}, ["sasl_username is needed", "sasl_password is needed"]),
        ({"ssl_cert_file": "c.pem"}, ["ssl_cert_file and ssl_key_file are needed together"]),
        ({"redis_url": "http://x"}, ["redis_url is needed"]),
        ({"redis_url": ""}, ["redis_url is needed"]),
        ({"redis_ca_file": "ca.pem"}, ["redis_ca_file has no use"]),
        ({"redis_url": "unix:///r.sock", "redis_cluster": True}, ["redis_cluster cannot"]),
        ({"vault_key_file": "pseudonym.key"}, ["vault_key_file must not be pseudonym_key_file"]),
        ({"topics": [{"name": "safehold.ledger.v1"}]}, ["topics: safehold.ledger.v1 begins with"]),
        ({"topics": [{"name": "t"}, {"name": "t"}]}, ["topics: t stands there twice"]),
        ({"topics": []}, ["topics must be a list with at least one"]),
        ({"bootstrap_servers": "localhost"}, ["bootstrap_servers must be a list of host:port"]),
        ({"member_id": True}, ["member_id must be text"]),
        ({"redis_cluster": "yes"}, ["redis_cluster must be true or false"]),
        ({"health_port": 70_000}, ["health_port is above 65535"]),
        ({"observed_since": "January"}, ["observed_since must be a date"]),
        ({"topics": [iso("p", bank_codes=[])]}, ["topics[0].bank_codes are needed with format pacs008"]),
        ({"topics": [iso("p", bank_codes=[37040044])]}, ["topics[0].bank_codes must be a list"]),
        ({"topics": [iso("p", zone="Berlin")]}, ["topics[0].zone must be a time zone"]),
        ({"topics": [iso("p", party_class="person")]}, ["topics[0].party_class must be one of"]),
        (
            {"topics": [iso("p"), iso("q", bank="beta")]},
            ["topics: the bank code ALPHDEFF stands for alpha and"],
        ),
        (
            {"topics": [iso("p"), iso("q", format="camt054", bank_codes=[])]},
            ["topics: all ISO 20022 feeds of"],
        ),
        (
            {"topics": [iso("p", format="mapping", mapping="berka")]},
            ["topics[0].bank_codes has no use with format mapping"],
        ),
    ],
)
def test_what_cannot_be(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    found = problems(tmp_path, changes)
    assert len(found) == len(words)
    for problem, start in zip(found, words, strict=True):
        assert problem.startswith(start)


def test_memory_needs_no_address(tmp_path: Path) -> None:
    assert settings(tmp_path, {"store": "memory", "redis_url": None}).store == "memory"


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "topics:\n  - {name: x, name: y}\n", "- a\n", "a: [", "\x00"]
)
def test_yaml_that_hides_something_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "safehold.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"safehold\.yaml"):
        load(path, {})


def test_no_file_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml cannot be read \(FileNotFoundError\)"):
        load(tmp_path / "none.yaml", {})


# -- secrets --------------------------------------------------------------------------------------------------------------


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        {"redis_url": "rediss://u:hunter2@h:1/0", "sasl_username": "u", "security_protocol": "SASL_SSL"},
        SAFEHOLD_SASL_PASSWORD="hunter2",
        SAFEHOLD_REDIS_PASSWORD="hunter2",
    )
    assert "hunter2" not in repr(found) + str(found) + f"{found.redis_url!s}{found.redis_url!r}"
    assert found.sasl_password.reveal() == "hunter2"
    assert (bool(Secret("")), bool(found.sasl_password), Secret("a") == Secret("a")) == (False, True, True)


def test_a_bad_secret_is_not_quoted(tmp_path: Path) -> None:
    assert problems(tmp_path, {"redis_password": 12345678}) == (
        "redis_password must be text (put it in quotes)",
    )


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    found = settings(tmp_path, SAFEHOLD_REDIS_PASSWORD_FILE=str(secret))
    assert found.redis_password.reveal() == "hunter2"
    both = problems(tmp_path, SAFEHOLD_REDIS_PASSWORD_FILE=str(secret), SAFEHOLD_REDIS_PASSWORD="x")
    assert both == ("SAFEHOLD_REDIS_PASSWORD_FILE and SAFEHOLD_REDIS_PASSWORD are both set",)
    gone = problems(tmp_path, SAFEHOLD_REDIS_PASSWORD_FILE=str(tmp_path / "none"))
    assert gone == ("SAFEHOLD_REDIS_PASSWORD_FILE: the file cannot be read (FileNotFoundError)",)


# -- durations ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("0s", 0), ("250us", 250), ("1500ms", 1_500_000), ("90 s", 90 * SECOND), ("2d", 2 * DAY)],
)
def test_durations(text: str, value: int) -> None:
    assert duration(text) == value
    assert duration(show_duration(value)) == value


@pytest.mark.parametrize("value", [30, "30", "1.5h", "-1s", "1 week", "", None, "1h30m", True])
def test_a_duration_without_a_unit_is_none(value: object) -> None:
    with pytest.raises(Exception, match="unit"):
        duration(value)


def test_every_duration_setting_is_read_as_one() -> None:
    names = {"redis_timeout", "member_ttl", "lateness", "spread", "stuck_after"}
    names |= {"flush_interval", "snapshot_interval"}
    assert {field.name for field in FIELDS if field.kind is DURATION} == names
