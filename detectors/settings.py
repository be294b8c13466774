"""The lengths of the fold. They belong to a ledger generation, not to a detector configuration."""

from __future__ import annotations

import msgspec

from detectors.model import DAY, HOUR
from detectors.window import NEVER, FoldParams, gaps_of


class FoldSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths in µs (docs/state.md, first table). `check()` returns what is wrong with them."""

    lateness: int = 6 * HOUR  # L
    spread: int = 24 * HOUR  # A
    hold: int = 32 * DAY  # W
    keep: int = 256  # K
    bucket: int = 7 * DAY  # D
    open_for: int = 30 * DAY  # O
    hub_bucket_legs: int = 200  # M
    hub_counterparties: int = 400
    observed_since: int | None = None  # date from which the feeds are complete
    generation: str = "g1"
    key_id: str = "k1"
    tzdata: str = ""  # version of the zone data that intake used: part of the digest

    @property
    def closing(self) -> int:
        """S = L + 7 A: six hops and the leg, each at most A late."""
        return self.lateness + 7 * self.spread

    @property
    def undo(self) -> int:
        """6 A: a leg that much older than its return is open still when the return comes, whatever the order of arrival."""
        return self.closing - self.lateness - self.spread

    def check(self) -> list[str]:
        """Every contradiction, in words; empty = sound."""
        problems = []
        if self.lateness < HOUR:
            problems.append("lateness must be at least one hour")
        if self.bucket > 7 * self.spread:
            problems.append(
                "bucket must not exceed 7 x spread: a leg could open a bucket that is closed already"
            )
        if self.hold < self.closing + DAY:
            problems.append("hold must be longer than lateness + 7 x spread by at least a day")
        if self.keep < 16:
            problems.append("keep must be at least 16")
        if self.hub_bucket_legs < 16 or self.hub_counterparties < 16:
            problems.append("hub limits must be at least 16")
        return problems

    def params(self) -> FoldParams:
        """For the compiled functions."""
        return FoldParams(
            lateness=self.lateness,
            closing=self.closing,
            undo=self.undo,
            hold=self.hold,
            keep=self.keep,
            since=NEVER if self.observed_since is None else self.observed_since,
            gaps=gaps_of(()),
        )
