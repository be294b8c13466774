"""Names, settings, creation and checking of every topic that Safehold uses.

A topic must exist before the worker starts: Faust subscribes to nothing otherwise, in silence. So they are created first,
and every difference is reported at once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError, for_code

DAY_MS = 86_400_000
FOREVER = -1
SAID = 200
"""Characters of a broker's own words that are passed on."""
_LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The name of each topic. `prefix` sets installations on one cluster apart."""

    prefix: str = "safehold"

    def __post_init__(self) -> None:
        if not _LEGAL.fullmatch(self.prefix):
            raise ValueError(f"{self.prefix!r} is no prefix for topic names")

    @property
    def ledger(self) -> str:
        return f"{self.prefix}.ledger.v1"

    def review(self, bank: str) -> str:
        """The review topic of a bank. A bank id that Kafka would refuse in a name is refused here."""
        name = f"{self.prefix}.review.{bank}.v1"
        if not bank or not _LEGAL.fullmatch(name):
            raise ValueError(
                f"bank id {bank!r} cannot be part of a topic name: use letters, digits, '.', '_', '-'"
            )
        return name

    @property
    def observe(self) -> str:
        return f"{self.prefix}.observe.v1"

    @property
    def hits(self) -> str:
        return f"{self.prefix}.hits.v1"

    @property
    def deadletters(self) -> str:
        return f"{self.prefix}.deadletters.v1"

    @property
    def vault(self) -> str:
        return f"{self.prefix}.vault.v1"

    @property
    def flags(self) -> str:
        return f"{self.prefix}.flags.v1"

    @property
    def accounts(self) -> str:
        return f"{self.prefix}.accounts.v1"

    @property
    def decisions(self) -> str:
        return f"{self.prefix}.decisions.v1"

    @property
    def config(self) -> str:
        return f"{self.prefix}.config.v1"

    @property
    def quarantine(self) -> str:
        return f"{self.prefix}.quarantine.v1"

    @property
    def controls(self) -> tuple[str, ...]:
        """The low-rate topics that feeds reads."""
        return (self.flags, self.accounts, self.decisions, self.config)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What one topic must be. `exact` settings must be equal, `minimum` ones at least as large (-1 = without limit)."""

    name: str
    partitions: int
    why: str
    exact: Mapping[str, str] = field(default_factory=dict)
    minimum: Mapping[str, int] = field(default_factory=dict)
    fixed_partitions: bool = True
    """Whether another partition count is an error (state and placement depend on it) or none of our business."""

    ours: bool = True
    """Whether Safehold creates it. A bank's own topic is only checked."""

    @property
    def configs(self) -> dict[str, str]:
        """The settings that it is created with."""
        return {**self.exact, **{key: str(value) for key, value in self.minimum.items()}}


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each kind of topic must keep its records, in milliseconds."""

    ledger: int = 400 * DAY_MS
    source: int = 7 * DAY_MS
    outputs: int = 90 * DAY_MS
    dead: int = 30 * DAY_MS


def wanted(
    names: TopicNames,
    *,
    partitions: int,
    banks: Sequence[str] = (),
    sources: Sequence[str] = (),
    replication: int = 1,
    retention: Retention | None = None,
) -> list[TopicSpec]:
    """Every topic of an installation: `banks` get a review topic each, `sources` are the banks' own topics."""
    keep = retention or Retention()
    plain = {"cleanup.policy": "delete"}
    safe = {"min.insync.replicas": max(1, replication - 1)}

    def outputs(name: str, why: str, kept: int, count: int = partitions) -> TopicSpec:
        return TopicSpec(name, count, why, plain, {"retention.ms": kept, **safe}, fixed_partitions=False)

    def control(name: str, why: str) -> TopicSpec:
        return TopicSpec(name, 1, why, plain, {"retention.ms": keep.ledger, **safe})

    ledger = TopicSpec(
        names.ledger,
        partitions,
        "the only input of the fold",
        {**plain, "message.timestamp.type": "LogAppendTime"},
        {"retention.ms": keep.ledger, "retention.bytes": FOREVER, "max.message.bytes": 1_000_000, **safe},
    )
    return [
        ledger,
        *(outputs(names.review(bank), f"recommendations for {bank}", keep.outputs) for bank in banks),
        outputs(names.observe, "recommendations of entities in observe mode", keep.outputs),
        outputs(names.hits, "indicators that a leg satisfied", keep.outputs),
        outputs(names.deadletters, "what could not be used, with reason and source coordinate", keep.dead),
        TopicSpec(
            names.vault,
            partitions,
            "pseudonym to original, encrypted",
            {"cleanup.policy": "compact"},
            safe,
            fixed_partitions=False,
        ),
        control(names.flags, "what partners and reviewers say of accounts"),
        control(names.accounts, "what banks say of accounts"),
        control(names.decisions, "what people decided"),
        control(names.config, "detector configurations, baselines, rates"),
        TopicSpec(
            names.quarantine,
            1,
            "ledger frames that stopped their partition, and who set them aside",
            {**plain, "message.timestamp.type": "LogAppendTime"},
            # A rebuild must find what became of every frame that the ledger still has, however long that is.
            {"retention.ms": FOREVER, "retention.bytes": FOREVER, **safe},
        ),
        *(
            TopicSpec(
                source,
                0,
                "a bank's payments; a backlog waits here through the longest outage",
                minimum={"retention.ms": keep.source},
                fixed_partitions=False,
                ours=False,
            )
            for source in sources
        ),
    ]


class TopicsRefused(RuntimeError):
    """Kafka made some topics not: one line each, without the request. `mend` names a setting, where one is to blame."""

    def __init__(self, problems: Sequence[str], mend: str = "") -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.mend = mend


@contextlib.contextmanager
def admin_client(bootstrap: str, **options: Any) -> Iterator[KafkaAdminClient]:
    """An admin client that is closed again. Never inside the worker's loop: it blocks."""
    client = KafkaAdminClient(bootstrap_servers=bootstrap, client_id="safehold-topics", **options)
    try:
        yield client
    finally:
        client.close()


def create(admin: KafkaAdminClient, specs: Sequence[TopicSpec], *, replication: int = 1) -> list[str]:
    """Create those of our topics that do not exist, and say which. What Kafka refuses raises `TopicsRefused`."""
    there = set(admin.list_topics())
    missing = {
        spec.name: {
            "num_partitions": spec.partitions,
            "replication_factor": replication,
            "configs": spec.configs,
        }
        for spec in specs
        if spec.ours and spec.name not in there
    }
    if not missing:
        return []
    # Its exceptions hold the whole request and answer, so the answer is read here.
    answer = admin.create_topics(missing, raise_errors=False)["topics"]
    refused = {
        topic["name"]: (kind, str(topic.get("error_message") or ""))
        for topic in answer
        # Somebody else may have created one in the same moment.
        if (kind := for_code(topic["error_code"])) not in (for_code(0), TopicAlreadyExistsError)
    }
    if refused:
        raise _refusal(admin, refused, replication)
    admin.wait_for_topics(list(missing))
    return sorted(missing)


def _refusal(
    admin: KafkaAdminClient, refused: Mapping[str, tuple[type[Exception], str]], replication: int
) -> TopicsRefused:
    if all(kind is InvalidReplicationFactorError for kind, _ in refused.values()):
        count = len(admin.describe_cluster()["brokers"])
        there = "1 broker is there" if count == 1 else f"{count} brokers are there"
        why = f"{replication} {'copy' if replication == 1 else 'copies'} asked for, {there}"
        return TopicsRefused([f"{name}: {why}" for name in refused], "replication_factor")
    return TopicsRefused(
        [
            f"{name}: {kind.__name__.removesuffix('Error')}" + (f" ({said[:SAID]})" if said else "")
            for name, (kind, said) in refused.items()
        ]
    )


def missing_sources(admin: KafkaAdminClient, specs: Sequence[TopicSpec]) -> list[str]:
    """Topics that banks have to create and have not."""
    there = set(admin.list_topics())
    return [spec.name for spec in specs if not spec.ours and spec.name not in there]


def check(admin: KafkaAdminClient, specs: Sequence[TopicSpec]) -> list[str]:
    """Every difference between what is there and what must be, one line each. Empty = all is well."""
    there = set(admin.list_topics())
    found = [spec for spec in specs if spec.name in there]
    counts = {
        topic["name"]: len(topic["partitions"])
        for topic in admin.describe_topics([spec.name for spec in found])
    }
    settings = _settings(admin, [spec.name for spec in found])
    problems: list[str] = []
    for spec in specs:
        if spec.name not in there:
            # `topics create` would not help, so it is not hinted at.
            whose = "" if spec.ours else ": the bank creates its own topics; Safehold never does"
            problems.append(f"{spec.name}: does not exist ({spec.why}){whose}")
        else:
            problems += _differences(spec, counts.get(spec.name, 0), settings.get(spec.name, {}))
    return problems


def _settings(admin: KafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
    answer = admin.describe_configs(asked, config_filter="all").get("topic", {})
    return {
        topic: {key: str(entry["value"]) for key, entry in entries.items()}
        for topic, entries in answer.items()
    }


def _differences(spec: TopicSpec, partitions: int, settings: Mapping[str, str]) -> list[str]:
    problems = []
    if spec.fixed_partitions and partitions != spec.partitions:
        problems.append(f"{spec.name}: has {partitions} partitions, must have {spec.partitions}")
    for key, value in spec.exact.items():
        if settings.get(key) != value:
            problems.append(f"{spec.name}: {key} is {settings.get(key, 'unknown')}, must be {value}")
    for key, least in spec.minimum.items():
        have = settings.get(key)
        if have is None or not have.lstrip("-").isdigit():
            problems.append(f"{spec.name}: {key} is {have or 'unknown'}, must be at least {least}")
        elif int(have) != FOREVER and (least == FOREVER or int(have) < least):
            bound = "without limit (-1)" if least == FOREVER else f"at least {least}"
            problems.append(f"{spec.name}: {key} is {have}, must be {bound}")
    return problems


def partition_counts(admin: KafkaAdminClient, topics: Sequence[str]) -> dict[str, int]:
    """How many partitions each of these topics has."""
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(topics))}
