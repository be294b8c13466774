"""YAML → a typed value, with every problem at once and where it stands (`file:line:column`)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import yaml
from msgspec import inspect

_T = TypeVar("_T")

Place = tuple[str | int, ...]


class Misplaced(ValueError):
    """The document cannot be used. `problems` has one `file:line:column: …` a thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class Document(Generic[_T]):
    """A decoded document that still knows where its parts stand."""

    def __init__(self, value: _T, name: str, marks: dict[Place, tuple[int, int]]) -> None:
        self.value = value
        self._name = name
        self._marks = marks

    def problem(self, place: Place, text: str) -> str:
        """One line about the part at `place` (its nearest part that exists)."""
        at = place
        while at and at not in self._marks:
            at = at[:-1]
        line, column = self._marks.get(at, (1, 1))
        return (
            f"{self._name}:{line}:{column}: {dotted(place)}: {text}"
            if place
            else f"{self._name}:{line}:{column}: {text}"
        )


def dotted(place: Place) -> str:
    """`("rules", 2, "set")` → `rules[2].set`."""
    out = ""
    for part in place:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def load(text: str, kind: type[_T], name: str) -> Document[_T]:
    """Read one document of a msgspec type. Raises `Misplaced` with all that is wrong."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else f"{name}:1:1"
        raise Misplaced([f"{where}: {error.problem or 'not YAML'}"]) from None
    except yaml.YAMLError:
        raise Misplaced([f"{name}:1:1: not YAML"]) from None
    if root is None:
        raise Misplaced([f"{name}:1:1: empty"])
    walker = _Walker()
    data = walker.walk(root, inspect.type_info(kind), ())
    document: Document[Any] = Document(None, name, walker.marks)
    if walker.problems:
        raise Misplaced([document.problem(place, problem) for place, problem in walker.problems])
    try:
        document.value = msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise Misplaced([document.problem((), str(error))]) from None
    return document


def load_file(path: Path, kind: type[_T]) -> Document[_T]:
    """`load` of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Misplaced([f"{path}:1:1: {reason}"]) from None
    return load(text, kind, str(path))


class _Walker:
    def __init__(self) -> None:
        self.marks: dict[Place, tuple[int, int]] = {}
        self.problems: list[tuple[Place, str]] = []

    def bad(self, place: Place, text: str) -> None:
        self.problems.append((place, text))

    def walk(self, node: yaml.Node, kind: Any, place: Place) -> Any:
        self.marks.setdefault(place, (node.start_mark.line + 1, node.start_mark.column + 1))
        while isinstance(kind, inspect.Metadata):
            kind = kind.type
        if isinstance(kind, inspect.UnionType):
            kind = self._member(node, kind)
        method: Callable[[yaml.Node, Any, Place], Any] | None = _METHODS.get(type(kind))
        if method is None:
            raise TypeError(f"{dotted(place)}: no rule for {type(kind).__name__}")
        return method(self, node, kind, place)  # type: ignore[call-arg, arg-type]

    def _member(self, node: yaml.Node, kind: inspect.UnionType) -> Any:
        """The member of a union that this node can be; the first one if none."""
        wanted: tuple[type, ...] = (inspect.StrType, inspect.IntType, inspect.BoolType, inspect.LiteralType)
        if isinstance(node, yaml.MappingNode):
            wanted = (inspect.StructType, inspect.DictType)
        elif isinstance(node, yaml.SequenceNode):
            wanted = (inspect.ListType, inspect.VarTupleType)
        elif node.tag == "tag:yaml.org,2002:null":
            wanted = (inspect.NoneType,)
        return next((member for member in kind.types if isinstance(member, wanted)), kind.types[0])

    def pairs(self, node: yaml.Node, place: Place) -> list[tuple[str, yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self.bad(place, "must be a mapping")
            return []
        found: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                at = (*place, str(key.value) if isinstance(key, yaml.ScalarNode) else "?")
                self.marks.setdefault(at, (key.start_mark.line + 1, key.start_mark.column + 1))
                self.bad(at, "a key must be text (quote it)")
            elif key.value in found:
                self.bad((*place, key.value), f"written twice, again in line {key.start_mark.line + 1}")
            else:
                self.marks[(*place, key.value)] = (key.start_mark.line + 1, key.start_mark.column + 1)
                found[key.value] = (key.value, key, value)
        return list(found.values())

    def struct(self, node: yaml.Node, kind: inspect.StructType, place: Place) -> Any:
        before = len(self.problems)
        pairs = self.pairs(node, place)
        fields = {field.encode_name: field for field in kind.fields}
        out: dict[str, Any] = {}
        for name, _, value in pairs:
            field = fields.get(name)
            if field is None:
                close = difflib.get_close_matches(name, fields, 1)
                self.bad(
                    (*place, name), "not a known field" + (f" (did you mean {close[0]}?)" if close else "")
                )
            else:
                out[name] = self.walk(value, field.type, (*place, name))
        if isinstance(node, yaml.MappingNode) or len(self.problems) == before:
            for name, field in fields.items():
                if field.required and name not in out:
                    self.bad(place, f"{name} is missing")
        return out

    def mapping(self, node: yaml.Node, kind: inspect.DictType, place: Place) -> Any:
        return {
            name: self.walk(value, kind.value_type, (*place, name))
            for name, _, value in self.pairs(node, place)
        }

    def sequence(self, node: yaml.Node, kind: inspect.ListType | inspect.VarTupleType, place: Place) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            self.bad(place, "must be a list")
            return []
        return [self.walk(item, kind.item_type, (*place, index)) for index, item in enumerate(node.value)]

    def text(self, node: yaml.Node, kind: inspect.StrType, place: Place) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            self.bad(place, "must be text")
        elif node.tag != "tag:yaml.org,2002:str":
            self.bad(
                place, f"must be text: quote it ('{node.value}')" if node.value else "must be text, not empty"
            )
        else:
            if kind.min_length is not None and len(node.value) < kind.min_length:
                self.bad(place, "must not be empty")
            elif kind.pattern is not None and not re.search(kind.pattern, node.value):
                self.bad(place, f"must match {kind.pattern}")
            return node.value
        return ""

    def literal(self, node: yaml.Node, kind: inspect.LiteralType, place: Place) -> Any:
        value = self._scalar(node)
        if value not in kind.values:
            names = ", ".join(sorted(str(item) for item in kind.values))
            close = difflib.get_close_matches(str(value), [str(item) for item in kind.values], 1)
            self.bad(place, f"must be one of {names}" + (f" (did you mean {close[0]}?)" if close else ""))
        return value

    def boolean(self, node: yaml.Node, kind: inspect.BoolType, place: Place) -> Any:
        value = self._scalar(node)
        if not isinstance(value, bool):
            self.bad(place, "must be true or false")
        return value

    def integer(self, node: yaml.Node, kind: inspect.IntType, place: Place) -> Any:
        value = self._scalar(node)
        if isinstance(value, bool) or not isinstance(value, int):
            self.bad(place, "must be a whole number")
        elif (kind.ge is not None and value < kind.ge) or (kind.le is not None and value > kind.le):
            self.bad(
                place,
                f"must be at least {kind.ge}" if kind.le is None else f"must lie in {kind.ge}..{kind.le}",
            )
        return value

    def nothing(self, node: yaml.Node, kind: inspect.NoneType, place: Place) -> Any:
        return None

    @staticmethod
    def _scalar(node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return ()
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            return node.value
        finally:
            loader.dispose()


_METHODS: dict[type, Any] = {
    inspect.StructType: _Walker.struct,
    inspect.DictType: _Walker.mapping,
    inspect.ListType: _Walker.sequence,
    inspect.VarTupleType: _Walker.sequence,
    inspect.StrType: _Walker.text,
    inspect.LiteralType: _Walker.literal,
    inspect.BoolType: _Walker.boolean,
    inspect.IntType: _Walker.integer,
    inspect.NoneType: _Walker.nothing,
}
