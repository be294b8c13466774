"""Detector configuration files: YAML read into nodes that know their line and column.

Only the plain part of YAML is taken: mappings, lists and values as they are written. Refused are duplicate keys, anchors,
and words that YAML would silently turn into a boolean (`no`, `on`): an analyst's `off` must not become `False`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from detectors.config import Config, Entry, Mapping, Node, Problem, Scalar, Sequence, parse_config

MAX_BYTES = 1_000_000
"""A configuration of a megabyte is a mistake."""


class ConfigError(Exception):
    """A configuration file with problems; `str()` lists them all, one a line."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        super().__init__("\n".join(problem.located(file) for problem in problems))


class _Composer:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.seen: set[int] = set()

    def wrong(self, node: yaml.Node, path: str, message: str) -> None:
        self.problems.append(Problem(node.start_mark.line + 1, node.start_mark.column + 1, path, message))

    def build(self, node: yaml.Node, path: str) -> Node:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if id(node) in self.seen:
            self.wrong(node, path, "anchors and aliases are not taken: write the value out")
            return Scalar(line, column, "")
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return Mapping(line, column, self.entries(node, path))
        if isinstance(node, yaml.SequenceNode):
            return Sequence(line, column, tuple(self.build(child, path) for child in node.value))
        return Scalar(line, column, self.scalar(node, path))

    def scalar(self, node: yaml.Node, path: str) -> str:
        if node.tag == "tag:yaml.org,2002:bool":
            self.wrong(
                node, path, f"{node.value} is a boolean in YAML: put it in quotes if the word is meant"
            )
        if node.tag == "tag:yaml.org,2002:null":
            return ""
        return str(node.value)

    def entries(self, node: yaml.MappingNode, path: str) -> tuple[Entry, ...]:
        found: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.wrong(key_node, path, "a name must be a plain word")
                continue
            key = self.scalar(key_node, path)
            where = f"{path}.{key}" if path else key
            if key in found:
                self.wrong(key_node, where, f"is set twice; the first is in line {found[key].line}")
                continue
            found[key] = Entry(line, column, key, self.build(value_node, where))
        return tuple(found.values())


def read_tree(text: str) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML text, and what is wrong with it as YAML."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return None, [Problem(line, column, "", f"not YAML: {error.problem or error.context}")]
    except yaml.YAMLError as error:
        return None, [Problem(1, 1, "", f"not YAML: {' '.join(str(error).split())}")]
    except RecursionError:
        return None, [Problem(1, 1, "", "nested too deeply")]
    if root is None:
        return None, [Problem(1, 1, "", "the file is empty")]
    composer = _Composer()
    tree = composer.build(root, "")
    return tree, composer.problems


def parse_text(text: str) -> tuple[Config | None, list[Problem]]:
    """The configuration in a YAML text, or every problem that it has, in the order of the file."""
    tree, problems = read_tree(text)
    if tree is None:
        return None, problems
    config, more = parse_config(tree)
    everything = sorted([*problems, *more])
    return (None if everything else config), everything


def load_config(path: Path) -> Config:
    """The configuration in a file. Raises `ConfigError` with every problem, each with its place."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(file, [Problem(1, 1, "", f"cannot be read: {error.strerror}")]) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(file, [Problem(1, 1, "", f"is longer than {MAX_BYTES} bytes")])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(file, [Problem(line, 1, "", "is not UTF-8")]) from error
    config, problems = parse_text(text)
    if config is None:
        raise ConfigError(file, problems)
    return config
