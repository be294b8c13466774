"""`safehold quarantine` without a worker: what is refused, what is recorded, and how it is shown."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from detectors.model import Quarantine
from detectors.state import Gap, Head, SetAside
from streams.cli.exits import Exit
from streams.publish import Message
from streams.quarantine import Outcome, Said, Stopped, encode, key_of
from streams.state.base import StoreMeta
from streams.state.redis import RedisStore
from tests.cli.conftest import Installation

PLACE = {"generation": "g1", "partition": 1, "offset": 7}
STOPPED = Stopped(**PLACE, problem="ForeignLayout: no frame", digest="d", kind="legs", n=4, sources=("s/0",))
ASIDE = Quarantine(
    record_id="g1/1/7", effective_at=9, by=("Ada", "Ben"), reason="r", digest="d", accounts=((255, 0, 0),), unread=4
)  # fmt: skip


def put(installation: Installation, *said: Said) -> None:
    """As the worker writes it."""
    installation.send(
        *(Message(installation.names.quarantine, key_of(one), encode(one), [], 0) for one in said)
    )


def sign(installation: Installation, *by: str, wait: str = "0") -> tuple[str, ...]:
    people = [word for name in by for word in ("--by", name)]
    return (
        "quarantine",
        "1",
        "7",
        *people,
        "--reason",
        "why",
        "--wait",
        wait,
        "-s",
        str(installation.settings),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("seven", "7", "--by", "Ada", "--reason", "r"),
        ("1", "--by", "Ada", "--reason", "r"),
        ("1", "7", "--reason", "r"),
        ("1", "7", "--by", " ", "--reason", "r"),
        ("1", "7", "--by", "Ada"),
        ("1", "-7", "--by", "Ada", "--reason", "r"),
    ],
)
def test_what_is_no_decision_is_refused(cli: Any, arguments: tuple[str, ...]) -> None:
    assert cli("quarantine", *arguments).code == Exit.USAGE


def test_nothing_is_set_aside_where_nothing_stands(cli: Any, installation: Installation) -> None:
    assert "no ledger frame" in cli("quarantine", "list", "-s", installation.settings).out
    ran = cli(*sign(installation, "Ada", "Ben"))
    assert ran.code == Exit.FAILED
    assert "has not stopped at offset 7" in ran.err
    assert installation.read(installation.names.quarantine) == []
    looked = cli("doctor", "-s", installation.settings, "--json").json["findings"]
    assert {"ok"} == {one["state"] for one in looked if one["name"] == "ledger frames"}


def test_signatures_one_after_the_other(cli: Any, installation: Installation) -> None:
    put(installation, STOPPED)
    (frame,) = cli("quarantine", "list", "-s", installation.settings, "--json").json["frames"]
    assert (frame["state"], frame["records"], frame["by"]) == ("stands", 4, [])
    assert "two signatures" in cli("quarantine", "list", "-s", installation.settings).out
    assert cli(*sign(installation, "Ada"), "--json").json["state"] == "half-signed"
    assert cli(*sign(installation, " ada"), "--json").json["by"] == ["Ada"]
    done = cli(*sign(installation, "Ben"), "--json")
    assert (done.code, done.json["state"], done.json["by"]) == (Exit.OK, "signed", ["Ada", "Ben"])
    looked = {
        one["name"]: one for one in cli("doctor", "-s", installation.settings, "--json").json["findings"]
    }
    assert looked["ledger frames"]["state"] == "fail"
    put(installation, Outcome(**PLACE, quarantine=ASIDE))
    (frame,) = cli("quarantine", "list", "-s", installation.settings, "--json").json["frames"]
    assert (frame["state"], frame["accounts"], frame["unread"]) == ("set-aside", ["00000000000000ff"], 4)
    late = cli(*sign(installation, "Eve"))
    assert late.code == Exit.FAILED
    assert "set aside already" in late.err


@pytest.mark.parametrize("settled", [True, False])
def test_what_is_applied_cannot_be_set_aside(cli: Any, installation: Installation, settled: bool) -> None:
    """By the outcome, or by the head in the store where the worker that passed it knew of no stop."""
    put(installation, STOPPED)
    if settled:
        put(installation, Outcome(**PLACE))
    else:
        write_head(installation, applied=7)
    ran = cli(*sign(installation, "Ada", "Ben"))
    assert ran.code == Exit.FAILED
    assert "is applied: a signature changes nothing" in ran.err
    (frame,) = cli("quarantine", "list", "-s", installation.settings, "--json").json["frames"]
    assert frame["state"] == "applied"


def test_the_doctor_knows_what_was_set_aside_and_accepted(cli: Any, installation: Installation) -> None:
    write_head(installation, applied=9, quarantined=[SetAside(7, "legs", 4, 4)], gaps=[Gap(1, 3, 0, 5)])
    looked = cli("doctor", "-s", installation.settings, "--json").json["findings"]
    (found,) = [one for one in looked if one["name"] == "ledger frames"]
    assert (found["state"], found["found"][:29]) == ("warn", "1 set aside, 1 gaps accepted:")


def write_head(installation: Installation, **more: Any) -> None:
    """The head of partition 1 in the store."""
    options = msgspec.json.decode(installation.settings.read_bytes())
    options["redis_namespace"] = installation.names.prefix
    installation.settings.write_bytes(msgspec.json.encode(options))
    meta = StoreMeta(partitions=2, key_id="k1", generation="g1")
    head = Head(partition=1, partitions=2, generation="g1", key_id="k1", **more)

    async def work() -> None:
        store = RedisStore(
            options["redis_url"], meta, persistence="none", namespace=options["redis_namespace"]
        )
        await store.open()
        epoch = await store.claim(1)
        await store.write_head(1, epoch, None, head.applied, msgspec.msgpack.encode(head))
        await store.close()

    asyncio.run(work())
