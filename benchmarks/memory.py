"""Cost per leg and bytes per account from ten thousand to a million accounts, worker and Redis apart."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import population, report
from benchmarks.kernel import held_rows, timed
from detectors.step import step
from streams.state.base import StoreMeta, flush_accounts
from streams.state.redis import RedisStore
from tests.rigs.redis import RedisServer

SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (2_000, 4_000)
LEGS = 400_000
ROW_BYTES, PARTY_BYTES, ACCOUNT_BYTES = 40, 24, 450
REDIS_ACCOUNTS = 100_000


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def beyond(total: float, legs: int, parties: int, accounts: int) -> float:
    """Bytes an account beyond 40 a held leg and 24 a counterparty: what the target calls 450."""
    return (total - ROW_BYTES * legs - PARTY_BYTES * parties) / accounts


def one_size(copies: population.Copies, accounts: int, legs: int) -> dict[str, float]:
    """Load full windows of so many accounts, then judge legs of accounts drawn uniformly."""
    gc.collect()
    before = resident()
    state = population.empty_state(accounts)
    ids = []
    loading = 0.0
    for copy, (subjects, blobs) in enumerate(copies.many(accounts)):
        started = time.process_time()
        state.load_many(subjects.tolist(), blobs)
        loading += time.process_time() - started
        n = copies.population.accounts
        ids.append(population.account_ids(copy * n, (copy + 1) * n))
    del blobs, subjects
    gc.collect()
    held = resident() - before
    memory = state.memory()
    mean, p99 = held_rows(state)
    copied = population.uniform(copies, accounts, legs)
    rows = population.legs(copied, np.concatenate(ids), first_leg=1 << 40)[:legs]
    frames = population.frames(rows)
    warm = max(1, len(frames) // 10)
    for frame in frames[:warm]:
        step(state, [frame])
    n, cpu, _, outputs = timed(state, frames[warm:])
    return {
        "accounts": accounts,
        "mean": mean,
        "p99": p99,
        "parties": memory["counterparties"] / memory["accounts"],
        "us_leg": 1e6 * cpu / n,
        "outputs": outputs,
        "arena": beyond(memory["bytes"], memory["legs"], memory["counterparties"], memory["accounts"]),
        "resident": beyond(held, memory["legs"], memory["counterparties"], memory["accounts"]),
        "bytes": held / memory["accounts"],
        "load_us": 1e6 * loading / memory["accounts"],
        "gib": held / 2**30,
    }


async def in_redis(copies: population.Copies, accounts: int) -> dict[str, float]:
    """What Redis keeps for so many accounts, and what flushing costs."""
    server = RedisServer(Path(tempfile.mkdtemp(prefix="bench-")), persistence=True).start()
    try:
        store = RedisStore(server.url(), StoreMeta(partitions=1, key_id="k1", generation="g1"))
        await store.open()
        await store.check()
        epoch = await store.claim(0)
        with server.client() as client:
            before = client.info("memory")["used_memory"]
            legs = parties = count = size = 0
            spent = wall = packing = 0.0
            state = copies.state
            for _ in range(-(-accounts // copies.population.accounts)):
                cpu = time.process_time()
                subjects, blobs = copies.blobs(count // copies.population.accounts)
                packing += _pack_time(copies, subjects)
                legs += int(state.acc["len"][: state.n_acc].sum())
                parties += int(state.acc["plen"][: state.n_acc].sum())
                count += len(blobs)
                size += sum(map(len, blobs))
                cpu, start = time.process_time(), time.perf_counter()
                await flush_accounts(store, 0, epoch, zip(subjects.tolist(), blobs, strict=True))
                spent += time.process_time() - cpu
                wall += time.perf_counter() - start
            used = client.info("memory")["used_memory"] - before
        await store.close()
    finally:
        server.kill()
    return {
        "accounts": count,
        "beyond": beyond(used, legs, parties, count),
        "bytes": used / count,
        "blob": size / count,
        "pack_us": 1e6 * packing / count,
        "flush_us": 1e6 * spent / count,
        "flush_rate": count / wall,
    }


def _pack_time(copies: population.Copies, subjects: np.ndarray) -> float:
    start = time.process_time()
    copies.state.pack(subjects)
    return time.process_time() - start


def tables(result: report.Result, sizes: Sequence[dict[str, float]], redis: dict[str, float]) -> None:
    """Print and keep."""
    base = sizes[0]["us_leg"]
    result.add(
        "Cost per leg (process time; legs of accounts drawn uniformly, full windows, frames of 4,000)",
        [
            "accounts",
            "held rows, mean / p99",
            "counterparties",
            "µs a leg",
            "to the smallest",
            "target ±20 %",
        ],
        [
            [
                f"{r['accounts']:,}",
                f"{r['mean']:.0f} / {r['p99']:.0f}",
                f"{r['parties']:.0f}",
                f"{r['us_leg']:.2f}",
                f"× {r['us_leg'] / base:.2f}",
                report.against(r["us_leg"] / base, 1.2, more=False),
            ]
            for r in sizes
        ],
    )
    result.add(
        "Worker memory (beyond = bytes an account on top of 40 B a held leg and 24 B a counterparty; target 450)",
        [
            "accounts",
            "GiB resident",
            "bytes an account",
            "beyond, arenas",
            "beyond, resident",
            "",
            "load, µs an account",
        ],
        [
            [
                f"{r['accounts']:,}",
                f"{r['gib']:.2f}",
                f"{r['bytes']:.0f}",
                f"{r['arena']:.0f}",
                f"{r['resident']:.0f}",
                report.against(r["resident"], ACCOUNT_BYTES, more=False),
                f"{r['load_us']:.1f}",
            ]
            for r in sizes
        ],
    )
    result.add(
        "Redis memory (used_memory) and flush",
        [
            "accounts",
            "bytes an account",
            "blob",
            "beyond",
            "",
            "pack, µs an account",
            "write, µs CPU of the worker an account",
            "accounts/s",
        ],
        [
            [
                f"{redis['accounts']:,.0f}",
                f"{redis['bytes']:.0f}",
                f"{redis['blob']:.0f}",
                f"{redis['beyond']:.0f}",
                report.against(redis["beyond"], ACCOUNT_BYTES, more=False),
                f"{redis['pack_us']:.1f}",
                f"{redis['flush_us']:.1f}",
                f"{redis['flush_rate']:,.0f}",
            ]
        ],
    )
    result.figures |= {f"us_leg_{int(r['accounts'])}": round(r["us_leg"], 3) for r in sizes}
    result.figures |= {"worker_beyond": round(sizes[-1]["resident"]), "redis_beyond": round(redis["beyond"])}


def run(quick: bool) -> report.Result:
    """The figure."""
    result = report.new("memory", "Memory, and cost per leg from 10,000 to 1,000,000 accounts", quick)
    people = population.Population(1_000 if quick else population.ACCOUNTS)
    copies = population.Copies(people, 12 if quick else population.DAYS)
    sizes = [
        one_size(copies, accounts, 20_000 if quick else LEGS)
        for accounts in (QUICK_SIZES if quick else SIZES)
    ]
    redis = asyncio.run(in_redis(copies, 2_000 if quick else REDIS_ACCOUNTS))
    tables(result, sizes, redis)
    return result
