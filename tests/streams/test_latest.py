"""The fold of a review topic: the greatest cause counts, in whatever order and however often messages come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.latest import ForeignMessage, Latest
from streams.publish import ACTION, CAUSE, WITHDRAWN, Cause, Headers, cloud_event

CAUSES = st.builds(
    Cause, st.sampled_from(["g1", "g9", "g10"]), st.just(0), st.integers(0, 9), st.integers(0, 3)
)


def headers(identity: str, cause: Cause, *, withdrawn: bool = False) -> Headers:
    made = [*cloud_event("t", identity, "/s"), (CAUSE, str(cause).encode()), (ACTION, b"hold-and-review")]
    return [*made, (WITHDRAWN, b"true")] if withdrawn else made


@given(st.lists(st.tuples(st.sampled_from("ab"), CAUSES, st.booleans()), max_size=20), st.data())
def test_the_greatest_cause_stands(said: list[tuple[str, Cause, bool]], data: st.DataObject) -> None:
    by_cause = {(identity, cause): withdrawn for identity, cause, withdrawn in said}
    arrivals = data.draw(st.permutations([(*key, gone) for key, gone in by_cause.items()] * 2))
    latest = Latest()
    for identity, cause, gone in arrivals:
        latest.add(str(cause).encode(), headers(identity, cause, withdrawn=gone))
    for identity in "ab":
        mine = [
            (cause.order, gone, str(cause).encode())
            for (name, cause), gone in by_cause.items()
            if name == identity
        ]
        standing = [word.body for word in latest.standing() if word.recommendation_id == identity]
        assert standing == ([max(mine)[2]] if mine and not max(mine)[1] else [])


def test_generations_count_upwards() -> None:
    assert Cause("g10", 0, 0, 0).order > Cause("g9", 5, 99, 3).order
    assert Cause.parse(str(Cause("g1", 2, 3, 4))) == Cause("g1", 2, 3, 4)


@pytest.mark.parametrize("cause", [b"", b"g1/1/2", b"g1/a/b/c"])
def test_a_foreign_message_is_refused(cause: bytes) -> None:
    with pytest.raises(ForeignMessage):
        Latest().add(b"{}", [("ce_id", b"x"), (CAUSE, cause)])
    with pytest.raises(ForeignMessage):
        Latest().add(b"{}", [])
