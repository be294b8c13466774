"""What is generated from the specifications: shipped configurations, their JSON Schema, and the detectors' pages.

`python -m streams.docs` writes them all; a test compares them with what is checked in.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from detectors.catalogue import SPECS
from detectors.config import MAX_ACTIONS, MODES, STATES, Config, default_config, demo_config
from detectors.sections import SECTION_TEXT, SECTIONS
from detectors.spec import MEASURE_KIND, MEASURE_TEXT, NOT_COMPUTABLE, DetectorSpec, Kind, Param
from detectors.typologies import TYPOLOGIES, Typology
from detectors.units import HOW, PATTERN, show

SCHEMA_FILE = "detectors.schema.json"
WIDTH = 110


# Configuration files --------------------------------------------------------------------------------------------


def _comment(text: str, indent: str) -> list[str]:
    width = WIDTH - len(indent) - 2
    return [f"{indent}# {line}" for line in textwrap.wrap(text, width, break_long_words=False)]


def _numbers(params: tuple[Param, ...], values: dict[str, int], indent: str) -> list[str]:
    lines = []
    for p in params:
        bounds = f"{show(p.kind, p.min)} to {show(p.kind, p.max)}"
        lines += _comment(f"{p.text} ({bounds}; {p.tag.value}): {p.why}", indent)
        lines.append(f"{indent}{p.name}: {show(p.kind, values[p.name])}")
    return lines


def config_yaml(config: Config, headline: str) -> str:
    """A configuration as a file for analysts: every value with its unit, bounds, origin and reason."""
    lines = [f"# yaml-language-server: $schema={SCHEMA_FILE}", *_comment(headline, "")]
    lines += [
        "# Generated from the detectors' specifications by `python -m streams.docs`; a value left out has its default.",
        "",
    ]
    lines += _comment("name of this configuration, as people and recommendations speak of it", "")
    lines += [f"version: {config.version}"]
    lines += _comment(
        "learn: state fills, nothing is said; observe: to the observe topic only; advise: to the review topic",
        "",
    )
    lines += [f"mode: {config.mode.value}"]
    lines += _comment(
        "the greatest action: none, monitor, hold-and-review or freeze. Safeguarding replaces the last two.",
        "",
    )
    lines += [f"max_action: {config.max_action}"]
    lines += _comment("legal banks that differ, by name: `name: {mode: advise, max_action: freeze}`", "")
    lines += ["entities: {}", ""]
    for name, params in SECTIONS.items():
        lines += [f"# {SECTION_TEXT[name]}", f"{name}:", *_numbers(params, getattr(config, name), "  "), ""]
    lines += [
        "# named patterns: what their gates ask for, and what each indicator weighs as evidence",
        "typologies:",
    ]
    for typology in TYPOLOGIES:
        chosen = config.typologies[typology.id]
        lines += [f"  {typology.id}:", "    needs:"]
        for need in typology.needs:
            members = ", ".join([*need.indicators, *(f"family {family.value}" for family in need.families)])
            lines += _comment(f"{need.text}, at least so many of: {members}", "      ")
            lines.append(f"      {need.name}: {chosen.needs[need.name]}")
        lines += ["    weights:", *(f"      {name}: {weight}" for name, weight in chosen.weights.items())]
    lines += ["", "# state: live gives points, shadow gives hits only, disabled is not judged", "detectors:"]
    for spec in SPECS:
        chosen_detector = config.detectors[spec.id]
        lines += [
            "",
            *_comment(f"{spec.title}: {spec.summary}", "  "),
            f"  {spec.id}:",
            f"    state: {chosen_detector.state}",
        ]
        lines += _numbers(spec.params, chosen_detector.params, "    ")
    return "\n".join(lines) + "\n"


def shipped_configs() -> dict[str, str]:
    """Configuration files by name."""
    production = (
        "Safehold's detectors as shipped for production: observe only, and nothing above a hold for review. Every number is "
        "a starting value: try changes on your own history before you publish them."
    )
    demo = "Safehold's detectors as the demo, `judge` and evaluation use them: everything is said, up to a freeze."
    return {
        "detectors.yaml": config_yaml(default_config(), production),
        "demo.yaml": config_yaml(demo_config(), demo),
    }


# JSON Schema ----------------------------------------------------------------------------------------------------


def _value(p: Param) -> dict[str, Any]:
    types: list[str] | str = ["string", "number"] if p.kind == Kind.POINTS else "string"
    if p.kind == Kind.COUNT:
        types = "integer"
    found: dict[str, Any] = {
        "type": types,
        "description": f"{p.text}. {HOW[p.kind]}; {show(p.kind, p.min)} to {show(p.kind, p.max)}. Why "
        f"{show(p.kind, p.default)} ({p.tag.value}): {p.why}.",
    }
    if p.kind == Kind.COUNT:
        found |= {"default": p.default, "minimum": p.min, "maximum": p.max}
    elif p.kind == Kind.POINTS:
        found |= {"default": show(p.kind, p.default), "pattern": PATTERN[p.kind]}
    else:
        found |= {"default": show(p.kind, p.default), "pattern": PATTERN[p.kind]}
    return found


def _object(properties: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": properties,
    }


def _choice(values: tuple[str, ...], description: str, default: str) -> dict[str, Any]:
    return {"enum": list(values), "description": description, "default": default}


def _detector(spec: DetectorSpec) -> dict[str, Any]:
    state = _choice(STATES, "live gives points, shadow gives hits only, disabled is not judged", "live")
    return _object(
        {"state": state, **{p.name: _value(p) for p in spec.params}}, f"{spec.title}. {spec.summary}"
    )


def _typology(typology: Typology) -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0, "maximum": 20}
    needs = {n.name: count | {"description": n.text, "default": n.at_least} for n in typology.needs}
    weights = {
        s.id: count | {"description": s.title, "default": typology.weights.get(s.id, 0)} for s in SPECS
    }
    return _object(
        {
            "needs": _object(needs, "what the gate asks for"),
            "weights": _object(weights, "evidence by indicator"),
        },
        typology.title,
    )


def config_schema() -> dict[str, Any]:
    """JSON Schema of a detector configuration, for editors."""
    mode = _choice(
        MODES, "what is said: nothing, to the observe topic only, or to the review topic", "observe"
    )
    action = _choice(MAX_ACTIONS, "the greatest action", "hold-and-review")
    entity = _object({"mode": mode, "max_action": action}, "what is said of one legal bank's accounts")
    schema = _object(
        {
            "version": {"type": "string", "minLength": 1, "description": "name of this configuration"},
            "mode": mode,
            "max_action": action,
            "entities": {
                "type": "object",
                "description": "legal banks that differ",
                "additionalProperties": entity,
            },
            **{
                name: _object({p.name: _value(p) for p in params}, SECTION_TEXT[name])
                for name, params in SECTIONS.items()
            },
            "typologies": _object({t.id: _typology(t) for t in TYPOLOGIES}, "named patterns"),
            "detectors": _object({s.id: _detector(s) for s in SPECS}, "the detectors"),
        },
        "Detector configuration of Safehold",
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Safehold detectors",
        **schema,
        "required": ["version"],
    }


# Pages ----------------------------------------------------------------------------------------------------------


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows),
    ]


def detector_page(spec: DetectorSpec) -> str:
    """A detector's page."""
    side = "both sides" if spec.trigger is None else f"{spec.trigger.name.lower()} legs only"
    lines = [f"# {spec.id}", "", f"**{spec.title}.** {spec.summary}", ""]
    lines += _table(
        ("", ""),
        [
            ("stage", spec.stage.value),
            ("family", spec.family.value),
            ("points at full strength", str(spec.points)),
            ("role hints", ", ".join(role.value for role in spec.roles)),
            ("judged", side),
            ("maturity", f"{spec.maturity.value}, since {spec.since}"),
        ],
    )
    lines += [
        "",
        "## Strength",
        "",
        spec.strength,
        "",
        f"It says: *{spec.sentence}*",
        "",
        "## Parameters",
        "",
    ]
    lines += _table(
        ("name", "default", "from", "to", "what it is", "why", "origin"),
        [
            (
                f"`{p.name}`",
                show(p.kind, p.default),
                show(p.kind, p.min),
                show(p.kind, p.max),
                p.text,
                p.why,
                p.tag.value,
            )
            for p in spec.params
        ],
    )
    lines += ["", "## Measures", ""]
    lines += _table(
        ("name", "what it is", "unit"),
        [(f"`{m}`", MEASURE_TEXT[m], MEASURE_KIND[m].value) for m in spec.measures],
    )
    lines += [
        "",
        "## Look-alikes",
        "",
        f"Lawful life that resembles it. Each names a case in `tests/cases/{spec.id}.yaml`.",
        "",
    ]
    lines += [f"- {item.text} (`{item.case}`)" for item in spec.look_alikes]
    lines += ["", "## What it misses", "", *(f"- {item}" for item in spec.misses)]
    lines += ["", "## What to do", "", *(f"{i}. {step}" for i, step in enumerate(spec.runbook, 1))]
    lines += ["", "## Sources", ""]
    lines += [
        f"- {s.publisher}, *{s.title}* ({s.year}), {s.section}. {s.note} Read: {s.read.value}."
        for s in spec.sources
    ]
    return "\n".join(lines) + "\n"


def index_page() -> str:
    """The list of the detectors and patterns."""
    lines = [
        "# Detectors",
        "",
        "Generated from the specifications by `python -m streams.docs`. Do not edit by hand.",
        "",
    ]
    lines += _table(
        ("detector", "finds", "family", "points", "state"),
        [(f"[{s.id}]({s.id}.md)", s.title, s.family.value, str(s.points), s.maturity.value) for s in SPECS],
    )
    lines += [
        "",
        "Origin of a figure: `SRC` stated in the source, `DRV` derived from a figure in it, `START` a starting value to be tuned.",
        "A value that could not be computed is never zero: " + ", ".join(NOT_COMPUTABLE.values()) + ".",
        "",
        "## Patterns",
        "",
    ]
    for typology in TYPOLOGIES:
        lines += [f"**{typology.id}** ({typology.code}): {typology.title}. Its gate:", ""]
        for need in typology.needs:
            members = ", ".join(
                [*need.indicators, *(f"the family {family.value}" for family in need.families)]
            )
            lines.append(f"- at least {need.at_least} of {members} ({need.text})")
        lines += ["", "To rule out:", "", *(f"- {text}" for text in typology.look_alikes), ""]
    lines += [
        "Where no gate holds the name is **unattributed-laundering**. Points alone never name a pattern.",
        "",
    ]
    return "\n".join(lines)


def generated() -> dict[str, str]:
    """Every generated file by its path in the repository."""
    files = {f"deploy/config/{name}": text for name, text in shipped_configs().items()}
    files[f"deploy/config/{SCHEMA_FILE}"] = json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n"
    files["docs/detectors/README.md"] = index_page()
    files |= {f"docs/detectors/{spec.id}.md": detector_page(spec) for spec in SPECS}
    return files


def main() -> int:
    """Write every generated file below the folder given, else here."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd()
    for name, text in generated().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
