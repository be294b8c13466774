"""The worker's settings: one YAML file, overlaid by `SAFEHOLD_*` variables. Every problem is reported, by name, at once.

`FIELDS` is the one table of them; `docs/settings.md` is written from it. Durations are written with a unit (`30s`, `6h`)
and held as integer microseconds, as everywhere in the core.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from detectors.model import DAY, HOUR, MINUTE, SECOND, Mode
from streams.formats.codes import CLASSES
from streams.settings_values import (
    BOOLEAN,
    CURRENCY,
    DATE,
    DURATION,
    INTEGER,
    NAME,
    PREFIX,
    REQUIRED,
    SECRET,
    SERVERS,
    TEXT,
    TOPIC_NAME,
    BadValue,
    Field,
    Kind,
    Secret,
    SettingsError,
    StrictLoader,
    markdown_table,
    read_fields,
    yaml_place,
)
from streams.zones import UnknownZone, zone

FORMATS = ("canonical", "pacs008", "camt054", "mapping")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
STORES = ("redis", "memory")
PERSISTENCE = ("none", "rdb", "aof")
MODES = tuple(mode.value for mode in Mode)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
NOT_SETTINGS = frozenset(
    {
        "SAFEHOLD_CACHE",
        "SAFEHOLD_CRASH_AT",
        "SAFEHOLD_PSEUDONYM_KEY",
        "SAFEHOLD_REQUIRE_RIGS",
        "SAFEHOLD_REVISION",
    }
)
"""Variables of other commands, the build and the tests."""


class BankTopic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic that a bank writes payments to."""

    name: str
    format: str = "canonical"
    """canonical, pacs008, camt054, or mapping."""
    bank: str = ""
    """The bank that reports on this topic, for formats that do not say it in each message."""
    mapping: str = ""
    """Name or file of the mapping, for format `mapping`."""
    system_wide: bool = False
    """The feed reports both sides whoever holds the accounts."""
    lateness: int | None = None
    """How late its payments may come, µs. None: the worker's `lateness`."""
    currency: str = ""
    """Currency of messages that name none."""
    bank_codes: tuple[str, ...] = ()
    """BICs and clearing codes that mean `bank`."""
    zone: str = "UTC"
    """Zone of times that name none."""
    party_class: str = "unknown"
    """What accounts are of which a message says nothing."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker runs with. See `FIELDS` for what each one means."""

    bootstrap_servers: tuple[str, ...]
    topics: tuple[BankTopic, ...]
    member_id: str
    security_protocol: str
    ssl_ca_file: str
    ssl_cert_file: str
    ssl_key_file: str
    sasl_mechanism: str
    sasl_username: str
    sasl_password: Secret
    topic_prefix: str
    ledger_partitions: int
    replication_factor: int
    generation: str
    store: str
    redis_url: Secret
    redis_username: str
    redis_password: Secret
    redis_ca_file: str
    redis_persistence: str
    redis_namespace: str
    redis_cluster: bool
    redis_timeout: int
    member_ttl: int
    pseudonym_key_file: str
    vault_key_file: str
    config_file: str
    mode: Mode
    observed_since: int | None
    lateness: int
    spread: int
    stuck_after: int
    flush_interval: int
    flush_accounts: int
    snapshot_dir: str
    snapshot_interval: int
    accept_gap: bool
    health_host: str
    health_port: int
    log_level: str


def _topics(value: object) -> tuple[BankTopic, ...]:
    if isinstance(value, str):
        try:
            value = yaml.load(value, StrictLoader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError as problem:
            raise BadValue(f"is not YAML: {yaml_place(problem)}") from None
    if not isinstance(value, list) or not value:
        raise BadValue("must be a list with at least one topic")
    problems: list[str] = []
    topics = []
    for number, item in enumerate(value):
        if not isinstance(item, Mapping):
            problems.append(f"topics[{number}] must be a set of names and values")
            continue
        found: list[str] = []
        values = read_fields(TOPIC_FIELDS, item, found)
        problems += [f"topics[{number}].{problem}" for problem in found]
        if not found:
            topics.append(BankTopic(**values))
            problems += [f"topics[{number}].{problem}" for problem in _topic_problems(topics[-1])]
    problems += _code_problems(topics)
    names = [topic.name for topic in topics]
    problems += [
        f"topics: {name} stands there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if problems:
        raise SettingsError(problems)
    return tuple(topics)


def _topic_problems(topic: BankTopic) -> list[str]:
    problems = []
    if topic.format == "mapping" and not topic.mapping:
        problems.append("mapping is needed with format mapping")
    if topic.format != "mapping" and topic.mapping:
        problems.append(f"mapping has no use with format {topic.format}")
    if topic.format != "canonical" and not topic.bank:
        problems.append(f"bank is needed with format {topic.format}: such messages do not say who reports")
    if topic.format == "mapping":
        problems += [
            f"{name} has no use with format mapping: the mapping says it"
            for name, unused in (("bank_codes", ()), ("zone", "UTC"), ("party_class", "unknown"))
            if getattr(topic, name) != unused
        ]
    if topic.bank_codes and not topic.bank:
        problems.append("bank_codes are of a bank: bank is needed")
    # Without them every payment would be accepted and none judged.
    if topic.format == "pacs008" and not topic.bank_codes and not topic.system_wide:
        problems.append("bank_codes are needed with format pacs008: nothing else says what is held here")
    return problems


def _code_problems(topics: list[BankTopic]) -> list[str]:
    """A code means one bank; and what stands before a bank's account numbers must not differ from feed to feed."""
    banks: defaultdict[str, set[str]] = defaultdict(set)
    codes: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for topic in topics:
        for code in topic.bank_codes:
            banks[code.upper()].add(topic.bank)
        if topic.format in ("pacs008", "camt054"):
            codes[topic.bank].add(tuple(sorted(topic.bank_codes)))
    return [
        f"topics: the bank code {code} stands for {' and for '.join(sorted(meant))}"
        for code, meant in banks.items()
        if len(meant) > 1
    ] + [
        f"topics: all ISO 20022 feeds of {bank} need the same bank_codes"
        for bank, several in codes.items()
        if len(several) > 1
    ]


def _codes(value: object) -> tuple[str, ...]:
    codes = value if isinstance(value, list) else [value]
    if not all(isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9]{1,35}", code) for code in codes):
        raise BadValue("must be a list of BICs or clearing codes: letters and digits (put numbers in quotes)")
    return tuple(codes)


def _zone(value: object) -> str:
    try:
        return zone(str(value)).key
    except UnknownZone:
        raise BadValue("must be a time zone such as Europe/Berlin") from None


MODE = Kind("one of a list", lambda value: Mode(str(value)))
TOPICS = Kind("list of topics", _topics)
CODES = Kind("list of codes", _codes)
ZONE = Kind("time zone", _zone)


# -- the table ------------------------------------------------------------------------------------------------------------


TOPIC_FIELDS: tuple[Field, ...] = (
    Field("name", TOPIC_NAME, REQUIRED, "Topic that the bank writes payments to. It must exist."),
    Field("format", TEXT, "canonical", "What one message is.", choices=FORMATS),
    Field("bank", NAME, "", "The bank that reports here. Needed unless the format is canonical."),
    Field("mapping", TEXT, "", "Name or file of the mapping. Needed with format mapping."),
    Field("system_wide", BOOLEAN, False, "The feed reports both sides, whoever holds the accounts."),
    Field(
        "lateness",
        DURATION,
        None,
        "How late its payments may come. Without it, the worker's lateness.",
        low=0,
        high=30 * DAY,
        why="a wait of more than a month would make every answer a month old",
    ),
    Field("currency", CURRENCY, "", "Currency of messages that name none."),
    Field(
        "bank_codes",
        CODES,
        (),
        "BICs (branches count with them) and clearing codes that mean this bank. Needed with format pacs008.",
    ),
    Field("zone", ZONE, "UTC", "Zone of times without an offset, as the tz database names it."),
    Field(
        "party_class",
        TEXT,
        "unknown",
        "What accounts are of which a message says nothing. `personal` only where it is true of nearly all of them.",
        choices=tuple(CLASSES),
    ),
)

FIELDS: tuple[Field, ...] = (
    # Kafka
    Field("bootstrap_servers", SERVERS, REQUIRED, "Kafka brokers to ask first."),
    Field(
        "topics", TOPICS, REQUIRED, "The bank topics and what each carries. In the variable: YAML or JSON."
    ),
    Field(
        "member_id", NAME, REQUIRED, "Static member id: the same after a restart, another for each worker."
    ),
    Field("security_protocol", TEXT, "PLAINTEXT", "How brokers are spoken to.", choices=PROTOCOLS),
    Field("ssl_ca_file", TEXT, "", "Certificates that may sign the brokers'. Without it, the system's."),
    Field("ssl_cert_file", TEXT, "", "This worker's certificate, where brokers ask for one."),
    Field("ssl_key_file", TEXT, "", "The key of that certificate."),
    Field("sasl_mechanism", TEXT, "SCRAM-SHA-512", "How the worker proves who it is.", choices=MECHANISMS),
    Field("sasl_username", TEXT, "", "Needed with a SASL protocol."),
    Field("sasl_password", SECRET, Secret(""), "Needed with a SASL protocol."),
    # The ledger
    Field("topic_prefix", TOPIC_NAME, "safehold", "First part of the name of every topic of Safehold's own."),
    Field(
        "ledger_partitions",
        INTEGER,
        12,
        "Partitions of the ledger. It cannot be changed without a new generation.",
        low=1,
        high=4096,
        why="more than one worker could ever use; the number is stored with the state",
    ),
    Field(
        "replication_factor",
        INTEGER,
        3,
        "Copies of each of Safehold's topics, when it creates them.",
        low=1,
        high=7,
        why="a broker cluster has seldom more",
    ),
    Field("generation", NAME, "g1", "Name of the ledger's generation: its offsets mean nothing in another."),
    # The state store
    Field(
        "store",
        TEXT,
        "redis",
        "memory forgets everything at the end: for a first look only.",
        choices=STORES,
    ),
    Field("redis_url", SECRET, Secret(""), "redis://, rediss:// (TLS) or unix://. It may hold a password."),
    Field("redis_username", TEXT, "", "ACL user."),
    Field("redis_password", SECRET, Secret(""), "Its password, when it is not in the address."),
    Field("redis_ca_file", TEXT, "", "Certificates that may sign the server's. Without it, the system's."),
    Field(
        "redis_persistence",
        TEXT,
        "aof",
        "What the server must be set to. none: every restart of it is a rebuild from snapshots and the ledger.",
        choices=PERSISTENCE,
    ),
    Field("redis_namespace", NAME, "sh", "First part of every key."),
    Field("redis_cluster", BOOLEAN, False, "The address is a node of a Redis Cluster."),
    Field(
        "redis_timeout",
        DURATION,
        5 * SECOND,
        "Longest wait for one answer.",
        low=100 * 1000,
        high=30 * SECOND,
        why="shorter fails under load, longer holds a partition past its session",
    ),
    Field(
        "member_ttl",
        DURATION,
        6 * SECOND,
        "How long a killed worker's member id stays taken. Renewed three times as often.",
        low=2 * SECOND,
        high=60 * SECOND,
        why="shorter loses the id in one slow second, longer delays the restart",
    ),
    # Keys, configuration, what is said
    Field("pseudonym_key_file", TEXT, REQUIRED, "The keys of the keyed hashes of accounts and transactions."),
    Field(
        "vault_key_file",
        TEXT,
        "",
        "The keys of the vault. Without it nobody can get from hashes to accounts.",
    ),
    Field("config_file", TEXT, "", "Detector configuration. Without it, the defaults."),
    Field(
        "mode",
        MODE,
        Mode.OBSERVE,
        "What is said: nothing, to the observe topic, to the review topics.",
        choices=MODES,
    ),
    # Time
    Field(
        "observed_since",
        DATE,
        None,
        "From when on the topics hold everything. Without it, an account's first leg.",
    ),
    Field(
        "lateness",
        DURATION,
        6 * HOUR,
        "L: how late a payment may come behind the newest one before it.",
        low=MINUTE,
        high=30 * DAY,
        why="a wait of more than a month would make every answer a month old",
    ),
    Field(
        "spread",
        DURATION,
        24 * HOUR,
        "A: how far intake may run ahead of what is judged, in event time.",
        low=HOUR,
        high=7 * DAY,
        why="below an hour intake stalls on every pause; each day of it keeps seven more days of legs open",
    ),
    Field(
        "stuck_after",
        DURATION,
        30 * SECOND,
        "How long a source partition that has a backlog and gives nothing holds the others. Then they go on without it.",
        low=20 * SECOND,
        high=HOUR,
        why="another worker takes over within 20 s: until then nothing is stuck; an hour without answers is an outage",
    ),
    # Writing down
    Field(
        "flush_interval",
        DURATION,
        10 * SECOND,
        "Longest time between two writes of the state.",
        low=100 * 1000,
        high=30 * SECOND,
        why="what a crash makes the worker judge again; at most 30 s is promised",
    ),
    Field(
        "flush_accounts",
        INTEGER,
        50_000,
        "Changed accounts in one partition after which the state is written earlier.",
        low=500,
        high=1_000_000,
        why="one write is up to 500 accounts; above a million a flush outlasts its interval",
    ),
    Field(
        "snapshot_dir",
        TEXT,
        "",
        "Folder of the snapshots, on storage that outlives Redis. Without it, none.",
    ),
    Field(
        "snapshot_interval",
        DURATION,
        DAY,
        "Time between two snapshots of a partition. The ledger must keep three of them.",
        low=MINUTE,
        high=DAY,
        why="daily at least: a rebuild replays what came since",
    ),
    Field(
        "accept_gap",
        BOOLEAN,
        False,
        "Go on where the ledger begins later than a partition's state ends. Records are lost; every account of the partition is "
        "marked. For one start, by decision: `safehold worker --accept-gap`.",
    ),
    # Being watched
    Field("health_host", TEXT, "127.0.0.1", "Address of /metrics, /livez and /readyz. They have no login."),
    Field(
        "health_port",
        INTEGER,
        9464,
        "Their port. 0: any free one.",
        low=0,
        high=65535,
        why="the range of ports",
    ),
    Field("log_level", TEXT, "INFO", "Least serious record that is written.", choices=LEVELS),
)


# -- reading --------------------------------------------------------------------------------------------------------------


def _overlay(environment: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """What the environment sets. `<variable>_FILE` names a file that holds a secret."""
    known = {field.variable: field for field in FIELDS}
    files = {f"{field.variable}_FILE": field for field in FIELDS if field.secret}
    found: dict[str, str] = {}
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        if field := known.get(variable):
            if environment[variable] != "":
                found[field.name] = environment[variable]
        elif field := files.get(variable):
            if field.variable in environment:
                problems.append(f"{variable} and {field.variable} are both set")
            try:
                found[field.name] = Path(environment[variable]).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as problem:
                problems.append(f"{variable}: the file cannot be read ({type(problem).__name__})")
        elif variable not in NOT_SETTINGS:
            near = difflib.get_close_matches(variable, known, n=1)
            problems.append(f"{variable} is not a setting" + (f" (did you mean {near[0]}?)" if near else ""))
    return found


def _contradictions(settings: Settings) -> list[str]:
    """What is wrong with the whole although each part is right."""
    problems = []
    if settings.security_protocol.startswith("SASL"):
        problems += [
            f"{name} is needed with security_protocol {settings.security_protocol}"
            for name in ("sasl_username", "sasl_password")
            if not getattr(settings, name)
        ]
    if bool(settings.ssl_cert_file) != bool(settings.ssl_key_file):
        problems.append("ssl_cert_file and ssl_key_file are needed together")
    if settings.store == "redis":
        url = settings.redis_url.reveal()
        if not url.startswith(("redis://", "rediss://", "unix://")):
            problems.append("redis_url is needed with store redis: redis://, rediss:// or unix://")
        if settings.redis_ca_file and not url.startswith("rediss://"):
            problems.append("redis_ca_file has no use unless redis_url is rediss://")
        if settings.redis_cluster and url.startswith("unix://"):
            problems.append("redis_cluster cannot be reached through unix://")
    if settings.vault_key_file and settings.vault_key_file == settings.pseudonym_key_file:
        problems.append(
            "vault_key_file must not be pseudonym_key_file: who can hash must not be able to read back"
        )
    own = f"{settings.topic_prefix}."
    problems += [
        f"topics: {topic.name} begins with {own}, which is kept for Safehold's own topics"
        for topic in settings.topics
        if topic.name.startswith(own)
    ]
    return problems


def load(path: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from a YAML file (may be None) overlaid by `SAFEHOLD_*` variables. Raises `SettingsError`."""
    problems: list[str] = []
    given: dict[Any, Any] = {}
    if path is not None:
        try:
            document = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)  # noqa: S506 - a SafeLoader
        except (OSError, UnicodeDecodeError) as problem:
            raise SettingsError([f"{path.name} cannot be read ({type(problem).__name__})"]) from None
        except yaml.YAMLError as problem:
            raise SettingsError([f"{path.name}: {yaml_place(problem)}"]) from None
        if document is not None and not isinstance(document, dict):
            raise SettingsError([f"{path.name} must be a set of names and values"])
        given.update(document or {})
    given.update(_overlay(os.environ if environment is None else environment, problems))
    values = read_fields(FIELDS, given, problems)
    if problems:
        raise SettingsError(problems)
    settings = Settings(**values)
    if problems := _contradictions(settings):
        raise SettingsError(problems)
    return settings


# -- documentation --------------------------------------------------------------------------------------------------------


def markdown() -> str:
    """`docs/settings.md`."""
    return "\n".join(
        [
            "# Settings of a worker",
            "",
            "Written from `streams/settings.py`; a test keeps it current.",
            "",
            "One YAML file, overlaid by the environment variables named below each setting. Durations carry a unit",
            "(`30s`, `6h`, `1d`). A secret may also come from a file: `SAFEHOLD_REDIS_PASSWORD_FILE=/run/secrets/redis`.",
            "Unknown names, in the file or among the `SAFEHOLD_*` variables, are errors; all problems are reported at once.",
            "",
            *markdown_table(FIELDS, variables=True),
            "",
            "## One bank topic",
            "",
            *markdown_table(TOPIC_FIELDS, variables=False),
            "",
        ]
    )
