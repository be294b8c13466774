"""Prints one digest of what the fold says and measures on a few drawn streams. Run it under other conditions.

python -m tests.core.fingerprint FIRST_SEED LAST_SEED SCENES
"""

from __future__ import annotations

import random
import sys
from hashlib import blake2b

import numpy as np
from numba import config

from tests.core.driver import measured, run
from tests.core.strategies import Mix, arrival, world


def fingerprint(seeds: range, scenes: int) -> str:
    """Digest of every measure of every leg and of every final body."""
    digest = blake2b(digest_size=16)
    for seed in seeds:
        entries = arrival(world(seed, Mix(accounts=2, scenes=scenes)).entries, random.Random(seed))
        with measured() as seen:
            out = run(entries, rows_per_frame=7, frames_per_step=3)
        for key in sorted(seen):
            digest.update(seen[key].tobytes())
        for name, (route, body) in out.published.bodies().items():
            digest.update(f"{name} {route}".encode() + body)
    return digest.hexdigest()


def read_records_by_attribute() -> None:
    """Compiled code reads a field of a record as an attribute; uncompiled, only a record array allows that."""
    zeros, concatenate = np.zeros, np.concatenate

    def records(made: np.ndarray) -> np.ndarray:
        return made.view(np.recarray) if made.dtype.names else made

    np.zeros = lambda *a, **k: records(zeros(*a, **k))
    np.concatenate = lambda *a, **k: records(concatenate(*a, **k))


if __name__ == "__main__":
    if config.DISABLE_JIT:
        read_records_by_attribute()
    print(fingerprint(range(int(sys.argv[1]), int(sys.argv[2])), int(sys.argv[3])))
