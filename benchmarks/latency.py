"""Message in to recommendation out at 5,000 payments a second, while state is flushed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from benchmarks import population, report, rig
from benchmarks.stream import total
from detectors.model import Kind
from streams import ledger
from streams.publish import CAUSE, Cause
from tests.e2e.harness import SOURCES

RATE = 5_000
SECONDS = 45
WARM_SECONDS = 5.0
ACCOUNTS = 100_000
MULES = 0.003
"""More than anywhere, so that there are enough recommendations to take a p99 of."""
TARGET_MS = 500


async def drive(here: rig.Rig, items: list[tuple[int, bytes]], rate: int) -> tuple[float, float]:
    """Send at an even pace. Returns the seconds it took and the most that it fell behind."""
    producer = AIOKafkaProducer(bootstrap_servers=here.kafka.bootstrap, linger_ms=1, max_batch_size=1 << 18)
    await producer.start()
    start, behind = time.monotonic(), 0.0
    try:
        sent = 0
        while sent < len(items):
            due = min(len(items), int((time.monotonic() - start) * rate) + 1)
            behind = max(behind, (due - sent) / rate)
            for account, value in items[sent:due]:
                await producer.send(
                    here.install.topic, value, key=b"%d" % account, partition=account % SOURCES
                )
            sent = due
            await asyncio.sleep(0.002)
        await producer.flush()
    finally:
        await producer.stop()
    return time.monotonic() - start, behind


async def frames(here: rig.Rig) -> dict[tuple[int, int], Any]:
    """Leg rows of every ledger frame, by (partition, offset)."""
    found = {}
    for record in await here.install.read(here.install.names.ledger):
        if ledger.peek_kind(record.value) is Kind.LEGS:
            found[record.partition, record.offset] = (
                ledger.decode(record.value, offset=record.offset).rows,
                record.timestamp,
            )
    return found


async def measured(here: rig.Rig, since_ms: float) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds from the bank's message to its recommendation, and to its ledger frame.

    A recommendation names the frame that it follows from; the account's newest leg in it is the message that caused it.
    """
    rows = await frames(here)
    whole, legs = [], []
    for record in await here.install.read(here.install.names.review(population.BANK)):
        cause = Cause.parse(dict(record.headers)[CAUSE])
        frame, _ = rows[cause.partition, cause.offset]
        mine = frame[frame["subject"] == np.uint64(int(record.key, 16))]
        if len(mine) and mine["received"].max() / 1000 >= since_ms:
            whole.append(record.timestamp - mine["received"].max() / 1000)
    for frame, appended in rows.values():
        keep = frame["received"] / 1000 >= since_ms
        legs.append(appended - frame["received"][keep] / 1000)
    return np.array(whole), np.concatenate(legs)


async def one(copies: population.Copies, accounts: int, rate: int, seconds: float) -> dict[str, Any]:
    """Drive a worker on a store of full windows for so long."""
    people = population.Population(copies.population.accounts, mules=MULES)
    moves = population.uniform(copies, accounts, int(rate * seconds), people)
    items = population.messages(moves)
    async with rig.rig() as here:
        await rig.preload(here, copies, accounts)
        here.worker()
        await here.until_ready()
        await rig.warm(here, items)
        paced = list(items)
        began = time.time() * 1000
        before = here.cpu()
        took, behind = await drive(here, paced, rate)
        after = here.cpu()
        await here.install.received(rig.WARM + len(paced), within=120)
        numbers = await asyncio.to_thread(here.metrics)
        whole, legs = await measured(here, began + 1000 * WARM_SECONDS)
    return {
        "rate": len(paced) / took,
        "behind": behind,
        "said": whole,
        "legs": legs,
        "cpu": {name.split("-")[0]: (after[name] - before[name]) / took for name in after},
        "flushes": total(numbers, "safehold_flush_seconds_count"),
        "flush": total(numbers, "safehold_flush_seconds_sum"),
    }


def run(quick: bool) -> report.Result:
    """The figure."""
    result = report.new("latency", f"Latency at {RATE:,} payments a second, while flushing", quick)
    people = population.Population(1_000 if quick else population.ACCOUNTS)
    copies = population.Copies(people, 12 if quick else population.DAYS)
    accounts = 2_000 if quick else ACCOUNTS
    found = asyncio.run(one(copies, accounts, 500 if quick else RATE, 10 if quick else SECONDS))
    rows = []
    for name, values in (
        ("to the ledger, every leg", found["legs"]),
        ("to the recommendation", found["said"]),
    ):
        p50, p99, most = (
            (float(v) for v in np.quantile(values, [0.5, 0.99, 1.0])) if len(values) else (0, 0, 0)
        )
        aim = report.against(p99, TARGET_MS, more=False) if name.endswith("recommendation") else ""
        rows.append([name, f"{len(values):,}", f"{p50:.0f}", f"{p99:.0f}", f"{most:.0f}", aim])
        result.figures[f"p99_ms {name}"] = round(p99)
    result.add(
        f"Milliseconds from the bank's message (target p99 {TARGET_MS}); the first {WARM_SECONDS:.0f} s left out",
        ["", "messages", "p50", "p99", "greatest", ""],
        rows,
    )
    cpu = found["cpu"]
    result.add(
        "The run",
        [
            "payments/s",
            "producer behind at most, s",
            "accounts",
            "flushes",
            "seconds flushing",
            "cores: worker",
            "Kafka",
            "Redis",
        ],
        [
            [
                f"{found['rate']:,.0f}",
                f"{found['behind']:.2f}",
                f"{accounts:,}",
                f"{found['flushes']:.0f}",
                f"{found['flush']:.1f}",
                *(f"{cpu.get(name, 0):.2f}" for name in ("w1", "kafka", "redis")),
            ]
        ],
    )
    return result
