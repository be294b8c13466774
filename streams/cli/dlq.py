"""`safehold dlq list | show | replay`: what could not be used."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.helping import HelpGroup
from streams.cli.output import JSON_OPTION, emit, say, table, terminal_width

if TYPE_CHECKING:
    from streams.settings import Settings

app = typer.Typer(
    help="Dead letters: what could not be used, and why.",
    cls=HelpGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
)

REASON_OPTION = typer.Option("", "--reason", help="Only letters with this reason.")
SHOWN_BYTES = 2_000
AS_OF_DIGITS = 16
"""What intake takes for a time in µs has no more digits (`streams.intake`)."""
SEVERAL = re.compile(r"[0-9]{1,7} transactions: ([a-z-]+ [0-9]{1,7}(?:, [a-z-]+ [0-9]{1,7})*)")
LISTED = ("late", "conflict")
"""Letters of legs that are in the ledger: they name a leg and hold no message."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. Its coordinate is `topic/partition/offset/index` of the bank's own record."""

    coordinate: str
    reason: str
    detail: str
    value: bytes
    key: bytes | None
    received: int
    """Append time of the bank's record, µs."""
    stays: str = ""
    """Why it cannot be sent again; empty where it can."""
    by_reason: dict[str, int] = field(default_factory=dict)
    """Of a letter for several transactions of one message: how many of each reason."""

    @property
    def topic(self) -> str:
        """The bank topic that it came from."""
        return self.coordinate.rsplit("/", 3)[0]

    @property
    def partition(self) -> int:
        """The partition of that topic."""
        return int(self.coordinate.rsplit("/", 3)[1])

    @property
    def reasons(self) -> dict[str, int]:
        """How many transactions of each reason it speaks of."""
        return self.by_reason or {self.reason: 1}

    @property
    def message(self) -> str:
        """The bank's record that it was part of."""
        return self.coordinate.rsplit("/", 1)[0]


async def _letters(settings: Settings, reason: str) -> list[Letter]:
    from streams.cli.connect import consumer, names_of
    from streams.publish import COORDINATE, DETAIL, KEY, REASON, RECEIVED
    from streams.reading import read_all

    letters: dict[str, Letter] = {}
    async with consumer(settings) as client:
        async for record in read_all(client, [names_of(settings).deadletters]):
            head = dict(record.headers)
            letter = Letter(
                coordinate=head.get(COORDINATE, record.key or b"").decode(errors="replace"),
                reason=head.get(REASON, b"unknown").decode(errors="replace"),
                detail=head.get(DETAIL, b"").decode(errors="replace"),
                value=record.value or b"",
                key=head.get(KEY),
                received=_moment(head.get(RECEIVED, b"")) or record.timestamp * 1000,
                stays=_stays(head),
                by_reason=_several(head.get(DETAIL, b"").decode(errors="replace")),
            )
            # Written twice it is one letter.
            letters[letter.coordinate] = letter
    return [letter for _, letter in sorted(letters.items()) if not reason or reason in letter.reasons]


def _moment(text: bytes) -> int:
    """A time in µs as a header has it; 0 for what is none."""
    return int(text) if text.isdigit() and len(text) <= AS_OF_DIGITS else 0


def _stays(head: dict[str, bytes]) -> str:
    """Why a letter cannot be sent again; empty where it can."""
    from streams.publish import COORDINATE, REASON, TRUNCATED

    if TRUNCATED in head:
        return "truncated"
    if (reason := head.get(REASON, b"").decode(errors="replace")) in LISTED:
        return reason
    parts = head.get(COORDINATE, b"").decode(errors="replace").rsplit("/", 3)
    return "" if len(parts) == 4 and parts[0] and parts[1].isdecimal() else "no coordinate"


def _several(detail: str) -> dict[str, int]:
    """Reasons of a letter for several transactions, from its detail (`streams.intake.listed`)."""
    found = SEVERAL.match(detail)
    words = (pair.split(" ") for pair in found[1].split(", ")) if found else ()
    return {reason: int(count) for reason, count in words}


def _read(path: Path | None, reason: str) -> tuple[Settings, list[Letter]]:
    from streams.cli.connect import run, settings_of

    chosen = settings_of(path)
    return chosen, run(chosen, _letters(chosen, reason))


@app.command("list")
def list_all(
    settings: Path | None = SETTINGS_OPTION,
    reason: str = REASON_OPTION,
    limit: int = typer.Option(50, "--limit", "-n", min=1, help="At most so many."),
    as_json: bool = JSON_OPTION,
) -> None:
    """What is there, and how many of each reason. Contents are only shown by `show`."""
    _, letters = _read(settings, reason)
    counted: Counter[str] = Counter()
    for letter in letters:
        counted.update(letter.reasons)
    counts = dict(sorted(counted.items()))
    if as_json:
        emit(
            {
                "total": len(letters),
                "by_reason": counts,
                "letters": [_plain(letter) for letter in letters[:limit]],
            }
        )
        return
    table(
        ("coordinate", "reason", "bytes", "detail"),
        ((x.coordinate, x.reason, len(x.value), x.detail) for x in letters[:limit]),
        terminal_width(),
    )
    say("")
    say(f"{len(letters)} dead letters" + "".join(f" · {name} {count}" for name, count in counts.items()))


@app.command()
def show(
    coordinate: str = typer.Argument(help="topic/partition/offset/index, as in `safehold dlq list`."),
    settings: Path | None = SETTINGS_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """One dead letter with its content. The content may hold personal data."""
    _, letters = _read(settings, "")
    letter = next((letter for letter in letters if letter.coordinate == coordinate), None)
    if letter is None:
        raise CliError(f"there is no dead letter {coordinate}", look="safehold dlq list")
    text = letter.value.decode(errors="replace")
    if as_json:
        emit({**_plain(letter), "value": text})
        return
    say(f"{letter.coordinate}\nreason  {letter.reason}\ndetail  {letter.detail}\n")
    say(
        text[:SHOWN_BYTES]
        + (f"\n… {len(text) - SHOWN_BYTES} more characters" if len(text) > SHOWN_BYTES else "")
    )


@app.command()
def replay(
    coordinate: list[str] = typer.Argument(
        None, help="Letters to send again; none = all that --reason leaves."
    ),
    settings: Path | None = SETTINGS_OPTION,
    reason: str = REASON_OPTION,
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be sent."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Send letters to the topics that they came from, after their cause was mended. Doing it twice changes nothing.

    What holds no whole message (cut short, or a leg that is listed as late or in conflict) is refused, and counted.
    """
    from streams.cli.connect import run

    if not coordinate and not reason:
        raise CliError(
            "say which letters", look="safehold dlq replay COORDINATE…, or --reason REASON", code=Exit.USAGE
        )
    chosen, letters = _read(settings, reason)
    if coordinate:
        unknown = sorted(set(coordinate) - {letter.coordinate for letter in letters})
        if unknown:
            raise CliError(f"there is no dead letter {', '.join(unknown)}", look="safehold dlq list")
        letters = [letter for letter in letters if letter.coordinate in set(coordinate)]
    refused = dict(sorted(Counter(letter.stays for letter in letters if letter.stays).items()))
    # Letters that hold their whole message are as many as it had bad transactions: it is sent once.
    whole = {(letter.message, letter.value): letter for letter in letters if not letter.stays}
    messages = list(whole.values())
    if not dry_run:
        run(chosen, _send(chosen, messages))
    if as_json:
        said: dict[str, Any] = {
            "sent": 0 if dry_run else len(messages),
            "messages": [letter.message for letter in messages],
        }
        emit(said | ({"refused": refused} if refused else {}))
    else:
        for letter in messages:
            say(f"{'would send' if dry_run else 'sent'} {letter.message} ({letter.reason})")
        say(f"{len(messages)} messages")
        if refused:
            counts = ", ".join(f"{why} {count}" for why, count in refused.items())
            say(f"{sum(refused.values())} letters hold no whole message and cannot be sent again: {counts}")
    if refused and not messages:
        raise typer.Exit(Exit.FAILED)


async def _send(settings: Settings, letters: list[Letter]) -> None:
    from streams.cli.connect import producer
    from streams.publish import AS_OF

    async with producer(settings) as client:
        for letter in letters:
            # Whether it is from the future is judged by when the bank first sent it.
            headers = [(AS_OF, b"%d" % letter.received)]
            await client.send(
                letter.topic, letter.value, key=letter.key, partition=letter.partition, headers=headers
            )


def _plain(letter: Letter) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "coordinate": letter.coordinate,
        "reason": letter.reason,
        "detail": letter.detail,
        "bytes": len(letter.value),
        "received": letter.received,
        "replayable": not letter.stays,
    }
    if letter.by_reason:
        plain["by_reason"] = letter.by_reason
    return plain
