"""`make docs`: writes every generated page and file, each from the objects that the program uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts import grafana
from streams import asyncapi, metrics, settings
from streams import docs as detectors
from streams.formats import schemas

ROOT = Path(__file__).resolve().parents[1]


def _ready(text: str) -> Callable[[], str]:
    return lambda: text


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/metrics.md": metrics.markdown,
    "docs/settings.md": settings.markdown,
    "docs/asyncapi.yaml": asyncapi.text,
    "deploy/grafana/safehold.json": grafana.text,
    # Detector pages, shipped configurations and their schema; then the schemas of messages and mappings.
    **{name: _ready(text) for name, text in detectors.generated().items()},
    **{f"docs/schemas/{name}": _ready(text) for name, text in schemas.documents().items()},
}


def stale() -> list[str]:
    """The generated files that are not what the program would write now."""
    return [
        name
        for name, page in PAGES.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != page()
    ]


def main() -> int:
    """Write what changed; with --check only say so."""
    changed = stale()
    for name in changed:
        if "--check" in sys.argv[1:]:
            print(f"{name} is out of date: run `make docs`")
        else:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(PAGES[name](), encoding="utf-8")
            print(f"wrote {name}")
    return 1 if changed and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
