"""`safehold quarantine PARTITION OFFSET | list`: frames of the ledger that stopped their partition, and setting one aside.

A frame that cannot be read, or that judging fails on, stops its partition: skipping it in silence is not allowed. Two different
people can decide that it is set aside. That is a record, in the quarantine topic; it holds for every later owner and rebuild.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.output import JSON_OPTION, emit, say, table

if TYPE_CHECKING:
    from detectors.state import Head
    from streams.quarantine import Cases, FrameCase
    from streams.settings import Settings

LIST = "list"
ASK_SECONDS = 0.5
STANDS, HALF, SIGNED, ASIDE, PASSED = "stands", "half-signed", "signed", "set-aside", "applied"
WORDS = {
    STANDS: "stands: two signatures are needed",
    HALF: "stands: one more signature is needed",
    SIGNED: "signed: the partition's worker goes on at its next look",
    ASIDE: "set aside",
    PASSED: "applied after all: nothing to set aside",
}


def quarantine(
    what: str = typer.Argument(metavar="PARTITION|list", help="Ledger partition, or `list`."),
    offset: int = typer.Argument(None, metavar="OFFSET", min=0, help="The offset at which it stands."),
    by: list[str] = typer.Option(
        [], "--by", help="Who decides it. Two different people are needed, here or one after the other."
    ),
    reason: str = typer.Option("", "--reason", help="Why, in a few words: it is kept for good."),
    wait: float = typer.Option(
        20.0, "--wait", min=0.0, help="Seconds to wait for the partition's worker to go on."
    ),
    settings: Path | None = SETTINGS_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Set aside a ledger frame that stopped its partition; or list those frames.

    The frame is skipped for ever, and its payments are not judged: they are counted as quarantined. The partition goes on
    within seconds.
    """
    if what == LIST:
        _list(settings, as_json)
        return
    if not what.isdecimal() or offset is None:
        raise CliError(
            "say which frame: a partition and an offset", look="safehold quarantine list", code=Exit.USAGE
        )
    if not by or not reason.strip() or not all(name.strip() for name in by):
        raise CliError("--by and --reason are needed: it is a decision of people", code=Exit.USAGE)
    _sign(int(what), offset, by, reason.strip(), wait, settings, as_json)


def _list(path: Path | None, as_json: bool) -> None:
    from streams.cli.connect import run, settings_of

    chosen = settings_of(path)
    cases, stored = run(chosen, known(chosen))
    found = [plain(case, stored) for _, case in sorted(cases.all.items())]
    if as_json:
        emit({"frames": found})
        return
    if not found:
        say("no ledger frame has stopped its partition")
        return
    table(
        ("partition", "offset", "frame", "records", "problem", "signed by", "what became of it"),
        (
            (
                x["partition"], x["offset"], x["kind"] or "not readable", x["records"], x["problem"],
                ", ".join(x["by"]) or "nobody", WORDS[x["state"]],
            )
            for x in found
        ),
    )  # fmt: skip


def _sign(
    partition: int, offset: int, by: list[str], reason: str, wait: float, path: Path | None, as_json: bool
) -> None:
    from streams.cli.connect import run, settings_of
    from streams.quarantine import PEOPLE, Signed, person

    chosen = settings_of(path)
    cases, stored = run(chosen, known(chosen))
    case = cases.all.get((partition, offset))
    if case is None:
        raise CliError(
            f"partition {partition} has not stopped at offset {offset}: there is nothing to set aside",
            look="safehold quarantine list",
        )
    now = state_of(case, stored)
    if now in (ASIDE, PASSED):
        raise CliError(
            f"offset {offset} of partition {partition} is {'set aside already' if now == ASIDE else 'applied'}: "
            "a signature changes nothing any more",
            look="safehold quarantine list",
        )
    people = {person(name) for name in by} | case.people.keys()
    signed = Signed(
        generation=chosen.generation, partition=partition, offset=offset, by=tuple(by), reason=reason
    )
    case = run(chosen, _send_and_wait(chosen, signed, wait if len(people) >= PEOPLE else 0.0))
    done = plain(case, {})
    if as_json:
        emit(done)
    else:
        names = ", ".join(case.people.values())
        say(f"partition {partition} offset {offset}: signed by {names}")
        say(WORDS[done["state"]])
    if done["state"] == PASSED:
        raise CliError("the frame was applied before the signature took effect: nothing is set aside")


async def _send_and_wait(settings: Settings, signed: Any, wait: float) -> FrameCase:
    """The case once it is settled, or when the time is over."""
    from streams.cli.connect import names_of, producer
    from streams.quarantine import encode, key_of

    async with producer(settings) as client:
        await client.send_and_wait(
            names_of(settings).quarantine, encode(signed), key=key_of(signed), partition=0
        )
    until = time.monotonic() + wait
    while True:
        case = (await _cases(settings)).all[signed.partition, signed.offset]
        if case.outcome is not None or time.monotonic() >= until:
            return case
        await asyncio.sleep(ASK_SECONDS)


async def known(settings: Settings) -> tuple[Cases, dict[int, Head]]:
    """Every frame that stopped its partition, and how far each partition is by the store."""
    from streams.cli.connect import heads
    from streams.state.base import StoreError

    try:
        stored = await heads(settings)
    except StoreError as problem:
        raise CliError(
            f"the state store does not answer ({type(problem).__name__})",
            look="safehold doctor",
            code=Exit.UNREACHABLE,
        ) from problem
    return await _cases(settings), stored


async def _cases(settings: Settings) -> Cases:
    from streams.cli.connect import consumer, names_of
    from streams.quarantine import Cases
    from streams.reading import read_all

    cases = Cases(settings.generation)
    async with consumer(settings) as client:
        async for record in read_all(client, [names_of(settings).quarantine]):
            cases.take(record.value or b"", record.timestamp * 1000)
    return cases


def state_of(case: FrameCase, stored: dict[int, Head]) -> str:
    """Where a case is."""
    if case.outcome is not None:
        return PASSED if case.outcome.quarantine is None else ASIDE
    head = stored.get(case.stopped.partition)
    if head is not None and head.applied >= case.stopped.offset:
        return PASSED
    if case.signed:
        return SIGNED
    return HALF if case.people else STANDS


def plain(case: FrameCase, stored: dict[int, Head]) -> dict[str, Any]:
    """A case for programs."""
    from streams.publish import rfc3339

    stopped = case.stopped
    aside = case.outcome.quarantine if case.outcome is not None else None
    return {
        "partition": stopped.partition,
        "offset": stopped.offset,
        "state": state_of(case, stored),
        "problem": stopped.problem,
        "kind": stopped.kind,
        "records": stopped.n,
        "sources": list(stopped.sources),
        "since": rfc3339(case.since),
        "by": list(case.people.values()),
        "reasons": case.reasons,
        "accounts": [f"{subject:016x}" for subject, _, _ in aside.accounts] if aside else [],
        "unread": aside.unread if aside else 0,
    }
