"""What a step says, as messages that a broker takes."""

from __future__ import annotations

import msgspec
import numpy as np

from detectors.step import Cause, Hits, Listed
from streams.legs import coordinate
from streams.outputs import MAX_HITS, HitsMessage, Outputs
from streams.publish import CAUSE, COORDINATE
from streams.topics import TopicNames


def test_hits_of_a_great_step_are_several_messages_of_one_cause() -> None:
    n = 2 * MAX_HITS + 3
    column = np.arange(n)
    hits = Hits(
        cause=Cause(7, 0),
        subject=column.astype("u8"),
        leg=column.astype("u8"),
        time=column,
        detector=(column % 3).astype("i2"),
        strength=column.astype("i4"),
    )
    sent = Outputs(TopicNames(), "g1", [])(3, [hits]).messages
    assert max(len(message.value or b"") for message in sent) < 900_000
    heads = [dict(message.headers) for message in sent]
    assert {head[CAUSE] for head in heads} == {b"g1/3/7/0"}
    assert [head["ce_id"] for head in heads] == [b"g1/3/7/0", b"g1/3/7/0/1", b"g1/3/7/0/2"]
    read = [msgspec.msgpack.decode(message.value or b"", type=HitsMessage) for message in sent]
    assert [part.n for part in read] == [MAX_HITS, MAX_HITS, 3]
    assert np.concatenate([part.columns()["leg"] for part in read]).tolist() == column.tolist()


def test_both_sides_of_one_payment_have_a_letter() -> None:
    said = [
        Listed(
            cause=Cause(7, 0), reason="late", subject=1, leg=side, time=9, source="north/0",
            coordinate=coordinate(5, 3, side),
        )
        for side in (0, 1)
    ]  # fmt: skip
    letters = Outputs(TopicNames(), "g1", [])(3, said).messages
    assert [letter.key for letter in letters] == [b"north/0/5/3-debit", b"north/0/5/3-credit"]
    assert [dict(letter.headers)[COORDINATE] for letter in letters] == [letter.key for letter in letters]
