"""Files that ship with Safehold: in a checkout under `deploy/config/`, in an installation under `streams/_data/`."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """Path of a shipped file or folder, whether or not it exists."""
    installed = _PACKAGE.joinpath("_data", *parts)
    return installed if installed.exists() else _PACKAGE.parent.joinpath("deploy", "config", *parts)
