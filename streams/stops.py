"""What one partition knows of the frames that stopped it, here or elsewhere: said, waited for, settled (`streams.quarantine`)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from streams import ledger
from streams.crash import crash_point
from streams.metrics import Metrics
from streams.quarantine import PEOPLE, FrameCase, Outcome, Quarantines, digest_of, in_place_of, stopped_at

log = logging.getLogger(__name__)


class FrameFailed(Exception):
    """A frame cannot be decoded or stepped. It would fail again."""

    def __init__(self, offset: int, problem: Exception) -> None:
        self.offset = offset
        self.value = b""
        # What the fold raises may quote the data; what the decoder says is our own text.
        own = isinstance(problem, ledger.LedgerError)
        self.problem = f"{type(problem).__name__}: {problem}" if own else type(problem).__name__
        super().__init__(f"frame {offset}: {self.problem}")


class Overruled(Exception):
    """Another owner has settled what a frame became, and it is not what we did."""


class AnotherFrame(Exception):
    """What was set aside at this offset is not what the ledger has there."""


class Stops:
    """The stops of one partition. `belongs` = (key id, generation) of its frames."""

    def __init__(
        self, partition: int, topic: Quarantines, belongs: tuple[str, str] | None, metrics: Metrics
    ) -> None:
        self.marked: set[int] = set()
        """Offsets at which the partition is known to have stopped once."""
        self._partition = partition
        self._topic = topic
        self._belongs = belongs
        self._metrics = metrics
        self._failed: dict[int, str] = {}  # offsets that failed in this process → why
        self._bare: set[int] = set()  # those of which the fold takes nothing but the header

    def _case(self, offset: int) -> FrameCase | None:
        return self._topic.cases.all.get((self._partition, offset))

    async def look(self) -> None:
        """Read what was said since. Raises KafkaError or TimeoutError."""
        await self._topic.refresh()
        self.marked = self._topic.cases.offsets(self._partition)

    # -- standing ----------------------------------------------------------------------------------------------------------

    def note(self, failed: FrameFailed) -> bool:
        """Remember that a frame failed here. False: nobody could help, what stands in its place fails as well."""
        at, case = failed.offset, self._case(failed.offset)
        if at in self._failed or (case is not None and case.signed):
            if at in self._bare:
                return False
            self._bare.add(at)
        self._failed[at] = failed.problem
        return True

    async def report(self, failed: FrameFailed, confirm: Callable[[], Awaitable[None]]) -> None:
        """Say in the topic that we stand there, if nobody has. Raises KafkaError or TimeoutError, and what `confirm` raises.

        `confirm` is asked right before: a zombie's word, signed later, would set aside what its heir has applied.
        """
        await self._topic.refresh()
        if self._case(failed.offset) is not None:
            return
        crash_point("before-stopped")
        await confirm()
        generation = self._topic.cases.generation
        await self._topic.append(
            stopped_at(failed.value, generation, self._partition, failed.offset, failed.problem)
        )
        crash_point("after-stopped")

    def may_go_on(self, offset: int) -> bool:
        """Whether enough people have signed, or another owner has settled it."""
        case = self._case(offset)
        return case is not None and (case.signed or case.outcome is not None)

    def words(self, offset: int) -> str:
        """For an operator: why the partition stands, and what to do."""
        case = self._case(offset)
        signed = len(case.people) if case else 0  # no names: whoever reaches the worker's port reads this
        return (
            f"stands at offset {offset}: {self._failed.get(offset, 'it failed')}. Two people can set the frame aside: "
            f"safehold quarantine {self._partition} {offset}"
            + (f" (signed by {signed} of {PEOPLE})" if signed else "")
        )

    # -- settling ----------------------------------------------------------------------------------------------------------

    def outcome(self, offset: int, value: bytes) -> tuple[Outcome | None, bool]:
        """(what this frame is or is to be, whether that is settled). No outcome: it failed here, and is not signed for.

        What is not settled must be written (`settle`) after the step and before anything is said. Raises `AnotherFrame`.
        """
        case = self._case(offset)
        assert case is not None
        if case.outcome is not None:
            aside = case.outcome.quarantine
            if aside is not None and aside.digest != digest_of(value):
                raise AnotherFrame(
                    f"the quarantine of offset {offset} is of another frame than the ledger has there"
                )
            return case.outcome, True
        if case.signed and case.stopped.digest != digest_of(value):
            raise AnotherFrame(
                f"what was signed for at offset {offset} is another frame than the ledger has there"
            )
        if not case.signed and offset in self._failed:
            return None, False
        # Not signed and not failed here: it failed elsewhere, in another version or at another time.
        aside = in_place_of(value, case, self._belongs, bare=offset in self._bare) if case.signed else None
        generation = self._topic.cases.generation
        return (
            Outcome(generation=generation, partition=self._partition, offset=offset, quarantine=aside),
            False,
        )

    async def settle_passed(self, applied: int, confirm: Callable[[], Awaitable[None]]) -> None:
        """Settle as applied what is said to have stopped somebody and is applied by the stored head. Raises as `settle`.

        Said too late by a zombie, such a frame would be set aside in a rebuild once people have signed.
        """
        await self.look()
        for offset in sorted(self.marked):
            case = self._case(offset)
            if offset <= applied and case is not None and case.outcome is None:
                await confirm()
                generation = self._topic.cases.generation
                await self.settle(Outcome(generation=generation, partition=self._partition, offset=offset))

    async def settle(self, outcome: Outcome) -> None:
        """Write what a frame became. The first word of all owners counts: `Overruled` if that was not ours."""
        await self._topic.append(outcome)
        crash_point("after-outcome")
        case = self._case(outcome.offset)
        if case is None or case.outcome != outcome:
            raise Overruled(f"another owner has settled what became of offset {outcome.offset}")
        aside = outcome.quarantine is not None
        if aside:
            self._metrics.quarantined_frames.inc()
        log.warning(
            "frame set aside" if aside else "frame applied after all",
            extra={"partition": self._partition, "offset": outcome.offset},
        )
