"""What each step of the worker costs when it runs alone: process time, no broker, no store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks import population
from detectors.model import Kind
from detectors.step import step
from streams import ledger
from streams.aligned import ALWAYS
from streams.app import feed_of
from streams.block import BlockReader
from streams.formats.canonical import Transaction
from streams.legs import LegBuilder
from streams.pseudonyms import Pseudonyms
from streams.rates import load_rates
from streams.rows import gather
from streams.settings import BankTopic
from streams.sources import SourceQueue

BATCH = 4_000


class _Record(NamedTuple):
    """A consumer's record."""

    offset: int
    timestamp: int
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def stages(copies: population.Copies, accounts: int, payments: int) -> dict[str, float]:
    """µs a payment of each step, in the order in which a payment meets them."""
    values = [value for _, value in population.messages(population.uniform(copies, accounts, payments))]
    spent: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        spent[name] = spent.get(name, 0.0) + time.process_time() - start

    pseudonyms, rates = Pseudonyms(population.KEY), load_rates().u_micro
    feed = feed_of(BankTopic(name="bench", bank=population.BANK), pseudonyms, rates)
    reader = BlockReader(LegBuilder(1, pseudonyms, rates))
    queue = SourceQueue("bench/0", feed)
    plain = msgspec.json.Decoder(Transaction).decode
    state = population.empty_state(accounts)
    for subjects, blobs in copies.many(accounts):
        state.load_many(subjects.tolist(), blobs)
    received = int(time.time() * 1e3)
    offset = 0
    for first in range(0, len(values), BATCH):
        batch = values[first : first + BATCH]
        records = [_Record(number, received, value) for number, value in enumerate(batch, first)]
        with timed("decode, types alone"):
            for value in batch:
                plain(value)
        with timed("read, as legs"):
            queue.add(reader.read("bench/0", feed, records))
        with timed("release and gather"):
            taken = queue.pop(ALWAYS, BATCH)
            assert taken is not None
            (rows,) = gather([taken.rows], 1)
        with timed("ledger, both ways"):
            messages = []
            for kind, parts in ((Kind.LEGS, rows.legs), (Kind.COUNTS, rows.counts)):
                for mine in parts.values():
                    messages += ledger.encode_rows(
                        kind,
                        mine,
                        sources=rows.sources,
                        banks=rows.banks if kind is Kind.LEGS else (),
                        key_id=population.KEY.id,
                        generation="g1",
                    )
            frames = [ledger.decode(message, offset=offset + n) for n, message in enumerate(messages)]
            offset += len(messages)
        with timed("step"):
            for frame in frames:
                step(state, [frame])
    touched = state.touched()
    with timed("pack (once, all that was touched)"):
        for first in range(0, len(touched), 2_000):
            state.pack(touched[first : first + 2_000])
    assert int(np.sum(state.acc["len"][: state.n_acc])) > 0
    return {name: 1e6 * took / len(values) for name, took in spent.items()}
