"""A TCP proxy that delays, cuts, refuses or swallows connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self

from tests.rigs.process import free_port

CHUNK = 65_536


class FaultProxy:
    """Forwards a loopback port to another, in a thread of its own, and breaks on command.

    ``delay`` seconds hold back every chunk. ``cut()`` resets all connections that are open, ``refuse()``
    closes the port, ``swallow()`` takes bytes and passes none on, ``heal()`` ends all of that.
    """

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self.port = free_port()
        self.delay = 0.0
        self.connections = 0
        self._target = (target_host, target_port)
        self._passing = threading.Event()
        self._passing.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._shut())
        self._do(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def aim(self, port: int, host: str = "127.0.0.1") -> None:
        """Forward new connections somewhere else."""
        self._target = (host, port)

    def cut(self) -> None:
        """Reset every open connection; new ones are accepted."""
        self._do(self._abort())

    def refuse(self) -> None:
        """Reset every open connection and close the port."""
        self._do(self._shut())

    def swallow(self) -> None:
        """Keep connections open and pass nothing on."""
        self._passing.clear()

    def heal(self) -> None:
        """Listen and pass again."""
        self.delay = 0.0
        self._passing.set()
        self._do(self._listen())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._abort()

    async def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        self._open.clear()
        await asyncio.sleep(0)

    async def _settle(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._open -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                while not self._passing.is_set() and not writer.is_closing():
                    await asyncio.sleep(0.01)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
