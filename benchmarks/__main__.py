"""Every figure: python -m benchmarks [FIGURE …] [--quick]

kernel, memory, stream, latency, restart, scale. Without a name all of them, in this order. Each prints its tables and
writes them to docs/benchmarks; --quick is for seeing that they run and writes nothing unless --save is given.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from streams import compiled

compiled.use_own_folder()  # before anything imports numba

from benchmarks import report  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(report.ORDER))
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it runs")
    parser.add_argument("--save", action="store_true", help="write docs/benchmarks also with --quick")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.figures) - set(report.ORDER):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    for name in chosen.figures or report.ORDER:
        figure: Any = importlib.import_module(f"benchmarks.{name}")
        result = figure.run(chosen.quick)
        if chosen.save or not chosen.quick:
            print(f"written: {report.save(result).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
