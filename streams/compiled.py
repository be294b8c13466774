"""Where compiled code is kept: a folder for each version of what is compiled.

numba keeps compiled functions beside their source and compiles again when that file changes. It does not see a change in
another module whose function it has inlined, and would go on with the old one: another answer from the same log. So the
folder is named by a digest of every source that holds kernels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from importlib.metadata import version
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
KEPT = 4
"""Folders that are kept, the newest ones: another version may still run beside this one."""

_PREFIX = "safehold-"


def sources(packages: tuple[str, ...] = ("detectors", "streams")) -> list[Path]:
    """Every file that may hold compiled code, without importing anything."""
    found = []
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found += [p for p in sorted(Path(spec.origin).parent.rglob("*.py")) if b"numba" in p.read_bytes()]
    return found


def digest(files: list[Path]) -> str:
    """Of their contents, and of the compiler's version."""
    state = hashlib.blake2b(version("numba").encode(), digest_size=8)
    for path in files:
        state.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def use_own_folder() -> Path:
    """Point numba to the folder of this version, in NUMBA_CACHE_DIR or else beside the core. Call before numba is imported.

    Child processes inherit it. A folder that cannot be written is numba's to work around: it compiles again.
    """
    files = sources()
    chosen = os.environ.get(VARIABLE, "")
    base = Path(chosen) if chosen else files[0].parent / "__pycache__"
    if base.name.startswith(_PREFIX):
        base = base.parent
    folder = base / f"{_PREFIX}{digest(files)}"
    os.environ[VARIABLE] = str(folder)
    try:
        if not folder.exists():
            _forget(base)
            folder.mkdir(parents=True)
    except OSError:
        pass
    return folder


def _forget(base: Path) -> None:
    """Leave room for one more."""
    others = sorted(base.glob(f"{_PREFIX}*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in others[KEPT - 1 :]:
        shutil.rmtree(folder, ignore_errors=True)
