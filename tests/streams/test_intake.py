"""What a message brings besides its value."""

from __future__ import annotations

import pytest

from streams.intake import AS_OF, _as_of


@pytest.mark.parametrize("value", [None, b"", b"yesterday", b"-1", b"9" * 17, b"9" * 5_000])
def test_a_header_that_is_no_moment_does_not_count(value: bytes | None) -> None:
    assert _as_of([("other", b"7"), (AS_OF, value)], 5) == 5


def test_the_moment_of_a_replay_counts() -> None:
    assert _as_of([("other", None), (AS_OF, b"1700000000000000")], 5) == 1_700_000_000_000_000
