"""Commands that hold other commands: without one they explain themselves, and that is no mistake."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class HelpGroup(TyperGroup):
    """`safehold`, `safehold topics`: help on standard output and exit code 0, not a usage error."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What stands behind the name."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)
