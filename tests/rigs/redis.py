"""One real Redis (or Valkey) server on a loopback port or a unix socket."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import redis

from tests.rigs import parts
from tests.rigs.process import Program, RigError, free_port

DATABASES = 64


class RedisServer:
    """A server that can be stopped, killed, paused, set back, and started again on its folder and port.

    Without ``persistence`` a restart is empty. With it, every write is in the append-only file; with
    ``fsync="always"`` it is on disk before the answer.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        persistence: bool = False,
        fsync: str = "everysec",
        unix_socket: bool = False,
        policy: str = "noeviction",
        extra: Sequence[str] = (),
    ) -> None:
        program = parts.find_redis()
        if program is None:
            raise RigError("no Redis server here: python -m tests.rigs.parts install")
        self.folder = folder or Path(tempfile.mkdtemp(prefix="safehold-redis-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.data.mkdir(exist_ok=True)
        self.port = 0 if unix_socket else free_port()
        self.socket = self.folder / "redis.sock" if unix_socket else None
        self._program = Program("redis", self.folder / "redis.log")
        self._command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.data)]
        self._command += [
            "--save",
            "",
            "--appendonly",
            "yes" if persistence else "no",
            "--appendfsync",
            fsync,
        ]
        self._command += ["--maxmemory-policy", policy, "--databases", str(DATABASES), "--daemonize", "no"]
        if self.socket is not None:
            self._command += ["--unixsocket", str(self.socket)]
        self._command += list(extra)

    def url(self, database: int = 0) -> str:
        """The address of one of its databases."""
        if self.socket is not None:
            return f"unix://{self.socket}?db={database}"
        return f"redis://127.0.0.1:{self.port}/{database}"

    @property
    def log(self) -> Path:
        """Where the server writes what it does."""
        return self._program.log

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._program.running

    def client(self, database: int = 0) -> redis.Redis:
        """A plain client, for a test to look in."""
        return redis.Redis.from_url(self.url(database))

    def start(self) -> RedisServer:
        """Start the server and wait until it answers."""
        self._program.start(self._command)
        self._program.wait_ready(self._answers, within=20)
        return self

    def stop(self) -> None:
        """An orderly shutdown."""
        self._program.stop()

    def kill(self) -> None:
        """kill -9."""
        self._program.kill()

    def pause(self) -> None:
        """Freeze the server: connections stay open, nothing answers."""
        self._program.pause()

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._program.resume()

    def restart(self) -> None:
        """Start again on the same folder and port, after a stop if it still runs."""
        if self.running:
            self.stop()
        self.start()

    def mark(self) -> Path:
        """Remember the data on disk as it is now. Call it on a server with persistence."""
        kept = Path(tempfile.mkdtemp(prefix="mark-", dir=self.folder))
        shutil.copytree(self.data, kept / "data")
        return kept

    def lose_since(self, mark: Path) -> None:
        """kill -9, put the data back to the mark, start again: the last moments are gone."""
        self.kill()
        shutil.rmtree(self.data)
        shutil.copytree(mark / "data", self.data)
        self.start()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False
