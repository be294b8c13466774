"""What settings are made of: kinds of values, fields with bounds and reasons, and YAML that hides nothing."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from detectors.model import DAY, HOUR, MICROSECOND, MINUTE, SECOND

PREFIX = "SAFEHOLD_"
MASK = "********"

_UNITS = {"us": MICROSECOND, "ms": 1000, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


class SettingsError(Exception):
    """The settings cannot be used. `problems` has one line for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("settings cannot be used:\n" + "\n".join(f"  {problem}" for problem in problems))


class Secret:
    """A value that shows itself only when asked by `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __bool__(self) -> bool:
        return self._value != ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret('{MASK}')" if self._value else "Secret('')"

    __str__ = __repr__


class BadValue(Exception):
    """A value that a setting cannot have; the text says what it must be."""


def duration(value: object) -> int:
    """`90s`, `6h`, `1d` → microseconds. A bare number has no unit and is refused."""
    parts = re.fullmatch(r"(\d+)\s*(us|ms|s|m|h|d)", value.strip()) if isinstance(value, str) else None
    if parts is None:
        raise BadValue("must be a number with a unit out of us, ms, s, m, h, d (for example 30s)")
    return int(parts[1]) * _UNITS[parts[2]]


def show_duration(microseconds: int) -> str:
    """The shortest way to write it."""
    for unit in ("d", "h", "m", "s", "ms"):
        if microseconds and microseconds % _UNITS[unit] == 0:
            return f"{microseconds // _UNITS[unit]}{unit}"
    return f"{microseconds}us" if microseconds else "0s"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadValue(f"must be text, not {value!r} (put it in quotes)")
    return value


def _secret(value: object) -> Secret:
    if not isinstance(value, str):
        raise BadValue("must be text (put it in quotes)")
    return Secret(value)


def _name(value: object) -> str:
    if not _NAME.fullmatch(text := _text(value)):
        raise BadValue("must be lower-case letters, digits, dots, hyphens or underscores, at most 64")
    return text


def _topic_name(value: object) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text := _text(value)):
        raise BadValue("must be a Kafka topic name: letters, digits, dots, hyphens, underscores, at most 249")
    return text


def _currency(value: object) -> str:
    if not re.fullmatch(r"[A-Z]{3}", text := _text(value)):
        raise BadValue("must be a three-letter currency such as EUR")
    return text


def _integer(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue("must be a whole number")
    return value


def _boolean(value: object) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise BadValue("must be true or false")
    return value


def _servers(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise BadValue("must be a list of host:port")
    servers = tuple(item.strip() for item in items)
    if not servers or not all(
        re.fullmatch(r"([^\s:,\[\]]+|\[[0-9a-fA-F:]+\]):\d{1,5}", server) for server in servers
    ):
        raise BadValue("must be a list of host:port")
    return servers


def _date(value: object) -> int:
    if isinstance(value, str):
        try:
            value = datetime.date.fromisoformat(value.strip())
        except ValueError:
            value = None
    if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
        raise BadValue("must be a date such as 2026-01-31 (its start in UTC is taken)")
    return (value - datetime.date(1970, 1, 1)).days * DAY


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: the word for it, and how what stands in a file or a variable becomes one."""

    word: str
    read: Callable[[object], Any]


DURATION = Kind("duration", duration)
TEXT = Kind("text", _text)
SECRET = Kind("secret", _secret)
NAME = Kind("name", _name)
TOPIC_NAME = Kind("topic name", _topic_name)
CURRENCY = Kind("currency", _currency)
INTEGER = Kind("whole number", _integer)
BOOLEAN = Kind("true or false", _boolean)
SERVERS = Kind("list of host:port", _servers)
DATE = Kind("date", _date)


class _Required:
    """The default of a setting that must be given."""


REQUIRED = _Required()


@dataclass(frozen=True, slots=True)
class Field:
    """One setting: what it is, what it may be, and why."""

    name: str
    kind: Kind
    default: object
    about: str
    low: int | None = None
    high: int | None = None
    why: str = ""
    choices: tuple[str, ...] = ()

    @property
    def secret(self) -> bool:
        """Whether its value is masked, and may be read from a file named by `<variable>_FILE`."""
        return self.kind is SECRET

    @property
    def variable(self) -> str:
        """The environment variable that overlays it."""
        return PREFIX + self.name.upper()

    def show(self, value: object) -> str:
        """A value as it is written in the file."""
        if value is None or value == ():
            return ""
        if self.kind is DURATION and isinstance(value, int):
            return show_duration(value)
        if isinstance(value, bool):
            return str(value).lower()
        return (
            MASK if isinstance(value, Secret) and value else "" if isinstance(value, Secret) else str(value)
        )

    def parse(self, value: object) -> Any:
        """The value, checked. Raises `BadValue`."""
        if self.choices and value not in self.choices:
            raise BadValue(f"must be one of {', '.join(self.choices)}, not {value!r}")
        parsed = self.kind.read(value)
        if self.low is not None and parsed < self.low:
            raise BadValue(f"is below {self.show(self.low)} ({self.why})")
        if self.high is not None and parsed > self.high:
            raise BadValue(f"is above {self.show(self.high)} ({self.why})")
        return parsed


class StrictLoader(yaml.SafeLoader):
    """YAML in which a name that stands twice is an error, not the last one."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def yaml_place(problem: yaml.YAMLError) -> str:
    if isinstance(problem, yaml.MarkedYAMLError) and problem.problem_mark is not None:
        return f"line {problem.problem_mark.line + 1}: {problem.problem or 'not YAML'}"
    return "not YAML"


def read_fields(fields: tuple[Field, ...], given: Mapping[Any, Any], problems: list[str]) -> dict[str, Any]:
    """The values of a table's fields; what is wrong goes into `problems`."""
    known = {field.name: field for field in fields}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            problems.append(f"{name} is not a setting" + (f" (did you mean {near[0]}?)" if near else ""))
    values: dict[str, Any] = {}
    for name, field in known.items():
        if given.get(name) is None:
            if field.default is REQUIRED:
                problems.append(f"{name} is needed: {field.about}")
            values[name] = field.default
            continue
        try:
            values[name] = field.parse(given[name])
        except BadValue as bad:
            problems.append(f"{name} {bad}")
        except SettingsError as several:
            problems += several.problems
    return values


def markdown_table(fields: tuple[Field, ...], *, variables: bool) -> list[str]:
    lines = ["| setting | kind | default | bounds | what it is |", "|---|---|---|---|---|"]
    for field in fields:
        bounds = ", ".join(f"`{choice}`" for choice in field.choices)
        if field.low is not None or field.high is not None:
            low = field.show(field.low) if field.low is not None else ""
            high = field.show(field.high) if field.high is not None else ""
            bounds = f"{low} to {high}: {field.why}"
        default = (
            "**needed**"
            if field.default is REQUIRED
            else f"`{shown}`"
            if (shown := field.show(field.default))
            else "–"
        )
        name = f"`{field.name}`" + (f"<br>`{field.variable}`" if variables else "")
        kind = "one of a list" if field.choices else field.kind.word
        lines.append(f"| {name} | {kind} | {default} | {bounds or '–'} | {field.about} |")
    return lines
