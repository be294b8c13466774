"""Settings and connections of the commands that talk to a running installation, with their failures in one clear line."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from streams.cli.exits import CliError, Exit

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from kafka import KafkaAdminClient

    from detectors.state import Head
    from streams.settings import Settings
    from streams.topics import TopicNames, TopicSpec

PROBE_SECONDS = 3.0
LONGEST_WORDS = 300
MEND_BROKER = "start the brokers, or mend bootstrap_servers and security_protocol in the settings"
T = TypeVar("T")

SETTINGS_OPTION = typer.Option(
    None, "--settings", "-s", help="Settings of the installation (YAML); SAFEHOLD_* variables overlay it."
)


def settings_of(path: Path | None) -> Settings:
    """The settings, or every problem with them."""
    from streams.settings import load
    from streams.settings_values import SettingsError

    try:
        return load(path)
    except SettingsError as problem:
        where = (
            f"the settings in {path}"
            if path
            else "the settings from SAFEHOLD_* variables (no --settings given)"
        )
        raise CliError(
            f"{where} cannot be used",
            details=problem.problems,
            look="docs/settings.md lists every setting",
            code=Exit.INPUT,
        ) from None


def unreachable(settings: Settings, problem: Exception) -> CliError:
    """A broker that does not answer."""
    servers = ", ".join(settings.bootstrap_servers)
    return CliError(
        f"Kafka at {servers} does not answer ({_named(problem)})",
        look=f"{MEND_BROKER}. safehold doctor checks the rest of the installation",
        code=Exit.UNREACHABLE,
    )


def _named(problem: Exception) -> str:
    """Its class and words, once, and no request or answer that it may quote."""
    name, text = type(problem).__name__, str(problem).partition("\n")[0]
    words = text if text.startswith(name) else f"{name}: {text}" if text else name
    return words if len(words) <= LONGEST_WORDS else words[:LONGEST_WORDS] + "…"


def _refused(settings: Settings, problem: Exception) -> CliError:
    """A broker that answers, and says no."""
    servers = ", ".join(settings.bootstrap_servers)
    return CliError(
        f"Kafka at {servers} refused ({type(problem).__name__})",
        look="docs/operations.md, Access to Kafka; the broker's log says more",
    )


def names_of(settings: Settings) -> TopicNames:
    """The names of the installation's topics."""
    from streams.topics import TopicNames

    return TopicNames(settings.topic_prefix)


def banks_of(settings: Settings, more: Sequence[str] = ()) -> list[str]:
    """Every bank that gets a review topic."""
    return sorted({topic.bank for topic in settings.topics if topic.bank} | set(more))


def wanted_topics(settings: Settings, more_banks: Sequence[str] = ()) -> list[TopicSpec]:
    """Every topic that must exist."""
    from streams.topics import wanted

    return wanted(
        names_of(settings),
        partitions=settings.ledger_partitions,
        banks=banks_of(settings, more_banks),
        sources=sorted({topic.name for topic in settings.topics}),
        replication=settings.replication_factor,
    )


def _secured(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password.reveal()
    return options


def probe(settings: Settings) -> None:
    """Whether any broker listens at all: the admin client would ask for half a minute."""
    problem: OSError = OSError("no broker is named")
    for server in settings.bootstrap_servers:
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
        except OSError as found:
            problem = found
        else:
            return
    raise unreachable(settings, problem)


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client."""
    from kafka.errors import BrokerResponseError, KafkaError

    from streams.topics import TopicsRefused, admin_client

    probe(settings)
    _quiet()
    options = _secured(settings)
    if settings.security_protocol.endswith("SSL"):
        options["ssl_cafile"] = settings.ssl_ca_file or None
        options["ssl_certfile"] = settings.ssl_cert_file or None
        options["ssl_keyfile"] = settings.ssl_key_file or None
    try:
        with admin_client(",".join(settings.bootstrap_servers), **options) as client:
            yield client
    except TopicsRefused as problem:
        first, *others = problem.problems
        raise CliError(
            f"Kafka refused to create {first}",
            details=others,
            look=f"{problem.mend} in the settings" if problem.mend else "docs/operations.md, Topics",
        ) from problem
    except (KafkaError, OSError) as problem:
        if isinstance(problem, BrokerResponseError) and not problem.retriable:
            raise _refused(settings, problem) from problem
        raise unreachable(settings, problem) from problem


def _quiet() -> None:
    """Keep the clients' own log lines off the terminal: what went wrong is said once, by the command."""
    for name in ("aiokafka", "kafka"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def client_options(settings: Settings) -> dict[str, Any]:
    """Connection options of aiokafka's producers and consumers."""
    options = _secured(settings)
    if settings.security_protocol.endswith("SSL"):
        from aiokafka.helpers import create_ssl_context

        options["ssl_context"] = create_ssl_context(
            cafile=settings.ssl_ca_file or None,
            certfile=settings.ssl_cert_file or None,
            keyfile=settings.ssl_key_file or None,
        )
    return {"bootstrap_servers": list(settings.bootstrap_servers), **options}


@asynccontextmanager
async def producer(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """An idempotent producer that has delivered everything when it is left."""
    from aiokafka import AIOKafkaProducer

    client = AIOKafkaProducer(**client_options(settings), enable_idempotence=True, **options)
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def consumer(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group: it takes nothing away from the worker."""
    from aiokafka import AIOKafkaConsumer

    client = AIOKafkaConsumer(
        **client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest", **options
    )
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


async def heads(settings: Settings) -> dict[int, Head]:
    """The head of each ledger partition, as the store has it; none where a store in memory is of another process."""
    from detectors.state import decode_head
    from streams.app import make_store

    if settings.store == "memory":
        return {}
    store = make_store(settings, "")
    await store.open()
    try:
        blobs = {number: await store.load_head(number) for number in range(settings.ledger_partitions)}
    finally:
        await store.close()
    return {number: decode_head(blob) for number, blob in blobs.items() if blob is not None}


def run(settings: Settings, work: Coroutine[Any, Any, T]) -> T:
    """Run something asynchronous; a broker that does not answer is one clear line."""
    from aiokafka.errors import BrokerResponseError, KafkaError

    _quiet()
    try:
        return asyncio.run(work)
    except (KafkaError, OSError) as problem:
        if isinstance(problem, BrokerResponseError) and not problem.retriable:
            raise _refused(settings, problem) from problem
        raise unreachable(settings, problem) from problem
