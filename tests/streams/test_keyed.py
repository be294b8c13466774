"""The compiled hash is hashlib's."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.keyed import Keyed


@given(
    st.binary(min_size=1, max_size=64),
    st.binary(min_size=1, max_size=16),
    st.lists(st.binary(max_size=20), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.binary(min_size=1, max_size=300)), max_size=8),
)
def test_it_is_hashlibs(
    secret: bytes, person: bytes, prefixes: list[bytes], texts: list[tuple[int, bytes]]
) -> None:
    which = [number % len(prefixes) for number, _ in texts]
    found = Keyed(secret, person).column(
        np.frombuffer(b"".join(text for _, text in texts), np.uint8),
        np.cumsum([len(text) for _, text in texts], dtype=np.int64),
        tuple(prefixes),
        np.array(which, np.int64),
    )
    expected = [
        int.from_bytes(
            blake2b(prefixes[n] + text, digest_size=8, key=secret, person=person).digest(), "little"
        )
        for n, (_, text) in zip(which, texts, strict=True)
    ]
    assert found.tolist() == expected


def test_lengths_around_a_block() -> None:
    for length in (1, 7, 8, 9, 127, 128, 129, 255, 256, 257):
        text = bytes(range(256)) * 2
        (found,) = Keyed(b"k" * 32, b"account").column(
            np.frombuffer(text[:length], np.uint8), np.array([length])
        )
        digest = blake2b(text[:length], digest_size=8, key=b"k" * 32, person=b"account").digest()
        assert int(found) == int.from_bytes(digest, "little")


def test_it_does_not_show_its_secret() -> None:
    assert repr(Keyed(b"secret", b"account")) == "Keyed(********)"
