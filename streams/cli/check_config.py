"""`safehold check-config`: every problem of a detector configuration, with its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streams.cli.exits import CliError, Exit
from streams.cli.output import JSON_OPTION, emit, say

if TYPE_CHECKING:
    from detectors.config import Config


def read_config(path: Path | None, *, demo: bool = False) -> Config:
    """The configuration in a file, or the shipped one; every problem in one error."""
    from detectors.config import default_config, demo_config
    from streams.config_file import ConfigError, load_config

    if path is None:
        return demo_config() if demo else default_config()
    try:
        return load_config(path)
    except ConfigError as wrong:
        raise CliError(
            f"{path} is no usable configuration ({len(wrong.problems)} problem{'s' * (len(wrong.problems) != 1)})",
            details=[problem.located(str(path)) for problem in wrong.problems],
            look="safehold detectors show DETECTOR lists a detector's parameters, units and bounds",
            code=Exit.INPUT,
        ) from None


def check_config(
    file: Path | None = typer.Argument(None, help="A detector configuration (YAML); none = the shipped one."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check a detector configuration. Prints every problem as file:line:column, or what the configuration is."""
    from detectors.config import Config  # noqa: F401
    from streams.config_file import ConfigError, load_config

    if as_json and file is not None:
        try:
            load_config(file)
        except ConfigError as wrong:
            emit(
                {
                    "file": str(file),
                    "valid": False,
                    "problems": [
                        {"line": p.line, "column": p.column, "path": p.path, "message": p.message}
                        for p in wrong.problems
                    ],
                }
            )
            raise typer.Exit(Exit.INPUT) from None
    config = read_config(file)
    states: dict[str, list[str]] = {}
    for name, detector in sorted(config.detectors.items()):
        states.setdefault(detector.state, []).append(name)
    if as_json:
        emit(
            {
                "file": str(file) if file else None,
                "valid": True,
                "problems": [],
                "version": config.version,
                "mode": config.mode.value,
                "max_action": config.max_action,
                "detectors": states,
            }
        )
        return
    say(
        f"{file or 'the shipped configuration'}: valid; version {config.version}, mode {config.mode}, at most {config.max_action}"
    )
    for state, names in sorted(states.items()):
        say(f"  {state}: {', '.join(names)}")
