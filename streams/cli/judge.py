"""`safehold judge FILE`: the same fold as the worker's, without a broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streams.cli.exits import CliError, Exit
from streams.cli.output import JSON_OPTION, Progress, emit, note, paragraph, say, terminal_width

if TYPE_CHECKING:
    from detectors.config import Config
    from detectors.model import Fact
    from streams.judge import FileJudge, Summary
    from streams.opening import Opened

SHORT = 8
"""Characters of an id that are shown: `explain` takes the beginning of one."""

MAPPING_OPTION = typer.Option(
    ...,
    "--mapping",
    "-m",
    help="What the columns mean: a shipped mapping (amlgentex, …), a mapping file, or `canonical`.",
)
BANK_OPTION = typer.Option("bank", "--bank", help="With --mapping canonical: the bank that reports.")


def opened(file: Path, mapping: str, bank: str) -> Opened:
    """The file with its mapping, or one clear line."""
    from streams.opening import CannotOpen, open_payments

    try:
        return open_payments(file, mapping, bank=bank)
    except CannotOpen as problem:
        raise CliError(str(problem), details=problem.details, look=problem.look, code=Exit.INPUT) from problem


def judge(
    file: Path = typer.Argument(help="Payments: Parquet, CSV or JSONL, in the order of their time."),
    mapping: str = MAPPING_OPTION,
    accounts: Path | None = typer.Option(
        None, "--accounts", help="What the bank knows of its accounts (Parquet, CSV, JSONL)."
    ),
    out: Path = typer.Option(
        ..., "--out", "-o", help="Folder for recommendations.jsonl, summary.json and rejects.jsonl."
    ),
    reveal: bool = typer.Option(
        False, "--reveal", help="Write the file's own account and transaction ids, not their hashes."
    ),
    config: Path | None = typer.Option(
        None, "--config", help="Detector configuration; none = the shipped one, up to a freeze."
    ),
    partitions: int = typer.Option(
        1, "--partitions", min=1, max=256, help="Ledger partitions; the answer is the same."
    ),
    bank: str = BANK_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Judge a file of payments and write what would be recommended, as of the file's last payment."""
    from streams.cli.check_config import read_config

    payments = opened(file, mapping, bank)
    chosen = read_config(config, demo=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CliError(f"{out} cannot be made a folder: {problem.strerror}", code=Exit.INPUT) from problem
    judge_, summary = _run(payments, chosen, partitions, accounts, quiet=as_json)
    _write(out, payments, judge_, summary, reveal)
    if as_json:
        from dataclasses import asdict

        emit(asdict(summary))
    else:
        _tell(summary, out, gravest(judge_))
    if not summary.balanced:
        raise CliError(
            "the balance of the run does not come to zero: this is a defect", look=f"{out}/summary.json"
        )
    if not summary.legs:
        raise nothing_judged(summary, payments, out)


def gravest(judge_: FileJudge) -> str:
    """The id to begin with: of the highest action, the newest; empty without any."""
    from detectors.model import ACTION_NAMES

    bodies = [said.body for said in judge_.standing.values()]
    first = max(
        bodies,
        key=lambda body: (ACTION_NAMES.index(body.action), body.event_time, body.recommendation_id),
        default=None,
    )
    return "" if first is None else first.recommendation_id


def nothing_judged(summary: Summary, payments: Opened, out: Path) -> CliError:
    """Why no payment was judged, and what to do about it."""
    from streams.payment import Reason

    if not summary.transactions:
        return CliError("nothing was judged: the file holds no payments")
    elsewhere = set(summary.rejects_by_reason) == {Reason.WRONG_BANK.value}
    if summary.rejects == summary.transactions and not elsewhere:
        return CliError("nothing was judged: every payment was refused", look=f"{out / 'rejects.jsonl'}")
    if payments.mapping is None:
        mend = "--bank must be the `agent` of the bank's own accounts"
    else:
        mend = (
            "name the bank column (`debtor_bank`, `creditor_bank`) and `bank_codes`, or `empty_bank: reporting` where the "
            "file holds only this bank's accounts"
        )
    return CliError(f"nothing was judged: no payment has a side at the bank {payments.bank!r}", look=mend)


def _run(
    payments: Opened, config: Config, partitions: int, accounts: Path | None, *, quiet: bool
) -> tuple[FileJudge, Summary]:
    from streams.judge import FileJudge, fold_settings
    from streams.judge import judge as judge_all
    from streams.opening import CannotOpen, facts_of, read_accounts

    try:
        mapping = payments.mapping
        judge_ = FileJudge(
            config,
            settings=fold_settings(payments),
            partitions=partitions,
            system_wide=mapping is not None and mapping.system_wide,
        )
        facts: list[Fact] = []
        if accounts is not None:
            facts = facts_of(
                read_accounts(accounts),
                judge_.pseudonyms,
                bank=payments.bank,
                qualified=mapping is not None and mapping.qualify_accounts,
            )
        with Progress(f"judging {payments.path.name}", payments.total, "payments", quiet=quiet) as progress:

            def tell(done: int) -> None:
                progress.update(done, f"{len(judge_.standing)} recommendations")

            return judge_, judge_all(payments, judge_, control=facts, progress=tell)
    except CannotOpen as problem:
        raise CliError(str(problem), details=problem.details, look=problem.look, code=Exit.INPUT) from problem


def _write(out: Path, payments: Opened, judge_: FileJudge, summary: Summary, reveal: bool) -> None:
    import json
    from dataclasses import asdict

    from streams.judge import Names, lines

    names = None
    if reveal:
        names = Names.wanted(judge_.standing.values())
        names.look(payments)
    # Written beside and moved: whoever reads the folder sees a whole file or none.
    fresh = out / "recommendations.jsonl.part"
    with fresh.open("wb") as file:
        file.writelines(lines(judge_.standing.values(), names))
    fresh.replace(out / "recommendations.jsonl")
    (out / "rejects.jsonl").unlink(missing_ok=True)  # of an earlier run
    if judge_.rejects:
        with (out / "rejects.jsonl").open("w", encoding="utf-8") as file:
            for reject in judge_.rejects:
                line = {"row": reject.index + 1, "reason": reject.reason.value, "detail": reject.detail}
                file.write(json.dumps(line) + "\n")
    (out / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")


def _tell(summary: Summary, out: Path, first: str) -> None:
    width = terminal_width()
    paragraph(
        f"{summary.transactions:,} transactions, {summary.legs:,} legs: {summary.judged:,} judged, {summary.late:,} late, "
        f"{summary.duplicates:,} duplicates, {summary.conflicts:,} conflicts, {summary.at_hubs:,} at hubs; "
        f"{summary.rejects:,} rejects",
        width,
    )
    actions = ", ".join(f"{count} {action}" for action, count in summary.by_action.items()) or "none"
    accounts = f"{summary.accounts_named:,} account{'' if summary.accounts_named == 1 else 's'}"
    paragraph(f"recommendations: {actions}, about {accounts}", width)
    say(f"{summary.seconds:.1f} s, {summary.legs_per_second:,} legs/s, written to {out}")
    for reason, count in sorted(summary.rejects_by_reason.items()):
        note(f"  rejected: {count:,} {reason}")
    if summary.rejects:
        note(f"  see {out / 'rejects.jsonl'}")
    if summary.late:
        note(
            "  late legs were not judged: is the file in the order of its time, and\n"
            "  `lateness` of the mapping long enough?"
        )
    if first:
        say(f"next: safehold explain {first[:SHORT]} --file {out / 'recommendations.jsonl'}")
