"""Frames that stop their partition, on a real broker and store: two people set them aside, and the same stands after a rebuild."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from streams.balance import add_up, difference
from tests.e2e.harness import ROOT, Installation, balanced, bank_payments


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    code: int
    out: str
    err: str


async def cli(installation: Installation, *arguments: str) -> Ran:
    """`safehold …` as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streams.cli", *arguments, "-s", str(installation.settings("cli")),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def frames(installation: Installation) -> list[dict[str, Any]]:
    """`safehold quarantine list --json`."""
    ran = await cli(installation, "quarantine", "list", "--json")
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["frames"]
    return found


async def stands(installation: Installation) -> dict[str, Any]:
    """Wait until a partition stands at a frame, by the list."""
    async with asyncio.timeout(60):
        while True:
            found = [frame for frame in await frames(installation) if frame["state"] == "stands"]
            if found:
                return found[0]


async def put(installation: Installation, partition: int, value: bytes) -> int:
    """Write to the ledger what does not belong there. Returns its offset."""
    producer = AIOKafkaProducer(bootstrap_servers=installation.broker.bootstrap)
    await producer.start()
    try:
        done = await producer.send_and_wait(installation.names.ledger, value, partition=partition)
    finally:
        await producer.stop()
    return int(done.offset)


async def test_a_poisoned_frame_and_two_signatures(install: Callable[..., Installation]) -> None:
    installation = install()
    payments = bank_payments()
    half = len(payments) // 2
    sent = await installation.send(payments[:half])
    worker = installation.worker()
    await installation.settled(sent)
    offset = await put(installation, 1, b"not a frame")
    sent += await installation.send(payments[half:])
    frame = await stands(installation)
    assert (frame["partition"], frame["offset"], frame["kind"]) == (1, offset, "")
    doctor = await cli(installation, "doctor", "--json")
    looked = {finding["name"]: finding for finding in json.loads(doctor.out)["findings"]}
    assert f"partition 1 at offset {offset}" in looked["ledger frames"]["found"]
    assert looked["ledger frames"]["state"] == "fail"
    place = ("quarantine", "1", str(offset))
    why = ("--reason", "a test wrote it")
    refused = await cli(installation, "quarantine", "2", str(offset), "--by", "Ada", "--by", "Ben", *why)
    assert refused.code == 1
    assert "has not stopped" in refused.err
    first = await cli(installation, *place, "--by", "Ada", *why)
    assert first.code == 0
    assert "one more signature" in first.out
    again = await cli(installation, *place, "--by", "ada ", *why)
    assert "one more signature" in again.out
    second = await cli(installation, *place, "--by", "Ben", *why)
    assert second.code == 0, second.err
    assert "set aside" in second.out
    assert worker.running
    balanced(await installation.settled(sent))
    late = await cli(installation, *place, "--by", "Eve", "--by", "Ben", *why)
    assert late.code == 1
    assert "already" in late.err
    (frame,) = await frames(installation)
    assert (frame["state"], frame["by"]) == ("set-aside", ["Ada", "Ben"])


@pytest.mark.slow
async def test_a_frame_that_the_fold_fails_on_is_counted_and_a_rebuild_says_the_same(
    install: Callable[..., Installation],
) -> None:
    """Killed before and after each record of the quarantine; then everything is rebuilt from the ledger."""
    installation = install()
    payments = bank_payments()
    amount = payments[len(payments) // 3].amount
    sent = await installation.send(payments)
    for place in ("before-stopped", "after-stopped"):
        await installation.gone(installation.worker(raise_on=amount, crash_at=place))
    worker = installation.worker(raise_on=amount)
    frame = await stands(installation)
    assert frame["kind"] == "legs"
    worker.stop()
    where = (str(frame["partition"]), str(frame["offset"]))
    people = ("--by", "Ada", "--by", "Ben", "--reason", "the fold fails on it", "--wait", "0")
    assert (await cli(installation, "quarantine", *where, *people)).code == 0
    for place in ("before-outcome", "after-outcome"):
        await installation.gone(installation.worker(raise_on=amount, crash_at=place))
    worker = installation.worker(raise_on=amount)
    counters = await sign_all(installation, sent)
    balanced(counters)
    assert counters["quarantined"] >= frame["records"] > 0
    heads = await installation.heads()
    assert not any(difference(sums) for sums in add_up(heads.values()).values())
    stood = (await installation.latest()).bodies()
    said = await frames(installation)
    assert any(one["accounts"] for one in said)
    worker.stop()
    installation.options["redis_namespace"] = "rebuilt"
    installation.worker()  # mended: what was set aside stays so
    assert await installation.settled(sent) == counters
    assert (await installation.latest()).bodies() == stood
    assert await frames(installation) == said


async def sign_all(installation: Installation, sent: int) -> dict[str, int]:
    """Sign for whatever stands until everything is settled."""
    settled = asyncio.ensure_future(installation.settled(sent, within=120))
    while not settled.done():
        for frame in await frames(installation):
            if frame["state"] == "stands":
                where = (str(frame["partition"]), str(frame["offset"]))
                await cli(
                    installation, "quarantine", *where, "--by", "Ada", "--by", "Ben", "--reason", "again"
                )
    return await settled
