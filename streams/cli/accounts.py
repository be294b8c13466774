"""`safehold accounts import`: what a bank says of its accounts, into the accounts topic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.helping import HelpGroup
from streams.cli.output import JSON_OPTION, emit, note, say

if TYPE_CHECKING:
    from streams.controls import AccountMessage
    from streams.settings import Settings

SHOWN_KINDS = 5

app = typer.Typer(
    help="What banks say of their accounts.", cls=HelpGroup, no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def options() -> None:
    """What banks say of their accounts."""


@app.command("import")
def import_(
    file: Path = typer.Argument(help="Accounts: Parquet, CSV or JSONL with a column `account`."),
    bank: str = typer.Option(
        "", "--bank", help="The bank that holds them, where the file has no column `bank`."
    ),
    number_of: str = typer.Option(
        "",
        "--qualify",
        metavar="CODE",
        help="Write CODE/ before numbers that are no IBAN, where the payments do (ISO 20022: the BIC without branch).",
    ),
    settings: Path | None = SETTINGS_OPTION,
    dry_run: bool = typer.Option(False, "--dry-run", help="Check the file and say what would be sent."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Send accounts with what is known of them (kind, opened, status, household). They are named as their payments name them.

    Sending them again changes nothing.
    """
    from detectors.model import AccountKind
    from streams.cli.connect import run, settings_of
    from streams.opening import CannotOpen, messages_of, read_accounts, unknown_kinds

    try:
        rows = read_accounts(file)
        messages = messages_of(rows, bank=bank, code=number_of)
    except CannotOpen as problem:
        raise CliError(str(problem), details=problem.details, look=problem.look, code=Exit.INPUT) from problem
    if not dry_run:
        chosen = settings_of(settings)
        run(chosen, send_accounts(chosen, messages))
    known = {
        "accounts": len(messages),
        "with_opening_date": sum(message.opened is not None for message in messages),
        "with_kind": sum(message.kind.value != "unknown" for message in messages),
        "sent": 0 if dry_run else len(messages),
    }
    odd = unknown_kinds(rows)
    if as_json:
        emit(known | ({"unknown_kinds": odd} if odd else {}))
        return
    if odd:
        said = ", ".join(f"{kind!r} ({count:,})" for kind, count in list(odd.items())[:SHOWN_KINDS])
        note(f"  these kinds are none and count as unknown: {said}. Kinds: {', '.join(AccountKind)}")
    say(
        f"{'would send' if dry_run else 'sent'} {known['accounts']:,} accounts: {known['with_opening_date']:,} with the date "
        f"of opening, {known['with_kind']:,} with their kind"
    )


async def send_accounts(settings: Settings, messages: list[AccountMessage]) -> None:
    """Into the accounts topic; returns when the broker has all."""
    import asyncio

    import msgspec

    from streams.cli.connect import names_of, producer

    topic = names_of(settings).accounts
    waiting: list[Any] = []
    async with producer(settings, linger_ms=5) as client:
        for message in messages:
            key = (message.subject or message.account).encode()
            waiting.append(await client.send(topic, msgspec.json.encode(message), key=key))
        await asyncio.gather(*waiting)
