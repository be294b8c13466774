"""`safehold worker`: the main job."""

from __future__ import annotations

from pathlib import Path

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit

ENDED = {
    Exit.FAILED: "it must not start on what it found",
    Exit.INPUT: "a file, key or configuration cannot be used",
    Exit.UNREACHABLE: "broker or store does not answer",
    Exit.CRASHED: "a service failed",
    Exit.NOT_OURS: "another process runs under its member id",
}


def worker(
    settings: Path | None = SETTINGS_OPTION,
    accept_gap: bool = typer.Option(
        False,
        "--accept-gap",
        help="Go on where the ledger begins later than a partition's state ends: the records in between are lost. Marks every "
        "account of that partition. For this start only.",
    ),
) -> None:
    """Read the banks' topics, judge, and write recommendations, until told to stop (SIGTERM)."""
    import msgspec

    from streams.cli.connect import settings_of

    chosen = settings_of(settings)
    if accept_gap:
        chosen = msgspec.structs.replace(chosen, accept_gap=True)
    from streams.app import run

    code = run(chosen)
    if code:
        raise CliError(
            f"the worker ended: {ENDED.get(Exit(code), 'it failed')}",
            look="the last lines of its log, and safehold doctor with the same settings",
            code=Exit(code),
        )
