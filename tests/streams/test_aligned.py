"""Aligned intake and the short ledger as a model: no broker, no clock, every interleaving that hypothesis can think of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.aligned import ALWAYS, ShortLedger, aligned_limit
from streams.board import NEVER, Position

L = 6_000
A = 24_000

# a source partition in order:            one that is behind:
#   p0  |--a--b--c------d----->             p1  |-x-y------------------z->
#                  ^ may not pass x + L/2 while p1 has a backlog


@st.composite
def sources(draw: st.DrawFn) -> list[list[int]]:
    """A few source partitions, each in order of event time, with gaps of any length."""
    count = draw(st.integers(1, 4))
    made = []
    for _ in range(count):
        steps = draw(st.lists(st.integers(0, 3 * L), min_size=1, max_size=25))
        time, times = draw(st.integers(0, 4 * A)), []
        for step in steps:
            time += step
            times.append(time)
        made.append(times)
    return made


@given(sources(), st.data())
def test_the_ledger_is_never_more_than_half_a_lateness_out_of_order(
    made: list[list[int]], data: st.DataObject
) -> None:
    queues = [list(times) for times in made]
    ledger: list[int] = []
    last = [NEVER] * len(queues)
    while any(queues):
        positions = [
            Position(max(last[at], queue[0]) if queue else last[at], not queue)
            for at, queue in enumerate(queues)
        ]
        limit = aligned_limit(positions, L)
        free = [at for at, queue in enumerate(queues) if queue and queue[0] <= limit]
        assert free, "the slowest partition may always go on"
        at = data.draw(st.sampled_from(free))
        last[at] = queues[at].pop(0)
        ledger.append(last[at])
    greatest = NEVER
    for time in ledger:
        assert time >= greatest - L // 2
        greatest = max(greatest, time)


def test_one_at_its_end_holds_nobody_and_one_unknown_holds_everybody() -> None:
    assert aligned_limit([Position(5, True), Position(100)], L) == 100 + L // 2
    assert aligned_limit([Position(5, True)], L) == ALWAYS
    assert aligned_limit([Position(5), None], L) == NEVER
    assert aligned_limit([Position(NEVER), Position(7)], L) == NEVER


@given(st.lists(st.integers(0, 2 * A), min_size=1, max_size=60), st.data())
def test_what_stood_a_spread_ago_is_applied_before_a_leg_is_appended(
    steps: list[int], data: st.DataObject
) -> None:
    """The monitor applies at any speed. Offsets are positions in one list; `passed` is the rule, literally."""
    short, front, applied = ShortLedger(A), NEVER, -1
    stood: list[tuple[int, int]] = []  # (front, last offset) after every append
    offset, time = -1, 0
    for step in steps:
        time += step
        while True:
            if (due := short.wanted(front, time)) is not None:
                short.mark(due, {0: offset})
            if time <= short.limit({0: applied}.get):
                break
            if short.wanted(front, time) is not None:
                continue
            assert applied < offset, "with everything applied, nothing is held back"
            applied = data.draw(st.integers(applied + 1, offset))
        must = max((end for passed, end in stood if passed < time - A), default=-1)
        assert applied >= must
        offset, front = offset + 1, max(front, time)
        stood.append((front, offset))
        if data.draw(st.booleans()):
            applied = data.draw(st.integers(applied, offset))


def test_after_a_start_all_that_stands_in_the_ledger_must_be_applied_first() -> None:
    short = ShortLedger(A)
    due = short.wanted(NEVER, 500)
    assert due == 500
    short.mark(due, {0: 41, 1: -1})
    assert short.limit({0: 40, 1: None}.get) == NEVER
    assert short.limit({0: 41}.get) == 500 + A


def test_a_partition_nobody_speaks_of_is_not_applied() -> None:
    short = ShortLedger(A)
    short.mark(0, {0: 3, 1: 0})
    assert short.limit({0: 3}.get) == NEVER
    assert short.limit({0: 3, 1: 0}.get) == A
