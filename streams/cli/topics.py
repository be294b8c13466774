"""`safehold topics create | check`."""

from __future__ import annotations

from pathlib import Path

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError
from streams.cli.helping import HelpGroup
from streams.cli.output import JSON_OPTION, emit, say

app = typer.Typer(
    help="The topics that Safehold uses.", cls=HelpGroup, no_args_is_help=True, rich_markup_mode=None
)

BANK_OPTION = typer.Option([], "--bank", help="One more bank that gets a review topic (may be repeated).")


@app.command()
def create(
    settings: Path | None = SETTINGS_OPTION, bank: list[str] = BANK_OPTION, as_json: bool = JSON_OPTION
) -> None:
    """Create Safehold's own topics that do not exist, then check all of them. A bank's own topics are never created."""
    from streams.cli.connect import admin, settings_of, wanted_topics
    from streams.topics import check as differences
    from streams.topics import create as create_missing
    from streams.topics import missing_sources

    chosen = settings_of(settings)
    wanted = wanted_topics(chosen, bank)
    with admin(chosen) as client:
        made = create_missing(client, wanted, replication=chosen.replication_factor)
        problems = differences(client, wanted)
        theirs = missing_sources(client, wanted)
    if as_json:
        emit({"created": made, "problems": problems})
    else:
        for name in made:
            say(f"created {name}")
        if not made:
            say("nothing to create")
    _end(problems, theirs, as_json)


@app.command()
def check(
    settings: Path | None = SETTINGS_OPTION, bank: list[str] = BANK_OPTION, as_json: bool = JSON_OPTION
) -> None:
    """Compare every topic with what it must be."""
    from streams.cli.connect import admin, settings_of, wanted_topics
    from streams.topics import check as differences
    from streams.topics import missing_sources

    chosen = settings_of(settings)
    wanted = wanted_topics(chosen, bank)
    with admin(chosen) as client:
        problems = differences(client, wanted)
        theirs = missing_sources(client, wanted)
    if as_json:
        emit({"topics": [spec.name for spec in wanted], "problems": problems})
    elif not problems:
        say(f"all {len(wanted)} topics are as they must be")
    _end(problems, theirs, as_json)


def _end(problems: list[str], theirs: list[str], as_json: bool) -> None:
    if problems and as_json:
        raise typer.Exit(1)
    if problems:
        hint = (
            "the banks' own topics are made by the banks; settings are changed with Kafka's own tools"
            if theirs
            else "safehold topics create makes missing topics; settings are changed with Kafka's own tools"
        )
        if theirs and len(problems) > len(theirs):
            hint = "safehold topics create makes Safehold's own topics; " + hint
        raise CliError(
            f"{len(problems)} of the topics' properties must be mended", details=problems, look=hint
        )
