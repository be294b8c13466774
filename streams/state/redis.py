"""The state store in Redis or Valkey.

| key (`sh` = namespace, `2` = state layout, `12` = partition) | what |
|---|---|
| `sh:meta` | the `StoreMeta`, outside the layout so that another one is seen |
| `sh2:{p12}:f` | hash `epoch`, `seq`: the fence, and the number of the last write under it |
| `sh2:{p12}:h` | hash `applied`, `head` |
| `sh2:{p12}:c` | control blob |
| `sh2:{p12}:a:0` … `:a:1023` | hashes: 8-byte subject (little endian) → account blob |
| `sh2:{p12}:r`, `sh2:{p12}:t` | recommendation index: hash by id, sorted set by event time |
| `sh2:{flags}` | hash account/flag id → latest state |
| `sh2:{m:<member>}` | member lock |
| `sh:board:<generation>` | not the store's: `streams/board.py` |

Everything of a partition carries one hash tag, so that each script stays inside one slot of a cluster. Measurements behind
the layout: docs/adr/0005-redis-layout.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis.asyncio as aredis
from redis import exceptions
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from detectors.packing import STATE_LAYOUT
from streams.state import redis_scripts as scripts
from streams.state.base import (
    BUCKETS,
    MAX_CHUNK,
    Account,
    FenceLost,
    FlagEntry,
    MemberHeld,
    MemberLost,
    RecommendationEntry,
    StoreError,
    StoreFull,
    StoreMeta,
    StoreRefused,
    StoreUnavailable,
    bucket_of,
)

OLDEST_VERSION = (6, 2)
LOAD_BUCKETS = 8
"""Hashes read in one round trip while loading."""
CLEAR_BUCKETS = 128
KEPT_RECOMMENDATIONS = 20_000
"""Entries of the index that are kept for each partition; the review topics hold all of them."""

_encode = msgspec.msgpack.Encoder().encode
_recommendation = msgspec.msgpack.Decoder(RecommendationEntry).decode
_flag = msgspec.msgpack.Decoder(FlagEntry).decode

_Argument = str | bytes | int


@dataclass(slots=True)
class _Fence:
    """What this object knows of a partition that it claimed."""

    epoch: int
    writes: int = 0
    unknown: tuple[str, tuple[_Argument, ...]] | None = None
    """The write whose outcome is not known, because its answer was lost."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RedisStore:
    """`StateStore` in one Redis, or in a cluster of them."""

    def __init__(
        self,
        url: str,
        meta: StoreMeta,
        *,
        username: str = "",
        password: str = "",
        ca_file: str = "",
        persistence: str = "aof",
        namespace: str = "sh",
        cluster: bool = False,
        timeout: float = 5.0,
        retries: int = 3,
    ) -> None:
        self._url = url
        self._meta = meta
        self._persistence = persistence
        self._cluster = cluster
        self._keys = f"{namespace}{STATE_LAYOUT}"
        self._meta_key = f"{namespace}:meta"
        self._fences: dict[int, _Fence] = {}
        self._options: dict[str, Any] = {
            # Version 3 of the protocol has had regressions in redis-py 8; nothing here needs it.
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "health_check_interval": 15,
            "retry": Retry(ExponentialBackoff(cap=1.0, base=0.05), retries),
        }
        if username:
            self._options["username"] = username
        if password:
            self._options["password"] = password
        if ca_file:
            self._options["ssl_ca_certs"] = ca_file
        self._client: Any = None

    async def open(self) -> None:
        """Connect and see that the server answers."""
        if self._cluster:
            self._client = RedisCluster.from_url(self._url, **self._options)
        else:
            self._client = aredis.Redis.from_url(
                self._url,
                retry_on_error=[exceptions.BusyLoadingError, exceptions.ReadOnlyError],
                **self._options,
            )
        with _errors():
            await self._client.ping()

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()

    async def check(self) -> None:
        """Refuse a server that may lose or evict state, and state that is not ours."""
        problems: list[str] = []
        for name, facts in (await self._facts()).items():
            problems += [
                f"{name}{problem}" for problem in _server_problems(facts, self._persistence, self._cluster)
            ]
        if problems:
            raise StoreRefused(problems)
        with _errors():
            await self._client.set(self._meta_key, msgspec.json.encode(self._meta), nx=True)
            stored = await self._client.get(self._meta_key)
        try:
            found = msgspec.json.decode(stored, type=StoreMeta)
        except (msgspec.MsgspecError, TypeError):
            raise StoreRefused([f"{self._meta_key} does not hold what Safehold writes there"]) from None
        if problems := self._meta.differences(found):
            raise StoreRefused(problems)

    async def _facts(self) -> dict[str, dict[str, str]]:
        """What each server says of itself; the name is empty when there is only one."""
        clients = {"": self._client}
        if self._cluster:
            clients = {f"{node.name}: ": node for node in self._client.get_primaries()}
        return {name: await _ask(client) for name, client in clients.items()}

    # -- one partition ----------------------------------------------------------------------------------------------------

    async def claim(self, partition: int) -> int:
        """Start a new epoch."""
        epoch = int(await self._run(scripts.CLAIM, [self._key(partition, "f")], []))
        self._fences[partition] = _Fence(epoch)
        return epoch

    async def confirm(self, partition: int, epoch: int) -> None:
        """Raise `FenceLost` unless nothing happened since this object's last write."""
        fence = self._claimed(partition, epoch)
        async with fence.lock:
            with _errors():
                stored, writes = await self._client.hmget(self._key(partition, "f"), "epoch", "seq")
            if int(stored or 0) != epoch:
                raise self._lost(partition, f"epoch is {int(stored or 0)}, ours is {epoch}")
            if int(writes) not in (fence.writes, fence.writes + (fence.unknown is not None)):
                raise self._lost(partition, f"the store went back from write {fence.writes} to {int(writes)}")

    async def load_head(self, partition: int) -> bytes | None:
        """The head."""
        with _errors():
            head: bytes | None = await self._client.hget(self._key(partition, "h"), "head")
        return head

    async def load_control(self, partition: int) -> bytes | None:
        """The control blob."""
        with _errors():
            blob: bytes | None = await self._client.get(self._key(partition, "c"))
        return blob

    async def load_accounts(self, partition: int) -> AsyncIterator[list[Account]]:
        """Every account, a few hashes at a time; the next ones are read while the caller takes in the last."""
        reading: asyncio.Task[list[Account]] | None = None
        try:
            for first in range(0, BUCKETS, LOAD_BUCKETS):
                ready = await reading if reading else []
                reading = asyncio.create_task(self._load_buckets(partition, first))
                if ready:
                    yield ready
            if reading and (ready := await reading):
                yield ready
        finally:
            if reading is not None and not reading.done():
                # A cancelled read would leave its connection half used: let it end, and drop what it brings.
                await asyncio.wait([reading])

    async def _load_buckets(self, partition: int, first: int) -> list[Account]:
        with _errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for bucket in range(first, first + LOAD_BUCKETS):
                    pipe.hgetall(self._key(partition, f"a:{bucket}"))
                hashes = await pipe.execute()
        accounts: list[Account] = []
        for found in hashes:
            subjects = struct.unpack(f"<{len(found)}Q", b"".join(found))
            accounts += zip(subjects, found.values(), strict=True)
        return accounts

    async def write_accounts(self, partition: int, epoch: int, chunk: Sequence[Account]) -> None:
        """One script for the chunk: one HSET for each hash it touches."""
        _at_most_a_chunk(chunk)
        written: dict[int, list[_Argument]] = {}
        removed: dict[int, list[_Argument]] = {}
        for subject, blob in dict(chunk).items():
            name = subject.to_bytes(8, "little")
            if blob:
                written.setdefault(bucket_of(subject), []).extend((name, blob))
            else:
                removed.setdefault(bucket_of(subject), []).append(name)
        buckets = sorted(written.keys() | removed.keys())
        values: list[_Argument] = []
        for bucket in buckets:
            for part in (written.get(bucket, []), removed.get(bucket, [])):
                values.append(len(part))
                values += part
        await self._write(
            scripts.WRITE_ACCOUNTS, partition, epoch, [f"a:{bucket}" for bucket in buckets], values
        )

    async def write_control(self, partition: int, epoch: int, blob: bytes) -> None:
        """Write the control blob."""
        await self._write(scripts.WRITE_CONTROL, partition, epoch, ["c"], [blob])

    async def write_head(
        self, partition: int, epoch: int, expected_applied: int | None, applied: int, head: bytes
    ) -> None:
        """Write the head on top of the expected one."""
        expected = "" if expected_applied is None else expected_applied
        await self._write(scripts.WRITE_HEAD, partition, epoch, ["h"], [expected, applied, head])

    async def clear_partition(self, partition: int, epoch: int) -> None:
        """Forget the head, then everything else in steps that do not hold up the server."""
        await self._write(scripts.CLEAR, partition, epoch, ["h"], [])
        for first in range(0, BUCKETS, CLEAR_BUCKETS):
            names = [f"a:{bucket}" for bucket in range(first, first + CLEAR_BUCKETS)]
            await self._write(scripts.CLEAR, partition, epoch, names, [])
        await self._write(scripts.CLEAR, partition, epoch, ["c", "r", "t"], [])

    def _key(self, partition: int, name: str) -> str:
        return f"{self._keys}:{{p{partition}}}:{name}"

    def _claimed(self, partition: int, epoch: int) -> _Fence:
        fence = self._fences.get(partition)
        if fence is None or fence.epoch != epoch:
            raise FenceLost(partition, f"epoch {epoch} is not the one that this worker claimed last")
        return fence

    def _lost(self, partition: int, reason: str) -> FenceLost:
        self._fences.pop(partition, None)
        return FenceLost(partition, reason)

    async def _write(
        self, script: scripts.Script, partition: int, epoch: int, names: list[str], values: list[_Argument]
    ) -> None:
        fence = self._claimed(partition, epoch)
        async with fence.lock:
            number = fence.writes + 1
            keys = [self._key(partition, "f"), *(self._key(partition, name) for name in names)]
            arguments = (epoch, number, *values)
            this = (script.sha, (*keys, *arguments))
            if fence.unknown not in (None, this):
                raise FenceLost(
                    partition, f"the outcome of write {number} is not known and this is not the same one"
                )
            fence.unknown = this
            answer, stored = await self._run(script, keys, arguments)
            if answer < 0:
                stored = stored.decode() if isinstance(stored, bytes) else stored
                raise self._lost(
                    partition, _REFUSALS[answer].format(stored=stored or "none", epoch=epoch, last=number - 1)
                )
            fence.unknown = None
            fence.writes = number

    async def _run(self, script: scripts.Script, keys: Sequence[str], arguments: Sequence[_Argument]) -> Any:
        with _errors():
            try:
                return await self._client.evalsha(script.sha, len(keys), *keys, *arguments)
            except exceptions.NoScriptError:
                return await self._client.eval(script.text, len(keys), *keys, *arguments)

    # -- for people -------------------------------------------------------------------------------------------------------

    async def put_recommendations(
        self, partition: int, epoch: int, items: Sequence[RecommendationEntry]
    ) -> None:
        """Put entries; the greatest cause of an id stays."""
        _at_most_a_chunk(items)
        values: list[_Argument] = [KEPT_RECOMMENDATIONS]
        for item in items:
            values += [item.id, item.event_time, item.offset, item.index, _encode(item)]
        await self._write(scripts.PUT_RECOMMENDATIONS, partition, epoch, ["r", "t"], values)

    async def list_recommendations(
        self, *, partition: int | None = None, limit: int = 100, withdrawn: bool = False
    ) -> list[RecommendationEntry]:
        """The newest first, merged over the partitions."""
        chosen = range(self._meta.partitions) if partition is None else [partition]
        found: list[RecommendationEntry] = []
        for number in chosen:
            found += await self._newest(number, limit, withdrawn)
        return sorted(found, key=lambda item: (item.event_time, item.id), reverse=True)[:limit]

    async def _newest(self, partition: int, limit: int, withdrawn: bool) -> list[RecommendationEntry]:
        found: list[RecommendationEntry] = []
        first = 0
        while len(found) < limit:
            with _errors():
                names = await self._client.zrevrange(self._key(partition, "t"), first, first + limit - 1)
                values = await self._client.hmget(self._key(partition, "r"), names) if names else []
            entries = [_recommendation(value.partition(b"\n")[2]) for value in values if value is not None]
            found += [entry for entry in entries if withdrawn or not entry.withdrawn]
            if len(names) < limit:
                break
            first += limit
        return found[:limit]

    async def get_recommendation(self, recommendation_id: str) -> RecommendationEntry | None:
        """One entry, asked of every partition: its id does not say which."""
        with _errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for partition in range(self._meta.partitions):
                    pipe.hget(self._key(partition, "r"), recommendation_id)
                values = await pipe.execute()
        for value in values:
            if value is not None:
                return _recommendation(value.partition(b"\n")[2])
        return None

    async def put_flag(self, entry: FlagEntry) -> None:
        """Keep the later state of a flag."""
        key = f"{self._keys}:{{flags}}"
        kept = 0
        while not kept:
            with _errors():
                old = await self._client.hget(key, entry.key)
            if old is not None and _flag(old).order > entry.order:
                return
            kept = await self._run(scripts.REPLACE_FIELD, [key], [entry.key, old or b"", _encode(entry)])

    async def list_flags(self, *, party: int | None = None) -> list[FlagEntry]:
        """Flags by id."""
        found: dict[bytes, FlagEntry] = {}
        with _errors():
            async for name, value in self._client.hscan_iter(f"{self._keys}:{{flags}}", count=500):
                found[name] = _flag(value)
        flags = [entry for entry in found.values() if party is None or entry.party == party]
        return sorted(flags, key=lambda entry: (entry.flag_id, entry.party))

    # -- one process per static member id -----------------------------------------------------------------------------------

    async def acquire_member(self, member_id: str, ttl: float) -> str:
        """Take the lock."""
        key, token = self._member(member_id), secrets.token_hex(16)
        with _errors():
            if await self._client.set(key, token, nx=True, px=int(ttl * 1000)):
                return token
            # It may be our own, taken by a first attempt whose answer was lost.
            held, remaining = await self._client.get(key), await self._client.pttl(key)
        if held == token.encode():
            return token
        raise MemberHeld(member_id, max(0, remaining) / 1000)

    async def renew_member(self, member_id: str, token: str, ttl: float) -> None:
        """The heartbeat."""
        if not await self._run(scripts.RENEW, [self._member(member_id)], [token, int(ttl * 1000)]):
            raise MemberLost(member_id)

    async def release_member(self, member_id: str, token: str) -> None:
        """Give the lock back."""
        await self._run(scripts.RELEASE, [self._member(member_id)], [token])

    def _member(self, member_id: str) -> str:
        return f"{self._keys}:{{m:{member_id}}}"


_REFUSALS = {
    -1: "epoch is {stored}, the write's is {epoch}",
    -2: "the store went back from write {last} to {stored}",
    -3: "applied is {stored}, another one was expected",
}


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Redis's errors in the words of the contract. Their texts hold no data."""
    try:
        yield
    except (exceptions.AuthenticationError, exceptions.NoPermissionError) as problem:
        raise StoreRefused([f"the server does not let this user in or do that: {problem}"]) from problem
    except exceptions.OutOfMemoryError as problem:
        raise StoreFull(str(problem)) from problem
    except (
        exceptions.ConnectionError,
        exceptions.TimeoutError,
        exceptions.ReadOnlyError,
        exceptions.ClusterError,
        exceptions.ClusterDownError,
        OSError,
    ) as problem:
        raise StoreUnavailable(f"{type(problem).__name__}: {problem}") from problem
    except exceptions.RedisError as problem:
        raise StoreError(f"{type(problem).__name__}: {problem}") from problem


async def _ask(client: Any) -> dict[str, str]:
    """INFO, and what CONFIG adds where the user may ask it. Managed servers and tight ACLs refuse CONFIG."""
    facts: dict[str, str] = {}
    with _errors():
        for section in ("server", "memory", "persistence", "replication", "cluster"):
            answer = await client.execute_command("INFO", section)
            facts |= {str(name): str(value) for name, value in answer.items()}
        for name in ("maxmemory-policy", "appendfsync", "save"):
            try:
                answer = await client.execute_command("CONFIG", "GET", name)
            except exceptions.ResponseError:
                continue
            facts[name] = _config_value(answer)
    return facts


def _config_value(answer: Any) -> str:
    value = (
        next(iter(answer.values()), "") if isinstance(answer, dict) else answer[1] if len(answer) > 1 else ""
    )
    return value.decode() if isinstance(value, bytes) else str(value)


def _server_problems(facts: dict[str, str], persistence: str, cluster: bool) -> list[str]:
    problems = []
    version = facts.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST_VERSION:
        problems.append(f"server version {version} is older than {'.'.join(map(str, OLDEST_VERSION))}")
    policy = facts.get("maxmemory-policy") or facts.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        problems.append(
            f"maxmemory-policy is {policy}, must be noeviction: an evicted account is a forgotten one"
        )
    if facts.get("role", "master") != "master":
        problems.append("the server is a replica")
    if facts.get("cluster_enabled") == "1" and not cluster:
        problems.append("the server is part of a cluster: set redis_cluster")
    if persistence == "aof":
        if facts.get("aof_enabled") != "1":
            problems.append("appendonly is off, but redis_persistence says aof")
        if facts.get("appendfsync") == "no":
            problems.append("appendfsync is no, must be everysec or always")
    if persistence == "rdb" and facts.get("save") == "" and facts.get("aof_enabled") != "1":
        problems.append("save is empty, but redis_persistence says rdb")
    return problems


def _at_most_a_chunk(items: Sequence[object]) -> None:
    if len(items) > MAX_CHUNK:
        raise ValueError(f"at most {MAX_CHUNK} in one write, not {len(items)}")
