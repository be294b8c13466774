"""`safehold worker`: the main job."""

from __future__ import annotations

from pathlib import Path

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit

ENDED = {
    Exit.FAILED: "it must not start on what it found",
    Exit.INPUT: "a file, key or configuration cannot be used",
    Exit.UNREACHABLE: "broker or store does not answer",
    Exit.CRASHED: "a service failed",
    Exit.NOT_OURS: "another process runs under its member id",
}


def worker(settings: Path | None = SETTINGS_OPTION) -> None:
    """Read the banks' topics, judge, and write recommendations, until told to stop (SIGTERM)."""
    from streams.cli.connect import settings_of

    chosen = settings_of(settings)
    from streams.app import run

    code = run(chosen)
    if code:
        raise CliError(
            f"the worker ended: {ENDED.get(Exit(code), 'it failed')}",
            look="the last lines of its log, and safehold doctor with the same settings",
            code=Exit(code),
        )
