"""Whether the worker gets anything done, over HTTP: `/metrics`, `/livez`, `/readyz`.

`/livez` asks for progress, not for a process: a loop that has work waiting and has done none of it for longer than it may is
dead, however many threads are alive. An idle loop is well. `/readyz` asks in addition whether everything that is needed is
there. Both answer JSON with every check, 200 or 503. There is no login: the address is loopback unless settings say otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

import orjson

from streams.metrics import CONTENT_TYPE, Metrics

READ_SECONDS = 5.0
MAX_REQUEST = 8 * 1024
MAX_CONNECTIONS = 32

Problems = Callable[[], Sequence[str]]
"""What is wrong, in words for an operator; empty = nothing."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop of the worker.

    `progress` gives the monotonic time at which it last got something done, `waiting` whether there is something to do.
    """

    name: str
    progress: Callable[[], float]
    waiting: Callable[[], bool]
    allowed: float
    """Seconds that it may take over the next piece of work."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    ok: bool
    detail: str


class Health:
    """The checks, and what they say now."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = metrics
        self._clock = clock
        self._loops: dict[str, Loop] = {}
        self._waiting_since: dict[str, float] = {}
        self._needs: dict[str, Problems] = {}

    def watch(self, loop: Loop) -> None:
        """Ask this loop for progress."""
        self._loops[loop.name] = loop

    def need(self, name: str, problems: Problems) -> None:
        """Readiness needs this: partitions assigned and loaded, the store answering, kernels compiled …"""
        self._needs[name] = problems

    def alive(self) -> list[Check]:
        """Every loop, by name. Asked regularly, this also notices when work began to wait."""
        return [self._alive(loop) for loop in self._loops.values()]

    def show(self) -> None:
        """Give Prometheus what /livez asks of the loops, so that the alert and the orchestrator never disagree."""
        now = time.time()
        for loop in self._loops.values():
            self.metrics.last_progress.labels(loop.name).set(now - (self._stood(loop) or 0.0))

    def ready(self) -> list[Check]:
        """Every loop and every need."""
        found = self.alive()
        for name, problems in self._needs.items():
            wrong = list(problems())
            found.append(Check(name, not wrong, "; ".join(wrong) or "ok"))
        return found

    def _stood(self, loop: Loop) -> float | None:
        """Seconds without progress on what waits; None = nothing waits."""
        now = self._clock()
        if not loop.waiting():
            self._waiting_since.pop(loop.name, None)
            return None
        # What came in after an idle hour has not waited an hour.
        return now - max(loop.progress(), self._waiting_since.setdefault(loop.name, now))

    def _alive(self, loop: Loop) -> Check:
        stood = self._stood(loop)
        if stood is None:
            return Check(loop.name, True, "idle")
        ok = stood <= loop.allowed
        said = f"last progress {stood:.1f} s ago" if ok else f"work waits, no progress for {stood:.1f} s"
        return Check(loop.name, ok, f"{said} (allowed {loop.allowed:g} s)" if stood > 0 else "works")


class HealthServer:
    """The HTTP side. `port` 0 takes any free one; `port` then says which."""

    def __init__(self, health: Health, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._health = health
        self.host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=MAX_REQUEST)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            async with asyncio.timeout(READ_SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if len(self._open) > MAX_CONNECTIONS:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections\n")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"too large\n")
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, b"not HTTP\n")
        if words[0] not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n", allow="GET, HEAD")
        return self._page(words[1].split(b"?", 1)[0], body=words[0] == b"GET")

    def _page(self, path: bytes, *, body: bool) -> bytes:
        match path:
            case b"/metrics":
                self._health.show()
                return _response(HTTPStatus.OK, self._health.metrics.render(), CONTENT_TYPE, body=body)
            case b"/livez":
                return _checks(self._health.alive(), body=body)
            case b"/readyz":
                return _checks(self._health.ready(), body=body)
        return _response(HTTPStatus.NOT_FOUND, b"/metrics, /livez or /readyz\n", body=body)


def _checks(checks: list[Check], *, body: bool) -> bytes:
    ok = all(check.ok for check in checks)
    shown = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
    text = orjson.dumps({"ok": ok, "checks": shown}, option=orjson.OPT_APPEND_NEWLINE)
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return _response(status, text, "application/json", body=body)


def _response(
    status: HTTPStatus,
    content: bytes,
    kind: str = "text/plain; charset=utf-8",
    *,
    body: bool = True,
    allow: str = "",
) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if allow:
        lines.append(f"Allow: {allow}")
    return "\r\n".join([*lines, "", ""]).encode() + (content if body else b"")
