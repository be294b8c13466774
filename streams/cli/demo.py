"""`safehold demo`: everything once, on this machine, with nothing installed besides."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streams.cli.exits import CliError, Exit
from streams.cli.output import note, paragraph, say, table, terminal_width

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streams.demo import Finished, View

PLAIN_EVERY = 3.0
"""Seconds between two plain progress lines."""

STILL_EVERY = 10.0
"""The same while nothing moves yet."""

GRAVEST = ("freeze", "hold-and-review", "safeguard-first")
SHOWN_ACCOUNTS = 12


def demo(
    headless: bool = typer.Option(False, "--headless", help="Plain lines, no terminal."),
    seconds: float = typer.Option(
        -1.0,
        "--seconds",
        show_default=False,
        help="Spread the payments over at least so many seconds; 0 = as fast as they go. "
        "Without it: 15 on a terminal, else 0.",
    ),
    json_file: Path | None = typer.Option(None, "--json", help="Write the figures here."),
    seed: int = typer.Option(7, "--seed", help="Another simulated bank."),
    full: bool = typer.Option(False, "--full", help="Whole pages, and every account above the watch-list."),
) -> None:
    """The real worker on an embedded broker and store, a simulated bank with two planted rings, and what was recommended."""
    from streams.embedded import INSTALL, NOT_FOR_PRODUCTION, EmbeddedMissing

    live = not headless and sys.stderr.isatty()
    pace = seconds if seconds >= 0 else (15.0 if live else 0.0)
    note(f"Safehold demo · {NOT_FOR_PRODUCTION}")
    from streams.demo import Demo, DemoFailed

    screen = _Live() if live else None
    lines = _Lines()
    show: Callable[[View], None] = screen.show if screen is not None else lines.show
    try:
        if screen is not None:
            with screen:
                finished = Demo(seed=seed, seconds=pace, tell=show).run()
        else:
            finished = Demo(seed=seed, seconds=pace, tell=show).run()
    except EmbeddedMissing as problem:
        raise CliError(
            str(problem),
            look=f"{INSTALL}; a real Kafka and Redis need no such thing: safehold worker",
            code=Exit.MISSING,
        ) from problem
    except DemoFailed as problem:
        raise CliError(
            "the demo did not come to its end", details=str(problem).splitlines(), look="safehold doctor"
        ) from problem
    if json_file is not None:
        json_file.write_text(json.dumps(finished.result.document(), indent=2) + "\n", encoding="utf-8")
    _tell(finished, terminal_width(), full=full)
    if not finished.result.good:
        raise CliError("the demo did not find what it must", look="the tables above")


class _Lines:
    """Progress where there is no terminal."""

    def __init__(self) -> None:
        self._phase = ""
        self._said = 0.0

    def show(self, view: View) -> None:
        """One line when the phase changes, then one every few seconds."""
        now = time.monotonic()
        same = view.phase == self._phase
        if same and now - self._said < (PLAIN_EVERY if view.sent else STILL_EVERY):
            return
        self._phase, self._said = view.phase, now
        if same and not view.sent:
            note(f"{view.seconds:5.1f} s  still {'compiling' if 'compiles' in view.phase else 'at it'}")
            return
        parts = [f"{view.seconds:5.1f} s  {view.phase}"]
        if view.sent:
            actions = ", ".join(f"{count} {action}" for action, count in view.actions.items()) or "none yet"
            parts.append(
                f"{view.sent:,} of {view.total:,} sent · {view.judged:,} legs judged · lag {view.lag} · said: {actions}"
            )
        note(textwrap.fill(": ".join(parts), terminal_width(), subsequent_indent=" " * 9))


class _Live:
    """Progress on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=8, transient=False)

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._live.stop()

    def show(self, view: View) -> None:
        """Draw it again."""
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        grid.add_column(justify="right", style="dim")
        grid.add_column(min_width=48)
        grid.add_row("doing", view.phase)
        grid.add_row(
            "payments",
            f"{view.sent:,} of {view.total:,}" + (f" · day {view.day + 1}" if view.day >= 0 else ""),
        )
        grid.add_row("", ProgressBar(total=max(1, view.total), completed=view.sent, width=48))
        grid.add_row("legs judged", f"{view.judged:,}")
        grid.add_row("ledger lag", f"{view.lag:,} frames")
        actions: dict[str, Any] = view.actions
        for action in ("monitor", "hold-and-review", "freeze", "safeguard-first"):
            grid.add_row(action, f"{actions.get(action, 0):,}")
        title = f"Safehold demo · {view.seconds:.0f} s · embedded broker, not for production"
        self._live.update(Panel(grid, title=title, expand=False))


def _tell(finished: Finished, width: int, *, full: bool) -> None:
    from streams.page import brief, page

    result = finished.result
    for ring in result.rings:
        say("")
        say("═" * width)
        paragraph(f"Planted ring {ring.name}: {ring.story}.", width)
        found = f"Found: {ring.action}" if ring.found else "NOT found: nothing above the watch-list"
        paragraph(
            f"{found}, for its collecting account {ring.main}. A hold or a freeze for {ring.members_named} of its "
            f"{ring.members} members.",
            width,
        )
        if ring.best is not None:
            say("")
            say((page if full else brief)(ring.best, width))
    say("")
    say("═" * width)
    _tell_held(finished.bodies, width, full=full)
    say("")
    paragraph("Lawful accounts that look like it, and the most that was said of them:", width)
    looks = Counter((look.action, look.story) for look in result.look_alikes)
    table(("said", "accounts", "what it is"), ((said, n, story) for (said, story), n in looks.items()), width)
    say("")
    actions = ", ".join(f"{count} {action}" for action, count in result.by_action.items()) or "none"
    lawful = result.look_alikes_above_monitor + result.others_above_monitor
    balance = "balances to zero" if result.reconciled else "DOES NOT BALANCE"
    for text in (
        f"{result.transactions:,} transactions, {result.legs:,} legs, {result.judged:,} judged, {result.late} late",
        f"recommendations: {actions}",
        f"rings found: {result.rings_found} of {len(result.rings)}; lawful accounts above monitor: {lawful}",
        f"lost {result.lost}, doubled {result.duplicates}: the ledger {balance}. {result.seconds:.0f} s in all.",
    ):
        paragraph(text, width)
    say("")
    paragraph(
        "What Safehold says is a recommendation. People decide, and it has no way to move, block or delay money.",
        width,
    )
    if not full:
        paragraph(
            "A reviewer's page goes on with what would change it, the lawful life that can look like it, and every payment: "
            "safehold demo --full.",
            width,
        )


def _tell_held(bodies: Sequence[Mapping[str, Any]], width: int, *, full: bool) -> None:
    """What is above the watch-list, a line an account: the gravest first."""
    from streams.page import moment

    held: dict[str, list[Mapping[str, Any]]] = {}
    for body in bodies:
        if body["action"] != "monitor":
            held.setdefault(body["subject_account"], []).append(body)
    rows = []
    for account, several in held.items():
        rank = min(GRAVEST.index(body["action"]) for body in several)
        last = max(several, key=lambda body: body["event_time"])
        rows.append(
            (
                rank,
                account,
                GRAVEST[rank],
                len(several),
                moment(last["event_time"], "day"),
                last["typology_title"],
            )
        )
    count = sum(map(len, held.values()))
    shown = sorted(rows) if full else sorted(rows)[:SHOWN_ACCOUNTS]
    paragraph(
        f"Above the watch-list: {count} recommendations about {len(rows)} accounts. On it: {len(bodies) - count}.",
        width,
    )
    table(("account", "at most", "times", "last", "pattern"), (row[1:] for row in shown), width)
    if len(shown) < len(rows):
        say(f"… and {len(rows) - len(shown)} more accounts: safehold demo --full")
