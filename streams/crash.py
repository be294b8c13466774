"""Where a test may end the process. `SAFEHOLD_CRASH_AT=after-publish:3` is kill -9 when that step is passed the third time."""

from __future__ import annotations

import functools
import os
import signal

VARIABLE = "SAFEHOLD_CRASH_AT"

POINTS = (
    # monitor
    "after-claim",
    "after-load",
    "after-step",
    "between-outputs",
    "after-publish",
    "between-chunks",
    "after-accounts",
    "after-control",
    "after-head",
    "after-ledger-commit",
    # monitor, at a frame that had stopped a partition
    "before-stopped",
    "after-stopped",
    "before-outcome",
    "after-outcome",
    # intake
    "after-decode",
    "after-vault",
    "between-partitions",
    "after-legs",
    "after-counts",
    "after-source-commit",
)
"""Every step that can be named."""

_passed: dict[str, int] = {}


class UnknownPoint(ValueError):
    """`SAFEHOLD_CRASH_AT` names a step that does not exist: the test behind it would pass for nothing."""


@functools.cache
def _asked() -> tuple[str, int]:
    name, _, count = os.environ.get(VARIABLE, "").partition(":")
    if name and name not in POINTS:
        raise UnknownPoint(f"{VARIABLE}={name}: the steps are {', '.join(POINTS)}")
    return name, int(count or 1)


def crash_point(name: str) -> None:
    """End the process here, at once and without goodbye, if the environment asks for it."""
    wanted, count = _asked()
    if name != wanted:
        return
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] >= count:
        os.kill(os.getpid(), signal.SIGKILL)
