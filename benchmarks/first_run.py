"""A published data set through real Kafka and Redis with Safehold's own commands, as a bank would start it, and scored.

    python -m benchmarks.first_run DATA_FOLDER --mapping NAME [--bank BANK] [--out FOLDER]

`safehold topics create`, `safehold worker` and `safehold replay` run as processes of their own on a fresh broker and a fresh
Redis; the bank topic and the ledger have four partitions each. When everything is judged, the review topic is read and
compared, byte for byte, with what `safehold judge` writes for the file; that file, with the data's own names, is scored.
`--bank` is the bank that holds the accounts, where the data name it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import score
from benchmarks.replay_contract import ROOT, WITHIN, installed
from streams import topics
from streams.opening import open_payments
from tests.e2e import contract
from tests.e2e.harness import SOURCES
from tests.rigs.kafka import KafkaBroker
from tests.rigs.process import Program
from tests.rigs.redis import RedisServer

SAFEHOLD = [sys.executable, "-m", "streams.cli"]


SHOWN = 3


def command(*arguments: str) -> str:
    """A command of Safehold, to its end."""
    done = subprocess.run([*SAFEHOLD, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"safehold {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _to_show(listed: Sequence[dict[str, Any]]) -> list[str]:
    """The ids of three: the highest actions first, then the most recent, of different accounts."""
    ranked = sorted(listed, key=lambda said: -score.ACTIONS.index(said["action"]))
    chosen: dict[str, str] = {}
    for said in ranked:
        chosen.setdefault(said["body"]["subject_account"], said["recommendation_id"])
    return list(chosen.values())[:SHOWN]


def folded(pages: Sequence[str]) -> str:
    """Whole pages for `docs/first-run.md`, each under its first line and its account; only the first is open."""
    blocks = []
    for number, page in enumerate(pages):
        head, _, account = page.splitlines()[:3]
        summary = f"{head} ({' '.join(account.split())})"
        blocks.append(
            f"<details{'' if number else ' open'}>\n<summary>{summary}</summary>\n\n"
            f"```text\n{page.strip()}\n```\n\n</details>\n"
        )
    return "\n".join(blocks)


async def everything(data: Path, mapping: str, bank: str, out: Path) -> dict[str, Any]:
    """The whole way. Writes `out`."""
    payments = open_payments(data / "tx.parquet", mapping)
    summary = json.loads(
        command("judge", str(payments.path), "-m", mapping, "-o", str(out / "judge"), "--reveal", "--json")
    )
    command("judge", str(payments.path), "-m", mapping, "-o", str(out / "plain"), "--json")
    wanted = contract.bodies_of(out / "plain" / "recommendations.jsonl")
    with tempfile.TemporaryDirectory(prefix="safehold-first-run-") as temporary:
        broker = KafkaBroker(Path(temporary) / "kafka", full_speed=True)
        redis = RedisServer(Path(temporary) / "redis")
        worker = Program("worker", out / "worker.log")
        try:
            broker.start()
            redis.start()
            place = installed(payments, "first-run", (broker, redis), Path(temporary), bank=bank)
            with topics.admin_client(broker.bootstrap) as admin:  # the bank's own topic
                topics.create(admin, [topics.TopicSpec(place.topic, SOURCES, "", fixed_partitions=False)])
            settings = str(place.settings("w1"))
            command("topics", "create", "-s", settings)
            started = time.monotonic()
            worker.start([*SAFEHOLD, "worker", "-s", settings], cwd=ROOT)
            replayed = json.loads(
                command(
                    "replay", str(payments.path), "-m", mapping, "-t", place.topic, "-s", settings, "--json"
                )
            )
            await place.settled(replayed["sent"], within=WITHIN)
            seconds = time.monotonic() - started
            found = await contract.outcome(place)
            listed = json.loads(command("alerts", "list", "-s", settings, "-n", "100000", "--json"))
            pages = [command("explain", identity, "-s", settings) for identity in _to_show(listed)]
            (out / "explained.txt").write_text(folded(pages))
            worker.stop()
        finally:
            worker.kill()
            broker.kill()
            redis.kill()
    result = score.evaluate(data, out / "judge" / "recommendations.jsonl")
    result["judge"] = summary
    result["run"] = {
        "replayed": {name: replayed[name] for name in ("sent", "rejected", "seconds")},
        "seconds": round(seconds, 1),
        "counters": found.counters,
        "ledger_legs": found.ledger_legs,
        "said": found.said,
        "listed": len(listed),
        "problems": found.problems(wanted, replayed["sent"]),
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--mapping", required=True, help="what the columns mean")
    parser.add_argument("--bank", default="", help="bank that holds the accounts; none = the mapping's")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is written")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(everything(chosen.data, chosen.mapping, chosen.bank, chosen.out))
    print(json.dumps({"judge": result["judge"], "run": result["run"]}, indent=2))
    print()
    print(score.page(result))
    return 1 if result["run"]["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
