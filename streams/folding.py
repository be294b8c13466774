"""What the monitor needs of the fold. `detectors.step` satisfies it; so does a test's own small fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from detectors.model import Frame


class HeadLike(Protocol):
    """The part of a head that the plumbing reads."""

    @property
    def applied(self) -> int: ...


class StateLike(Protocol):
    """The state of one partition, as docs/architecture.md has it."""

    control_changed: bool

    @property
    def head(self) -> HeadLike: ...

    def touched(self) -> np.ndarray: ...

    def pack(self, subjects: np.ndarray) -> list[bytes]: ...

    def load_many(self, subjects: Sequence[int], blobs: Sequence[bytes]) -> None: ...

    def pack_control(self) -> bytes: ...

    def pack_head(self) -> bytes: ...

    def load_head(self, blob: bytes) -> None: ...

    def mark_flushed(self) -> None: ...

    def accept_gap(self, start: int) -> None: ...


class ResultLike(Protocol):
    """What a step gives."""

    @property
    def outputs(self) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Fold:
    """The functions of the fold."""

    new_state: Callable[[int], StateLike]
    """Partition → empty state."""

    load_control: Callable[[Any, bytes], None]
    """Enter stored control records into a state."""

    step: Callable[[Any, list[Frame]], ResultLike]
    """State and frames in offset order → outputs; the state changes in place."""
