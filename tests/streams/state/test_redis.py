"""What only a real Redis can show: how it dies, what it is set to, who may do what, and where its keys live."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from streams.board import RedisBoard
from streams.embedded import Embedded
from streams.state import redis_scripts
from streams.state.base import (
    BUCKETS,
    FenceLost,
    FlagEntry,
    RecommendationEntry,
    StateStore,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    chunked,
    flush_accounts,
)
from streams.state.redis import RedisStore
from tests.rigs.process import wait_until
from tests.rigs.proxy import FaultProxy
from tests.rigs.redis import RedisServer
from tests.streams.state.backends import META, accounts_of, some_accounts

Start = Callable[..., RedisServer]


async def opened(url: str, **options: object) -> RedisStore:
    store = RedisStore(url, META, **({"persistence": "none"} | options))  # type: ignore[arg-type]
    await store.open()
    return store


async def use_everything(store: StateStore) -> None:
    """Every command of the contract once."""
    await store.check()
    epoch = await store.claim(5)
    await store.clear_partition(5, epoch)
    await flush_accounts(store, 5, epoch, some_accounts(1_000))
    await store.write_accounts(5, epoch, [(some_accounts(1)[0][0], b"")])
    await store.write_control(5, epoch, b"control")
    item = RecommendationEntry(
        id="r", partition=5, subject=1, event_time=1, offset=1, index=0, action="monitor", mode="observe"
    )
    await store.put_recommendations(5, epoch, [item])
    await store.write_head(5, epoch, None, 1, b"head")
    await store.confirm(5, epoch)
    assert (await store.load_head(5), await store.load_control(5)) == (b"head", b"control")
    assert len(await accounts_of(store, 5)) == 999
    assert await store.list_recommendations() == [await store.get_recommendation("r")] == [item]
    await store.put_flag(FlagEntry(flag_id="f", party=1, state="confirmed", effective_at=1, record_id="a"))
    assert len(await store.list_flags()) == 1
    token = await store.acquire_member("w", 5)
    await store.renew_member("w", token, 5)
    await store.release_member("w", token)


# -- how it dies ------------------------------------------------------------------------------------------------------------


async def test_killed_without_persistence_the_worker_is_told(start_redis: Start) -> None:
    server = start_redis()
    store = await opened(server.url())
    epoch = await store.claim(0)
    await store.write_head(0, epoch, None, 10, b"h10")
    server.kill()
    server.restart()
    with pytest.raises(FenceLost):
        await store.write_accounts(0, epoch, [(1, b"x")])
    assert await store.load_head(0) is None
    await store.close()


async def test_killed_with_persistence_the_worker_goes_on(start_redis: Start) -> None:
    server = start_redis(persistence=True, fsync="always")
    store = await opened(server.url(), persistence="aof")
    await store.check()
    epoch = await store.claim(0)
    await store.write_accounts(0, epoch, [(1, b"at 10")])
    await store.write_head(0, epoch, None, 10, b"h10")
    server.kill()
    server.restart()
    await store.write_accounts(0, epoch, [(1, b"at 20")])
    await store.write_head(0, epoch, 10, 20, b"h20")
    assert (await store.load_head(0), await accounts_of(store, 0)) == (b"h20", {1: b"at 20"})
    await store.close()


@pytest.mark.parametrize("lost", ["a chunk between two chunks", "the head", "the claim"])
async def test_killed_and_its_last_second_lost_the_worker_is_told(start_redis: Start, lost: str) -> None:
    server = start_redis(persistence=True, fsync="always")
    store = await opened(server.url())
    before = await store.claim(0)
    await store.write_head(0, before, None, 10, b"h10")
    if lost == "the claim":
        mark = server.mark()
    epoch = await store.claim(0)
    if lost != "the claim":
        mark = server.mark()
    await store.write_accounts(0, epoch, [(1, b"at 20")])
    if lost == "the head":
        await store.write_head(0, epoch, 10, 20, b"h20")
    server.lose_since(mark)
    with pytest.raises(FenceLost):
        await store.write_accounts(0, epoch, [(2, b"at 20")])
    with pytest.raises(FenceLost):
        await store.write_head(0, epoch, 20 if lost == "the head" else 10, 30, b"h30")
    assert (await store.load_head(0), await accounts_of(store, 0)) == (b"h10", {})
    assert await store.claim(0) > epoch
    await store.close()


async def test_gone_it_is_unavailable_and_the_same_write_goes_through_later(start_redis: Start) -> None:
    server = start_redis(persistence=True, fsync="always")
    store = await opened(server.url(), retries=1, timeout=0.5)
    epoch = await store.claim(0)
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.write_control(0, epoch, b"c")
    with pytest.raises(StoreUnavailable):
        await store.load_head(0)
    server.restart()
    await store.write_control(0, epoch, b"c")
    assert await store.load_control(0) == b"c"
    await store.close()


async def test_a_full_server_says_so_and_keeps_what_it_has(start_redis: Start) -> None:
    server = start_redis(extra=("--maxmemory", "8mb"))
    store = await opened(server.url())
    epoch = await store.claim(0)
    accounts = some_accounts(20_000, size=2_000)
    with pytest.raises(StoreFull):
        await flush_accounts(store, 0, epoch, accounts)
    kept = await accounts_of(store, 0)
    assert 0 < len(kept) < 20_000
    whole: dict[int, bytes] = {}
    for chunk in chunked(accounts):
        if len(whole) < len(kept):
            whole |= dict(chunk)
    assert kept == whole, "a write is applied whole or not at all"
    await store.close()


# -- answers that are lost ----------------------------------------------------------------------------------------------


#   worker ──write 1──▶ ··0.4 s·· ──▶ server applies it
#          ◀─ gives up after 0.2 s
async def test_a_write_whose_answer_was_lost_is_applied_once(
    redis_url: str, redis_server: RedisServer
) -> None:
    database = redis_url.rsplit("/", 1)[1]
    with FaultProxy(redis_server.port) as proxy:
        store = await opened(f"redis://127.0.0.1:{proxy.port}/{database}", retries=0, timeout=0.2)
        epoch = await store.claim(0)
        await store.write_head(0, epoch, None, 1, b"one")
        proxy.delay = 0.4
        with pytest.raises(StoreUnavailable):
            await store.write_head(0, epoch, 1, 2, b"two")
        client = redis.Redis.from_url(redis_url)
        await asyncio.to_thread(
            wait_until, lambda: client.hget("sh2:{p0}:h", "head") == b"two", within=5, what="the late write"
        )
        proxy.heal()
        with pytest.raises(FenceLost, match="not known"):
            await store.write_accounts(0, epoch, [(1, b"another write")])
        await store.write_head(0, epoch, 1, 2, b"two")
        await store.write_head(0, epoch, 2, 3, b"three")
        assert await store.load_head(0) == b"three"
        await store.close()


async def test_a_cancelled_write_leaves_nothing_half_done(redis_url: str, redis_server: RedisServer) -> None:
    database = redis_url.rsplit("/", 1)[1]
    with FaultProxy(redis_server.port) as proxy:
        store = await opened(f"redis://127.0.0.1:{proxy.port}/{database}")
        epoch = await store.claim(0)
        proxy.swallow()
        writing = asyncio.create_task(store.write_control(0, epoch, b"c"))
        await asyncio.wait([writing], timeout=0.05)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        proxy.heal()
        with pytest.raises(FenceLost, match="not known"):
            await store.write_control(0, epoch, b"other")
        await store.write_control(0, epoch, b"c")
        await store.confirm(0, epoch)
        assert await store.load_control(0) == b"c"
        await store.close()


async def test_connections_cut_under_it_are_made_again(redis_url: str, redis_server: RedisServer) -> None:
    database = redis_url.rsplit("/", 1)[1]
    with FaultProxy(redis_server.port) as proxy:
        store = await opened(f"redis://127.0.0.1:{proxy.port}/{database}")
        epoch = await store.claim(0)
        accounts = some_accounts(6_000)
        for first in range(0, 6_000, 500):
            await store.write_accounts(0, epoch, accounts[first : first + 500])
            proxy.cut()
        assert await accounts_of(store, 0) == dict(accounts)
        await store.confirm(0, epoch)
        await store.close()


async def test_an_abandoned_load_leaves_its_connection_whole(redis_url: str) -> None:
    store = await opened(redis_url)
    epoch = await store.claim(0)
    await flush_accounts(store, 0, epoch, some_accounts(3_000))
    loading = store.load_accounts(0)
    await anext(loading)
    await loading.aclose()  # type: ignore[attr-defined]
    assert len(await accounts_of(store, 0)) == 3_000
    await store.close()


async def test_a_server_that_forgot_the_scripts_gets_them_again(redis_url: str) -> None:
    store = await opened(redis_url)
    epoch = await store.claim(0)
    redis.Redis.from_url(redis_url).script_flush()
    await store.write_head(0, epoch, None, 1, b"h")
    assert await store.load_head(0) == b"h"
    await store.close()


async def test_more_recommendations_than_are_kept_push_the_oldest_out(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.state.redis.KEPT_RECOMMENDATIONS", 30)
    store = await opened(redis_url)
    epoch = await store.claim(0)
    for i in range(50):
        item = RecommendationEntry(
            id=f"{i:02}",
            partition=0,
            subject=1,
            event_time=i,
            offset=i,
            index=0,
            action="monitor",
            mode="observe",
        )
        await store.put_recommendations(0, epoch, [item])
    assert [item.id for item in await store.list_recommendations()] == [f"{i:02}" for i in range(49, 19, -1)]
    assert await store.get_recommendation("19") is None
    await store.close()


# -- what it is set to --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "volatile-lru", "allkeys-random"])
async def test_a_server_that_evicts_is_refused(start_redis: Start, policy: str) -> None:
    store = await opened(start_redis(policy=policy).url())
    with pytest.raises(StoreRefused, match=f"maxmemory-policy is {policy}"):
        await store.check()
    await store.close()


@pytest.mark.parametrize(
    ("declared", "options", "problem"),
    [
        ("aof", {}, "appendonly is off"),
        ("aof", {"persistence": True, "fsync": "no"}, "appendfsync is no"),
        ("aof", {"persistence": True}, None),
        ("rdb", {}, "save is empty"),
        ("rdb", {"extra": ("--save", "60", "1")}, None),
        ("none", {}, None),
    ],
)
async def test_the_declared_persistence_is_asked_for(
    start_redis: Start, declared: str, options: dict[str, object], problem: str | None
) -> None:
    store = await opened(start_redis(**options).url(), persistence=declared)
    if problem is None:
        await store.check()
    else:
        with pytest.raises(StoreRefused, match=problem):
            await store.check()
    await store.close()


async def test_every_problem_is_named_at_once(start_redis: Start) -> None:
    store = await opened(start_redis(policy="allkeys-lru").url(), persistence="aof")
    with pytest.raises(StoreRefused) as refused:
        await store.check()
    assert len(refused.value.problems) == 2
    await store.close()


async def test_a_replica_is_refused(start_redis: Start) -> None:
    first = start_redis()
    second = start_redis(extra=("--replicaof", "127.0.0.1", str(first.port)))
    store = await opened(second.url())
    with pytest.raises(StoreRefused, match="replica"):
        await store.check()
    await store.close()


async def test_a_foreign_meta_record_is_refused(redis_url: str) -> None:
    redis.Redis.from_url(redis_url).set("sh:meta", "something else")
    store = await opened(redis_url)
    with pytest.raises(StoreRefused, match="sh:meta"):
        await store.check()
    await store.close()


# -- where its keys live, and who may touch them ------------------------------------------------------------------------


async def test_every_script_stays_in_one_slot(start_redis: Start) -> None:
    # A node in cluster mode refuses a script whose keys are in two slots, also when it holds all of them, and one that
    # touches a key it did not name.
    server = start_redis(extra=("--cluster-enabled", "yes"))
    server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    await asyncio.to_thread(
        wait_until,
        lambda: server.client().cluster("info")["cluster_state"] == "ok",
        within=10,
        what="the cluster",
    )
    plain = await opened(server.url())
    with pytest.raises(StoreRefused, match="redis_cluster"):
        await plain.check()
    await plain.close()
    store = await opened(server.url(), cluster=True)
    await use_everything(store)
    await store.close()


async def test_a_cluster_of_two(start_redis: Start) -> None:
    servers = [start_redis(extra=("--cluster-enabled", "yes")) for _ in range(2)]
    one, two = (server.client() for server in servers)
    one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    two.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    one.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[1].port)

    def joined() -> bool:
        states = [client.cluster("info") for client in (one, two)]
        return all(s["cluster_state"] == "ok" and s["cluster_known_nodes"] == "2" for s in states)

    await asyncio.to_thread(wait_until, joined, within=20, what="two nodes")
    store = await opened(servers[0].url(), cluster=True)
    await use_everything(store)
    for partition in range(META.partitions):
        epoch = await store.claim(partition)
        await store.write_accounts(partition, epoch, some_accounts(100))
    assert one.dbsize() > 100
    assert two.dbsize() > 100
    await store.close()


async def test_all_keys_of_a_partition_share_its_tag(redis_url: str) -> None:
    store = await opened(redis_url)
    await use_everything(store)
    epoch = await store.claim(5)
    await flush_accounts(store, 5, epoch, some_accounts(20_000))
    keys = {key.decode() for key in redis.Redis.from_url(redis_url).scan_iter()}
    assert {key for key in keys if "{p5}" not in key} == {"sh:meta", "sh2:{flags}"}
    assert {key.split(":")[2] for key in keys if "{p5}" in key} == {"f", "h", "c", "a", "r", "t"}
    assert sum(":a:" in key for key in keys) == BUCKETS
    await store.close()


async def test_the_example_acl_is_enough_for_the_worker_and_no_more(
    start_redis: Start, tmp_path: Path, checkout: Path
) -> None:
    acl = tmp_path / "users.acl"
    acl.write_text("user default on nopass ~* &* +@all\n")
    server = start_redis(extra=("--aclfile", str(acl)))
    acl.write_text((checkout / "deploy/redis/users.acl").read_text())
    server.client().acl_load()
    store = await opened(server.url(), username="safehold-worker", password="change-me-worker")
    await use_everything(store)
    board = RedisBoard(store._client, "sh", "g1")
    await board.post({3: 7}, {})
    assert (await board.read())[0] == {3: 7}
    await store.close()
    with pytest.raises(StoreRefused):
        await opened(server.url())
    with pytest.raises(StoreRefused):
        await opened(server.url(), username="safehold-worker", password="wrong")
    worker = redis.Redis(port=server.port, username="safehold-worker", password="change-me-worker")
    for command in (
        ("FLUSHALL",),
        ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
        ("GET", "other"),
        ("KEYS", "*"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            worker.execute_command(*command)
    reader = redis.Redis(port=server.port, username="safehold-reader", password="change-me-reader")
    assert reader.zrevrange("sh2:{p5}:t", 0, -1) == [b"r"]
    for command in (
        ("HGET", "sh2:{p5}:h", "head"),
        ("HSET", "sh2:{flags}", "f", "x"),
        ("EVAL", "return 1", 0),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            reader.execute_command(*command)


async def test_the_embedded_store_of_the_demo_keeps_the_contract() -> None:
    with Embedded() as embedded:
        store = await opened(embedded.redis)
        await use_everything(store)
        epoch = await store.claim(5)
        with pytest.raises(FenceLost):
            await store.write_head(5, epoch, 7, 8, b"wrong")
        await store.close()


def test_a_script_is_known_by_its_own_digest(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    for script in redis_scripts.ALL:
        assert client.script_load(script.text) == script.sha


async def test_tls_with_a_certificate_that_the_given_authority_signed(
    start_redis: Start, tmp_path: Path
) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
        *subject,
    )
    plain = start_redis()
    port = plain.port + 1
    plain.client().config_set("tls-auth-clients", "no")
    plain.client().config_set("tls-cert-file", str(tmp_path / "cert.pem"))
    plain.client().config_set("tls-key-file", str(tmp_path / "key.pem"))
    plain.client().config_set("tls-port", port)
    store = await opened(f"rediss://localhost:{port}/0", ca_file=str(tmp_path / "cert.pem"))
    await use_everything(store)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await opened(f"rediss://localhost:{port}/0", retries=0)


async def test_errors_do_not_hold_what_was_written(redis_url: str) -> None:
    store = await opened(redis_url)
    epoch = await store.claim(0)
    redis.Redis.from_url(redis_url).set("sh2:{p0}:a:0", "not a hash")
    with pytest.raises(StoreError) as failed:
        await flush_accounts(
            store, 0, epoch, [(subject, b"secret-blob") for subject, _ in some_accounts(3_000)]
        )
    assert "secret-blob" not in str(failed.value)
    await store.close()
