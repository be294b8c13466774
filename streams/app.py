"""The worker: one Faust app with intake, monitor and feeds, started when everything that it needs is as it must be.

Nothing happens when this module is imported. `run(settings)` checks, warms up, runs until SIGTERM or SIGINT, and returns an
exit code: 0 told to stop; 1 a check failed; 3 a file or key cannot be used; 4 broker or store does not answer; 70 a service
failed; 75 the member id belongs to another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faust
import redis.asyncio as aredis
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context
from kafka.errors import KafkaError as AdminError
from mode import Service
from redis.asyncio.cluster import RedisCluster

import detectors
import streams
from detectors.config import Config, default_config
from detectors.model import ENGINE_VERSION, SECOND, ClassSource
from detectors.settings import FoldSettings
from detectors.step import load_control, new_state, step
from streams import config_file, logs, outputs, topics, versions, warmup, watching
from streams.balance import Reconciler
from streams.block import BlockReader, Feed
from streams.board import Board, MemoryBoard, Progress, RedisBoard
from streams.clients import KafkaOptions
from streams.controls import Controls
from streams.exchange import Exchange
from streams.feeds import Feeds
from streams.folding import Fold
from streams.formats import canonical, iso20022
from streams.formats.codes import CLASSES
from streams.formats.files import MappedDecoder
from streams.formats.mapping import load_mapping
from streams.formats.plain import PlainReader
from streams.health import Health, HealthServer
from streams.intake import Intake
from streams.keeping import Keeper
from streams.legs import LegBuilder
from streams.located import Misplaced
from streams.metrics import Metrics
from streams.monitor import CHANNEL_SIZE, Batch, LedgerChannel, Monitor
from streams.partition import PartitionSettings, Phase
from streams.payment import DecodeContext
from streams.pseudonyms import BadKey, PseudonymKey, Pseudonyms
from streams.quarantine import QuarantineTopic
from streams.rates import load_rates
from streams.settings import BankTopic, Settings
from streams.state.base import (
    MemberHeld,
    MemberLost,
    StateStore,
    StoreError,
    StoreMeta,
    StoreRefused,
    take_member,
)
from streams.state.memory import MemoryStore
from streams.state.redis import RedisStore
from streams.state.snapshots import Snapshots
from streams.vault import VaultError, VaultKeys, VaultWriter

log = logging.getLogger(__name__)

OK, CHECK_FAILED, BAD_INPUT, UNREACHABLE, CRASHED, NOT_OURS = 0, 1, 3, 4, 70, 75
STOP_SECONDS = 40.0

SWITCH_SECONDS = 0.0005
"""How long one thread waits for the interpreter before it asks the other to let go. Judging leaves it for every compiled
kernel, some twenty times a frame, and would wait Python's default of 5 ms each time to come back: intake kept the lock and
both threads together used one core."""


class CannotStart(Exception):
    """Why the worker does not start, one line a problem."""

    def __init__(self, code: int, problems: Sequence[str]) -> None:
        self.code = code
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class MemberLock:
    """The heartbeat of our static member id. Losing it means that another process may run under it: stop at once.

    It beats from the moment that the lock is taken, whatever else is still starting or already stopping.
    """

    def __init__(self, store: StateStore, member: str, token: str, ttl: float) -> None:
        self.lost = asyncio.Event()
        self._store = store
        self._member = member
        self._token = token
        self._ttl = ttl
        self.turned_at = time.monotonic()
        self._task = asyncio.create_task(self._beat(), name="member-lock")

    async def _beat(self) -> None:
        while True:
            self.turned_at = time.monotonic()
            try:
                await self._store.renew_member(self._member, self._token, self._ttl)
            except MemberLost:
                # We were paused for longer than it lasts, or the store lost it. If nobody has it, it is ours again: what
                # another process may have written meanwhile, the fences notice.
                if not await self._taken_back():
                    self.lost.set()
                    return
            except StoreError as problem:
                # A store that is away cannot give the id to anybody else either.
                log.warning("member lock not renewed", extra={"problem": type(problem).__name__})
            await asyncio.sleep(self._ttl / 3)

    async def _taken_back(self) -> bool:
        try:
            self._token = await self._store.acquire_member(self._member, self._ttl)
        except MemberHeld:
            return False
        except StoreError:
            return True
        return True

    async def release(self) -> None:
        """Stop beating and give the id back."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self.lost.is_set():
            with contextlib.suppress(StoreError):
                await self._store.release_member(self._member, self._token)


class Plumbing(Service):
    """Intake, monitor, feeds and what they need, beside the Faust app that runs the agents.

    Not inside it: an app starts its services when its own consumer group has formed, and that waits for every member that
    was killed or paused. Judging must not.
    """

    def __init__(self, parts: Sequence[Service], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parts = parts

    async def on_start(self) -> None:
        """Start them in order; stopped in the opposite one."""
        for part in self._parts:
            await self.add_runtime_dependency(part)


@dataclass(slots=True)
class Parts:
    """What a worker is made of, for whoever shows or tests it."""

    app: faust.App
    plumbing: Plumbing
    store: StateStore
    metrics: Metrics
    progress: Progress
    intake: Intake
    monitor: Monitor
    feeds: Feeds
    exchange: Exchange
    reconciler: Reconciler

    def watch(self, health: Health, lock: MemberLock, flush_seconds: float) -> None:
        """Have the loops asked for progress, and the partitions for readiness."""
        health.need("partitions", self.problems)
        for loop in watching.loops(self, lock, flush_seconds):
            health.watch(loop)

    def problems(self) -> list[str]:
        """Why the worker is not ready; empty = it is."""
        if not self.monitor.partitions:
            return ["no ledger partition is assigned"]
        return [
            f"ledger partition {number} is {part.phase.value}" + (f": {part.problem}" if part.problem else "")
            for number, part in sorted(self.monitor.partitions.items())
            if part.phase is not Phase.RUNNING
        ]


# -- what settings mean -------------------------------------------------------------------------------------------------


def packages_agree() -> list[str]:
    """Both packages must be this distribution's: the names are generic, and another one installs a `detectors`."""
    mine, theirs = (Path(package.__file__ or "").resolve().parent for package in (streams, detectors))
    if mine.parent != theirs.parent:
        return [
            f"the package `detectors` comes from {theirs.parent}, not from where `streams` is: {mine.parent}"
        ]
    return []


def kafka_options(settings: Settings) -> KafkaOptions:
    """How the brokers are spoken to."""
    secured = settings.security_protocol.endswith("SSL")
    return KafkaOptions(
        bootstrap=list(settings.bootstrap_servers),
        security_protocol=settings.security_protocol,
        ssl_context=(
            create_ssl_context(
                cafile=settings.ssl_ca_file or None,
                certfile=settings.ssl_cert_file or None,
                keyfile=settings.ssl_key_file or None,
            )
            if secured
            else None
        ),
        sasl_mechanism=settings.sasl_mechanism,
        sasl_username=settings.sasl_username or None,
        sasl_password=settings.sasl_password.reveal() or None,
    )


def feed_of(topic: BankTopic, pseudonyms: Pseudonyms, rates: Mapping[str, int]) -> Feed:
    """How one bank topic is read."""
    if topic.format == "mapping":
        mapping = load_mapping(topic.mapping)
        decode = MappedDecoder(mapping).decode
        return Feed(topic.name, decode, system_wide=topic.system_wide or mapping.system_wide)
    cls = CLASSES[topic.party_class]
    context = DecodeContext(
        bank=topic.bank,
        bank_codes=frozenset(topic.bank_codes),
        zone=topic.zone,
        system_wide=topic.system_wide,
        currency=topic.currency,
        party_class=cls,
        class_source=ClassSource.MAPPING if cls else ClassSource.UNKNOWN,
    )
    reader = canonical.decode if topic.format == "canonical" else iso20022.decode
    return Feed(
        topic.name,
        lambda value: reader(value, context),
        system_wide=topic.system_wide,
        max_bytes=context.max_bytes,
        plain=PlainReader(context, pseudonyms, rates) if topic.format == "canonical" else None,
    )


def fold_settings(settings: Settings, key_id: str) -> FoldSettings:
    """The lengths of the fold."""
    return versions.with_zone_data(
        FoldSettings(
            lateness=settings.lateness,
            spread=settings.spread,
            observed_since=settings.observed_since,
            generation=settings.generation,
            key_id=key_id,
        )
    )


def make_fold(partitions: int, lengths: FoldSettings, config: Config) -> Fold:
    """The fold of `detectors.step`."""
    return Fold(
        new_state=lambda partition: new_state(partition, partitions, lengths, config),
        load_control=load_control,
        step=step,
    )


def wanted_topics(settings: Settings) -> list[topics.TopicSpec]:
    """Every topic that must exist."""
    return topics.wanted(
        topics.TopicNames(settings.topic_prefix),
        partitions=settings.ledger_partitions,
        banks=banks_of(settings),
        sources=sorted({topic.name for topic in settings.topics}),
        replication=settings.replication_factor,
    )


def names_in_logs(settings: Settings) -> list[str]:
    """Names that a library may be quoted with: topics, groups, this member, agents, brokers. All of them from the settings."""
    group = f"{settings.topic_prefix}-{settings.generation}"
    return [
        *(spec.name for spec in wanted_topics(settings)),
        *(f"{group}-{service}" for service in ("intake", "monitor")),
        feeds_group(settings),
        settings.member_id,
        *settings.bootstrap_servers,
        *(server.rpartition(":")[0] for server in settings.bootstrap_servers),
    ]


def feeds_group(settings: Settings) -> str:
    """The Faust app's id, which is the group that its agents read in."""
    return f"{settings.topic_prefix}-feeds-{settings.generation}"


def banks_of(settings: Settings) -> list[str]:
    """Every bank that has a review topic."""
    return sorted({topic.bank for topic in settings.topics if topic.bank})


def check_topics(settings: Settings) -> None:
    """Refuse to start on topics that are missing or not as they must be."""
    options = kafka_options(settings)
    secured: dict[str, Any] = {"security_protocol": options.security_protocol}
    if options.ssl_context is not None:
        secured["ssl_context"] = options.ssl_context
    if options.security_protocol.startswith("SASL"):
        secured["sasl_mechanism"] = options.sasl_mechanism
        secured["sasl_plain_username"] = options.sasl_username
        secured["sasl_plain_password"] = options.sasl_password
    try:
        with topics.admin_client(",".join(settings.bootstrap_servers), **secured) as admin:
            problems = topics.check(admin, wanted_topics(settings))
    except (AdminError, OSError) as problem:
        raise CannotStart(UNREACHABLE, [f"Kafka does not answer: {problem}"]) from problem
    if problems:
        raise CannotStart(CHECK_FAILED, problems)


def make_store(settings: Settings, key_id: str) -> StateStore:
    """The state store that the settings name."""
    meta = store_meta(settings, key_id)
    if settings.store == "memory":
        return MemoryStore(meta)
    return RedisStore(
        settings.redis_url.reveal(),
        meta,
        username=settings.redis_username,
        password=settings.redis_password.reveal(),
        ca_file=settings.redis_ca_file,
        persistence=settings.redis_persistence,
        namespace=settings.redis_namespace,
        cluster=settings.redis_cluster,
        timeout=settings.redis_timeout / SECOND,
    )


def make_vault(settings: Settings, key: PseudonymKey, metrics: Metrics) -> VaultWriter | None:
    """The writer of the vault, where the settings name its keys."""
    if not settings.vault_key_file:
        return None
    keys = VaultKeys.load(settings.vault_key_file, unlike=key.reveal())
    return VaultWriter(keys, collided=metrics.pseudonym_collisions.inc)


def store_meta(settings: Settings, key_id: str) -> StoreMeta:
    """What the stored state belongs to."""
    return StoreMeta(partitions=settings.ledger_partitions, key_id=key_id, generation=settings.generation)


def make_board(settings: Settings) -> tuple[Board, Callable[[], Any] | None]:
    """Where processes tell each other how far they are, and how to let go of it."""
    if settings.store == "memory":
        return MemoryBoard(), None
    options: dict[str, Any] = {"protocol": 2, "socket_timeout": settings.redis_timeout / SECOND}
    if settings.redis_username:
        options["username"] = settings.redis_username
    if settings.redis_password:
        options["password"] = settings.redis_password.reveal()
    if settings.redis_ca_file:
        options["ssl_ca_certs"] = settings.redis_ca_file
    make = RedisCluster.from_url if settings.redis_cluster else aredis.Redis.from_url
    client: Any = make(settings.redis_url.reveal(), **options)
    return RedisBoard(client, settings.redis_namespace, settings.generation), client.aclose


# -- putting it together ------------------------------------------------------------------------------------------------


def make_app(settings: Settings, folder: str) -> faust.App:
    """A Faust app without web server, tables, leader topic or anything that would create a topic."""
    options = kafka_options(settings)
    credentials: Any = None
    if options.security_protocol.startswith("SASL"):
        credentials = faust.SASLCredentials(
            username=options.sasl_username,
            password=options.sasl_password,
            mechanism=options.sasl_mechanism,
            ssl_context=options.ssl_context,
        )
    elif options.ssl_context is not None:
        credentials = faust.SSLCredentials(options.ssl_context)
    return faust.App(
        feeds_group(settings),
        broker=[f"kafka://{server}" for server in settings.bootstrap_servers],
        broker_credentials=credentials,
        consumer_group_instance_id=settings.member_id,
        consumer_auto_offset_reset="earliest",
        datadir=folder,
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        broker_session_timeout=options.session_timeout_ms / 1000,
        broker_heartbeat_interval=options.session_timeout_ms / 5000,
        broker_rebalance_timeout=options.session_timeout_ms / 1000,
        worker_redirect_stdouts=False,
    )


def assemble(
    settings: Settings,
    *,
    store: StateStore,
    board: Board,
    pseudonyms: Pseudonyms,
    fold: Fold,
    controls: Controls,
    folder: str,
    metrics: Metrics,
    vault: VaultWriter | None = None,
    extra: Iterable[Service] = (),
) -> Parts:
    """Build the app and its services. Nothing runs yet."""
    names = topics.TopicNames(settings.topic_prefix)
    options = kafka_options(settings)
    progress = Progress()
    key_id = pseudonyms.key_id
    app = make_app(settings, folder)
    channel = LedgerChannel(app, maxsize=CHANNEL_SIZE)
    group = f"{settings.topic_prefix}-{settings.generation}"
    quarantines = QuarantineTopic(topic=names.quarantine, generation=settings.generation, options=options)
    monitor = Monitor(
        topic=names.ledger,
        group=f"{group}-monitor",
        member=settings.member_id,
        options=options,
        fold=fold,
        store=store,
        publisher=outputs.Outputs(names, settings.generation, banks_of(settings)),
        progress=progress,
        metrics=metrics,
        settings=PartitionSettings(
            flush_seconds=settings.flush_interval / SECOND,
            flush_accounts=settings.flush_accounts,
            belongs=(key_id, settings.generation),
            accept_gap=settings.accept_gap,
        ),
        channel=lambda: channel,
        quarantines=quarantines,
        observe=partial(outputs.count, metrics),
        show=partial(watching.show_states, metrics),
    )
    rates = load_rates().u_micro
    intake = Intake(
        feeds=[feed_of(topic, pseudonyms, rates) for topic in settings.topics],
        ledger_topic=names.ledger,
        partitions=settings.ledger_partitions,
        dead_topic=names.deadletters,
        group=f"{group}-intake",
        member=settings.member_id,
        options=options,
        reader=BlockReader(LegBuilder(settings.ledger_partitions, pseudonyms, rates)),
        take_new=pseudonyms.take_new,
        vault=vault,
        vault_topic=names.vault,
        key_id=key_id,
        generation=settings.generation,
        lateness=settings.lateness,
        spread=settings.spread,
        stuck_seconds=settings.stuck_after / SECOND,
        progress=progress,
        metrics=metrics,
    )
    feeds = Feeds(
        names=names,
        partitions=settings.ledger_partitions,
        options=options,
        controls=controls,
        store=store,
        metrics=metrics,
        key_id=key_id,
        generation=settings.generation,
    )
    feeds.agents(app)

    async def judge(stream: Any) -> None:
        # The values of an in-memory channel need no acknowledgement: what counts as done is in the state store.
        batch: Batch
        async for batch in stream:
            monitor.accept(batch)

    app.agent(channel, name="judge")(judge)
    exchange = Exchange(progress, board)
    reconciler = Reconciler(
        store=store,
        partitions=settings.ledger_partitions,
        ends=partial(monitor.last_offsets, settings.ledger_partitions),
        mine=partial(monitor.owns, 0),
        metrics=metrics,
    )
    services: list[Service] = [*extra, feeds, exchange, quarantines, monitor, intake, reconciler]
    return Parts(
        app, Plumbing(services), store, metrics, progress, intake, monitor, feeds, exchange, reconciler
    )


async def serve(parts: Parts, stop: asyncio.Event, lost: asyncio.Event) -> int:
    """Run until told to stop, until the member id is lost, or until a service fails."""
    runners: tuple[Service, ...] = (parts.app, parts.plumbing)
    watching: set[asyncio.Task[Any]] = {asyncio.create_task(_run_to_its_end(runner)) for runner in runners}
    watching |= {asyncio.create_task(event.wait()) for event in (stop, lost)}
    code = OK
    done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
    if lost.is_set():
        log.critical("another process may run under this member id; stopping")
        code = NOT_OURS
    elif not stop.is_set():
        for task in done:
            problem = task.exception() or task.result() or "ended by itself"
            log.critical("a service failed", extra={"problem": f"{type(problem).__name__}: {problem}"})
        code = CRASHED
    for task in watching:
        task.cancel()
    for runner in reversed(runners):
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await runner.stop()
        except Exception:
            log.exception("the worker did not stop cleanly")
            code = code or CRASHED
    return code


async def _run_to_its_end(runner: Service) -> BaseException | None:
    """Start a service and wait for its end; what made it fail, if something did."""
    await runner.start()
    await runner.wait_until_stopped()
    reason: BaseException | None = runner.crash_reason
    return reason


async def run_async(settings: Settings, metrics: Metrics | None = None) -> int:
    """Everything that needs the event loop."""
    metrics = metrics or Metrics()
    metrics.build.labels(**versions.build()).set(1)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        key = PseudonymKey.load(settings.pseudonym_key_file)
        vault = make_vault(settings, key, metrics)
        pseudonyms = Pseudonyms(key, remember_new=vault is not None)
        lengths = fold_settings(settings, key.id)
        config = load_config(settings)
    except (BadKey, VaultError, Misplaced, config_file.ConfigError, OSError, ValueError) as problem:
        raise CannotStart(BAD_INPUT, str(problem).splitlines()) from problem
    if settings.accept_gap:
        log.warning("gaps in the ledger are accepted: take accept_gap away again once the partitions run")
    fold = make_fold(settings.ledger_partitions, lengths, config)

    def digest(chosen: Config) -> str:
        return chosen.digest(engine=ENGINE_VERSION, tzdata=lengths.tzdata)

    controls = Controls(pseudonyms, digest)
    runs = {"member": settings.member_id, "mode": str(config.mode), "digest": digest(config)}
    logs.know([runs["digest"]])  # it looks like an account number
    health = Health(metrics)
    health.need("partitions", lambda: ["still starting"])
    server = HealthServer(health, host=settings.health_host, port=settings.health_port)
    await listen(server)  # first: whether it gets anywhere can be asked while it checks and compiles
    try:
        await asyncio.to_thread(check_topics, settings)
        await asyncio.to_thread(warmup.warm_up, fold)
        collect_rarely()
        sys.setswitchinterval(SWITCH_SECONDS)
        return await hold_and_serve(settings, key, vault, pseudonyms, fold, controls, health, stop, runs)
    finally:
        await server.stop()


async def listen(server: HealthServer) -> None:
    """Open the health port, or say in one line why it cannot be."""
    try:
        await server.start()
    except OSError as problem:
        taken = problem.errno == errno.EADDRINUSE
        why = "is taken by another process" if taken else f"cannot be opened: {problem.strerror or problem}"
        raise CannotStart(
            CHECK_FAILED if taken else BAD_INPUT,
            [f"health port {server.port} on {server.host} {why}. Set health_host and health_port"],
        ) from problem


async def hold_and_serve(
    settings: Settings,
    key: PseudonymKey,
    vault: VaultWriter | None,
    pseudonyms: Pseudonyms,
    fold: Fold,
    controls: Controls,
    health: Health,
    stop: asyncio.Event,
    runs: Mapping[str, str],
) -> int:
    """Open the store, take the member id, put everything together and run. `runs` is what the line *ready* says."""
    store = make_store(settings, key.id)
    board, let_go = make_board(settings)
    folder = tempfile.mkdtemp(prefix="safehold-")
    try:
        await store.open()
        await store.check()
        ttl = settings.member_ttl / SECOND
        token = await take_member(store, settings.member_id, ttl, patience=2 * ttl)
        lock = MemberLock(store, settings.member_id, token, ttl)
        parts = assemble(
            settings,
            store=store,
            board=board,
            pseudonyms=pseudonyms,
            fold=fold,
            controls=controls,
            folder=folder,
            metrics=health.metrics,
            vault=vault,
        )
        if settings.snapshot_dir:
            parts.monitor.keeper = Keeper(
                Snapshots(Path(settings.snapshot_dir), store_meta(settings, key.id)),
                store,
                parts.monitor.start_of_log,
                every=settings.snapshot_interval / SECOND,
            )
        parts.watch(health, lock, settings.flush_interval / SECOND)
        ready = asyncio.create_task(
            watching.tell_ready(parts.problems, lambda: parts.monitor.partitions, **runs)
        )
        try:
            return await serve(parts, stop, lock.lost)
        finally:
            ready.cancel()
            await lock.release()
    except StoreRefused as refused:
        raise CannotStart(CHECK_FAILED, refused.problems) from refused
    except MemberHeld as held:
        raise CannotStart(NOT_OURS, [str(held)]) from held
    except (StoreError, KafkaError) as problem:
        raise CannotStart(UNREACHABLE, [str(problem)]) from problem
    finally:
        if let_go is not None:
            await let_go()
        await store.close()
        shutil.rmtree(folder, ignore_errors=True)


def collect_rarely() -> None:
    """Fewer garbage collections: intake holds thousands of decoded messages at a time, and none of them is a cycle.

    By default every 700 of them start a collection that finds nothing: a tenth of what a payment costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def load_config(settings: Settings) -> Config:
    """The detector configuration in force until a record of the ledger says otherwise."""
    if not settings.config_file:
        return default_config(mode=settings.mode)
    return config_file.load_config(Path(settings.config_file))


def run(settings: Settings) -> int:
    """The worker, from start to end. Returns its exit code."""
    logs.configure(settings.log_level, known=names_in_logs(settings))
    try:
        problems = packages_agree()
        if problems:
            raise CannotStart(CHECK_FAILED, problems)
        return asyncio.run(run_async(settings))
    except CannotStart as cannot:
        for problem in cannot.problems:
            log.critical("cannot start", extra={"problem": problem})
        return cannot.code
