"""`safehold replay FILE`: a file to a bank topic, as the bank would have sent it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.judge import BANK_OPTION, MAPPING_OPTION, opened
from streams.cli.output import JSON_OPTION, Progress, clock, emit, note, say

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

    from streams.opening import Opened
    from streams.replay import Pace, Replayed
    from streams.settings import Settings

LOOK_EVERY = 1.0
"""Seconds between two looks at the lag."""


def replay(
    file: Path = typer.Argument(help="Payments: Parquet, CSV or JSONL, in the order of their time."),
    topic: str = typer.Option(..., "--topic", "-t", help="The bank topic to write to. It must exist."),
    mapping: str = MAPPING_OPTION,
    speed: str = typer.Option(
        "max", "--speed", help="`max`, `60x` (sixty times as fast as it happened), or `5000/s`."
    ),
    settings: Path | None = SETTINGS_OPTION,
    bank: str = BANK_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Send a file to a topic, one canonical message a payment. Shows rate, time left and how far intake is behind."""
    from dataclasses import asdict

    from streams.cli.connect import run, settings_of

    pace = pace_of(speed)
    payments = opened(file, mapping, bank)
    chosen = settings_of(settings)
    total = payments.total
    if pace.speed or pace.rate:
        total = _tell_length(payments, pace, speed, quiet=as_json)
    with Progress(f"replaying {file.name}", total, "payments", quiet=as_json) as progress:
        done = run(chosen, _replay(chosen, payments, topic, pace, progress))
    if as_json:
        emit({"file": str(file), "topic": topic, **asdict(done)})
        return
    rate = done.sent / done.seconds if done.seconds else 0
    say(
        f"{done.sent:,} payments to {topic} in {done.seconds:.1f} s ({rate:,.0f}/s); {done.rejected:,} rows were not payments"
    )


def _tell_length(payments: Opened, pace: Pace, speed: str, *, quiet: bool) -> int:
    """Say how long it will take before it begins; returns how many rows there are. Reads the file once more."""
    from streams.opening import CannotOpen
    from streams.publish import rfc3339
    from streams.replay import span

    try:
        found = span(payments.payments())
    except CannotOpen as problem:
        raise CliError(str(problem), details=problem.details, look=problem.look, code=Exit.INPUT) from problem
    if found.sent and not quiet:
        first, last = (rfc3339(at)[:16].replace("T", " ") for at in (found.first_time, found.last_time))
        takes = clock(pace.due(found.sent - 1, found.last_time, found.first_time))
        note(f"{found.sent:,} payments, {first} to {last}: at {speed} this takes {takes}")
    return found.sent + found.rejected


def pace_of(text: str) -> Pace:
    """`max`, `60x` or `5000/s`."""
    from streams.replay import Pace

    if text == "max":
        return Pace()
    number = re.fullmatch(r"(\d+(?:\.\d+)?)(x|/s)", text)
    if number is None or not float(number[1]):
        raise CliError(
            f"{text!r} is no speed", look="--speed max, --speed 60x, --speed 5000/s", code=Exit.USAGE
        )
    return Pace(speed=float(number[1])) if number[2] == "x" else Pace(rate=float(number[1]))


async def _replay(
    settings: Settings, payments: Opened, topic: str, pace: Pace, progress: Progress
) -> Replayed:
    from streams.cli.connect import consumer, producer
    from streams.opening import CannotOpen
    from streams.replay import replay as send_all

    async with (
        producer(settings, linger_ms=5, max_batch_size=262_144) as client,
        consumer(settings) as looker,
    ):
        if topic not in await looker.topics():
            raise CliError(
                f"the topic {topic} does not exist", look="the bank's own topics are created by the bank"
            )
        lag = _Lag(settings, looker, topic, progress)
        watching = asyncio.create_task(lag.watch())
        try:
            return await send_all(payments.payments(), client, topic, pace=pace, progress=lag.tell)
        except CannotOpen as problem:
            raise CliError(
                str(problem), details=problem.details, look=problem.look, code=Exit.INPUT
            ) from problem
        finally:
            watching.cancel()
            await asyncio.wait({watching})


class _Lag:
    """What the progress line says besides the rate: up to when was sent, and how much of it waits for intake."""

    def __init__(self, settings: Settings, looker: AIOKafkaConsumer, topic: str, progress: Progress) -> None:
        self._settings, self._looker, self._topic, self._progress = settings, looker, topic, progress
        self._group = f"{settings.topic_prefix}-{settings.generation}-intake"
        self._waiting = ""

    def tell(self, done: Replayed) -> None:
        """Pass on how many were sent."""
        from streams.publish import rfc3339

        parts = [f"at {rfc3339(done.last_time)[:16].replace('T', ' ')}"] if done.sent else []
        self._progress.update(done.sent + done.rejected, " · ".join([*parts, self._waiting]).strip(" ·"))

    async def watch(self) -> None:
        """Look at the topic's end and at what intake has committed, once a second."""
        from aiokafka.admin import AIOKafkaAdminClient
        from aiokafka.errors import KafkaError

        from streams.cli.connect import client_options
        from streams.reading import places_of

        admin = AIOKafkaAdminClient(**client_options(self._settings))
        try:
            await admin.start()
            while True:
                places = await places_of(self._looker, [self._topic])
                ends = await self._looker.end_offsets(places)
                committed = await admin.list_consumer_group_offsets(self._group, partitions=places)
                done = sum(max(0, found.offset) for found in committed.values())
                self._waiting = f"{max(0, sum(ends.values()) - done):,} wait for intake"
                await asyncio.sleep(LOOK_EVERY)
        except KafkaError:
            self._waiting = ""  # a reader's convenience: without it the replay goes on
        finally:
            await admin.close()
