"""`safehold explain ID`: one recommendation in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.output import JSON_OPTION, emit, say, terminal_width


def explain(
    recommendation: str = typer.Argument(help="Its id, or the first characters of it."),
    settings: Path | None = SETTINGS_OPTION,
    file: Path | None = typer.Option(
        None, "--file", "-f", help="Look into a recommendations.jsonl of `safehold judge` instead."
    ),
    observe: bool = typer.Option(False, "--observe", help="Look into the observe topic."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Why: every reason with its transactions, what speaks against it, what would change it, what is not known."""
    body = (
        _from_file(recommendation, file)
        if file is not None
        else _from_topics(recommendation, settings, observe)
    )
    if as_json:
        emit(body)
        return
    from streams.page import page

    say(page(body, terminal_width()))


def _line(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        body = json.loads(line)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "recommendation_id" not in body:
        what = "not JSON" if body is None else "no recommendation"
        raise CliError(
            f"{file} cannot be read as recommendations: line {number} is {what}",
            look="safehold judge writes such a file into --out",
            code=Exit.INPUT,
        )
    return body


def _one(wanted: str, found: dict[str, dict[str, Any]], look: str) -> dict[str, Any]:
    matching = sorted(identity for identity in found if identity.startswith(wanted))
    if not matching:
        raise CliError(f"there is no recommendation {wanted}", look=look)
    if len(matching) > 1:
        raise CliError(
            f"{wanted} could be any of {len(matching)}", details=matching[:10], look="give more of the id"
        )
    return found[matching[0]]


def _from_file(wanted: str, file: Path) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8") as lines:
            bodies = [_line(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        found = {str(body["recommendation_id"]): body for body in bodies}
    except OSError as problem:
        raise CliError(
            f"{file} cannot be opened: {problem.strerror}",
            look="safehold judge writes such a file into --out",
            code=Exit.INPUT,
        ) from problem
    except UnicodeDecodeError as problem:
        raise CliError(
            f"{file} cannot be read as recommendations: it is not UTF-8",
            look="safehold judge writes such a file into --out",
            code=Exit.INPUT,
        ) from problem
    return _one(wanted, found, f"the recommendation_id of each line of {file}")


def _from_topics(wanted: str, path: Path | None, observe: bool) -> dict[str, Any]:
    from streams.cli.alerts import decoded, latest_words, topics_to_read
    from streams.cli.connect import run, settings_of

    chosen = settings_of(path)
    words, _ = run(chosen, latest_words(chosen, topics_to_read(chosen, [], observe)))
    return _one(
        wanted,
        {key: decoded(said) for key, said in words.items() if not said.withdrawn},
        "safehold alerts list --observe"
        if observe
        else "safehold alerts list; --observe looks into the observe topic",
    )
