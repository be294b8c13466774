"""What the Redis store costs a worker: flush and load of whole partitions through `RedisStore`.

python -m benchmarks.redis_store [--accounts 250000] [--mean 1500]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

import redis

from streams.state.base import StoreMeta, flush_accounts
from streams.state.redis import RedisStore
from tests.rigs.redis import RedisServer


async def measure(accounts: int, mean: int, partitions: int) -> None:
    dice = random.Random(5)
    blobs = {
        partition: [(dice.getrandbits(64), dice.randbytes(mean)) for _ in range(accounts // partitions)]
        for partition in range(partitions)
    }
    accounts = sum(map(len, blobs.values()))
    server = RedisServer(persistence=True).start()
    try:
        store = RedisStore(server.url(), StoreMeta(partitions=partitions, key_id="k", generation="g"))
        await store.open()
        await store.check()
        client = redis.Redis.from_url(server.url())
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 20_000)
        epochs = {partition: await store.claim(partition) for partition in blobs}
        for name in ("first flush", "second flush"):
            client.slowlog_reset()
            cpu, start = time.process_time(), time.perf_counter()
            await asyncio.gather(*(flush_accounts(store, p, epochs[p], blobs[p]) for p in blobs))
            took = time.perf_counter() - start
            times = sorted(
                e["duration"] / 1000
                for e in client.slowlog_get(20_000)
                if e["command"].startswith(b"EVALSHA")
            )
            print(
                f"{name}: {accounts / took:,.0f} accounts/s, worker CPU {1e6 * (time.process_time() - cpu) / accounts:.1f} µs "
                f"an account; scripts p50 {times[len(times) // 2]:.1f} ms, p99 {times[int(len(times) * 0.99)]:.1f} ms, "
                f"max {times[-1]:.1f} ms"
            )
        client.slowlog_reset()
        cpu, start = time.process_time(), time.perf_counter()

        async def load(partition: int) -> int:
            found = 0
            async for chunk in store.load_accounts(partition):
                found += len(chunk)
            return found

        assert sum(await asyncio.gather(*(load(p) for p in blobs))) == accounts
        took = time.perf_counter() - start
        longest = max(e["duration"] / 1000 for e in client.slowlog_get(20_000))
        print(
            f"load: {accounts / took:,.0f} accounts/s, worker CPU {1e6 * (time.process_time() - cpu) / accounts:.1f} µs an "
            f"account; longest command {longest:.1f} ms"
        )
        await store.close()
    finally:
        server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=250_000)
    parser.add_argument("--mean", type=int, default=1500)
    parser.add_argument("--partitions", type=int, default=4)
    options = parser.parse_args()
    print(
        f"{options.accounts:,} accounts in {options.partitions} partitions, blobs of {options.mean} B, AOF everysec"
    )
    asyncio.run(measure(options.accounts, options.mean, options.partitions))


if __name__ == "__main__":
    main()
