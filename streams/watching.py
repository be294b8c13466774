"""Which loops a worker has, how each shows that it gets on, and what its states show: for `/livez`, `/readyz` and `/metrics`.

The names here are those of the alert, the board and the runbook. A loop that turns whether or not there is work reports each
turn; one that only moves when there is something to do is asked whether something waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streams.health import Loop
from streams.metrics import Metrics

if TYPE_CHECKING:
    from streams.app import MemberLock, Parts
    from streams.partition import Partition

log = logging.getLogger(__name__)

READY_EVERY = 0.25
"""Seconds between two looks at whether everything runs."""

ALLOWED_SECONDS = 120.0
"""How long a loop may take over its next turn or piece of work before /livez says that it is dead. The alert waits as long."""

LOOPS: Mapping[str, str] = {
    "intake": "fetches and decodes the bank topics",
    "append": "writes what is due to the ledger",
    "ledger": "fetches the ledger for the partitions",
    "judging": "judges and publishes; measured only while records wait",
    "flush": "writes the state down; measured only while something is unwritten",
    "feeds": "brings control records to the ledger; measured only while one is on its way",
    "expiry": "watches for flags that expire",
    "exchange": "tells other workers how far this one is",
    "member": "keeps the member id",
    "balance": "reconciles the counts of all heads",
}


def loops(parts: Parts, lock: MemberLock, flush_seconds: float) -> list[Loop]:
    """Every loop that could hang."""

    def partitions() -> list[Partition]:
        return list(parts.monitor.partitions.values())

    def judged_at() -> float:
        return min((part.last_progress for part in partitions() if part.waiting), default=time.monotonic())

    def unwritten() -> list[float]:
        return [part.unwritten_since for part in partitions() if part.unwritten_since is not None]

    def unwritten_since() -> float:
        return min(unwritten(), default=time.monotonic())

    allowed = ALLOWED_SECONDS
    return [
        Loop("intake", lambda: parts.intake.read_at, _always, allowed),
        Loop("append", lambda: parts.intake.appended_at, _always, allowed),
        Loop("ledger", lambda: parts.monitor.read_at, _always, allowed),
        Loop("judging", judged_at, lambda: any(part.waiting for part in partitions()), allowed),
        Loop("flush", unwritten_since, lambda: bool(unwritten()), allowed + flush_seconds),
        Loop("feeds", lambda: parts.feeds.delivered_at, lambda: parts.feeds.delivering > 0, allowed),
        Loop("expiry", lambda: parts.feeds.watched_at, _always, allowed),
        Loop("exchange", lambda: parts.exchange.turned_at, _always, allowed),
        Loop("member", lambda: lock.turned_at, _always, allowed),
        Loop("balance", lambda: parts.reconciler.turned_at, _always, 2 * allowed),
    ]


async def tell_ready(
    problems: Callable[[], Sequence[str]], partitions: Callable[[], Iterable[int]], **words: Any
) -> None:
    """One line in the log when the worker is ready for the first time: what it runs as, and what it has."""
    while True:
        if not problems():
            break
        await asyncio.sleep(READY_EVERY)
    log.info("ready", extra={**words, "partitions": sorted(partitions())})


def _always() -> bool:
    return True


def show_states(metrics: Metrics, states: Mapping[int, Any]) -> None:
    """What the states of the running partitions hold. Reads single numbers only: a step may be changing them meanwhile."""
    metrics.state_accounts.clear()
    for number, state in states.items():
        metrics.state_accounts.labels(str(number)).set(state.n_acc)
    # A configuration is in force from a time on: a quiet partition has not come to that time yet.
    heads = [state.head for state in states.values()]
    if heads:
        metrics.use_config(max(heads, key=lambda head: head.front).config_digest)
