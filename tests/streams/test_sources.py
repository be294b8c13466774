"""The queues of intake: what is released, in which order, and what may not move a position."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from detectors.model import DAY, HOUR, TimePrecision
from streams.block import Block, BlockReader, Feed, Items, times_of
from streams.board import NEVER, Position
from streams.legs import LegBuilder
from streams.payment import Party, Payment, Reason, Rejected
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.sources import SourceQueue, Sources, behind

L, A = 6 * HOUR, 24 * HOUR
FEED = Feed("pay", lambda value: [])
READER = BlockReader(LegBuilder(1, Pseudonyms(PUBLIC_KEY), {"EUR": 1_000_000}))
NOW = 1_000 * DAY
FETCH = 3


def pay(time: int, precision: int = TimePrecision.EXACT) -> Payment:
    return Payment("b", "t", time, 1, "EUR", Party("x"), Party("y"), precision=precision)


class Record(NamedTuple):
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def block(*messages: Items, first: int = 0) -> Block:
    """One fetch that holds these messages."""
    at = {b"%d" % number: items for number, items in enumerate(messages)}
    records = [Record(first + n, NOW // 1000, value) for n, value in enumerate(at)]
    return READER.read("pay/0", Feed("pay", at.__getitem__), records)


def sources(**times: list[int]) -> Sources:
    """Queues of one payment a message, all of them applied as fast as they come."""
    made = Sources(L, A)
    for name, given_ in times.items():
        queue = made.queues[name] = SourceQueue(name, FEED, at_end=True)
        # In fetches of one to three messages: nothing may depend on where one ends.
        for first in range(0, len(given_), FETCH):
            queue.add(block(*([pay(time)] for time in given_[first : first + FETCH]), first=first))
    return made


def released(made: Sources, applied: int = 10**9, most: int = 10_000) -> list[int]:
    while True:
        head = made.head()
        due = None if head is None else made.short.wanted(made.front, head)
        if due is not None:
            made.short.mark(due, {0: 0})
        taken = made.release({}, {0: applied}.get, most)
        if taken or head is None or made.short.wanted(made.front, head) is None:
            return [int(time) for some in taken for time in some.block.latest[some.first : some.until]]


@given(st.lists(st.lists(st.integers(0, 3 * DAY), max_size=30), min_size=1, max_size=4), st.integers(1, 40))
def test_everything_is_released_once_and_aligned(lists: list[list[int]], most: int) -> None:
    made = sources(**{f"p/{at}": sorted(times) for at, times in enumerate(lists)})
    order: list[int] = []
    while some := released(made, most=most):
        order += some
    assert sorted(order) == sorted(time for times in lists for time in times)
    greatest = NEVER
    for time in order:
        assert time >= greatest - L // 2
        greatest = max(greatest, time)


def test_one_that_is_not_at_its_end_holds_the_others() -> None:
    made = sources(a=[0, HOUR, 2 * HOUR, 20 * HOUR], b=[0])
    made.queues["b"].at_end = False
    assert sorted(released(made)) == [0, 0, HOUR, 2 * HOUR]
    assert made.held_by == "alignment"
    assert behind(made.queues.values()) is made.queues["b"]
    made.queues["b"].stuck = True
    assert released(made) == [20 * HOUR]


def test_others_hold_until_they_are_known() -> None:
    made = sources(a=[10 * HOUR])
    made.short.mark(10 * HOUR, {})
    assert made.release({"z": None}, {}.get) == []
    assert made.release({"z": Position(0)}, {}.get) == []
    assert len(made.release({"z": Position(0, True)}, {}.get)) == 1


def test_the_short_ledger_holds_until_the_monitor_has_applied() -> None:
    made = sources(a=[0, 23 * HOUR, 25 * HOUR])
    assert released(made, applied=-1) == []
    assert made.held_by == "short-ledger"
    assert released(made, applied=0) == [0, 23 * HOUR]


def test_a_message_that_spans_more_than_the_alignment_passes_in_its_turn() -> None:
    made = sources(a=[0, DAY], b=[])
    long = made.queues["b"]
    long.add(block([pay(0), pay(12 * HOUR)]))
    assert released(made) == [0, 12 * HOUR, DAY]


def test_what_will_be_refused_moves_nothing() -> None:
    future: Items = [pay(NOW + 400 * DAY)]
    broken: Items = [Rejected(Reason.UNDECODABLE, "x")]
    mixed: Items = [pay(NOW + 400 * DAY), pay(5), Rejected(Reason.INVALID, "x", 2)]
    assert times_of(future, NOW) == times_of(broken, NOW) == (NEVER, NEVER)
    assert times_of(mixed, NOW) == (5, 5)
    assert times_of([pay(NOW + DAY, TimePrecision.DAY)], NOW).latest == NOW + DAY
    made = sources(a=[HOUR])
    made.queues["a"].add(block(future, broken, first=1))
    assert len(released(made)) == 3
    assert made.queues["a"].position == Position(HOUR, True)
