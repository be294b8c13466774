"""For whoever reads a review or observe topic: of one recommendation id, the message with the greatest cause counts.

A worker that was paused and wakes up may still send what it had decided before; such a message has a smaller cause than
what its successor said, wherever it lands in the topic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streams.publish import ACTION, CAUSE, WITHDRAWN, Cause, Headers


@dataclass(frozen=True, slots=True)
class Said:
    """The latest word on one recommendation id."""

    recommendation_id: str
    cause: Cause
    action: str
    withdrawn: bool
    body: bytes


class ForeignMessage(ValueError):
    """A message of the topic that is not a recommendation of Safehold."""


class Latest:
    """Fold of a review or observe topic: id → latest word. Messages may come in any order and any number of times."""

    def __init__(self) -> None:
        self._said: dict[str, Said] = {}
        self.revisions: dict[str, int] = {}
        """How often the word on an id changed: the revision number that the receiver gives."""

    def add(self, value: bytes, headers: Headers) -> Said | None:
        """Take one message. Returns it when it is the new latest word, None when it is an old one."""
        found = dict(headers)
        try:
            identity = found["ce_id"].decode()
            cause = Cause.parse(found[CAUSE])
        except (KeyError, ValueError) as problem:
            raise ForeignMessage(f"no recommendation: {problem}") from problem
        known = self._said.get(identity)
        if known is not None and known.cause.order >= cause.order:
            return None
        said = Said(
            identity, cause, found.get(ACTION, b"").decode(), found.get(WITHDRAWN) == b"true", bytes(value)
        )
        if known is None or (known.withdrawn, known.body) != (said.withdrawn, said.body):
            self.revisions[identity] = self.revisions.get(identity, 0) + 1
        self._said[identity] = said
        return said

    def standing(self) -> Iterator[Said]:
        """Every recommendation that is not withdrawn, by id."""
        return (said for _, said in sorted(self._said.items()) if not said.withdrawn)

    def bodies(self) -> list[bytes]:
        """The bodies of those, by id: what the determinism contract compares."""
        return [said.body for said in self.standing()]

    def __len__(self) -> int:
        return len(self._said)
