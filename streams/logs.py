"""Logs as JSON, one record a line, on which nothing is written that was not allowed.

Records of our own modules and of Faust, aiokafka and the rest pass the same rules:
- a value is written only under a key of `ALLOWED`, and only if it is small; what was held back is named under `withheld`;
- texts (the event, allowed strings) lose everything that looks like an account, a transaction, a person or a payload;
- of `"Joined group %s", name` the words stay and the arguments go, but for small numbers, names that are known and types;
- of an exception the type and the places are written; its message only where its class is known not to quote data.

`batch`, `partition` and `config` come from `bound`, for everything that is logged inside it.
"""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter

ALLOWED = frozenset(
    """
    accounts action applied attempt batch bytes chunks code config count day detector digest duration epoch frames generation
    group index key_id legs limit loop member mode name offset offsets outcome partition partitions path phase port problem
    problems reason rejected seconds signal size skipped snapshot source stage state step subject_count topic version
    """.split()  # noqa: SIM905 - a list of words reads better than one of strings
)
"""Keys whose values may be written. Never account, subject, party, leg, transaction, text or value."""

CHATTY = ("kafka", "aiokafka", "faust", "mode")
"""Libraries that tell at INFO what an operator need not know."""

MAX_TEXT = 300
MAX_ITEMS = 20
MAX_ARGUMENTS = 50
MAX_FRAMES = 30
LARGEST_NUMBER = 10**16
"""Above it a number is a keyed hash, not a count, an offset or a time."""
MASK = "…"

_OWN = ("timestamp", "level", "logger", "event")
_QUOTED = re.compile(r"""b?(?P<q>["'`])(?P<inner>.*?)(?P=q)""")
_SENSITIVE = re.compile(
    r"""
    [\w.+-]+@[\w-]+(\.[\w-]+)+                                      # e-mail
    | [0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}            # UETR
    | \b[A-Z]{2}\d{2}(\ ?[A-Z0-9]{4}){2,7}(\ ?[A-Z0-9]{1,3})?\b     # IBAN
    | \b(?=(?:[A-Za-z_]*\d){6})[A-Za-z0-9_]{8,}\b                   # long tokens that are mostly digits
    | \d(?:[\ -]?\d){7,}                                            # long numbers, however grouped
    | \{(?![\uE000-\uE0FF]).* | <(?![\uE000-\uE0FF]).*               # what holds objects, lists, XML: to the end
    | \[(?!(Error\ )?\d{1,3}\]|[\uE000-\uE0FF]).*
    """,
    re.VERBOSE,
)
_HOLE = re.compile("[\ue000-\ue0ff]")
"""A letter of Unicode's private use stands for one argument while the words around it are looked at. No text may bring one."""

_PLACEHOLDER = re.compile(r"%(?:\((?P<name>\w+)\))?[#0 +-]*\d*(?:\.\d+)?[hlL]?(?P<kind>[diouxXeEfFgGcrsa%])")
_SERVICE = re.compile(r"\[\^-*(?P<label>[\w.:*+/ ()@<>-]{1,120})\]: ")
"""What mode puts before the words of a service: `[^--Agent*: feeds-safehold.flags.v1]: `."""

_SAFE_MODULES = ("streams.", "detectors.", "redis.", "aiokafka.", "kafka.", "asyncio.")

_known: set[str] = set()
"""Names (topics, groups) that may stand in quotes in somebody else's message."""


def scrub(text: str) -> str:
    """The first line of a text, without anything that may be somebody's."""
    return _without(_HOLE.sub(MASK, text))


def _without(text: str) -> str:
    """`scrub`, of a text that may have holes: what is in quotes or brackets and is nothing but holes stays."""
    line = text.split("\n", 1)[0]
    line = _QUOTED.sub(_quoted, line)
    return _cut(_SENSITIVE.sub(MASK, line))


def _cut(line: str) -> str:
    return line if len(line) <= MAX_TEXT else line[:MAX_TEXT] + MASK


def _quoted(found: re.Match[str]) -> str:
    inner, quote = found["inner"], found["q"]
    if inner in _known or (_HOLE.search(inner) and not any(letter.isalnum() for letter in inner)):
        return found[0]
    return f"{quote}{MASK}{quote}"


def words(template: str, arguments: object) -> str:
    """A record of the standard library, `template % arguments`: its words, and of its arguments only what is safe.

    The words are scrubbed too, for who writes f-strings. Raises TypeError, ValueError or KeyError where the two do not fit.
    """
    service = _SERVICE.match(template)
    label = f"{scrub(service['label'].replace('<locals>.', ''))}: " if service else ""
    text = template[service.end() :] if service else template
    if not arguments:
        return label + scrub(text)
    shown: list[str] = []
    waiting = list(arguments if isinstance(arguments, tuple) else (arguments,))

    def hole(found: re.Match[str]) -> str:
        if found["kind"] == "%":
            return "%"
        if found["name"] and isinstance(arguments, Mapping):
            value = arguments[found["name"]]
        elif waiting:
            value = waiting.pop(0)
        else:
            raise TypeError("not enough arguments for the format")
        shown.append(_argument(found["kind"], value))
        return chr(0xE000 + len(shown) - 1) if len(shown) <= MAX_ARGUMENTS else MASK

    holed = _without(_PLACEHOLDER.sub(hole, _HOLE.sub(MASK, text)))
    if waiting and not isinstance(arguments, Mapping):
        raise TypeError("more arguments than the format has places")
    return _cut(label + _HOLE.sub(lambda found: shown[ord(found[0]) - 0xE000], holed))


def _argument(kind: str, value: object) -> str:
    """One argument as it may be written: numbers that are no ids, known names, types; of an exception what `_named` gives."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return scrub(
            str(int(value)) if kind in "diu" else f"{value:g}" if isinstance(value, float) else str(value)
        )
    if kind not in "rsa":
        raise TypeError("a number is needed")
    if isinstance(value, str):
        return value if value in _known else MASK
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, BaseException):
        return _named(value)
    if isinstance(value, tuple) and hasattr(value, "topic") and hasattr(value, "partition"):
        return f"{_argument('s', value.topic)}/{_argument('s', value.partition)}"
    if isinstance(value, list | tuple | set | frozenset) and len(value) <= MAX_ITEMS:
        return ", ".join(sorted(_argument("s", item) for item in value)) or "none"
    return MASK


@contextmanager
def bound(**values: Any) -> Iterator[None]:
    """Everything that is logged inside carries these (keys of `ALLOWED`), in this task and those it starts."""
    with structlog.contextvars.bound_contextvars(**values):
        yield


def configure(level: str = "INFO", *, stream: TextIO | None = None, known: Iterable[str] = ()) -> None:
    """Send everything that is logged in this process to `stream` (standard error). Also what ends a thread or the process."""
    _known.clear()
    _known.update(known)
    logging.raiseExceptions = True  # our handler says it without the record's arguments
    logging.config.dictConfig(_configuration(level, stream))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*_ENTRY, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    sys.excepthook = _last_words
    threading.excepthook = _thread_last_words


def know(names: Iterable[str]) -> None:
    """These are written as they are from now on: names and digests that tell nothing of anybody."""
    _known.update(names)


def _configuration(level: str, stream: TextIO | None) -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": ProcessorFormatter,
                "processors": [_exception, ProcessorFormatter.remove_processors_meta, redact, _render],
                "foreign_pre_chain": _ENTRY,
                "use_get_message": False,
                "pass_foreign_args": True,
            }
        },
        "handlers": {"out": {"()": _Handler, "stream": stream or sys.stderr, "formatter": "json"}},
        "root": {"level": level, "handlers": ["out"]},
        "loggers": {name: {"level": _of_libraries(level)} for name in CHATTY},
    }


def _of_libraries(level: str) -> str:
    """Less of them than of our own, unless everything is asked for: a start alone writes dozens of their lines."""
    return level if level in ("DEBUG", "WARNING", "ERROR", "CRITICAL") else "WARNING"


class _Handler(logging.StreamHandler[TextIO]):
    """The standard handler prints a record that cannot be formatted with all its arguments. This one does not."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is the standard library's
        failed = {"level": "error", "logger": record.name, "event": "a log record could not be written"}
        self.stream.write(orjson.dumps(failed | {"path": f"{record.module}:{record.lineno}"}).decode() + "\n")


Event = MutableMapping[str, Any]


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Keep what is allowed, name what is not."""
    kept: dict[str, Any] = {key: event[key] for key in _OWN if key in event}
    kept["event"] = words(str(event.get("event", "")), event.pop("positional_args", ()))
    withheld = []
    for key in sorted(event.keys() - kept.keys()):
        if key == "exception":
            kept[key] = event[key]
        elif key in ALLOWED and (small := _small(event[key])) is not NotImplemented:
            kept[key] = small
        else:
            withheld.append(key if key.isidentifier() and len(key) <= 40 and scrub(key) == key else MASK)
    if withheld:
        kept["withheld"] = withheld
    return kept


def _small(value: object) -> Any:
    """A value as it may be written; NotImplemented for one that may not."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < LARGEST_NUMBER else MASK
    if isinstance(value, str):
        return value if value in _known else scrub(value)
    if isinstance(value, list | tuple | set | frozenset):
        items = [_small(item) for item in list(value)[:MAX_ITEMS]]
        return items if NotImplemented not in items else NotImplemented
    return NotImplemented


def _exception(_logger: object, _method: str, event: Event) -> Event:
    """What happened and where, without what the exception quotes."""
    record: logging.LogRecord | None = event.get("_record")
    info = event.pop("exc_info", None) or (record.exc_info if record is not None else None)
    event.pop("stack_info", None)
    if info is True:
        info = sys.exc_info()
    problem = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
    if problem is not None:
        event["exception"] = _describe(problem)
    return event


def _describe(problem: BaseException) -> list[str]:
    """The chain of exceptions, the one that was raised last first, each with its places."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = problem
    while current is not None and id(current) not in seen and len(lines) < MAX_FRAMES:
        seen.add(id(current))
        lines.append(_named(current))
        for frame in traceback.extract_tb(current.__traceback__)[-10:]:
            place = "/".join(frame.filename.replace("\\", "/").split("/")[-3:])
            lines.append(f"  {place}:{frame.lineno} {frame.name}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines[:MAX_FRAMES]


def _named(problem: BaseException) -> str:
    """The type of an exception, and its message where that is known not to quote data."""
    kind = type(problem)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    safe = f"{kind.__module__}.".startswith(_SAFE_MODULES) or isinstance(problem, OSError)
    return f"{name}: {scrub(str(problem))}" if safe and str(problem) else name


def _render(_logger: object, _method: str, event: Event) -> str:
    return orjson.dumps(dict(event), default=lambda _: MASK).decode()


_ENTRY: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _last_words(kind: type[BaseException], problem: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, problem, trace)
        return
    logging.getLogger(__name__).critical("the process ends on an error", exc_info=(kind, problem, trace))


def _thread_last_words(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        logging.getLogger(__name__).critical("a thread ended on an error", exc_info=ended.exc_value)
