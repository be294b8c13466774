"""`safehold accounts`."""

from __future__ import annotations

import typer

app = typer.Typer(help="accounts", no_args_is_help=True, rich_markup_mode=None)


@app.command("import")
def import_() -> None:
    """Not yet."""


@app.command("list")
def list_all() -> None:
    """Not yet."""
