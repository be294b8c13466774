"""A file to a bank topic, as the bank would have sent it: one canonical message a payment, at a chosen pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from detectors.model import SECOND
from streams.formats import canonical
from streams.payment import Payment, Rejected
from streams.publish import AS_OF

BREATHE = 512
"""Messages between two looks at the clock and at whoever else wants the loop."""


LOOK_UP = 1.0
"""Seconds between two words on how far it is while the next payment is not yet due."""


class Sender(Protocol):
    """The part of aiokafka's producer that is used."""

    async def send(self, topic: str, value: bytes, *, key: bytes, headers: Any) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `speed` times as fast as it happened, at most `rate` payments a second, or (neither) as fast as it goes."""

    speed: float | None = None
    rate: float | None = None

    def due(self, sent: int, event_time: int, first_time: int) -> float:
        """Seconds after the start at which the payment is due."""
        due = 0.0
        if self.rate:
            due = sent / self.rate
        if self.speed:
            due = max(due, (event_time - first_time) / SECOND / self.speed)
        return due


@dataclass(slots=True)
class Replayed:
    """What was sent."""

    sent: int = 0
    rejected: int = 0
    seconds: float = 0.0
    first_time: int = 0
    last_time: int = 0


def key_of(payment: Payment) -> bytes:
    """The account that reports: its payments stay in one source partition, in order."""
    first = (
        payment.debtor if payment.debtor.bank == payment.bank and payment.debtor.account else payment.creditor
    )
    return (first.account or payment.debtor.account or payment.tx_id).encode()


def span(batches: Iterable[Sequence[Payment | Rejected]]) -> Replayed:
    """How many payments there are, and of which time. Goes through all of them."""
    found = Replayed()
    for batch in batches:
        for item in batch:
            if isinstance(item, Rejected):
                found.rejected += 1
                continue
            if not found.sent:
                found.first_time = found.last_time = item.time
            found.sent += 1
            found.last_time = max(found.last_time, item.time)
    return found


async def replay(
    batches: Iterable[Sequence[Payment | Rejected]],
    send: Sender,
    topic: str,
    *,
    pace: Pace | None = None,
    as_of: int | None = None,
    progress: Callable[[Replayed], None] = lambda done: None,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Replayed:
    """Send everything. Returns when the broker has acknowledged all of it."""
    pace = pace or Pace()
    headers = [(AS_OF, str(as_of).encode())] if as_of is not None else []
    done = Replayed()
    waiting: list[Awaitable[Any]] = []
    started = now()
    for batch in batches:
        for item in batch:
            if isinstance(item, Rejected):
                done.rejected += 1
                continue
            if done.sent == 0:
                done.first_time = item.time
            wait = (
                started + pace.due(done.sent, item.time, done.first_time) - now() if pace != Pace() else 0.0
            )
            while wait > 0:
                # In pieces: at the speed of life the next payment may be hours away, and somebody watches.
                done.seconds = now() - started
                progress(done)
                await sleep(min(wait, LOOK_UP))
                wait = started + pace.due(done.sent, item.time, done.first_time) - now()
            waiting.append(await send.send(topic, canonical.encode(item), key=key_of(item), headers=headers))
            done.sent += 1
            done.last_time = max(done.last_time, item.time)
            if done.sent % BREATHE == 0:
                done.seconds = now() - started
                progress(done)
                await sleep(0)
                # A send that failed must end the replay, and what is acknowledged need not be remembered.
                waiting = [future for future in waiting if not _acknowledged(future)]
    await asyncio.gather(*waiting)
    done.seconds = now() - started
    progress(done)
    return done


def _acknowledged(future: Awaitable[Any]) -> bool:
    """Whether a send is through. Raises what made it fail."""
    if isinstance(future, asyncio.Future) and future.done():
        future.result()
        return True
    return False
