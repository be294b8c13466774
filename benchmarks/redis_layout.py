"""How account blobs are best laid out in Redis: memory, write and load speed, and the longest a script holds the server.

    python -m benchmarks.redis_layout [--accounts 100000] [--mean 1500]

Starts a Redis of its own for each layout. Figures of one run are in docs/adr/0005-redis-layout.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from streams.state.base import BUCKETS, bucket_of
from tests.rigs.redis import RedisServer

CHUNK = 500
Account = tuple[int, bytes]

WRITE_KEYS = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i]) end
return 1
"""

WRITE_HASHES = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
local at = 2
for i = 2, #KEYS do
  local n = tonumber(ARGV[at])
  redis.call('HSET', KEYS[i], unpack(ARGV, at + 1, at + n))
  at = at + n + 1
end
return 1
"""


@dataclass(frozen=True)
class Layout:
    """One way to keep the accounts of a partition."""

    name: str
    options: tuple[str, ...]
    write: Callable[[redis.Redis, list[Account]], object]
    load: Callable[[redis.Redis], Iterator[Account]]
    sort: Callable[[Account], int] | None


def key_of(subject: int) -> bytes:
    return b"sh2:{p12}:a:" + struct.pack("<Q", subject)


def keys_layout() -> Layout:
    def write(client: redis.Redis, chunk: list[Account]) -> object:
        keys = [b"sh2:{p12}:f", *(key_of(subject) for subject, _ in chunk)]
        return client.evalsha(
            client.script_load(WRITE_KEYS), len(keys), *keys, b"1", *(blob for _, blob in chunk)
        )

    def load(client: redis.Redis) -> Iterator[Account]:
        for keys in batched(client.scan_iter("sh2:{p12}:a:*", 1000), 500):
            for key, blob in zip(keys, client.mget(keys), strict=True):
                yield int.from_bytes(key[-8:], "little"), blob

    return Layout("one key an account", (), write, load, None)


def hash_layout(buckets: int, *, order: bool = True, options: tuple[str, ...] = (), name: str = "") -> Layout:
    shift = 10 - int(math.log2(buckets))

    def place(account: Account) -> int:
        return (
            bucket_of(account[0]) >> shift
            if shift >= 0
            else (bucket_of(account[0]) << -shift) | (account[0] & 3)
        )

    def write(client: redis.Redis, chunk: list[Account]) -> object:
        groups: dict[int, list[bytes]] = {}
        for account in chunk:
            groups.setdefault(place(account), []).extend((struct.pack("<Q", account[0]), account[1]))
        keys = [b"sh2:{p12}:f", *(b"sh2:{p12}:a:%d" % bucket for bucket in groups)]
        values = [part for group in groups.values() for part in (len(group), *group)]
        return client.evalsha(client.script_load(WRITE_HASHES), len(keys), *keys, b"1", *values)

    def load(client: redis.Redis) -> Iterator[Account]:
        for numbers in batched(range(buckets), 16):
            pipe = client.pipeline(transaction=False)
            for bucket in numbers:
                pipe.hgetall(b"sh2:{p12}:a:%d" % bucket)
            for part in pipe.execute():
                for field, blob in part.items():
                    yield int.from_bytes(field, "little"), blob

    return Layout(name or f"{buckets} hashes", options, write, load, place if order else None)


def batched(items: Iterable[Any], n: int) -> Iterator[list[Any]]:
    it = iter(items)
    while chunk := list(itertools.islice(it, n)):
        yield chunk


def measure(layout: Layout, accounts: list[Account]) -> None:
    server = RedisServer(extra=layout.options).start()
    try:
        client = redis.Redis.from_url(server.url(), protocol=2)
        client.hset("sh2:{p12}:f", "epoch", "1")
        before = client.info("memory")["used_memory"]
        payload = sum(len(blob) for _, blob in accounts)
        ordered = sorted(accounts, key=layout.sort) if layout.sort else accounts

        def write_all() -> float:
            start = time.perf_counter()
            for at in range(0, len(ordered), CHUNK):
                assert layout.write(client, ordered[at : at + CHUNK]) == 1
            return len(accounts) / (time.perf_counter() - start)

        first = write_all()
        overhead = (client.info("memory")["used_memory"] - before - payload) / len(accounts)
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 5000)
        client.slowlog_reset()
        client.config_resetstat()
        again = write_all()
        script = client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"] / 1000
        worst = (
            max(
                entry["duration"]
                for entry in client.slowlog_get(5000)
                if entry["command"].startswith(b"EVALSHA")
            )
            / 1000
        )
        client.slowlog_reset()
        start = time.perf_counter()
        found = dict(layout.load(client))
        loaded = len(accounts) / (time.perf_counter() - start)
        longest = max(e["duration"] for e in client.slowlog_get(5000)) / 1000
        assert found == dict(accounts)
        print(
            f"| {layout.name} | {overhead:.0f} | {first:,.0f} | {again:,.0f} | {script:.2f} | {worst:.1f} "
            f"| {loaded:,.0f} | {longest:.1f} |",
            flush=True,
        )
    finally:
        server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--mean", type=int, default=1500)
    parser.add_argument("--only", default="", help="layouts whose name holds this")
    options = parser.parse_args()
    dice = random.Random(5)
    accounts = [
        (
            dice.getrandbits(64),
            dice.randbytes(max(200, min(20_000, int(dice.lognormvariate(0, 0.5) * options.mean * 0.88)))),
        )
        for _ in range(options.accounts)
    ]
    mean = sum(len(blob) for _, blob in accounts) / len(accounts)
    print(f"{options.accounts:,} accounts, mean blob {mean:.0f} B, writes of {CHUNK}\n")
    print(
        "| layout | overhead B/account | first write/s | rewrite/s | script ms | worst script ms | load/s | longest read ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    packed = ("--hash-max-listpack-value", "65536", "--hash-max-listpack-entries", "512")
    for layout in (
        keys_layout(),
        hash_layout(256),
        hash_layout(BUCKETS),
        hash_layout(BUCKETS, order=False, name=f"{BUCKETS} hashes, write not ordered"),
        hash_layout(4096),
        hash_layout(BUCKETS, options=packed, name=f"{BUCKETS} hashes as listpacks"),
    ):
        if options.only in layout.name:
            measure(layout, accounts)


if __name__ == "__main__":
    main()
