"""`safehold detectors list | show`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.exits import CliError
from streams.cli.helping import HelpGroup
from streams.cli.output import JSON_OPTION, emit, say, table, terminal_width

if TYPE_CHECKING:
    from detectors.spec import DetectorSpec

app = typer.Typer(help="What Safehold looks for.", cls=HelpGroup, no_args_is_help=True, rich_markup_mode=None)

WIDTH = 100


def _specs() -> list[DetectorSpec]:
    from detectors.catalogue import ALL

    return [detector.SPEC for detector in ALL]


@app.command("list")
def list_all(as_json: bool = JSON_OPTION) -> None:
    """Every detector, with its family and points."""
    specs = _specs()
    if as_json:
        emit([_plain(spec) for spec in specs])
        return
    table(
        ("id", "family", "points", "what it finds"),
        ((s.id, s.family, s.points, s.title) for s in specs),
        terminal_width(),
    )


@app.command()
def show(
    detector: str = typer.Argument(help="Id of a detector, as in `safehold detectors list`."),
    as_json: bool = JSON_OPTION,
) -> None:
    """One detector in full: thresholds, sources, look-alikes, blind spots, what to do."""
    specs = {spec.id: spec for spec in _specs()}
    spec = specs.get(detector)
    if spec is None:
        import difflib

        begun = [known for known in specs if detector and known.startswith(detector)]
        near = begun or difflib.get_close_matches(detector, specs, n=1)
        raise CliError(
            f"there is no detector {detector!r}" + (f"; did you mean {near[0]}?" if near else ""),
            look="safehold detectors list",
        )
    if as_json:
        emit(_plain(spec))
        return
    say(f"{spec.id} — {spec.title}")
    say(
        f"{spec.stage} · family {spec.family} · {spec.points} points at full strength · {spec.maturity} since {spec.since}"
    )
    _paragraph("", spec.summary)
    _paragraph("strength", spec.strength)
    say("\nparameters")
    table(
        ("name", "default", "from", "to", "origin", "what"),
        (
            (p.name, _value(p.kind, p.default), _value(p.kind, p.min), _value(p.kind, p.max), p.tag, p.text)
            for p in spec.params
        ),
    )
    _items("look-alikes that must stay quiet", [look.text for look in spec.look_alikes])
    _items("what it misses", spec.misses)
    _items("what to do", spec.runbook)
    _items(
        "sources",
        [f"{s.publisher}, {s.title} ({s.year}), {s.section}; read: {s.read}. {s.note}" for s in spec.sources],
    )


def _plain(spec: DetectorSpec) -> Any:
    import msgspec

    return msgspec.to_builtins(spec)


def _value(kind: str, value: int) -> str:
    from detectors.spec import Kind
    from detectors.units import show as written

    return written(Kind(kind), value)


def _paragraph(head: str, text: str) -> None:
    say("")
    if head:
        say(head)
    say(
        textwrap.fill(
            text, WIDTH, initial_indent="  " if head else "", subsequent_indent="  " if head else ""
        )
    )


def _items(head: str, items: Any) -> None:
    if not items:
        return
    say(f"\n{head}")
    for item in items:
        say(textwrap.fill(str(item), WIDTH, initial_indent="  - ", subsequent_indent="    "))
