"""A server program that a test owns: started, waited for, killed, and never left behind."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class RigError(RuntimeError):
    """A rig did not come up or went away; the text ends with what it last said."""


def free_port() -> int:
    """A loopback port that nothing uses, below the ports that outgoing connections take.

    A server that is killed and started again needs its port back, so it must not be one that a
    client's outgoing connection can be given in between.
    """
    choose = random.SystemRandom()
    for _ in range(500):
        port = choose.randrange(15_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RigError("no free loopback port between 15000 and 30000")


def wait_until(true: Callable[[], object], *, within: float, what: str, every: float = 0.02) -> None:
    """Poll a condition until it holds."""
    give_up = time.monotonic() + within
    while not true():
        if time.monotonic() > give_up:
            raise RigError(f"not within {within:g} s: {what}")
        time.sleep(every)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Program:
    """One process with its log in a file."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)

    @property
    def pid(self) -> int | None:
        """The process id, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def returncode(self) -> int | None:
        """How it ended by itself; None while it runs, or when it was ended from here."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(
        self, command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Start the program; its output is appended to the log."""
        if self.running:
            raise RigError(f"{self.name} runs already")
        # The kernel ties the signal to the thread that forked, so only the main thread may ask for it.
        tie = _die_with_parent if threading.current_thread() is threading.main_thread() else None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=tie,
            )

    def wait_ready(self, ready: Callable[[], bool], *, within: float) -> None:
        """Wait for a condition, and fail at once when the process dies first."""

        def there() -> bool:
            if not self.running:
                raise RigError(f"{self.name} stopped while starting; {self.tail()}")
            return ready()

        try:
            wait_until(there, within=within, what=f"{self.name} ready", every=0.05)
        except RigError as problem:
            if "stopped while starting" in str(problem):
                raise
            raise RigError(f"{problem}; {self.tail()}") from None

    def stop(self, *, within: float = 30.0) -> None:
        """Ask it to end, and wait for that."""
        self._end(signal.SIGTERM, within)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL, 10.0)

    def pause(self) -> None:
        """Freeze it where it stands."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def tail(self, lines: int = 30) -> str:
        """The end of the log, for an error text."""
        text = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return f"log {self.log}:\n" + "\n".join(text[-lines:])

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _end(self, number: int, within: float) -> None:
        if self._process is None:
            return
        self._signal(number)
        if number != signal.SIGKILL:
            self._signal(signal.SIGCONT)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait(10)
        self._process = None
