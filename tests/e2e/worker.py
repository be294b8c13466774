"""A worker as a process: `python -m tests.e2e.worker SETTINGS`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from streams.app import run
from streams.settings import load

_PLAIN = set(vars(logging.makeLogRecord({})))


class _Format(logging.Formatter):
    """One line a record, with what came as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN | {"data", "asctime"}}
        return f"{super().format(record)} {extra or ''}"


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(_Format("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("aiokafka", "faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.exit(run(load(Path(sys.argv[1]), {})))
