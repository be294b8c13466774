"""Seconds until judging again: after kill -9 with a million accounts, on a dead worker's partitions, and on an empty cache."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka import AIOKafkaProducer

from benchmarks import population, report, rig
from benchmarks.stream import total
from streams.clients import KafkaOptions
from tests.e2e.harness import PARTITIONS

ACCOUNTS = 1_000_000
OTHERS = 100_000
TARGETS = {"restart": 20.0, "cold": 90.0}
SESSION = KafkaOptions("").session_timeout_ms / 1000


@contextmanager
def empty_cache() -> Iterator[None]:
    """Workers started in the block find nothing compiled."""
    with tempfile.TemporaryDirectory(prefix="numba-") as folder:
        before = os.environ.pop("NUMBA_CACHE_DIR", None)
        os.environ["NUMBA_CACHE_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["NUMBA_CACHE_DIR"]
            if before is not None:
                os.environ["NUMBA_CACHE_DIR"] = before


class Probe:
    """Sends a few payments again and again until a worker has judged some of them."""

    def __init__(self, here: rig.Rig, copies: population.Copies, accounts: int) -> None:
        self.here = here
        self.items = population.messages(population.uniform(copies, accounts, 40_000), 1 << 30)

    async def judged(self, member: str, within: float = 600.0) -> float:
        """Seconds from now until legs sent after now were judged by this worker on every partition."""
        start = time.monotonic()
        producer = AIOKafkaProducer(bootstrap_servers=self.here.kafka.bootstrap)
        await producer.start()
        try:
            base: float | None = None
            while time.monotonic() - start < within:
                await rig.produce(producer, self.here.install.topic, self.items, 40)
                numbers = await asyncio.to_thread(self.here.metrics, member)
                partitions = sum(key.startswith("safehold_ledger_lag_records{") for key in numbers)
                legs = total(numbers, "safehold_judged_legs_total")
                ready = await asyncio.to_thread(self.here.ready, member)
                if ready and partitions == PARTITIONS:
                    if base is not None and legs > base:
                        return time.monotonic() - start
                    base = legs if base is None else base
                await asyncio.sleep(0.1)
        finally:
            await producer.stop()
        raise TimeoutError(f"{member} does not judge; {self.here.install.programs[-1].tail(30)}")


async def restart(copies: population.Copies, accounts: int) -> dict[str, float]:
    """Kill -9 and start again under the same member id."""
    async with rig.rig() as here:
        await rig.preload(here, copies, accounts)
        probe = Probe(here, copies, accounts)
        worker = here.worker()
        first = await here.until_ready()
        await probe.judged("w1")
        cpu = rig.cpu_of(worker.pid)
        worker.kill()
        start = time.monotonic()
        worker = here.worker()
        ready = await here.until_ready()
        ready = time.monotonic() - start
        again = ready + await probe.judged("w1")
        used = rig.cpu_of(worker.pid)
        redis = rig.cpu_of(here.redis._program.pid)
        resident = rig.resident_of(worker.pid)
    return {
        "first": first, "ready": ready, "again": again, "cpu": used, "first_cpu": cpu, "redis": redis, "resident": resident,
    }  # fmt: skip


async def takeover(copies: population.Copies, accounts: int) -> float:
    """Two workers, one dies; seconds until the other judges all partitions."""
    async with rig.rig() as here:
        await rig.preload(here, copies, accounts)
        probe = Probe(here, copies, accounts)
        dies = here.worker("w1")
        await here.until_ready("w1")
        here.worker("w2")
        await here.until_ready("w2")
        await asyncio.sleep(3)
        dies.kill()
        return await probe.judged("w2")


async def cold() -> float:
    """A first start on an empty store and an empty compile cache."""
    async with rig.rig() as here:
        with empty_cache():
            start = time.monotonic()
            here.worker()
            await here.until_ready()
        return time.monotonic() - start


def run(quick: bool) -> report.Result:
    """The figure."""
    result = report.new("restart", "Restart, take-over and first start", quick)
    people = population.Population(1_000 if quick else population.ACCOUNTS)
    copies = population.Copies(people, 12 if quick else population.DAYS)
    accounts = 2_000 if quick else ACCOUNTS
    found = asyncio.run(restart(copies, accounts))
    rows = [
        [
            f"kill -9, same member id, {accounts:,} accounts",
            f"{found['again']:.1f}",
            f"{TARGETS['restart']:.0f}",
            report.against(found["again"], TARGETS["restart"], more=False),
        ]
    ]
    others = 2_000 if quick else OTHERS
    taken = asyncio.run(takeover(copies, others))
    limit = SESSION + 10
    rows.append(
        [
            f"a dead worker's partitions, {others:,} accounts (session timeout {SESSION:.0f} s)",
            f"{taken:.1f}",
            f"{limit:.0f}",
            report.against(taken, limit, more=False),
        ]
    )
    if not quick:
        empty = asyncio.run(cold())
        rows.append(
            [
                "first start, empty compile cache",
                f"{empty:.1f}",
                f"{TARGETS['cold']:.0f}",
                report.against(empty, TARGETS["cold"], more=False),
            ]
        )
        result.figures["cold_s"] = round(empty, 1)
    result.figures |= {"restart_s": round(found["again"], 1), "takeover_s": round(taken, 1)}
    result.add("Seconds until judging", ["", "seconds", "target", ""], rows)
    result.note(
        f"restart with {accounts:,} accounts: ready after {found['ready']:.1f} s, {found['cpu']:.1f} s CPU of the worker, "
        f"{found['resident'] / 2**30:.2f} GiB resident; the first start took {found['first']:.1f} s"
    )
    return result
