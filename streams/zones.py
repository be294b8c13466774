"""Local times → UTC, from the pinned `tzdata` package alone: a machine's own zone files never decide an answer.

A local time that comes twice (clocks going back) is the first of the two; one that never comes (clocks going forward)
is read with the offset before the change.
"""

from __future__ import annotations

import importlib.resources
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from detectors.model import MINUTE, SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
_MICROSECOND = timedelta(microseconds=1)
_BIN = 15 * MINUTE
"""Offsets change on quarter hours."""


class UnknownZone(ValueError):
    """Not a zone of the tz database."""


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """A zone by its tz database name."""
    parts = name.split("/")
    if not name or any(not part or not all(c.isalnum() or c in "+-_" for c in part) for part in parts):
        raise UnknownZone(f"{name!r} is not a time zone such as Europe/Berlin")
    file = importlib.resources.files("tzdata").joinpath("zoneinfo", *parts)
    if not file.is_file():
        raise UnknownZone(f"{name!r} is not a time zone such as Europe/Berlin")
    with file.open("rb") as stream:
        return ZoneInfo.from_file(stream, key=name)


def microseconds(moment: datetime, local: ZoneInfo) -> int:
    """A date and time → µs UTC; one without an offset is in `local`."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=local)
    return (moment - _EPOCH) // _MICROSECOND


def to_utc(local_times: np.ndarray, local: ZoneInfo) -> np.ndarray:
    """Many local times (µs as if they were UTC) → µs UTC."""
    if local.key == "UTC":
        return local_times
    bins, inverse = np.unique(local_times // _BIN, return_inverse=True)
    offsets = np.fromiter(
        (
            (_NAIVE_EPOCH + timedelta(seconds=int(b) * (_BIN // SECOND))).replace(tzinfo=local).utcoffset()  # type: ignore[operator]
            // _MICROSECOND
            for b in bins
        ),
        np.int64,
        len(bins),
    )
    return local_times - offsets[inverse]
