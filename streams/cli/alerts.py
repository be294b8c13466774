"""`safehold alerts tail | list`: what the review topics say. The commands only read; decisions are made at the review desk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.helping import HelpGroup
from streams.cli.output import JSON_OPTION, emit, emit_line, note, say, table, terminal_width

if TYPE_CHECKING:
    from streams.latest import Latest, Said
    from streams.settings import Settings

app = typer.Typer(
    help="Recommendations, as the review topics hold them.",
    cls=HelpGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
)

BANK_OPTION = typer.Option([], "--bank", help="Only this bank's review topic (may be repeated).")
OBSERVE_OPTION = typer.Option(False, "--observe", help="The observe topic instead of the review topics.")
LEAST_OPTION = typer.Option(
    "monitor", "--least", help="Least action: monitor, hold-and-review, freeze, safeguard-first."
)
POLL_MS = 500
SHORT = 8
"""Characters of an id that a person is shown: `explain` takes the beginning of one."""
WITH_MINUTES = 86
"""Characters a line from which the time of day fits beside the rest."""


def topics_to_read(settings: Settings, bank: list[str], observe: bool) -> list[str]:
    """The review topics of these banks, or of all; or the observe topic."""
    from streams.cli.connect import banks_of, names_of

    names = names_of(settings)
    if observe:
        return [names.observe]
    banks = bank or banks_of(settings)
    if not banks:
        raise CliError(
            "the settings name no bank", look="give --bank, or name the banks in topics", code=Exit.USAGE
        )
    unknown = [name for name in bank if name not in banks_of(settings)]
    if unknown:
        known = ", ".join(banks_of(settings)) or "none"
        raise CliError(
            f"the settings do not name the bank {unknown[0]!r}",
            look=f"banks of the settings: {known}",
            code=Exit.USAGE,
        )
    return [names.review(name) for name in banks]


def nothing_there(settings: Settings, observe: bool) -> str:
    """What to say where no recommendation is found."""
    if observe:
        return "none on the observe topic"
    if not settings.config_file and settings.mode == "observe":
        return "none on the review topics; mode is observe: add --observe"
    return "none on the review topics; of banks in observe mode they are elsewhere: add --observe"


def written_points(body: dict[str, Any]) -> str:
    """The lower reading, which decides hold and freeze; `+` where the other one is higher."""
    from detectors.render import points

    if "points_low" not in body:
        return ""
    return points(body["points_low"]) + ("+" if body["points_high"] > body["points_low"] else "")


async def latest_words(settings: Settings, topics: list[str]) -> tuple[dict[str, Said], Latest]:
    """The latest word on every recommendation of these topics, by id."""
    from streams.cli.connect import consumer
    from streams.latest import ForeignMessage, Latest
    from streams.reading import read_all

    words: dict[str, Said] = {}
    latest = Latest()
    async with consumer(settings) as client:
        async for record in read_all(client, topics):
            try:
                said = latest.add(record.value or b"", [(name, value) for name, value in record.headers])
            except ForeignMessage as problem:
                note(f"{record.topic}/{record.partition}/{record.offset}: {problem}")
                continue
            if said is not None:
                words[said.recommendation_id] = said
    return words, latest


def rank(action: str) -> int:
    """Place of an action on the ladder, or one clear line."""
    from detectors.model import ACTION_NAMES

    if action not in ACTION_NAMES:
        raise CliError(
            f"there is no action {action!r}", look=f"one of {', '.join(ACTION_NAMES[1:])}", code=Exit.USAGE
        )
    return ACTION_NAMES.index(action)


def decoded(said: Said) -> dict[str, Any]:
    """The body of a recommendation as plain values."""
    import json

    body: dict[str, Any] = json.loads(said.body) if said.body else {}
    return body


@app.command("list")
def list_all(
    settings: Path | None = SETTINGS_OPTION,
    bank: list[str] = BANK_OPTION,
    observe: bool = OBSERVE_OPTION,
    least: str = LEAST_OPTION,
    withdrawn: bool = typer.Option(False, "--withdrawn", help="Those that no longer stand, too."),
    limit: int = typer.Option(100, "--limit", "-n", min=1, help="Newest so many."),
    as_json: bool = JSON_OPTION,
) -> None:
    """The recommendations that stand, newest first."""
    from streams.cli.connect import run, settings_of
    from streams.publish import rfc3339

    bar = rank(least)
    chosen = settings_of(settings)
    words, latest = run(chosen, latest_words(chosen, topics_to_read(chosen, bank, observe)))
    found = [said for said in words.values() if withdrawn or not said.withdrawn]
    found = [said for said in found if rank(said.action or "none") >= bar]
    bodies = [(said, decoded(said)) for said in found]
    bodies.sort(key=lambda pair: (-int(pair[1].get("event_time", 0)), pair[0].recommendation_id))
    bodies = bodies[:limit]
    if as_json:
        emit(
            [
                {
                    "recommendation_id": said.recommendation_id,
                    "action": said.action,
                    "withdrawn": said.withdrawn,
                    "revision": latest.revisions[said.recommendation_id],
                    "body": body or None,
                }
                for said, body in bodies
            ]
        )
        return
    if not bodies:
        say(nothing_there(chosen, observe))
        return
    width = terminal_width()
    clock = 16 if width >= WITH_MINUTES else 10
    table(
        ("id", "time", "action", "account", "points", "typology"),
        (
            (
                said.recommendation_id[:SHORT],
                rfc3339(int(body["event_time"])).replace("T", " ")[:clock] if body else "withdrawn",
                said.action,
                body.get("subject_account", ""),
                written_points(body),
                body.get("typology", ""),
            )
            for said, body in bodies
        ),
        width,
    )


@app.command()
def tail(
    settings: Path | None = SETTINGS_OPTION,
    bank: list[str] = BANK_OPTION,
    observe: bool = OBSERVE_OPTION,
    least: str = LEAST_OPTION,
    from_beginning: bool = typer.Option(False, "--from-beginning", help="What is there already, too."),
    count: int = typer.Option(0, "--count", "-n", min=0, help="Stop after so many; 0 = never."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line."),
) -> None:
    """Print recommendations as they come: new ones, revisions and withdrawals. Ends with Ctrl-C."""
    from streams.cli.connect import run, settings_of

    bar = rank(least)
    chosen = settings_of(settings)
    run(chosen, _tail(chosen, topics_to_read(chosen, bank, observe), bar, from_beginning, count, as_json))


async def _tail(
    settings: Settings, topics: list[str], bar: int, whole: bool, count: int, as_json: bool
) -> None:
    from streams.cli.connect import consumer
    from streams.latest import ForeignMessage, Latest
    from streams.reading import places_of

    latest = Latest()
    told = 0
    async with consumer(settings) as client:
        places = await places_of(client, topics)
        if not places:
            raise CliError(f"none of these topics exists: {', '.join(topics)}", look="safehold topics create")
        client.assign(places)
        if not whole:
            await client.seek_to_end(*places)
        else:
            await client.seek_to_beginning(*places)
        note(
            f"waiting for {', '.join(topics)}" + ("" if whole else " (--from-beginning shows what is there)")
        )
        while True:
            for records in (await client.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    try:
                        said = latest.add(
                            record.value or b"", [(name, value) for name, value in record.headers]
                        )
                    except ForeignMessage as problem:
                        note(f"{record.topic}/{record.partition}/{record.offset}: {problem}")
                        continue
                    if said is None or rank(said.action or "none") < bar:
                        continue
                    _tell(said, latest.revisions[said.recommendation_id], as_json)
                    told += 1
                    if count and told >= count:
                        return


def _tell(said: Said, revision: int, as_json: bool) -> None:
    from streams.publish import rfc3339

    body = decoded(said)
    if as_json:
        emit_line(
            {"recommendation_id": said.recommendation_id, "action": said.action, "withdrawn": said.withdrawn,
             "revision": revision, "body": body or None}
        )  # fmt: skip
        return
    what = "withdrawn" if said.withdrawn else said.action
    when = rfc3339(int(body["event_time"]))[:19] if body else ""
    word = "" if revision == 1 else f" (revision {revision})"
    say(
        f"{when} {what}{word} {body.get('subject_account', '')} {body.get('typology', '')} {said.recommendation_id}".strip()
    )
