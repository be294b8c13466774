"""Pages are true: the generated ones are what the program would write now, maps name what is there, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import docs

ROOT = docs.ROOT
WRITTEN = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")], key=lambda p: p.as_posix()
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def test_generated_pages_are_current() -> None:
    assert docs.stale() == [], "run `make docs`"


def test_the_module_map_is_the_tree() -> None:
    """docs/architecture.md names every module once, under the heading of its package, and none that is not there."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in ("detectors", "streams"):
        part = text.split(f"`{package}/`\n")[1].split("\n## ")[0]
        rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
        named = [name for row in rows for name in re.findall(r"`([\w/]+\.py|\w+/)`", row)]
        folders = tuple(name for name in named if name.endswith("/"))
        there = {path.relative_to(ROOT / package).as_posix() for path in (ROOT / package).rglob("*.py")}
        there = {name for name in there if not name.endswith("__init__.py") and not name.startswith(folders)}
        assert sorted(name for name in named if name not in folders) == sorted(there)
        assert all((ROOT / package / folder).is_dir() for folder in folders)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = [t for t in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in t and t[0] != "#"]
    missing = [target for target in targets if not (page.parent / target.split("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_files_are_there(page: Path) -> None:
    """A path in backticks that begins with a folder of the tree names something that exists."""
    text = page.read_text(encoding="utf-8")
    tops = "detectors|streams|tests|docs|deploy|scripts|benchmarks"
    named = re.findall(rf"`((?:{tops})/[\w./-]+)`", text)
    packaged = [name for name in named if not (ROOT / name).exists()]
    assert packaged == []


def test_no_document_is_cited_that_is_not_here() -> None:
    """Whoever has this repository can read what it refers to. Sources by others have an address in front of their name."""
    folders = ("detectors", "streams", "tests", "scripts", "benchmarks")
    code = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    here = {path.name for path in WRITTEN}
    cited = {
        (path.name, name)
        for path in [*WRITTEN, *code]
        for name in re.findall(r"(?<![\w/.-])(?:[a-z]+/)*([\w-]+\.md)\b", path.read_text(encoding="utf-8"))
    }
    assert len(cited) > 20
    assert {(path, name) for path, name in cited if name not in here} == set()
