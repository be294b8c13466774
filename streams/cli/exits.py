"""Exit codes, and the one way a command fails: a line that says what, and a place to look."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """What a script may rely on."""

    OK = 0
    FAILED = 1  # it was done, and the answer is no: a check found problems, an id is unknown
    USAGE = 2  # the command line is wrong
    INPUT = 3  # a file, a mapping or a configuration cannot be used
    UNREACHABLE = 4  # the broker or the store does not answer
    MISSING = 5  # an optional part is not installed
    CRASHED = 70  # of the worker: a service failed
    NOT_OURS = 75  # of the worker: another process runs under its member id
    STOPPED = 130  # interrupted


EXITS_TEXT = (
    "Exit codes: 0 done; 1 a check found problems or an id is unknown; 2 wrong command line; 3 a file or configuration "
    "cannot be used; 4 broker or store does not answer; 5 an optional part is not installed; "
    "70 the worker failed; 75 its member id is taken; 130 interrupted."
)


class CliError(Exception):
    """Ends the command with one clear line."""

    def __init__(
        self, message: str, *, look: str = "", details: Sequence[str] = (), code: Exit = Exit.FAILED
    ) -> None:
        super().__init__(message)
        self.look = look
        self.details = tuple(details)
        self.code = code
