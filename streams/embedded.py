"""The embedded broker and store of the demo: one binary from the `demo` extra that speaks Kafka's and Redis' protocols.

Not for production: it keeps its data in one file, on one machine, without replicas, and forgets it when the demo ends.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

NOT_FOR_PRODUCTION = "embedded broker and store (noida-db): for a first look only, not for production"
INSTALL = "make setup, or pip install '.[demo]', in the checkout"
READY_WITHIN = 20.0
POLL = 0.05
PORT_TRIES = 5
KEPT_LINES = 15
_PR_SET_PDEATHSIG = 1


class EmbeddedMissing(RuntimeError):
    """The demo extra is not installed, or its binary does not run here."""


def binary() -> Path | None:
    """The binary itself. The wheel's own command is a wrapper that would leave it behind when killed."""
    found = importlib.util.find_spec("noida_db")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / "noida-db"
    return path if path.is_file() else None


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ends_with_us() -> Callable[[], None] | None:
    """For Popen: the kernel ends the child when this process ends, however it ends. None where that cannot be had."""
    # The kernel ties the signal to the thread that forked, so only the main thread may ask for it.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Embedded:
    """Broker and store on loopback ports of their own, in a folder that goes away with them."""

    def __init__(self) -> None:
        self.kafka = ""
        self.redis = ""
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Embedded:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until both protocols answer."""
        program = binary()
        if program is None:
            raise EmbeddedMissing("the embedded broker is not installed")
        atexit.register(self.stop)
        said = ""
        for _ in range(PORT_TRIES):
            self._folder = Path(tempfile.mkdtemp(prefix="safehold-demo-"))
            kafka_port, redis_port = free_port(), free_port()
            if self._launch(program, kafka_port, redis_port):
                self.kafka, self.redis = f"127.0.0.1:{kafka_port}", f"redis://127.0.0.1:{redis_port}/0"
                return
            said = self._said()
            self.stop()
        raise EmbeddedMissing(f"the embedded broker does not start here; it said: {said or 'nothing'}")

    def _launch(self, program: Path, kafka_port: int, redis_port: int) -> bool:
        assert self._folder is not None
        command = [str(program), "start", "--data-dir", str(self._folder / "data"), "--only", "kafka,redis"]
        command += ["--host", "127.0.0.1", "--kafka-port", str(kafka_port), "--redis-port", str(redis_port)]
        if not os.access(program, os.X_OK):
            with contextlib.suppress(OSError):
                program.chmod(program.stat().st_mode | 0o111)
        try:
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=self._folder,
                    preexec_fn=ends_with_us(),
                )
        except OSError:
            return False
        give_up = time.monotonic() + READY_WITHIN
        while time.monotonic() < give_up and self._process.poll() is None:
            if _answers(kafka_port) and _pongs(redis_port):
                return True
            time.sleep(POLL)
        return False

    def _said(self) -> str:
        if self._folder is None or not (self._folder / "log").exists():
            return ""
        lines = (self._folder / "log").read_text(errors="replace").split("\n")
        return " · ".join(line.strip() for line in lines[-KEPT_LINES:] if line.strip())

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it and remove its folder. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            # It would write all its data out on a polite end; nobody reads them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _pongs(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as line:
        line.sendall(b"PING\r\n")
        return line.recv(7) == b"+PONG\r\n"
    return False
