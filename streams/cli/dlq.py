"""`safehold dlq list | show | replay`: what could not be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.output import JSON_OPTION, emit, say, table

if TYPE_CHECKING:
    from streams.settings import Settings

app = typer.Typer(
    help="Dead letters: what could not be used, and why.", no_args_is_help=True, rich_markup_mode=None
)

REASON_OPTION = typer.Option("", "--reason", help="Only letters with this reason.")
SHOWN_BYTES = 2_000
AS_OF = "safehold-as-of"


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

    @property
    def topic(self) -> str:
        """The bank topic that it came from."""
        return self.coordinate.rsplit("/", 3)[0]

    @property
    def partition(self) -> int:
        """The partition of that topic."""
        return int(self.coordinate.rsplit("/", 3)[1])

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
                received=int(head.get(RECEIVED, b"0")) or record.timestamp * 1000,
            )
            # Written twice it is one letter.
            letters[letter.coordinate] = letter
    return [letter for _, letter in sorted(letters.items()) if not reason or letter.reason == reason]


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
    counts = dict(sorted(Counter(letter.reason for letter in letters).items()))
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
        ("coordinate", "reason", "detail", "bytes"),
        ((x.coordinate, x.reason, x.detail, len(x.value)) for x in letters[:limit]),
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
    """Send letters to the topics that they came from, after their cause was mended. Doing it twice changes nothing."""
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
    # A message with several bad transactions has several letters, and each holds the whole message.
    messages = list({letter.message: letter for letter in letters}.values())
    if not dry_run:
        run(chosen, _send(chosen, messages))
    if as_json:
        emit({"sent": 0 if dry_run else len(messages), "messages": [letter.message for letter in messages]})
        return
    for letter in messages:
        say(f"{'would send' if dry_run else 'sent'} {letter.message} ({letter.reason})")
    say(f"{len(messages)} messages")


async def _send(settings: Settings, letters: list[Letter]) -> None:
    from streams.cli.connect import producer

    async with producer(settings) as client:
        for letter in letters:
            # Whether it is from the future is judged by when the bank first sent it.
            headers = [(AS_OF, b"%d" % letter.received)]
            await client.send(
                letter.topic, letter.value, key=letter.key, partition=letter.partition, headers=headers
            )


def _plain(letter: Letter) -> dict[str, Any]:
    return {
        "coordinate": letter.coordinate,
        "reason": letter.reason,
        "detail": letter.detail,
        "bytes": len(letter.value),
        "received": letter.received,
    }
