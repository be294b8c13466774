"""One file through real Kafka and Redis, in several random orders and once with the monitor standing still: the same bodies?

    python -m benchmarks.replay_contract FILE --mapping NAME [--orders 5] [--seed 1] [--json FILE]

Each run has its own topics (a bank topic and a ledger of four partitions each), its own state and one worker process.
The file is sent at full speed, in an order in which no payment comes more than the mapping's lateness behind the greatest
time before it. Every second order is sent whole before the worker starts: all of it is backlog then. In the last run
nothing is judged from the middle of the file on, until intake may run no further ahead (24 h of event time).

Compared, byte for byte: the bodies that stand in the review and observe topics, folded by greatest cause, with those that
`safehold judge` writes for the file. Checked besides: nothing late, doubled or refused, and the balance of every source
partition and day, against the offsets of the bank topic and the legs that the ledger holds. Exit code 1 if anything fails.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detectors.model import HOUR
from streams import topics
from streams.judge import fold_settings
from streams.opening import Opened, open_payments
from streams.pseudonyms import PUBLIC_KEY
from tests.e2e import contract
from tests.e2e.harness import Installation
from tests.rigs.kafka import KafkaBroker
from tests.rigs.redis import RedisServer

WITHIN = 1_800.0
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the table."""

    name: str
    seed: int
    sent: str
    overtaken: int
    behind_hours: float
    seconds: float
    messages: int
    legs: int
    judged: int
    late: int
    redelivered: int
    said: int
    bodies: int
    stood: dict[str, Any]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does."""

    name: str
    seed: int
    backlog: bool
    stand_at: int = 0


def judged(file: Path, mapping: str, folder: Path) -> dict[str, Any]:
    """`safehold judge` on the file. Returns its summary."""
    command = [sys.executable, "-m", "streams.cli", "judge", str(file), "--mapping", mapping]
    done = subprocess.run(
        [*command, "--out", str(folder), "--json"], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return dict(json.loads(done.stdout))


def installed(
    payments: Opened,
    prefix: str,
    parts: tuple[KafkaBroker, RedisServer],
    folder: Path,
    *,
    bank: str = "",
) -> Installation:
    """An installation that reads the file's payments as its mapping says. `bank` has the review topic."""
    assert payments.mapping is not None
    broker, redis = parts
    lengths = fold_settings(payments)
    bank = bank or payments.bank
    topic = {"name": f"{prefix}-payments", "format": "canonical", "bank": bank}
    options: dict[str, Any] = {
        "topics": [{**topic, "system_wide": payments.mapping.system_wide}],
        "lateness": f"{lengths.lateness // HOUR}h",
        "redis_timeout": "10s",
        "member_ttl": "10s",
        "flush_interval": "2s",
    }
    if lengths.observed_since is not None:
        since = datetime.datetime.fromtimestamp(lengths.observed_since / 1e6, datetime.UTC)
        options["observed_since"] = since.date().isoformat()
    (folder / prefix).mkdir()
    return Installation(broker, redis.url(), folder / prefix, prefix, options, bank=bank, key=PUBLIC_KEY)


async def run(
    plan: Plan,
    payments: Opened,
    messages: contract.Messages,
    wanted: Sequence[bytes],
    parts: tuple[KafkaBroker, RedisServer],
    folder: Path,
) -> Run:
    """One installation from empty topics to the comparison."""
    assert payments.mapping is not None
    broker, redis = parts
    order = contract.shuffled(messages.times, payments.mapping.lateness_us, plan.seed)
    moved = contract.disorder(messages.times, order)
    assert moved.behind <= payments.mapping.lateness_us
    prefix = "replay-" + plan.name.replace(" ", "-")
    installation = installed(payments, prefix, parts, folder)
    installation.create()
    try:
        if plan.backlog:
            await contract.send(installation, messages, order)
        started = time.monotonic()
        worker = installation.worker(stand_at=plan.stand_at)
        if not plan.backlog:
            await contract.send(installation, messages, order)
        await installation.settled(len(messages.values), within=WITHIN)
        seconds = time.monotonic() - started
        found = await contract.outcome(installation)
        found.stood = contract.stood(worker.log)
        problems = found.problems(wanted, len(messages.values))
        if plan.stand_at and not found.stood:
            problems.append("the monitor never stood still")
        worker.stop()
    finally:
        installation.end()
        with topics.admin_client(broker.bootstrap) as admin:
            admin.delete_topics([name for name in admin.list_topics() if name.startswith(prefix)])
        redis.client().flushdb()
    return Run(
        name=plan.name,
        seed=plan.seed,
        sent="before the worker started" if plan.backlog else "while it ran",
        overtaken=moved.overtaken,
        behind_hours=contract.hours(moved.behind),
        seconds=round(seconds, 1),
        messages=found.counters["received"],
        legs=found.ledger_legs,
        judged=found.counters["judged"],
        late=found.counters["late"],
        redelivered=found.counters["redelivered"],
        said=found.said,
        bodies=len(found.bodies),
        stood=found.stood,
        problems=tuple(problems),
    )


HEADER = (
    "| run | seed | payments sent | overtaken by a later one | most behind | worker, s | messages | ledger legs | judged | late | "
    "said | stand | as `judge` |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(done: Run) -> str:
    """A run as a row of the table."""
    verdict = "; ".join(done.problems) or "yes, byte for byte; balanced"
    return (
        f"| {done.name} | {done.seed} | {done.sent} | {done.overtaken:,} | {done.behind_hours} h | {done.seconds:.0f} | "
        f"{done.messages:,} | {done.legs:,} | {done.judged:,} | {done.late:,} | {done.said:,} | {done.bodies:,} | {verdict} |"
    )


def stood_still(said: dict[str, Any]) -> str:
    """How far intake ran while the monitor stood, in words."""
    before, after, judged_to = said["intake_before"], said["intake_after"], said["judged_to"]
    return (
        f"the monitor stood still {said['seconds']} s; intake was {contract.hours(before - judged_to)} h of event time ahead of "
        f"it, ran to {contract.hours(after - judged_to)} h ahead, and was held there by: {said['held_by']}"
    )


async def everything(file: Path, mapping: str, orders: int, seed: int, folder: Path) -> dict[str, Any]:
    """Judge, then every run. Prints as it goes."""
    payments = open_payments(file, mapping)
    summary = judged(file, mapping, folder / "judge")
    wanted = contract.bodies_of(folder / "judge" / "recommendations.jsonl")
    print(
        f"`judge`: {summary['transactions']:,} transactions, {summary['legs']:,} legs, {summary['judged']:,} judged, "
        f"{summary['late']:,} late, {len(wanted):,} recommendations; configuration {summary['config_digest']}\n"
    )
    messages = contract.Messages.of(payments)
    middle = sorted(messages.times)[len(messages.times) // 2]
    plans = [Plan(f"order {n + 1}", seed + n, backlog=n % 2 == 1) for n in range(orders)]
    plans.append(Plan("stopped monitor", seed + orders, backlog=True, stand_at=middle))
    print(HEADER, flush=True)
    runs = []
    with tempfile.TemporaryDirectory(prefix="safehold-replay-") as temporary:
        broker = KafkaBroker(Path(temporary) / "kafka", full_speed=True)
        redis = RedisServer(Path(temporary) / "redis")
        try:
            broker.start()
            redis.start()
            for plan in plans:
                runs.append(await run(plan, payments, messages, wanted, (broker, redis), folder))
                print(line(runs[-1]), flush=True)
        finally:
            broker.kill()
            redis.kill()
    print()
    for done in runs:
        if done.stood:
            print(f"{done.name}: {stood_still(done.stood)}")
    return {"judge": summary, "runs": [asdict(done) for done in runs]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay_contract", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("file", type=Path, help="payments, as `safehold judge` reads them")
    parser.add_argument("--mapping", required=True, help="what the columns mean")
    parser.add_argument("--orders", type=int, default=5, help="random orders, besides the stopped monitor")
    parser.add_argument("--seed", type=int, default=1, help="of the first order; the others follow")
    parser.add_argument("--json", type=Path, help="write the figures here")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="safehold-contract-") as folder:
        result = asyncio.run(
            everything(chosen.file, chosen.mapping, chosen.orders, chosen.seed, Path(folder))
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any(done["problems"] for done in result["runs"]) else 0


if __name__ == "__main__":
    sys.exit(main())
