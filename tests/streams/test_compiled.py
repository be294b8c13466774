"""Compiled code belongs to one version of all that is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams import compiled


def test_every_file_with_a_kernel_is_in_the_digest() -> None:
    names = {path.name for path in compiled.sources()}
    assert {"window.py", "measures.py", "packing.py", "prefetch.py", "written.py", "keyed.py"} <= names


def test_a_change_in_any_of_them_is_another_folder(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("import numba")
    two.write_text("import numba")
    before = compiled.digest([one, two])
    two.write_text("import numba ")
    assert compiled.digest([one, two]) != before
    two.write_text("import numba")
    assert compiled.digest([one, two]) == before


def test_children_use_the_same_folder_and_old_ones_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (tmp_path / f"safehold-{number}").mkdir()
        os.utime(tmp_path / f"safehold-{number}", (number, number))
    (tmp_path / "another").mkdir()
    monkeypatch.setenv(compiled.VARIABLE, str(tmp_path))
    folder = compiled.use_own_folder()
    assert folder.parent == tmp_path
    assert compiled.use_own_folder() == folder
    assert {path.name for path in tmp_path.iterdir()} == {
        "another", "safehold-3", "safehold-4", "safehold-5", folder.name,
    }  # fmt: skip


def test_a_stale_inlined_function_is_not_run(tmp_path: Path) -> None:
    """What numba alone gets wrong: the caller's file is the same, what it inlines is not."""
    package = tmp_path / "detectors"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "outer.py").write_text(
        "from numba import njit\nfrom detectors.inner import number\n\n\n@njit(cache=True)\ndef asked():\n    return number()\n"
    )
    program = (
        "import sys; sys.path.insert(0, {tmp!r}); {first}from detectors.outer import asked; print(asked())"
    )
    own = (
        f"import importlib.util as u; s = u.spec_from_file_location('c', {compiled.__file__!r}); c = u.module_from_spec(s); "
        "s.loader.exec_module(c); c.use_own_folder(); "
    )

    def run(first: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != compiled.VARIABLE}
        code = program.format(tmp=str(tmp_path), first=first)
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=tmp_path,
        )
        return ran.stdout.strip()

    said = {}
    for number in (1, 2):
        (package / "inner.py").write_text(
            f"from numba import njit\n\n\n@njit(cache=True)\ndef number():\n    return {number}\n"
        )
        said[number] = run(""), run(own)
    assert said[1] == ("1", "1")
    assert said[2] == (
        "1",
        "2",
    )  # the first is numba's way; when it becomes 2, this module is not needed any more
