"""`safehold flags add | import | withdraw | list`: what partners and reviewers say of accounts.

A flag counts only while it is confirmed by a named person and has not expired. Withdrawing one corrects every open
recommendation that leaned on it. A flag is its account and its id: two partners may number alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.helping import HelpGroup
from streams.cli.output import JSON_OPTION, emit, say, table, terminal_width

if TYPE_CHECKING:
    from streams.controls import FlagMessage
    from streams.settings import Settings

app = typer.Typer(
    help="Flags: what partners and reviewers say of accounts.",
    cls=HelpGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
)

ACCOUNT_OPTION = typer.Option(
    "", "--account", help="The account as its payments name it. Never written to a log."
)
SUBJECT_OPTION = typer.Option("", "--subject", help="The account's pseudonym, where only that is known.")
BY_OPTION = typer.Option(
    [], "--by", help="Who confirmed it (may be repeated). Without anybody it is only proposed."
)


@app.command()
def add(
    source: str = typer.Option(
        ..., "--source", help="Who says so: a partner's name, or the reviewer's team."
    ),
    reason: str = typer.Option(..., "--reason", help="Why, in a few words."),
    account: str = ACCOUNT_OPTION,
    bank: str = typer.Option("", "--bank", help="The bank that holds the account."),
    subject: str = SUBJECT_OPTION,
    by: list[str] = BY_OPTION,
    expires: str = typer.Option("", "--expires", help="When it ends (2026-12-31, or with a time and zone)."),
    source_kind: str = typer.Option(
        "reviewer", "--source-kind", help="reviewer, bank, ngo, platform, law-enforcement."
    ),
    handling: str = typer.Option("TLP:AMBER", "--handling", help="Handling code."),
    basis: str = typer.Option("", "--basis", help="Legal basis or agreement."),
    flag_id: str = typer.Option("", "--id", help="Its id; none = made from account and source."),
    settings: Path | None = SETTINGS_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Flag one account. It counts for every account that pays it or is paid by it, from now on."""
    if bool(account) == bool(subject):
        raise CliError("give --account or --subject, one of them", code=Exit.USAGE)
    row = {
        "flag_id": flag_id,
        "account": account,
        "bank": bank,
        "subject": subject,
        "source": source,
        "source_kind": source_kind,
        "reason": reason,
        "handling": handling,
        "basis": basis,
        "expires": expires,
        "confirmed_by": by,
    }
    message = _message(row, "the command line")
    if isinstance(message.expires, int) and message.expires <= _now():
        raise CliError(f"--expires {expires} is in the past: the flag would never count", code=Exit.USAGE)
    _send([message], settings, as_json, "added")


@app.command("import")
def import_(
    file: Path = typer.Argument(
        help="JSONL or CSV: flag_id, account (or subject), bank, source, reason, confirmed_by, expires."
    ),
    settings: Path | None = SETTINGS_OPTION,
    dry_run: bool = typer.Option(False, "--dry-run", help="Check the file and say what would be sent."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Flag many accounts. All rows are checked before the first is sent."""
    rows = _rows(file)
    messages: list[FlagMessage] = []
    problems: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            messages.append(_message(row, f"row {number}"))
        except CliError as problem:
            problems.append(str(problem))
    if problems:
        raise CliError(
            f"{file}: {len(problems)} of {len(rows)} rows are no flags",
            details=problems[:20],
            code=Exit.INPUT,
        )
    _send([] if dry_run else messages, settings, as_json, "imported", checked=len(messages), dry=dry_run)


@app.command()
def withdraw(
    flag_id: str = typer.Argument(help="Its id, as in `safehold flags list`."),
    reason: str = typer.Option(..., "--reason", help="Why."),
    account: str = typer.Option(
        "", "--account", help="Of which account, where several have a flag of this id."
    ),
    subject: str = typer.Option("", "--subject", help="The same by the account's pseudonym."),
    disputed: bool = typer.Option(
        False, "--disputed", help="It is disputed, not yet withdrawn. It counts as little."
    ),
    settings: Path | None = SETTINGS_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """End a flag. Everything open that leaned on it is judged again."""
    import msgspec

    from detectors.model import FlagState
    from streams.cli.connect import run, settings_of

    chosen = settings_of(settings)
    identity = _identity(chosen)
    meant = identity(account, subject.lower()) if account or subject else ""
    known = [
        message
        for message in run(chosen, _latest(chosen))
        if message.flag_id == flag_id and (not meant or identity(message.account, message.subject) == meant)
    ]
    if not known:
        of = " of this account" if meant else ""
        raise CliError(f"there is no flag {flag_id}{of}", look="safehold flags list --all")
    if len(known) > 1:
        raise CliError(
            f"{len(known)} accounts have a flag {flag_id}: say which with --account or --subject",
            details=[f"{message.account or message.subject}, from {message.source}" for message in known],
            look=f"safehold flags withdraw {flag_id} --account ACCOUNT",
            code=Exit.USAGE,
        )
    state = FlagState.DISPUTED if disputed else FlagState.WITHDRAWN
    if known[0].state == state:
        raise CliError(f"flag {flag_id} was {state.value} already", look="safehold flags list --all")
    ended = msgspec.structs.replace(
        known[0],
        state=state,
        reason=reason,
        effective_at=None,
        record_id="",
    )
    _send([ended], settings, as_json, ended.state.value)


@app.command("list")
def list_all(
    settings: Path | None = SETTINGS_OPTION,
    everything: bool = typer.Option(False, "--all", help="Those that have ended, too."),
    as_json: bool = JSON_OPTION,
) -> None:
    """The latest state of each flag, as the flags topic has it."""
    import msgspec

    from detectors.model import FlagState
    from streams.cli.connect import run, settings_of

    chosen = settings_of(settings)
    flags = run(chosen, _latest(chosen))
    now = _now()
    # The worker's own word on it may be a moment behind the date.
    flags = [
        msgspec.structs.replace(flag, state=FlagState.EXPIRED) if _over(flag, now) else flag for flag in flags
    ]
    ended = (FlagState.WITHDRAWN, FlagState.DISPUTED, FlagState.EXPIRED)
    if not everything:
        flags = [flag for flag in flags if flag.state not in ended]
    if as_json:
        emit([msgspec.to_builtins(flag) for flag in flags])
        return
    if not flags:
        say("no flags" if everything else "no flags; --all shows those that have ended")
        return
    table(
        ("flag", "state", "expires", "account", "who and why"),
        (
            (
                f.flag_id,
                f.state,
                _date(f),
                f.account or f.subject,
                f"{f.source}: {f.reason or 'no reason given'}"
                + (f"; confirmed by {', '.join(f.confirmed_by)}" if f.confirmed_by else ""),
            )
            for f in flags
        ),
        terminal_width(),
    )


def _now() -> int:
    return time.time_ns() // 1000


def _expiry(flag: FlagMessage) -> int | None:
    """When it ends, in µs; None = never, or what is no time."""
    from streams.controls import BadControl, moment

    try:
        return None if flag.expires is None else moment(flag.expires, "expires")
    except BadControl:
        return None


def _over(flag: FlagMessage, now: int) -> bool:
    from detectors.model import FlagState

    at = _expiry(flag)
    return flag.state in (FlagState.CONFIRMED, FlagState.PROPOSED) and at is not None and at <= now


def _date(flag: FlagMessage) -> str:
    from detectors.model import DAY
    from streams.publish import rfc3339

    at = _expiry(flag)
    if at is None:
        return "never" if flag.expires is None else str(flag.expires)
    text = rfc3339(at)
    return text[:10] if at % DAY == 0 else text[:16].replace("T", " ")


def _rows(file: Path) -> list[dict[str, Any]]:
    import csv

    import msgspec

    try:
        if file.suffix.lower() == ".csv":
            with file.open(encoding="utf-8", newline="") as lines:
                return list(csv.DictReader(lines))
        with file.open("rb") as raw:
            return [msgspec.json.decode(line, type=dict[str, Any]) for line in raw if line.strip()]
    except (OSError, ValueError) as problem:
        raise CliError(
            f"{file} cannot be read: {problem}", look="safehold flags import --help", code=Exit.INPUT
        ) from problem


def _message(row: dict[str, Any], where: str) -> FlagMessage:
    from detectors.model import PPM, FlagState
    from streams.controls import FlagMessage
    from streams.opening import CannotOpen, moment_of

    def text(name: str, default: str = "") -> str:
        return str(row.get(name) or default).strip()

    account, subject, source = text("account"), text("subject").lower(), text("source")
    if bool(account) == bool(subject):
        raise CliError(f"{where}: needs account or subject, one of them", code=Exit.INPUT)
    if not source:
        raise CliError(f"{where}: source is missing", code=Exit.INPUT)
    if subject and (len(subject) != 16 or not set(subject) <= set("0123456789abcdef")):
        raise CliError(f"{where}: subject has sixteen hexadecimal digits", code=Exit.INPUT)
    people = row.get("confirmed_by") or []
    names = [
        name.strip()
        for name in (people.split(";") if isinstance(people, str) else people)
        if str(name).strip()
    ]
    try:
        expires = moment_of(row["expires"], f"{where}: expires") if row.get("expires") else None
        at = moment_of(row["effective_at"], f"{where}: effective_at") if row.get("effective_at") else None
    except CannotOpen as problem:
        raise CliError(str(problem), code=Exit.INPUT) from problem
    return FlagMessage(
        flag_id=text("flag_id") or _flag_id(account or subject, source),
        state=FlagState.CONFIRMED if names else FlagState.PROPOSED,
        source=source,
        account=account,
        bank=text("bank"),
        subject=subject,
        source_kind=text("source_kind", "reviewer"),
        confidence=int(row.get("confidence") or PPM),
        handling=text("handling", "TLP:AMBER"),
        reason=text("reason"),
        basis=text("basis"),
        expires=expires,
        confirmed_by=names,
        effective_at=at,
    )


def _flag_id(account: str, source: str) -> str:
    from hashlib import blake2b

    return "flag-" + blake2b(f"{source}\0{account}\0{time.time_ns()}".encode(), digest_size=6).hexdigest()


def _identity(settings: Settings) -> Callable[[str, str], str]:
    """What tells accounts apart: the pseudonym, or the name where whoever runs this may not read the pseudonym key."""
    from streams.pseudonyms import BadKey, PseudonymKey, Pseudonyms, normalise

    try:
        pseudonyms = Pseudonyms(PseudonymKey.load(settings.pseudonym_key_file))
    except (OSError, BadKey):
        return lambda account, subject: subject or normalise(account)
    return lambda account, subject: subject or f"{pseudonyms.account(account):016x}"


async def _latest(settings: Settings) -> list[FlagMessage]:
    """The last state of each flag, in the order that the fold gives them."""
    import msgspec

    from streams.cli.connect import consumer, names_of
    from streams.controls import BadControl, FlagMessage, moment
    from streams.reading import read_all

    identity = _identity(settings)
    newest: dict[tuple[str, str], tuple[tuple[int, int], FlagMessage]] = {}
    async with consumer(settings) as client:
        async for record in read_all(client, [names_of(settings).flags]):
            try:
                message = msgspec.json.decode(record.value or b"", type=FlagMessage)
                at = (
                    record.timestamp * 1000
                    if message.effective_at is None
                    else moment(message.effective_at, "effective_at")
                )
            except (msgspec.MsgspecError, BadControl):
                continue  # it is a dead letter by now: safehold dlq list
            order = (at, record.offset)
            name = message.flag_id, identity(message.account, message.subject)
            if name not in newest or newest[name][0] <= order:
                newest[name] = (order, message)
    return [message for _, (_, message) in sorted(newest.items())]


def _send(
    messages: list[FlagMessage],
    path: Path | None,
    as_json: bool,
    word: str,
    *,
    checked: int = 0,
    dry: bool = False,
) -> None:
    from streams.cli.connect import run, settings_of

    if not dry:
        chosen = settings_of(path)
        run(chosen, _deliver(chosen, messages))
    if as_json:
        emit(
            {
                "sent": len(messages),
                "checked": checked or len(messages),
                "flags": [{"flag_id": m.flag_id, "state": m.state.value} for m in messages],
            }
        )
        return
    if dry:
        say(f"{checked} flags are as they must be; nothing was sent")
    for message in messages:
        say(f"{word} {message.flag_id} ({message.state.value})")


async def _deliver(settings: Settings, messages: list[FlagMessage]) -> None:
    import msgspec

    from streams.cli.connect import names_of, producer

    async with producer(settings) as client:
        for message in messages:
            await client.send_and_wait(
                names_of(settings).flags, msgspec.json.encode(message), key=message.flag_id.encode()
            )
