"""The commands of `safehold`, one file a group. Heavy imports stay inside the commands."""

from __future__ import annotations

import typer

from streams.cli.accounts import app as accounts
from streams.cli.alerts import app as alerts
from streams.cli.check_config import check_config
from streams.cli.demo import demo
from streams.cli.detectors import app as detectors
from streams.cli.dlq import app as dlq
from streams.cli.doctor import doctor
from streams.cli.exits import EXITS_TEXT
from streams.cli.explain import explain
from streams.cli.flags import app as flags
from streams.cli.helping import HelpGroup
from streams.cli.judge import judge
from streams.cli.quarantine import quarantine
from streams.cli.replay import replay
from streams.cli.topics import app as topics
from streams.cli.worker import worker

app = typer.Typer(
    name="safehold",
    help="Watches a bank's payments and explains what it recommends. It never moves, blocks or delays money.",
    epilog=EXITS_TEXT,
    cls=HelpGroup,
    no_args_is_help=True,
    rich_markup_mode=None,  # its import alone takes longer than everything else here
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from streams.versions import build

        runs = build()
        typer.echo(f"safehold {runs['version']}, revision {runs['revision']}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Print version and revision.", callback=_version, is_eager=True
    ),
) -> None:
    """Run one command."""


app.command("demo")(demo)
app.command("worker")(worker)
app.command("judge")(judge)
app.command("replay")(replay)
app.add_typer(topics, name="topics")
app.add_typer(alerts, name="alerts")
app.command("explain")(explain)
app.add_typer(flags, name="flags")
app.add_typer(accounts, name="accounts")
app.add_typer(dlq, name="dlq")
app.command("quarantine")(quarantine)
app.add_typer(detectors, name="detectors")
app.command("check-config")(check_config)
app.command("doctor")(doctor)
