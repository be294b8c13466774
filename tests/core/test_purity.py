"""The core is pure: nothing in it can read a clock, a file or a chance, and the machine it runs on changes no byte."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from numpy._core import _multiarray_umath

from tests.core.fingerprint import fingerprint

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = sorted((CHECKOUT / "detectors").rglob("*.py"))
ALLOWED = {
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "detectors",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "math",
    "msgspec",
    "numba",
    "numpy",
    "numpy.typing",
    "operator",
    "re",
    "string",
    "types",
    "typing",
}
"""Everything else is refused: time, random, os, io, logging, asyncio, pathlib, sockets, and whatever comes next."""

ALLOWED_IN = {
    "arena.py": {"mmap"},  # anonymous memory: `test_what_is_mapped_is_memory`
    "prefetch.py": {"llvmlite", "numba.core", "numba.extending"},  # one instruction, which changes no value
}

IMPURE_CALLS = {
    "open",
    "print",
    "input",
    "eval",
    "exec",
    "compile",
    "__import__",
    "globals",
    "breakpoint",
    "float",
}
IMPURE_ATTRIBUTES = {
    "random",
    "float64",
    "float32",
    "float16",
    "datetime64",
    "memmap",
    "tofile",
    "fromfile",
    "save",
    "load_library",
}
FLOATS_ALLOWED = {("config.py", 0.6)}
"""How alike two names must be for a hint at the one that was meant. No money, no measure."""


def trees() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the core, parsed."""
    for path in MODULES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path, node: ast.AST) -> str:
    """file:line."""
    return f"{path.relative_to(CHECKOUT)}:{getattr(node, 'lineno', 0)}"


def test_the_core_is_found() -> None:
    names = {path.name for path in MODULES}
    assert {"step.py", "measures.py", "window.py", "scoring.py", "body.py"} <= names


def test_only_pure_packages_are_imported() -> None:
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "(relative)"]
            else:
                continue
            found += [
                f"{where(path, node)} imports {name}"
                for name in names
                if name not in ALLOWED | ALLOWED_IN.get(path.name, set())
                and name.split(".")[0] != "detectors"
            ]
    assert found == []


def test_what_is_mapped_is_memory() -> None:
    calls = [
        node
        for path, tree in trees()
        if "mmap" in ALLOWED_IN.get(path.name, set())
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "mmap.mmap"
    ]
    assert calls
    for call in calls:
        assert ast.unparse(call.args[0]) == "-1", "a file is mapped"
        assert [ast.unparse(k.value) for k in call.keywords] == ["mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS"]


def test_nothing_is_read_written_or_drawn() -> None:
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in IMPURE_CALLS
            ):
                found.append(f"{where(path, node)} calls {node.func.id}()")
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("np", "numpy", "numba")
                and node.attr in IMPURE_ATTRIBUTES
            ):
                found.append(f"{where(path, node)} uses {node.value.id}.{node.attr}")
            if isinstance(node, ast.Global | ast.Await | ast.AsyncFunctionDef):
                found.append(f"{where(path, node)} has {type(node).__name__}")
    assert found == []


def test_no_salted_hash_reaches_an_answer() -> None:
    """`hash()` of a string differs from process to process; only a `__hash__` may use it."""
    found = []
    for path, tree in trees():
        inside = {
            id(call)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef) and function.name == "__hash__"
            for call in ast.walk(function)
        }
        found += [
            where(path, node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("hash", "id")
            and id(node) not in inside
        ]
    assert found == []


def test_no_floats() -> None:
    """Money, shares and times are integers: no float literal, no true division."""
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            number = isinstance(node, ast.Constant) and isinstance(node.value, float)
            if number and (path.name, node.value) not in FLOATS_ALLOWED:
                found.append(f"{where(path, node)} {node.value}")
            if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
                found.append(f"{where(path, node)} divides with /")
    assert found == []


def test_kernels_are_compiled_plainly() -> None:
    """No fastmath, no parallel loops, no object mode; nothing is cached in Python between calls."""
    found = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg in ("fastmath", "parallel", "forceobj", "looplift"):
                found.append(f"{where(path, node.value)} {node.arg}")
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for decorator in node.decorator_list:
                    name = ast.unparse(decorator)
                    if "lru_cache" in name or name in ("cache", "functools.cache", "jit"):
                        found.append(f"{where(path, node)} @{name}")
    assert found == []


def test_no_mutable_globals() -> None:
    """A module of the core holds constants: no list, dict or set to fill, unless it is declared Final."""
    found = []
    for path, tree in trees():
        for node in tree.body:
            value = getattr(node, "value", None)
            if not isinstance(node, ast.Assign | ast.AnnAssign) or value is None:
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = ast.unparse(target)
            if isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation):
                continue
            mutable = isinstance(value, ast.List | ast.Set | ast.ListComp | ast.SetComp)
            empty = isinstance(value, ast.Dict) and not value.keys
            if name != "__all__" and (mutable or empty):
                found.append(f"{where(path, node)} {name}")
    assert found == []


SEEDS, SCENES = (0, 3), 8


def elsewhere(**environment: str) -> str:
    """The fingerprint in a process with another environment."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.core.fingerprint", *map(str, SEEDS), str(SCENES)],
        env=os.environ | environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def here() -> str:
    """The fingerprint in this process."""
    return fingerprint(range(*SEEDS), SCENES)


def test_another_stream_has_another_fingerprint(here: str) -> None:
    assert fingerprint(range(SEEDS[1], SEEDS[1] + 1), SCENES) != here


def test_uncompiled_kernels_give_the_same_bytes(here: str) -> None:
    assert elsewhere(NUMBA_DISABLE_JIT="1") == here


def test_another_salt_of_hashes_gives_the_same_bytes(here: str) -> None:
    assert elsewhere(PYTHONHASHSEED="1") == here


def test_numpy_without_this_cpus_features_gives_the_same_bytes(here: str) -> None:
    features = [
        name for name in _multiarray_umath.__cpu_dispatch__ if _multiarray_umath.__cpu_features__.get(name)
    ]
    if not features:
        pytest.skip("NumPy uses no feature of this processor beyond its baseline")
    assert elsewhere(NPY_DISABLE_CPU_FEATURES=" ".join(features)) == here


@pytest.mark.slow
def test_kernels_for_any_cpu_give_the_same_bytes(here: str, tmp_path: Path) -> None:
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    assert elsewhere(**generic) == here
