"""Every number that a detector or the scoring uses: defaults, canonical bytes, digest, and parsing with all problems at once.

The file itself is read in `streams.config_file`; here it is a tree of nodes that know their line and column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from hashlib import blake2b
from itertools import pairwise
from typing import Final

import msgspec

from detectors.catalogue import SPECS
from detectors.model import ACTION_NAMES, DAY, LAYOUT_VERSION, PPM, Action, Mode
from detectors.sections import SECTIONS
from detectors.spec import DetectorSpec, Kind, Maturity, Param, Params
from detectors.typologies import TYPOLOGIES, Typology
from detectors.units import HOW, parse, show

HOLD: Final = 32 * DAY
"""Length of what the state holds (`W` of docs/state.md): no look-back may be longer."""

STATES: Final = ("live", "shadow", "disabled")
"""`live` gives points; `shadow` gives hits only; `disabled` is not judged."""

MAX_ACTIONS: Final = ACTION_NAMES[: Action.FREEZE + 1]
MODES: Final = tuple(mode.value for mode in Mode)


class DetectorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State and parameters of one detector."""

    state: str
    params: dict[str, int]


class TypologyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many indicators each need of a gate asks for, and what each indicator weighs."""

    needs: dict[str, int]
    weights: dict[str, int]


class EntityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of the accounts of one legal bank."""

    mode: Mode
    max_action: str


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole detector configuration. Two with the same content have the same bytes."""

    version: str
    mode: Mode
    max_action: str
    entities: dict[str, EntityConfig]
    measures: dict[str, int]
    scoring: dict[str, int]
    durations: dict[str, int]
    essentials: dict[str, int]
    typologies: dict[str, TypologyConfig]
    detectors: dict[str, DetectorConfig]

    def params(self, detector: str) -> Params:
        """Parameters of one detector."""
        return Params(self.detectors[detector].params)

    def state(self, detector: str) -> str:
        """`live`, `shadow` or `disabled`."""
        return self.detectors[detector].state

    def for_entity(self, entity: str) -> EntityConfig:
        """Mode and greatest action for a legal bank."""
        found = self.entities.get(entity)
        return found if found is not None else EntityConfig(mode=self.mode, max_action=self.max_action)

    def canonical(self) -> bytes:
        """Canonical JSON."""
        return msgspec.json.encode(self, order="sorted")

    def digest(self, *, engine: str, tzdata: str, layout: int = LAYOUT_VERSION) -> str:
        """Digest of everything besides the records that an answer depends on."""
        versions = msgspec.json.encode({"engine": engine, "layout": layout, "tzdata": tzdata}, order="sorted")
        return blake2b(self.canonical() + b"\n" + versions, digest_size=16).hexdigest()

    @staticmethod
    def from_json(document: bytes) -> Config:
        """The configuration in a ledger record. What a newer engine added is absent: off, or at its default."""
        config = _complete(msgspec.json.decode(document, type=Config))
        problems = [f"{path}: {message}" for path, message in _cross_field(config, HOLD)]
        problems += [f"{path}: {message}" for path, message in _out_of_bounds(config)]
        if problems:
            raise ValueError("; ".join(problems))
        return config


def default_config(
    *, version: str = "shipped", mode: Mode = Mode.OBSERVE, max_action: str = "hold-and-review"
) -> Config:
    """The configuration as shipped for production."""
    return Config(
        version=version,
        mode=mode,
        max_action=max_action,
        entities={},
        measures=_defaults(SECTIONS["measures"]),
        scoring=_defaults(SECTIONS["scoring"]),
        durations=_defaults(SECTIONS["durations"]),
        essentials=_defaults(SECTIONS["essentials"]),
        typologies={t.id: _typology_defaults(t) for t in TYPOLOGIES},
        detectors={s.id: DetectorConfig(state=_state(s), params=_defaults(s.params)) for s in SPECS},
    )


def demo_config() -> Config:
    """The configuration of the demo, of `judge` and of evaluation: everything is said, up to a freeze."""
    return default_config(version="demo", mode=Mode.ADVISE, max_action="freeze")


def _defaults(params: Iterable[Param]) -> dict[str, int]:
    return {param.name: param.default for param in params}


def _state(spec: DetectorSpec) -> str:
    return {Maturity.PRODUCTION: "live", Maturity.EXPERIMENTAL: "shadow", Maturity.RETIRED: "disabled"}[
        spec.maturity
    ]


def _typology_defaults(typology: Typology) -> TypologyConfig:
    return TypologyConfig(needs={n.name: n.at_least for n in typology.needs}, weights=dict(typology.weights))


def _complete(config: Config) -> Config:
    """The same with what is absent filled in; a detector that is absent is disabled. Unknown names stay to be refused."""
    detectors = {
        s.id: config.detectors.get(s.id, DetectorConfig(state="disabled", params={})) for s in SPECS
    } | config.detectors
    filled = {
        s.id: msgspec.structs.replace(detectors[s.id], params=_defaults(s.params) | detectors[s.id].params)
        for s in SPECS
    }
    typologies = {t.id: _typology_defaults(t) for t in TYPOLOGIES} | config.typologies
    sections = {name: _defaults(params) | getattr(config, name) for name, params in SECTIONS.items()}
    return msgspec.structs.replace(config, detectors=detectors | filled, typologies=typologies, **sections)


# Rules between fields -------------------------------------------------------------------------------------------


def _chain(
    where: str, values: dict[str, int], params: Iterable[Param], chain: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    kinds = {param.name: param.kind for param in params}
    for smaller, greater in pairwise(chain):
        if smaller in values and greater in values and values[smaller] > values[greater]:
            low, high = show(kinds[smaller], values[smaller]), show(kinds[greater], values[greater])
            yield f"{where}.{greater}", f"{high} is below {smaller} ({low})"


def _look_backs(config: Config, hold: int) -> Iterator[tuple[str, str]]:
    horizon = config.detectors["rapid-pass-through"].params["horizon"]
    for spec in SPECS:
        if spec.window is None or config.state(spec.id) == "disabled":
            continue
        length = config.detectors[spec.id].params[spec.window]
        reach = length + 2 * horizon if spec.lots else length
        if reach > hold:
            lots = (
                f" with twice rapid-pass-through.horizon ({show(Kind.DURATION, horizon)})"
                if spec.lots
                else ""
            )
            yield (
                f"detectors.{spec.id}.{spec.window}",
                f"{show(Kind.DURATION, length)}{lots} is longer than the {show(Kind.DURATION, hold)} that the state holds",
            )


def _gates(config: Config) -> Iterator[tuple[str, str]]:
    for typology in TYPOLOGIES:
        for need in typology.needs:
            members = [s.id for s in SPECS if s.id in need.indicators or s.family in need.families]
            live = [name for name in members if config.state(name) == "live"]
            wanted = config.typologies[typology.id].needs.get(need.name, need.at_least)
            if len(live) < wanted:
                yield (
                    f"typologies.{typology.id}.needs.{need.name}",
                    f"asks for {wanted} of {', '.join(members)}, of which {len(live)} are live: it can never hold",
                )


def _cross_field(config: Config, hold: int) -> Iterator[tuple[str, str]]:
    for spec in SPECS:
        for chain in spec.ordered:
            yield from _chain(f"detectors.{spec.id}", config.detectors[spec.id].params, spec.params, chain)
    passing, cash = config.detectors["rapid-pass-through"].params, config.detectors["rapid-cash-out"].params
    if cash["horizon"] > passing["horizon"]:
        longest = show(Kind.DURATION, passing["horizon"])
        yield (
            "detectors.rapid-cash-out.horizon",
            f"{show(Kind.DURATION, cash['horizon'])} is longer than rapid-pass-through.horizon ({longest}), which bounds the lots",
        )
    kept = config.detectors["commission-retention"].params["kept_low"]
    if kept >= PPM - passing["share_out"] and kept:
        most = show(Kind.RATIO, PPM - passing["share_out"])
        yield (
            "detectors.commission-retention.kept_low",
            f"{show(Kind.RATIO, kept)} is never kept: rapid-pass-through.share_out leaves {most} at most",
        )
    scoring = SECTIONS["scoring"]
    for chain in (("monitor", "hold", "freeze"), ("hold_families", "freeze_families")):
        yield from _chain("scoring", config.scoring, scoring, chain)
    yield from _look_backs(config, hold)


def _bounds(param: Param, value: int) -> str | None:
    """What is wrong with a value, if anything."""
    if value < param.min:
        return (
            f"{show(param.kind, value)} is below the minimum {show(param.kind, param.min)} (why: {param.why})"
        )
    if value > param.max:
        return (
            f"{show(param.kind, value)} is above the maximum {show(param.kind, param.max)} (why: {param.why})"
        )
    return None


def _out_of_bounds(config: Config) -> Iterator[tuple[str, str]]:
    """Unknown names and values outside their bounds in a configuration that did not come through the parser."""
    tables: list[tuple[str, tuple[Param, ...], dict[str, int]]] = [
        (name, params, getattr(config, name)) for name, params in SECTIONS.items()
    ]
    known = {spec.id: spec for spec in SPECS}
    for name, detector in config.detectors.items():
        if name not in known:
            yield f"detectors.{name}", "no such detector"
            continue
        tables.append((f"detectors.{name}", known[name].params, detector.params))
        if detector.state not in STATES:
            yield f"detectors.{name}.state", f"{detector.state} is none of {', '.join(STATES)}"
    for where, params, values in tables:
        by_name = {param.name: param for param in params}
        for name, value in values.items():
            if name not in by_name:
                yield f"{where}.{name}", "no such number"
            elif (wrong := _bounds(by_name[name], value)) is not None:
                yield f"{where}.{name}", wrong


# Parsing --------------------------------------------------------------------------------------------------------


class Scalar(msgspec.Struct, frozen=True):
    """A single value, as written."""

    line: int
    column: int
    text: str


class Entry(msgspec.Struct, frozen=True):
    """One key of a mapping and its value."""

    line: int
    column: int
    key: str
    node: Node


class Mapping(msgspec.Struct, frozen=True):
    """Keys and values in the order of the file. Keys differ."""

    line: int
    column: int
    entries: tuple[Entry, ...]


class Sequence(msgspec.Struct, frozen=True):
    """A list of values."""

    line: int
    column: int
    items: tuple[Node, ...]


Node = Scalar | Mapping | Sequence


class Problem(msgspec.Struct, frozen=True, order=True):
    """Something wrong in a configuration file, and where."""

    line: int
    column: int
    path: str
    message: str

    def located(self, file: str) -> str:
        """One line for people and for editors."""
        return (
            f"{file}:{self.line}:{self.column} {self.path}: {self.message}"
            if self.path
            else (f"{file}:{self.line}:{self.column} {self.message}")
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """Hint at the known name that was probably meant."""
    found = get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""


class _Reader:
    """Walks a tree, collects problems, and remembers where each path stood."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {}

    def wrong(self, node: Node | Entry, path: str, message: str) -> None:
        self.problems.append(Problem(node.line, node.column, path, message))

    def entries(self, node: Node, path: str, known: Iterable[str] | None) -> dict[str, Node]:
        """The values of a mapping by key; unknown keys are problems. `known` None = any key."""
        self.places[path] = (node.line, node.column)
        if not isinstance(node, Mapping):
            self.wrong(node, path, "must be a mapping of names to values")
            return {}
        names = None if known is None else list(known)
        found = {}
        for entry in node.entries:
            where = f"{path}.{entry.key}" if path else entry.key
            if names is not None and entry.key not in names:
                self.wrong(entry, where, f"no such name{nearest(entry.key, names)}")
                continue
            self.places[where] = (entry.node.line, entry.node.column)
            found[entry.key] = entry.node
        return found

    def text(self, node: Node, path: str) -> str | None:
        if isinstance(node, Scalar) and node.text:
            return node.text
        self.wrong(node, path, "needs a value")
        return None

    def choice(self, node: Node | None, path: str, known: Iterable[str], default: str) -> str:
        if node is None:
            return default
        text = self.text(node, path)
        names = list(known)
        if text is not None and text not in names:
            self.wrong(node, path, f"{text} is none of {', '.join(names)}{nearest(text, names)}")
        return text if text in names else default

    def number(self, node: Node, path: str, param: Param) -> int:
        """The value of one parameter, or its default where the text is wrong (a problem is then noted)."""
        text = self.text(node, path)
        if text is None:
            return param.default
        value = parse(param.kind, text)
        if value is None:
            self.wrong(node, path, f"{text} must be {HOW[param.kind]}")
            return param.default
        if (message := _bounds(param, value)) is not None:
            self.wrong(node, path, message)
        return value

    def numbers(self, nodes: dict[str, Node], path: str, params: Iterable[Param]) -> dict[str, int]:
        return {
            param.name: self.number(nodes[param.name], f"{path}.{param.name}", param)
            if param.name in nodes
            else param.default
            for param in params
        }


def _count(name: str, default: int, high: int, text: str) -> Param:
    return Param(
        name=name, kind=Kind.COUNT, default=default, min=0, max=high, text=text, why="size of the gate"
    )


def _read_detector(reader: _Reader, spec: DetectorSpec, node: Node | None) -> DetectorConfig:
    if node is None:
        return DetectorConfig(state=_state(spec), params=_defaults(spec.params))
    path = f"detectors.{spec.id}"
    nodes = reader.entries(node, path, ("state", *(param.name for param in spec.params)))
    state = reader.choice(nodes.get("state"), f"{path}.state", STATES, _state(spec))
    return DetectorConfig(state=state, params=reader.numbers(nodes, path, spec.params))


def _read_typology(reader: _Reader, typology: Typology, node: Node | None) -> TypologyConfig:
    default = _typology_defaults(typology)
    if node is None:
        return default
    path = f"typologies.{typology.id}"
    nodes = reader.entries(node, path, ("needs", "weights"))
    names = [spec.id for spec in SPECS]
    values: dict[str, dict[str, int]] = {"needs": default.needs, "weights": default.weights}
    for part, known in (("needs", list(default.needs)), ("weights", names)):
        if part in nodes:
            given = reader.entries(nodes[part], f"{path}.{part}", known)
            params = [_count(name, values[part].get(name, 0), 20, part) for name in given]
            values[part] = values[part] | reader.numbers(given, f"{path}.{part}", params)
    return TypologyConfig(**values)


def _read_entities(reader: _Reader, node: Node | None, mode: str, action: str) -> dict[str, EntityConfig]:
    if node is None:
        return {}
    found = {}
    for name, child in reader.entries(node, "entities", None).items():
        path = f"entities.{name}"
        nodes = reader.entries(child, path, ("mode", "max_action"))
        found[name] = EntityConfig(
            mode=Mode(reader.choice(nodes.get("mode"), f"{path}.mode", MODES, mode)),
            max_action=reader.choice(nodes.get("max_action"), f"{path}.max_action", MAX_ACTIONS, action),
        )
    return found


def parse_config(tree: Node, *, hold: int = HOLD) -> tuple[Config | None, list[Problem]]:
    """The configuration in a tree, or every problem that it has. What the file leaves out has its default."""
    reader = _Reader()
    top = reader.entries(
        tree, "", ("version", "mode", "max_action", "entities", *SECTIONS, "typologies", "detectors")
    )
    mode = reader.choice(top.get("mode"), "mode", MODES, Mode.OBSERVE)
    action = reader.choice(top.get("max_action"), "max_action", MAX_ACTIONS, "hold-and-review")
    version = reader.text(top["version"], "version") if "version" in top else None
    if "version" not in top:
        reader.wrong(tree, "version", "is missing: name this configuration, so that people can speak of it")

    def children(name: str, known: Iterable[str]) -> dict[str, Node]:
        return reader.entries(top[name], name, known) if name in top else {}

    sections = {
        name: reader.numbers(children(name, [param.name for param in params]), name, params)
        for name, params in SECTIONS.items()
    }
    typologies = children("typologies", [t.id for t in TYPOLOGIES])
    detectors = children("detectors", [s.id for s in SPECS])
    config = Config(
        version=version or "",
        mode=Mode(mode),
        max_action=action,
        entities=_read_entities(reader, top.get("entities"), mode, action),
        typologies={t.id: _read_typology(reader, t, typologies.get(t.id)) for t in TYPOLOGIES},
        detectors={s.id: _read_detector(reader, s, detectors.get(s.id)) for s in SPECS},
        **sections,
    )
    for path, message in (*_cross_field(config, hold), *_gates(config)):
        line, column = _place(reader.places.get, path) or (tree.line, tree.column)
        reader.problems.append(Problem(line, column, path, message))
    return (None if reader.problems else config), sorted(reader.problems)


def _place(find: Callable[[str], tuple[int, int] | None], path: str) -> tuple[int, int] | None:
    """Where a path stands, or the nearest part of it that the file has."""
    while path:
        if (place := find(path)) is not None:
            return place
        path = path.rpartition(".")[0]
    return find("")
