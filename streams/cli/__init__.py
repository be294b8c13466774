"""The command `safehold`. Only what the command line itself needs is imported here: `--help` must answer at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from streams import compiled
from streams.cli.exits import CliError, Exit


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    compiled.use_own_folder()
    from streams.cli.root import app

    try:
        app(args=None if argv is None else list(argv), prog_name="safehold")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.FAILED
    except CliError as problem:
        print(f"safehold: {problem}", file=sys.stderr)
        for line in problem.details:
            print(f"  {line}", file=sys.stderr)
        if problem.look:
            print(f"  look: {problem.look}", file=sys.stderr)
        return problem.code
    except KeyboardInterrupt:
        print("safehold: stopped", file=sys.stderr)
        return Exit.STOPPED
    except BrokenPipeError:
        # Whoever read us has gone (`| head`): nothing to say, and nothing more may be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    return Exit.OK
