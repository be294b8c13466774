"""A frame that stops its partition, and two people who set it aside: in memory, with crashes at every step."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.model import COUNT, DAY, LEG, Decision, Fact, Frame, Kind
from streams import ledger
from streams.partition import Phase
from streams.quarantine import (
    Cases,
    FrameCase,
    Outcome,
    Said,
    Signed,
    Stopped,
    digest_of,
    encode,
    in_place_of,
    person,
    stopped_at,
)
from streams.state.memory import MemoryStore
from streams.stops import FrameFailed
from tests.streams.test_partition import (
    LOG,
    META,
    STEPS,
    Crash,
    Process,
    World,
    crash_at,
    undisturbed,
)
from tests.streams.tinyfold import BROKEN_AMOUNT, TINY, Broken, Saying, TinyPublisher, TinyState

AT = 3
POINTS = (*STEPS, "before-stopped", "after-stopped", "before-outcome", "after-outcome")
NONE = {"quarantined": 0, "unread": 0}


def poison(*, amount: int = BROKEN_AMOUNT, generation: str = "g1") -> bytes:
    """A frame of two legs that the fold fails on, of coordinates that no other frame has."""
    rows = np.zeros(2, LEG)
    rows["subject"], rows["leg"], rows["coordinate"] = (1, 9), (101, 102), (10**6, 10**6 + 1)
    rows["amount"], rows["received"] = (7, amount), 5 * DAY
    (value,) = ledger.encode_rows(
        Kind.LEGS, rows, sources=["other/0"], banks=["north"], key_id="k", generation=generation
    )
    return value


POISONS = {
    "the fold raises": (poison(), {"quarantined": 2, "unread": 0}),
    "another generation": (poison(amount=5, generation="g0"), {"quarantined": 0, "unread": 2}),
    "cut short": (poison(amount=5)[:-1], {"quarantined": 0, "unread": 2}),
    "no frame": (b"not a frame", NONE),
    "nothing": (b"", NONE),
}


def with_poison(value: bytes) -> World:
    return World([*LOG[:AT], value, *LOG[AT:]])


def sign(world: World, *by: str, at: int = AT, reason: str = "broken") -> None:
    world.topic.append(encode(Signed(generation="g1", partition=0, offset=at, by=by, reason=reason)))


async def applied(world: World) -> int:
    """As the stored head has it."""
    head = await MemoryStore(META, world.data).load_head(0)
    assert head is not None
    state = TinyState(0)
    state.load_head(head)
    return state.head.applied


async def standing(world: World, **options: Any) -> Process:
    """A process that stands at the frame."""
    process = Process(world, **options)
    await process.run(lambda: process.part.phase is Phase.STOPPED and "stands at" in process.part.problem)
    return process


async def goes_as_without(world: World, counted: dict[str, int]) -> None:
    """What is said is what would be said had the frame never been; its legs are counted."""
    expected = await undisturbed(LOG)
    assert world.latest().bodies() == expected.latest().bodies()
    totals, theirs = await world.totals(), await expected.totals()
    assert {name: totals.get(name, 0) for name in NONE} == counted
    assert totals["judged"] == theirs["judged"]
    assert totals["duplicate"] == theirs["duplicate"]


@pytest.mark.parametrize("what", POISONS)
@pytest.mark.parametrize("chunk", [1, 3, 9])
async def test_two_signatures_let_it_go_on(what: str, chunk: int) -> None:
    value, counted = POISONS[what]
    world = with_poison(value)
    process = await standing(world, chunk=chunk)
    assert await applied(world) == AT - 1  # everything before it is judged, said and written
    assert process.held
    sign(world, "Ada")
    await process.run(lambda: "signed by 1 of 2" in process.part.problem)
    sign(world, "Ben")
    await process.finish()
    await goes_as_without(world, counted)
    assert process.metrics.quarantined_frames._value.get() == 1
    # An emptied store: the same again, and nothing is said twice.
    before = len(world.said)
    world.data.lose_everything()
    await Process(world).finish()
    assert len(world.said) == before
    await goes_as_without(world, counted)


@pytest.mark.parametrize("again", [("ada",), (" ADA ",), ("Ada", "ada"), ("", " ")])
async def test_one_person_is_not_two(again: Sequence[str]) -> None:
    world = with_poison(b"")
    process = await standing(world)
    sign(world, "Ada")
    sign(world, *again)
    await process.run(lambda: process.topic.read == len(world.topic))
    for _ in range(20):
        await asyncio.sleep(0)
    assert "signed by 1 of 2" in process.part.problem
    await process.part.drop()
    assert len(world.topic) == 3


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("step", POINTS)
@pytest.mark.parametrize("what", ["the fold raises", "no frame"])
async def test_a_crash_at_any_step_changes_nothing(what: str, step: str, count: int) -> None:
    value, counted = POISONS[what]
    world = with_poison(value)
    first = await standing(world)
    await first.part.drop()
    sign(world, "Ada", "Ben")
    with crash_at(step, count), contextlib.suppress(Crash):
        await Process(world).catch_up()
    await Process(world).finish()
    await goes_as_without(world, counted)
    outcomes = [m for m in world.topic if b'"record":"outcome"' in m]
    assert len(set(outcomes)) == 1


@pytest.mark.parametrize("step", POINTS)
async def test_a_crash_before_anybody_signed_changes_nothing(step: str) -> None:
    world = with_poison(poison())
    with crash_at(step), contextlib.suppress(Crash):
        await standing(world)
        assert "outcome" in step, "the crash was not reached"
    process = await standing(world)
    assert await applied(world) == AT - 1
    sign(world, "Ada", "Ben")
    await process.finish()
    await goes_as_without(world, {"quarantined": 2, "unread": 0})


async def test_a_frame_that_is_applied_after_all_cannot_be_set_aside() -> None:
    good = poison(amount=8)
    world = with_poison(good)

    def broken(state: TinyState, some: Sequence[Frame]) -> Any:
        if some[0].offset == AT:
            raise Broken
        return TINY.step(state, list(some))

    first = await standing(world, chunk=1, fold=dataclasses.replace(TINY, step=broken))
    assert "Broken" in first.part.problem
    await first.part.drop()
    second = Process(world)  # the one who comes after can
    await second.finish()
    expected = await undisturbed(world.log)
    assert world.latest().bodies() == expected.latest().bodies()
    sign(world, "Ada", "Ben")
    world.data.lose_everything()
    await Process(world).finish()
    assert world.latest().bodies() == expected.latest().bodies()
    assert (await world.totals()).get("quarantined", 0) == 0
    (case,) = [case for case in await cases_of(world) if case.outcome is not None]
    assert case.outcome is not None
    assert case.outcome.quarantine is None
    assert not case.signed


async def cases_of(world: World) -> list[FrameCase]:
    cases = Cases("g1")
    for at, value in enumerate(world.topic):
        cases.take(value, at + 1)
    return list(cases.all.values())


async def test_the_first_outcome_counts_for_a_zombie_too() -> None:
    """It stands, and is signed; its heir, who can read the frame, has settled it in the same moment."""
    world = with_poison(poison(amount=8))
    expected = await undisturbed(world.log)

    def broken(state: TinyState, some: Sequence[Frame]) -> Any:
        if some[0].offset == AT and some[0].kind is Kind.LEGS and not mended:
            raise Broken
        return TINY.step(state, list(some))

    mended: list[bool] = []
    zombie = await standing(world, chunk=1, fold=dataclasses.replace(TINY, step=broken))
    append = zombie.topic.append

    async def beaten(said: Said) -> None:
        """The heir is quicker by a record, and the zombie mended from here on."""
        if isinstance(said, Outcome) and not mended:
            mended.append(True)
            world.topic.append(encode(msgspec.structs.replace(said, quarantine=None)))
        await append(said)

    zombie.topic.append = beaten  # type: ignore[method-assign]
    sign(world, "Ada", "Ben")
    await zombie.finish()
    assert world.latest().bodies() == expected.latest().bodies()
    assert (await world.totals()).get("quarantined", 0) == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=20, max_size=200), st.integers(0, 60))
def test_two_owners_come_to_one_answer(turns: list[int], signed_at: int) -> None:
    """One who cannot apply the frame stands; an heir who can runs; people sign at any moment; both believe that it is theirs."""

    async def scenario() -> None:
        world = with_poison(poison(amount=8))

        def broken(state: TinyState, some: Sequence[Frame]) -> Any:
            if some[0].offset == AT and some[0].kind is Kind.LEGS:
                raise Broken
            return TINY.step(state, list(some))

        first = await standing(world, chunk=1, fold=dataclasses.replace(TINY, step=broken))
        heir = Process(world, chunk=2)
        heir.part.start()
        for tick, turn in enumerate(turns):
            if tick == signed_at:
                sign(world, "Ada", "Ben")
            if turn:
                (first, heir)[turn - 1].fetch()
            await asyncio.sleep(0)
        await first.part.drop()
        await heir.part.drop()
        await Process(world).finish()
        said, totals = world.latest().bodies(), await world.totals()
        world.data.lose_everything()
        world.said.clear()
        world.committed = None
        await Process(world).finish()
        assert world.latest().bodies() == said
        names = ("judged", "duplicate", "quarantined")
        assert [totals.get(n, 0) for n in names] == [(await world.totals()).get(n, 0) for n in names]

    asyncio.run(scenario())


async def test_a_zombie_that_stands_gives_up_when_it_is_no_member() -> None:
    world = with_poison(b"")
    zombie = await standing(world)
    world.member = False
    sign(world, "Ada", "Ben")
    await zombie.run(lambda: zombie.part.phase is Phase.GONE)
    world.member = True
    await Process(world).finish()
    await goes_as_without(world, NONE)


async def test_two_frames_one_after_the_other() -> None:
    world = World([*LOG[:2], b"", poison(), *LOG[2:]])
    process = Process(world)
    for at in (2, 3):
        await process.run(lambda at=at: f"stands at offset {at}" in process.part.problem)
        sign(world, "Ada", "Ben", at=at)
    await process.finish()
    await goes_as_without(world, {"quarantined": 2, "unread": 0})


async def test_the_last_frame_of_the_log() -> None:
    world = World([*LOG, poison()])
    process = Process(world)
    await process.run(lambda: "stands at" in process.part.problem)
    sign(world, "Ada", "Ben", at=len(LOG))
    await process.finish()
    assert process.progress.applied(0) is None  # dropped
    await goes_as_without(world, {"quarantined": 2, "unread": 0})


async def test_what_is_read_of_a_frame_fails_too_then_only_its_header_is_taken() -> None:
    world = with_poison(poison())
    process = await standing(world)
    sign(world, "Ada", "Ben", reason="breaks the fold too")
    await process.finish()
    await goes_as_without(world, {"quarantined": 0, "unread": 2})


async def test_a_topic_that_is_away_is_waited_for() -> None:
    world = with_poison(poison())
    process = Process(world)
    process.topic.away = 3
    await process.run(lambda: "stands at" in process.part.problem)
    process.topic.away = 3
    sign(world, "Ada", "Ben")
    await process.finish()
    await goes_as_without(world, {"quarantined": 2, "unread": 0})


async def test_parked_while_it_stands_the_next_owner_goes_on() -> None:
    world = with_poison(poison())
    process = await standing(world)
    await process.part.park()
    assert process.part.phase is Phase.GONE
    sign(world, "Ada", "Ben")
    await Process(world).finish()
    await goes_as_without(world, {"quarantined": 2, "unread": 0})


async def test_a_quarantine_of_another_frame_is_not_used() -> None:
    world = with_poison(poison())
    process = await standing(world)
    sign(world, "Ada", "Ben")
    await process.finish()
    world.data.lose_everything()
    world.log[AT] = LOG[0]  # somebody has recreated the ledger
    again = Process(world)
    await again.run(lambda: again.part.phase is Phase.STOPPED)
    assert "another frame" in again.part.problem


async def test_signatures_for_one_frame_do_not_set_another_aside() -> None:
    world = with_poison(poison())
    await (await standing(world)).part.drop()
    sign(world, "Ada", "Ben")
    world.log[AT] = poison(amount=5)  # healthy
    again = Process(world)
    await again.run(lambda: again.part.phase is Phase.STOPPED)
    assert "is another frame than" in again.part.problem
    assert [m for m in world.topic if b'"record":"outcome"' in m] == []


class Unsayable(TinyPublisher):
    """What one frame causes cannot be written."""

    def __call__(self, partition: int, outputs: Sequence[Saying]) -> Any:
        if any(output.cause.offset == AT for output in outputs):
            raise ValueError("of account DE02120300000000202051")
        return super().__call__(partition, outputs)


def unsaying(world: World) -> Process:
    process = Process(world)
    process.part._publisher = Unsayable()
    return process


async def test_a_frame_that_cannot_be_said_can_be_signed_after_a_restart_too() -> None:
    world = with_poison(poison(amount=8))
    first = unsaying(world)
    await first.run(lambda: "stands at" in first.part.problem)
    await first.part.drop()
    second = unsaying(world)  # knows of the stop, and that it was not here
    await second.run(lambda: "stands at" in second.part.problem)
    await second.part.drop()
    assert [m for m in world.topic if b'"record":"outcome"' in m] == []
    sign(world, "Ada", "Ben")
    await unsaying(world).finish()
    await goes_as_without(world, {"quarantined": 2, "unread": 0})


async def test_of_what_was_raised_only_the_kind_is_shown() -> None:
    world = with_poison(poison(amount=8))
    process = unsaying(world)
    seen: list[str] = []
    await process.run(lambda: bool(seen.append(process.part.problem)) or "stands at" in process.part.problem)
    assert any("ValueError" in problem for problem in seen)
    assert not any("DE02" in problem for problem in seen)
    assert "DE02" not in str(FrameFailed(1, ValueError("DE02")))
    sign(world, "Ada")
    await process.run(lambda: "signed by 1 of 2" in process.part.problem)
    assert "Ada" not in process.part.problem  # whoever reaches the worker's port reads it


@pytest.mark.parametrize("problem", [MemoryError(), OSError(12, "no memory")])
async def test_memory_that_is_not_to_be_had_is_no_fault_of_the_frame(problem: Exception) -> None:
    world, left = World(LOG), [problem] * 3

    def short(state: TinyState, some: Sequence[Frame]) -> Any:
        if left and some[-1].offset >= AT:
            raise left.pop()
        return TINY.step(state, list(some))

    await Process(world, fold=dataclasses.replace(TINY, step=short)).finish()
    assert not left
    assert world.topic == []
    expected = await undisturbed(LOG)
    assert world.latest().bodies() == expected.latest().bodies()


@pytest.mark.parametrize("member", [True, False])
async def test_a_zombie_on_which_a_frame_fails_says_nothing(member: bool) -> None:
    """Its word would come after the heir has looked: signed later, a rebuild would set aside what the heir applied."""
    world, left = World(LOG), [Broken()]

    def once(state: TinyState, some: Sequence[Frame]) -> Any:
        if left and some[-1].offset >= AT:
            world.member = member
            if member:  # the group has not noticed, the store has given the partition to another
                world.data.partition(0).epoch += 1
            raise left.pop()
        return TINY.step(state, list(some))

    zombie = Process(world, chunk=1, fold=dataclasses.replace(TINY, step=once))
    await zombie.run(lambda: zombie.part.phase is Phase.GONE or zombie.progress.applied(0) == len(LOG) - 1)
    assert not left
    assert world.topic == []
    await zombie.part.drop()


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_stop_that_is_said_too_late_is_settled_as_applied(restarted: bool) -> None:
    """A zombie was asleep between its confirmation and its word: the heir is past the frame. People sign; nothing changes."""
    world = with_poison(poison(amount=8))
    heir = Process(world)
    await heir.catch_up()
    world.topic.append(encode(stopped(world.log[AT], AT)))
    sign(world, "Ada", "Ben")
    if restarted:
        await heir.part.drop()
        await Process(world).finish()
    else:
        world.log.append(LOG[0])  # something to flush
        await heir.run(lambda: any(b'"record":"outcome"' in m for m in world.topic))
        await heir.part.drop()
    world.data.lose_everything()
    await Process(world).finish()
    assert (await world.totals()).get("quarantined", 0) == 0
    assert (await world.totals())["judged"] == (await (await undisturbed(world.log)).totals())["judged"]


# -- the records ------------------------------------------------------------------------------------------------------------


def stopped(value: bytes = b"x", offset: int = 3) -> Stopped:
    return stopped_at(value, "g1", 0, offset, "Broken")


def test_signatures_of_a_frame_that_stopped_nobody_are_nothing() -> None:
    cases = Cases("g1")
    signed = Signed(generation="g1", partition=0, offset=3, by=("a", "b"), reason="r")
    cases.take(encode(signed), 1)
    cases.take(encode(stopped()), 2)
    assert not cases.all[0, 3].signed
    cases.take(encode(msgspec.structs.replace(signed, generation="g2")), 3)
    cases.take(b"{}", 4)
    cases.take(b"\xff", 5)
    assert not cases.all[0, 3].people
    cases.take(encode(signed), 6)
    assert cases.all[0, 3].signed_at == 6


def test_what_stands_in_the_place_of_a_frame() -> None:
    case = FrameCase(stopped(), 1, {"a": "Ada", "b": "Ben"}, ["r", "r"], 9)
    whole = in_place_of(poison(), case, ("k", "g1"))
    assert (whole.kind, whole.n, whole.sources, whole.unread) == ("legs", 2, ("other/0",), 0)
    assert (whole.by, whole.reason, whole.effective_at) == (("Ada", "Ben"), "r", 9)
    assert whole.record_id == "g1/0/3"
    assert [(leg.source, leg.coordinate, leg.day) for leg in whole.legs] == [(0, 10**6, 5), (0, 10**6 + 1, 5)]
    assert whole.accounts == ((1, 0, 0), (9, 0, 0))
    bare = in_place_of(poison(), case, ("k", "g1"), bare=True)
    assert (bare.n, bare.unread, bare.legs, bare.accounts) == (2, 2, (), ())
    assert bare.digest == whole.digest == digest_of(poison())


def test_counts_and_control_records_are_taken_too() -> None:
    case = FrameCase(stopped(), 1, {"a": "Ada", "b": "Ben"}, ["r"], 9)
    rows = np.zeros(1, COUNT)
    rows["coordinate"], rows["day"], rows["accepted"], rows["no_leg"] = 7, 5, 3, 2
    (value,) = ledger.encode_rows(Kind.COUNTS, rows, sources=["s/0"], key_id="k", generation="g1")
    (count,) = in_place_of(value, case, ("k", "g1")).counts
    assert (count.coordinate, count.day, count.accepted, count.no_leg) == (7, 5, 3, 2)
    fact = Fact(record_id="f", effective_at=4, subject=8)
    decision = Decision(record_id="d", effective_at=6, subject=8, recommendation_id="r", decision="clear")
    for kind, record in ((Kind.FACTS, fact), (Kind.DECISIONS, decision)):
        (value,) = ledger.encode_records(kind, [record], key_id="k", generation="g1")
        aside = in_place_of(value, case, ("k", "g1"))
        assert aside.accounts == ((8, record.effective_at, record.effective_at),)
        assert aside.unread == 0


@given(st.binary(max_size=200) | st.integers(0, 200).map(lambda n: poison()[:n]))
def test_whatever_the_bytes_are_there_is_something_to_take(value: bytes) -> None:
    case = FrameCase(stopped(value), 1, {"a": "Ada", "b": "Ben"}, ["r"], 9)
    aside = in_place_of(value, case, ("k", "g1"))
    outcome = Outcome(generation="g1", partition=0, offset=3, quarantine=aside)
    cases = Cases("g1")
    cases.take(encode(case.stopped), 1)
    cases.take(encode(outcome), 2)
    assert cases.all[0, 3].outcome is None  # not signed by anybody
    cases.take(encode(Signed(generation="g1", partition=0, offset=3, by=("Ada",), reason="r")), 3)
    cases.take(encode(outcome), 4)
    assert cases.all[0, 3].outcome is None
    cases.take(encode(Signed(generation="g1", partition=0, offset=3, by=("Ben",), reason="r")), 5)
    cases.take(encode(outcome), 6)
    assert cases.all[0, 3].outcome == outcome


@pytest.mark.parametrize("other", ["\uff21\uff44\uff41", "A\u200bda", "\u2003ADA\ufeff", "\U0001d400da"])
def test_a_person_is_the_same_in_other_letters_of_the_same_look(other: str) -> None:
    assert person(other) == person("Ada")


@given(st.text(max_size=20))
def test_a_person_is_the_same_however_it_is_spaced_or_cased(name: str) -> None:
    assert person(f"  {name} ") == person(name)
