"""What intakes and monitors tell each other: how far the ledger is applied, and how far each source partition is read.

Inside a process it is memory. Between processes it is one small hash in the store that everybody posts to and reads a few
times a second. Nothing in it is needed for correctness after a crash: whatever is missing holds intake back until somebody
posts it again, and a value that is old is only lower than the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec

NEVER = -(2**63)
"""An event time before all others: nothing is known of the partition yet."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a source partition is read."""

    time: int = NEVER
    """Event time, µs: what it gave so far, or has waiting, is not below this. It never falls while one process owns it."""
    at_end: bool = False
    """There is nothing more to read at the moment."""


class Board(Protocol):
    """Shared between the processes of one installation."""

    async def post(self, applied: Mapping[int, int], positions: Mapping[str, Position]) -> None:
        """Say where the partitions that we own stand."""

    async def read(self) -> tuple[dict[int, int], dict[str, Position]]:
        """Where every partition stands, as it was last posted."""


class MemoryBoard:
    """A board for one process, and for tests."""

    def __init__(self) -> None:
        self._applied: dict[int, int] = {}
        self._positions: dict[str, Position] = {}

    async def post(self, applied: Mapping[int, int], positions: Mapping[str, Position]) -> None:
        self._applied.update(applied)
        self._positions.update(positions)

    async def read(self) -> tuple[dict[int, int], dict[str, Position]]:
        return dict(self._applied), dict(self._positions)


class HashClient(Protocol):
    """The two Redis commands that the board needs."""

    async def hset(self, name: str, *, mapping: Mapping[str, bytes]) -> int: ...

    async def hgetall(self, name: str) -> dict[bytes, bytes]: ...


class RedisBoard:
    """A board in one Redis hash. The ledger generation is part of its name: offsets of another one mean nothing."""

    def __init__(self, client: HashClient, namespace: str, generation: str) -> None:
        self._client = client
        self._name = f"{namespace}:board:{generation}"
        self._position = msgspec.msgpack.Decoder(Position)

    async def post(self, applied: Mapping[int, int], positions: Mapping[str, Position]) -> None:
        fields = {f"a{partition}": b"%d" % offset for partition, offset in applied.items()}
        fields |= {f"p{source}": msgspec.msgpack.encode(position) for source, position in positions.items()}
        if fields:
            await self._client.hset(self._name, mapping=fields)

    async def read(self) -> tuple[dict[int, int], dict[str, Position]]:
        applied: dict[int, int] = {}
        positions: dict[str, Position] = {}
        for field, value in (await self._client.hgetall(self._name)).items():
            if field.startswith(b"a"):
                applied[int(field[1:])] = int(value)
            else:
                positions[field[1:].decode()] = self._position.decode(value)
        return applied, positions


class Progress:
    """What this process knows of everybody's progress. The monitor moves `applied`, intake waits for it."""

    def __init__(self) -> None:
        self.own_applied: dict[int, int] = {}
        """Last ledger offset applied, outputs acknowledged, of the partitions that this process judges."""
        self.own_positions: dict[str, Position] = {}
        self._others_applied: dict[int, int] = {}
        self._others_positions: dict[str, Position] = {}
        self._moved = asyncio.Event()

    def applied(self, partition: int) -> int | None:
        """Last applied offset of a partition, or None where nobody has said."""
        own = self.own_applied.get(partition)
        return own if own is not None else self._others_applied.get(partition)

    def position(self, source: str) -> Position | None:
        """Where a source partition stands, or None where nobody has said."""
        own = self.own_positions.get(source)
        return own if own is not None else self._others_positions.get(source)

    def set_applied(self, partition: int, offset: int) -> None:
        """The partition is applied up to here."""
        self.own_applied[partition] = offset
        self._moved.set()

    def drop_partition(self, partition: int) -> None:
        """This process does not judge the partition any more."""
        self.own_applied.pop(partition, None)

    async def wait_moved(self, timeout: float) -> None:
        """Until something moved, but not longer than that."""
        try:
            async with asyncio.timeout(timeout):
                await self._moved.wait()
        except TimeoutError:
            return
        self._moved.clear()

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._moved.set()

    async def exchange(self, board: Board) -> bool:
        """Post what we own, read the rest. Whether somebody else is there, and anybody has moved."""
        await board.post(dict(self.own_applied), dict(self.own_positions))
        applied, positions = await board.read()
        if applied != self._others_applied or positions != self._others_positions:
            self._others_applied, self._others_positions = applied, positions
            self._moved.set()
            return bool(
                applied.keys() - self.own_applied.keys() or positions.keys() - self.own_positions.keys()
            )
        return False
