"""The commands of `safehold`, one file a group. Heavy imports stay inside the commands."""

from __future__ import annotations

import typer

from streams.cli import (
    accounts,
    alerts,
    check_config,
    demo,
    detectors,
    dlq,
    doctor,
    explain,
    flags,
    judge,
    replay,
    topics,
    worker,
)
from streams.cli.exits import EXITS_TEXT

app = typer.Typer(
    name="safehold",
    help="Watches a bank's payments and explains what it recommends. It never moves, blocks or delays money.",
    epilog=EXITS_TEXT,
    no_args_is_help=True,
    rich_markup_mode=None,  # its import alone takes longer than everything else here
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"safehold {version('safehold')}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
) -> None:
    """Run one command."""


app.command("demo")(demo.demo)
app.command("worker")(worker.worker)
app.command("judge")(judge.judge)
app.command("replay")(replay.replay)
app.add_typer(topics.app, name="topics")
app.add_typer(alerts.app, name="alerts")
app.command("explain")(explain.explain)
app.add_typer(flags.app, name="flags")
app.add_typer(accounts.app, name="accounts")
app.add_typer(dlq.app, name="dlq")
app.add_typer(detectors.app, name="detectors")
app.command("check-config")(check_config.check_config)
app.command("doctor")(doctor.doctor)
