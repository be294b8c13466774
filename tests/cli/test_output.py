"""Progress, pace and pages: what people see, with the time injected."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from detectors.model import HOUR, SECOND
from streams.cli.exits import CliError
from streams.cli.output import Progress, clock, table
from streams.cli.replay import pace_of
from streams.replay import Pace, Replayed, key_of, replay
from tests.cli.samples import payments


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


class Topic:
    """Keeps what is sent to it."""

    def __init__(self, fails_at: int = -1) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.headers: list[Any] = []
        self.fails_at = fails_at

    async def send(self, topic: str, value: bytes, *, key: bytes, headers: Any) -> Any:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self.messages) == self.fails_at:
            future.set_exception(OSError("gone"))
        else:
            future.set_result(None)
        self.messages.append((key, value))
        self.headers.append(headers)
        return future


# -- progress -------------------------------------------------------------------------------------------------------


def test_plain_progress_has_rate_and_eta_and_is_not_chatty(capsys: pytest.CaptureFixture[str]) -> None:
    now = Clock()
    with Progress("judging", 1_000, "payments", now=now) as progress:
        for second in range(1, 11):
            now.time = float(second)
            progress.update(second * 100, "2 recommendations")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "judging: 500 of 1,000 payments · 100/s · ETA 0:05 · 2 recommendations",
        "judging: 1,000 of 1,000 payments · 100/s · 2 recommendations",
        "judging: 1,000 of 1,000 payments · 100/s · 2 recommendations",
    ]


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("judging", None, "payments", quiet=True) as progress:
        progress.update(5)
    assert capsys.readouterr().err == ""


def test_a_clock_reads_like_one() -> None:
    assert [clock(0), clock(75), clock(3_661)] == ["0:00", "1:15", "1:01:01"]


def test_a_table_is_as_wide_as_it_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    table(("id", "n"), [("a", 1), ("long", 22)])
    assert capsys.readouterr().out == "id    n\n────  ──\na     1\nlong  22\n"


# -- pace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pace"),
    [("max", Pace()), ("60x", Pace(speed=60.0)), ("5000/s", Pace(rate=5000.0)), ("0.5x", Pace(speed=0.5))],
)
def test_a_speed_is_read(text: str, pace: Pace) -> None:
    assert pace_of(text) == pace


@pytest.mark.parametrize("text", ["", "fast", "0x", "-1/s", "10"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="no speed"):
        pace_of(text)


def test_a_payment_is_due_when_it_happened_divided_by_the_speed() -> None:
    assert Pace(speed=3600).due(1, HOUR, 0) == 1.0
    assert Pace(rate=10).due(25, HOUR, 0) == 2.5
    assert Pace(speed=3600, rate=0.1).due(1, HOUR, 0) == 10.0
    assert Pace().due(10**6, HOUR, 0) == 0.0


async def test_replay_waits_until_each_payment_is_due() -> None:
    now, topic = Clock(), Topic()
    done = await replay([payments()], topic, "t", pace=Pace(rate=4), now=now, sleep=now.sleep)
    assert done.sent == len(payments()) == len(topic.messages)
    assert now.time == pytest.approx((len(payments()) - 1) / 4)


async def test_a_replay_that_waits_says_where_it_stands() -> None:
    """A plain line every five seconds, however far away the next payment is."""
    now, told = Clock(), []
    first, *_, last = payments()
    away = (last.time - first.time) / SECOND
    await replay(
        [[first, last]], Topic(), "t", pace=Pace(speed=away / 60), progress=lambda done: told.append(now.time),
        now=now, sleep=now.sleep,
    )  # fmt: skip
    assert now.time == pytest.approx(60)
    assert max(later - earlier for earlier, later in itertools.pairwise(told)) <= 1.0


async def test_replay_at_full_speed_never_waits() -> None:
    now, topic = Clock(), Topic()
    done = await replay([payments()], topic, "t", now=now, sleep=now.sleep)
    assert done.sent == len(payments())
    assert sum(now.slept) == 0


async def test_replay_keeps_an_account_in_one_partition_and_carries_as_of() -> None:
    topic = Topic()
    await replay([payments()], topic, "t", as_of=7 * SECOND)
    assert {key for key, _ in topic.messages} >= {b"north/900", b"north/901"}
    assert all(headers == [("safehold-as-of", b"7000000")] for headers in topic.headers)
    assert key_of(payments()[0]) == payments()[0].debtor.account.encode()


async def test_a_send_that_fails_ends_the_replay() -> None:
    with pytest.raises(OSError, match="gone"):
        await replay([payments() * 10], Topic(fails_at=3), "t")


async def test_replay_tells_how_far_it_is() -> None:
    told: list[Replayed] = []
    await replay([payments()], Topic(), "t", progress=lambda done: told.append(done))
    assert told[-1].sent == len(payments())
    assert told[-1].last_time == max(payment.time for payment in payments())
