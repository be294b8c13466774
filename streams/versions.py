"""What runs here: the version of the zone data, which answers depend on, and those that an operator asks for."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import tzdata  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from detectors.settings import FoldSettings  # brings numba, for which `--version` would wait

REVISION = "SAFEHOLD_REVISION"
"""Set in the image, where there is no checkout to ask."""

UNKNOWN = "unknown"


def zone_data() -> str:
    """Version of the package that `zones.py` reads."""
    return str(tzdata.__version__)


def with_zone_data(lengths: FoldSettings) -> FoldSettings:
    """The same lengths under the zone data of this process, unless they name their own. Worker and judge both ask here."""
    return lengths if lengths.tzdata else msgspec.structs.replace(lengths, tzdata=zone_data())


def build() -> dict[str, str]:
    """Labels of `build_info`."""
    return {
        "version": _installed("safehold"),
        "revision": revision(),
        "python": platform.python_version(),
        "numpy": _installed("numpy"),
        "numba": _installed("numba"),
        "tzdata": zone_data(),
    }


def revision(checkout: Path | None = None) -> str:
    """The commit that runs: as the image says, or as the checkout that we are in has it."""
    said = os.environ.get(REVISION, "")
    if said:
        return said
    git = (checkout or Path(__file__).resolve().parents[1]) / ".git"
    try:
        if git.is_file():  # a worktree
            git = git.parent / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        shared = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        if (shared / name).exists():
            return (shared / name).read_text().strip()
        packed = (line.split() for line in (shared / "packed-refs").read_text().splitlines())
        return next((words[0] for words in packed if words[1:] == [name]), UNKNOWN)
    except (OSError, UnicodeDecodeError):
        return UNKNOWN


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
