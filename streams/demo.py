"""The demo: the real worker on an embedded broker and store, a simulated bank, and what came of it.

Nothing here is a shortcut: topics are created and checked, the worker is its own process with its own settings file, payments
go through the bank's topic, and what is shown at the end is read back from the review topic. Only broker and store are stand-ins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detectors.model import ACTION_NAMES, DAY, Action
from detectors.state import COUNTERS, Head
from streams.controls import AccountMessage
from streams.embedded import Embedded, ends_with_us
from streams.latest import Latest
from streams.pseudonyms import PseudonymKey, Pseudonyms
from streams.publish import CAUSE
from streams.reading import read_all
from streams.replay import Pace, Replayed, replay
from streams.simulate_bank import BANK, START, SimulatedBank, payment, simulate
from streams.state.base import StoreMeta
from streams.state.redis import RedisStore
from streams.topics import TopicNames, TopicSpec, admin_client, check, create, wanted

TOPIC = "demo.payments"
PARTITIONS = 4
SOURCE_PARTITIONS = 4
MEMBER = "demo-1"
KEY_ID = "demo"
BATCH = 1_024
LOOK_EVERY = 0.25
"""Seconds between two looks at the worker."""

LOOK_EVERY_MS = 250

READY_WITHIN = 180.0
"""The first start on a machine compiles the kernel."""

QUIET_FOR = 60.0
"""Without any progress for so long, the demo gives up and says where it stands."""

PREFIX = "SAFEHOLD_"


class DemoFailed(RuntimeError):
    """The demo could not be brought to its end; the text ends with what the worker last said."""


@dataclass(slots=True)
class View:
    """What is shown while it runs."""

    phase: str = "starting"
    sent: int = 0
    total: int = 0
    judged: int = 0
    lag: int = 0
    day: int = -1
    actions: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(slots=True)
class RingFound:
    """What came of one planted ring."""

    name: str
    story: str
    main: str
    found: bool
    action: str
    members_named: int
    members: int
    best: dict[str, Any] | None


@dataclass(slots=True)
class LookAlikeSeen:
    """What came of one lawful account that resembles a ring."""

    account: str
    story: str
    action: str


@dataclass(slots=True)
class Result:
    """What the demo found, and whether everything adds up."""

    transactions: int
    recommendations: int
    by_action: dict[str, int]
    rings_found: int
    lost: int
    duplicates: int
    reconciled: bool
    rings: list[RingFound]
    look_alikes: list[LookAlikeSeen]
    look_alikes_above_monitor: int
    others_above_monitor: int
    late: int
    legs: int
    judged: int
    revisions: int
    seconds: float
    seed: int

    @property
    def good(self) -> bool:
        """Both rings, no lawful account above the watch-list, nothing lost, nothing doubled."""
        return (
            self.rings_found == len(self.rings)
            and self.look_alikes_above_monitor == 0
            and self.others_above_monitor == 0
            and self.lost == 0
            and self.duplicates == 0
            and self.reconciled
        )

    def document(self) -> dict[str, Any]:
        """For `--json`: the figures first."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for ring in plain["rings"]:
            best = ring.pop("best")
            ring["recommendation_id"] = best["recommendation_id"] if best else None
            ring["indicators"] = [reason["indicator"] for reason in best["reasons"]] if best else []
        plain["ok"] = self.good
        return plain


@dataclass(slots=True)
class Finished:
    """The result, and the recommendations with the bank's own names in them."""

    result: Result
    bodies: list[dict[str, Any]]


# -- the parts ------------------------------------------------------------------------------------------------------


def specs(names: TopicNames) -> list[TopicSpec]:
    """Safehold's own topics, and the bank's one."""
    return [
        *wanted(names, partitions=PARTITIONS, banks=[BANK]),
        TopicSpec(TOPIC, SOURCE_PARTITIONS, "the simulated bank's payments", fixed_partitions=False),
    ]


def write_settings(folder: Path, parts: Embedded) -> Path:
    """The worker's settings, keys and configuration, as an operator would write them."""
    for name in ("pseudonym.key", "vault.key"):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(PseudonymKey.generate(KEY_ID).line())
    (folder / "detectors.yaml").write_text("version: demo\nmode: advise\nmax_action: freeze\n")
    settings = {
        "bootstrap_servers": [parts.kafka],
        "topics": [{"name": TOPIC, "format": "canonical", "bank": BANK}],
        "member_id": MEMBER,
        "ledger_partitions": PARTITIONS,
        "replication_factor": 1,
        "redis_url": parts.redis,
        "redis_persistence": "none",
        "pseudonym_key_file": str(folder / "pseudonym.key"),
        "vault_key_file": str(folder / "vault.key"),
        "config_file": str(folder / "detectors.yaml"),
        "mode": "advise",
        "observed_since": time.strftime("%Y-%m-%d", time.gmtime(START // 1_000_000)),
        "flush_interval": "2s",
        "health_port": 0,
        "log_level": "WARNING",
    }
    path = folder / "settings.yaml"
    path.write_text(json.dumps(settings, indent=2))  # JSON is YAML
    return path


class Worker:
    """`safehold worker` as a child of its own."""

    def __init__(self, folder: Path, settings: Path) -> None:
        self.log = folder / "worker.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without the SAFEHOLD_* variables of whoever runs the demo."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        command = [sys.executable, "-m", "streams.cli", "worker", "--settings", str(self._settings)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=Path(__file__).resolve().parents[1],
                start_new_session=True,
                preexec_fn=ends_with_us(),
            )

    def alive(self) -> None:
        """Raise when it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise DemoFailed(
                f"the worker ended by itself (exit code {self._process.returncode}); {self.tail()}"
            )

    def stop(self, within: float = 20.0) -> None:
        """Ask it to end and wait; kill it when it does not."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def tail(self, lines: int = 12) -> str:
        """The end of its log."""
        said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "its last words:\n" + "\n".join(said[-lines:])


# -- the balance ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Balance:
    """The counters of every head, added up: the balance in one line."""

    counters: dict[str, int]
    applied: int = 0
    """Ledger messages behind the heads, of all partitions."""

    @property
    def legs(self) -> int:
        """What became of the legs."""
        return sum(self.counters[name] for name in ("judged", "late", "duplicate", "conflict", "hub"))

    def exact(self, sent: int) -> bool:
        """Whether nothing is missing and nothing too much."""
        count = self.counters
        return (
            count["received"] == sent
            and count["received"] == count["accepted"] + count["rejected"]
            and 2 * count["accepted"] == self.legs + count["no_leg"]
        )

    def lost(self, sent: int) -> int:
        """Transactions that were sent and are in no counter, and legs that were made and not judged."""
        count = self.counters
        return max(0, sent - count["received"]) + max(0, 2 * count["accepted"] - count["no_leg"] - self.legs)

    def doubled(self, sent: int) -> int:
        """Transactions counted more often than sent, and legs that came twice."""
        count = self.counters
        return max(0, count["received"] - sent) + max(0, self.legs + count["no_leg"] - 2 * count["accepted"])


def add_up(heads: Iterable[bytes | None]) -> Balance:
    """The balance of the heads as they are stored."""
    total = dict.fromkeys(COUNTERS, 0)
    applied = 0
    for blob in heads:
        if blob is None:
            continue
        head = msgspec.msgpack.decode(blob, type=Head)
        applied += head.applied + 1
        for days in head.counters.values():
            for values in days.values():
                for name, value in zip(COUNTERS, values, strict=True):
                    total[name] += value
    return Balance(total, applied)


# -- the run --------------------------------------------------------------------------------------------------------


class Demo:
    """One run. `tell` is called whenever there is something new to show."""

    def __init__(
        self, *, seed: int = 7, seconds: float = 0.0, tell: Callable[[View], None] = lambda view: None
    ) -> None:
        self.seed = seed
        self.seconds = seconds
        self.view = View()
        self._tell = tell
        self._started = time.monotonic()
        self._names = TopicNames()

    def run(self) -> Finished:
        """Everything, from nothing to nothing."""
        self._started = time.monotonic()
        self._phase("building a small bank")
        bank = simulate(self.seed)
        self.view.total = len(bank.moves)
        folder = Path(tempfile.mkdtemp(prefix="safehold-demo-"))
        try:
            with Embedded() as parts:
                return self._on(parts, folder, bank)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _on(self, parts: Embedded, folder: Path, bank: SimulatedBank) -> Finished:
        self._phase("creating topics")
        with admin_client(parts.kafka) as admin:
            create(admin, specs(self._names))
            problems = check(admin, specs(self._names))
        if problems:
            raise DemoFailed("the embedded broker's topics are not as they must be: " + "; ".join(problems))
        worker = Worker(folder, write_settings(folder, parts))
        try:
            self._phase("starting the worker (the first time on a machine it compiles for about a minute)")
            worker.start()
            asyncio.run(self._feed_and_wait(parts, worker, bank))
        finally:
            worker.stop()
        self._phase("reading back")
        return asyncio.run(self._read_back(parts, folder, bank))

    def _phase(self, phase: str) -> None:
        self.view.phase = phase
        self._show()

    def _show(self) -> None:
        self.view.seconds = time.monotonic() - self._started
        self._tell(self.view)

    # -- feeding --------------------------------------------------------------------------------------------------------

    async def _feed_and_wait(self, parts: Embedded, worker: Worker, bank: SimulatedBank) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=parts.kafka, enable_idempotence=True, linger_ms=5)
        looker = AIOKafkaConsumer(bootstrap_servers=parts.kafka, enable_auto_commit=False)
        await producer.start()
        await looker.start()
        try:
            await self._accounts(producer, bank)
            await self._until_known(looker, worker, len(bank.accounts))
            self._phase("feeding payments")
            feeding = asyncio.create_task(self._payments(producer, bank))
            try:
                await self._watch(parts, looker, worker, feeding, bank)
            finally:
                feeding.cancel()
                await asyncio.wait({feeding})
        finally:
            await looker.stop()
            await producer.stop()

    async def _accounts(self, producer: AIOKafkaProducer, bank: SimulatedBank) -> None:
        waiting = []
        for account in bank.accounts:
            message = AccountMessage(
                account=account.account,
                bank=BANK,
                kind=account.kind,
                opened=account.opened,
                effective_at=min(account.opened, START),
            )
            value = msgspec.json.encode(message)
            waiting.append(await producer.send(self._names.accounts, value, key=account.account.encode()))
        await asyncio.gather(*waiting)

    async def _until_known(self, looker: AIOKafkaConsumer, worker: Worker, accounts: int) -> None:
        """Until the worker has written what is known of the accounts into the ledger: then it is up."""
        places = [TopicPartition(self._names.ledger, number) for number in range(PARTITIONS)]
        give_up = time.monotonic() + READY_WITHIN
        while sum((await looker.end_offsets(places)).values()) < accounts:
            worker.alive()
            if time.monotonic() > give_up:
                raise DemoFailed(f"the worker was not up within {READY_WITHIN:.0f} s; {worker.tail()}")
            self._show()
            await asyncio.sleep(LOOK_EVERY)

    async def _payments(self, producer: AIOKafkaProducer, bank: SimulatedBank) -> None:
        moves = bank.moves
        batches = (
            [payment(move) for move in moves[first : first + BATCH]] for first in range(0, len(moves), BATCH)
        )
        pace = Pace(rate=len(moves) / self.seconds) if self.seconds > 0 else Pace()

        def tell(done: Replayed) -> None:
            self.view.sent = done.sent
            self.view.day = (done.last_time - START) // DAY if done.sent else -1

        await replay(batches, producer, TOPIC, pace=pace, progress=tell)

    async def _watch(
        self,
        parts: Embedded,
        looker: AIOKafkaConsumer,
        worker: Worker,
        feeding: asyncio.Task[None],
        bank: SimulatedBank,
    ) -> None:
        """Show how far it is, until every payment is in the stored heads' balance."""
        review = [TopicPartition(self._names.review(BANK), number) for number in range(PARTITIONS)]
        ledger = [TopicPartition(self._names.ledger, number) for number in range(PARTITIONS)]
        looker.assign(review)
        await looker.seek_to_beginning(*review)
        latest = Latest()
        async with opened_store(parts.redis) as store:
            moved, last = time.monotonic(), -1
            while True:
                worker.alive()
                if feeding.done():
                    feeding.result()
                    self.view.phase = "judging"
                for records in (await looker.getmany(timeout_ms=LOOK_EVERY_MS)).values():
                    for record in records:
                        latest.add(record.value or b"", list(record.headers))
                balance = await stored_balance(store)
                ends = sum((await looker.end_offsets(ledger)).values())
                self.view.judged, self.view.lag = balance.counters["judged"], max(0, ends - balance.applied)
                self.view.actions = by_action(said.action for said in latest.standing())
                self._show()
                if feeding.done() and balance.exact(len(bank.moves)):
                    return
                progress = self.view.sent + ends + sum(balance.counters.values())
                if progress != last:
                    moved, last = time.monotonic(), progress
                elif time.monotonic() - moved > QUIET_FOR:
                    raise DemoFailed(
                        f"nothing has moved for {QUIET_FOR:.0f} s: {self.view.sent} sent, counters "
                        f"{balance.counters}; {worker.tail()}"
                    )

    # -- reading back ---------------------------------------------------------------------------------------------------

    async def _read_back(self, parts: Embedded, folder: Path, bank: SimulatedBank) -> Finished:
        latest, seen = await self._review(parts)
        async with opened_store(parts.redis) as store:
            balance = await stored_balance(store)
        pseudonyms = Pseudonyms(PseudonymKey.load(folder / "pseudonym.key"))
        bodies = named(latest, bank, pseudonyms)
        sent = len(bank.moves)
        count = balance.counters
        causes = Counter(seen)
        result = Result(
            transactions=count["accepted"],
            recommendations=len(bodies),
            by_action=by_action(body["action"] for body in bodies),
            rings_found=0,
            lost=balance.lost(sent),
            duplicates=balance.doubled(sent) + count["duplicate"] + sum(n - 1 for n in causes.values()),
            reconciled=balance.exact(sent),
            rings=[],
            look_alikes=[],
            look_alikes_above_monitor=0,
            others_above_monitor=0,
            late=count["late"],
            legs=balance.legs,
            judged=count["judged"],
            revisions=sum(latest.revisions.values()),
            seconds=round(time.monotonic() - self._started, 1),
            seed=self.seed,
        )
        compare(result, bodies, bank)
        return Finished(result, bodies)

    async def _review(self, parts: Embedded) -> tuple[Latest, list[str]]:
        """The latest word on each recommendation, and the cause of every message (each must be there once)."""
        latest = Latest()
        causes: list[str] = []
        consumer = AIOKafkaConsumer(bootstrap_servers=parts.kafka, enable_auto_commit=False)
        await consumer.start()
        try:
            async for record in read_all(consumer, [self._names.review(BANK)]):
                latest.add(record.value or b"", list(record.headers))
                causes.append(dict(record.headers)[CAUSE].decode())
        finally:
            await consumer.stop()
        return latest, causes


@contextlib.asynccontextmanager
async def opened_store(url: str) -> AsyncIterator[RedisStore]:
    """The store, to look at. Nothing is claimed and nothing is written."""
    store = RedisStore(
        url, StoreMeta(partitions=PARTITIONS, key_id=KEY_ID, generation="g1"), persistence="none"
    )
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def stored_balance(store: RedisStore) -> Balance:
    """What the heads say, as the worker last wrote them."""
    return add_up([await store.load_head(partition) for partition in range(PARTITIONS)])


def by_action(actions: Iterable[str]) -> dict[str, int]:
    """How many of each action, in the order of the ladder."""
    counts = Counter(actions)
    return {action: counts[action] for action in ACTION_NAMES[1:] if counts[action]}


def named(latest: Latest, bank: SimulatedBank, pseudonyms: Pseudonyms) -> list[dict[str, Any]]:
    """The bodies that stand, with the bank's own account and transaction ids: the bank knows them, Safehold does not."""
    accounts = {f"{pseudonyms.account(account.account):016x}": account.account for account in bank.accounts}
    transactions = {f"{pseudonyms.transaction(BANK, move.tx_id):016x}": move.tx_id for move in bank.moves}
    bodies = []
    for said in latest.standing():
        body = json.loads(said.body)
        body["subject_account"] = accounts.get(body["subject_account"], body["subject_account"])
        body["trigger_tx"] = transactions.get(body["trigger_tx"], body["trigger_tx"])
        for reason in (*body["reasons"], *body["mitigators"]):
            reason["tx_ids"] = [transactions.get(tx, tx) for tx in reason["tx_ids"]]
        for cited in body["payments"]:
            cited["tx_id"] = transactions.get(cited["tx_id"], cited["tx_id"])
        bodies.append(body)
    return sorted(bodies, key=lambda body: (body["event_time"], body["recommendation_id"]))


def compare(result: Result, bodies: Sequence[Mapping[str, Any]], bank: SimulatedBank) -> None:
    """Lay what was recommended beside the truth, which nothing else has seen.

    A ring is found when its main account, or at least half of its members, is held or frozen with the ring's own payments as
    evidence.
    """
    best: dict[str, Mapping[str, Any]] = {}
    for body in bodies:
        known = best.get(body["subject_account"])
        if known is None or (_rank(body), body["points_low"]) > (_rank(known), known["points_low"]):
            best[body["subject_account"]] = body
    lawful_bar = int(Action.MONITOR)
    members: set[str] = set()
    for ring in bank.truth.rings:
        members.update(ring.members)
        own = set(ring.transactions)
        held = [
            said
            for account in ring.members
            if (said := best.get(account)) is not None
            and _rank(said) >= Action.HOLD_AND_REVIEW
            and own.intersection(tx for reason in said["reasons"] for tx in reason["tx_ids"])
        ]
        accounts = {body["subject_account"] for body in held}
        found = ring.main in accounts or 2 * len(accounts) >= len(ring.members)
        main: Mapping[str, Any] | None = best.get(ring.main) or max(held, key=_rank, default=None)
        result.rings.append(
            RingFound(
                name=ring.name,
                story=ring.story,
                main=ring.main,
                found=found,
                action=str(main["action"]) if main else "none",
                members_named=len(accounts),
                members=len(ring.members),
                best=dict(main) if main else None,
            )
        )
        result.rings_found += found
    lawful = {look.account for look in bank.truth.look_alikes}
    for look in bank.truth.look_alikes:
        noticed = best.get(look.account)
        result.look_alikes.append(
            LookAlikeSeen(look.account, look.story, str(noticed["action"]) if noticed else "none")
        )
    above = [account for account, body in best.items() if _rank(body) > lawful_bar and account not in members]
    result.look_alikes_above_monitor = sum(account in lawful for account in above)
    result.others_above_monitor = len(above) - result.look_alikes_above_monitor


def _rank(body: Mapping[str, Any]) -> int:
    return ACTION_NAMES.index(body["action"])
