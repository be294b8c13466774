"""`safehold worker`: the main job."""

from __future__ import annotations

from pathlib import Path

import typer

from streams.cli.connect import SETTINGS_OPTION


def worker(settings: Path | None = SETTINGS_OPTION) -> None:
    """Read the banks' topics, judge, and write recommendations, until told to stop (SIGTERM)."""
    from streams.cli.connect import settings_of

    chosen = settings_of(settings)
    from streams.app import run

    raise typer.Exit(run(chosen))
