"""Generated pages are what the program would write now."""

from __future__ import annotations

from scripts import docs


def test_generated_pages_are_current() -> None:
    assert docs.stale() == [], "run `make docs`"
