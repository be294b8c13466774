"""Nothing gets into a log that was not allowed, whoever logs it and however it fails."""

from __future__ import annotations

import ast
import asyncio
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import structlog
from aiokafka import TopicPartition
from hypothesis import given
from mode import Service

from streams import logs
from streams.state.base import FenceLost

Lines = Callable[[], list[dict[str, Any]]]

SECRETS = {
    "IBAN": "DE89370400440532013000",
    "IBAN in groups": "DE89 3704 0044 0532 0130 00",
    "account number": "4417123456789113",
    "grouped number": "20-32-06 38669957",
    "short account number": "12345678",
    "UETR": "eb6305c9-1f7f-49de-aed0-16487c27b42d",
    "transaction id": "TRX20261124000017",
    "pseudonym": "14987979559889010688",
    "e-mail": "anna.example@mail.example",
    "quoted text": "'rent for Anna, last warning'",
    "bytes": "b'\\x00payload'",
    "JSON": '{"creditor": "Anna"}',
    "XML": "<Cdtr><Nm>Anna</Nm></Cdtr>",
    "second line": "ok\nAnna owes",
}


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Configure logging into memory; give every line written so far, parsed."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook
    stream = io.StringIO()
    logs.configure("DEBUG", stream=stream, known=["safehold.ledger.v1"])
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level, sys.excepthook, threading.excepthook = before
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    logs._known.clear()


def test_our_own_record(lines: Lines) -> None:
    structlog.get_logger("streams.monitor").info("state written", partition=3, seconds=0.25, chunks=4)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "state written",
        "level": "info",
        "logger": "streams.monitor",
        "partition": 3,
        "seconds": 0.25,
        "chunks": 4,
    }


def test_the_standard_library_s_records_are_the_same(lines: Lines) -> None:
    logging.getLogger("streams.partition").warning(
        "partition waits", extra={"partition": 3, "problem": "KafkaError"}
    )
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == (
        "partition waits",
        "warning",
        "streams.partition",
    )
    assert (line["partition"], line["problem"]) == (3, "KafkaError")
    assert "withheld" not in line


@pytest.mark.parametrize(
    "name", ["faust.app.base", "mode.services", "aiokafka.consumer.fetcher", "kafka.conn"]
)
def test_records_of_the_libraries_come_out_as_json(lines: Lines, name: str) -> None:
    logging.getLogger(name).error(
        "Topic '%s' [%d]: %r of %5.2f s, from %s: %s",
        "safehold.ledger.v1",
        12,
        "safehold.ledger.v1",
        0.25,
        "a topic of a bank",
        {TopicPartition("safehold.ledger.v1", 3), TopicPartition("a topic of a bank", 4)},
    )
    (line,) = lines()
    assert line["event"] == (
        "Topic 'safehold.ledger.v1' [12]: safehold.ledger.v1 of 0.25 s, from …: safehold.ledger.v1/3, …/4"
    )


def test_a_service_of_mode_says_who_it_is(lines: Lines) -> None:
    class Reader(Service):
        shortlabel = "Agent*: streams.app.assemble.<locals>.judge"

    reader = Reader()
    reader.log.info("Starting...")
    reader.log.info("Cancelled task %r: %s", "Anna's task", ValueError("Anna"))
    reader.log.info("Starting {'Anna': 1}")
    assert [line["event"] for line in lines()] == [
        "Agent*: streams.app.assemble.judge: Starting...",
        "Agent*: streams.app.assemble.judge: Cancelled task …: ValueError",
        "Agent*: streams.app.assemble.judge: Starting …",
    ]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "way",
    [
        "event",
        "argument",
        "argument in quotes",
        "argument by name",
        "mapping",
        "arguments",
        "half formatted",
        "allowed key",
        "other key",
        "exception",
        "cause",
        "list",
        "key",
    ],
)
def test_what_is_somebody_s_is_not_written(lines: Lines, secret: str, way: str) -> None:
    log = logging.getLogger("somebody")
    match way:
        case "event":
            log.info("odd: " + secret)  # noqa: G003
        case "argument":
            log.info("odd: %s", secret)
        case "argument in quotes":
            log.info("odd: '%s' [%r]", secret, secret)
        case "argument by name":
            log.info("odd: %(it)s", {"it": secret})
        case "mapping":
            log.info("odd: %s", {secret: secret})
        case "arguments":
            log.info("%s{%s}<%s>[%s]", 7, [secret], secret.encode(), ValueError(secret))
        case "half formatted":
            log.info("odd " + secret + " of %s", secret)  # noqa: G003
        case "allowed key":
            structlog.get_logger().info("odd", reason=secret)
        case "other key":
            log.info("odd", extra={"account": secret})
        case "exception":
            with pytest.raises(ValueError):
                fail(log, secret)
        case "cause":
            try:
                raise RuntimeError(secret) from ValueError(secret)
            except RuntimeError:
                log.exception("odd")
        case "list":
            structlog.get_logger().info("odd", problems=["fine", secret])
        case "key":
            structlog.get_logger().info("odd", **{secret: 1})
    text = json.dumps(lines(), ensure_ascii=False)
    assert len(lines()) == 1
    for part in ("Anna", "payload", secret):
        assert part not in text


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        (12, "12"),
        (0.5, "0.5"),
        (True, "True"),
        (None, "None"),
        ("safehold.ledger.v1", "safehold.ledger.v1"),
        (["safehold.ledger.v1"], "safehold.ledger.v1"),
        (set(), "none"),
        (KeyError, "KeyError"),
        (TimeoutError("after 3 s"), "TimeoutError: after 3 s"),
        (ValueError("Anna"), "ValueError"),
        ("Anna", "…"),
        ("demo-bank/00454", "…"),
        (b"Anna", "…"),
        (["Anna"], "…"),
        ({"Anna": 1}, "…"),
        (object(), "…"),
        (14987979559889010688, "…"),
        (20240101, "…"),
    ],
)
def test_arguments_go_and_the_words_stay(lines: Lines, argument: object, written: str) -> None:
    logging.getLogger("faust").info("the words of %s stay", argument)
    assert lines()[0]["event"] == f"the words of {written} stay"


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_no_text_gets_through_as_an_argument(values: list[str]) -> None:
    written = logs.words("'%s'" * len(values), tuple(values))
    assert written == logs.words("'%s'" * len(values), ("x",) * len(values))


LIBRARIES = ("faust", "mode", "aiokafka")
LOGGED = {"debug": 0, "info": 0, "warning": 0, "error": 0, "exception": 0, "critical": 0, "log": 1}


def templates(library: str) -> set[str]:
    """Every constant text that a library logs, from its source."""
    found = set()
    (folder,) = importlib.import_module(library).__path__
    for path in Path(folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LOGGED
            ):
                given = node.args[LOGGED[node.func.attr] :][:1]
                if "log" in ast.unparse(node.func.value) and given and isinstance(given[0], ast.Constant):
                    found.add(str(given[0].value))
    return found


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_constant_text_of_the_libraries_is_readable(library: str) -> None:
    found = templates(library)
    assert len(found) > 20
    lost = []
    for template in found:
        places = [place["kind"] for place in logs._PLACEHOLDER.finditer(template) if place["kind"] != "%"]
        given = tuple(7 if kind in "diuxXeEfFgGc" else KeyError for kind in places)
        line = (template % tuple("KeyError" if each is KeyError else each for each in given)).split("\n")[0]
        if logs.MASK in logs.words(f"[^--Agent*: x.y]: {template}", given) and len(line) < logs.MAX_TEXT:
            lost.append(template)
    assert [
        template for template in lost if "`" not in template
    ] == []  # names of options, in what reads as quotes


def fail(log: logging.Logger, secret: str) -> None:
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("odd")
        raise


def test_what_was_held_back_is_named(lines: Lines) -> None:
    structlog.get_logger().info("odd", account="x", body=b"y", partition=object(), offset=5)
    (line,) = lines()
    assert line["withheld"] == ["account", "body", "partition"]
    assert line["offset"] == 5


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, 0),
        (False, False),
        (None, None),
        (1_760_000_000_000_000, 1_760_000_000_000_000),
        (2**64 - 1, "…"),
        (-(2**63), "…"),
        ("x" * 500, "x" * 300 + "…"),
        ([1, "a"], [1, "a"]),
        (list(range(50)), list(range(20))),
    ],
)
def test_values_as_they_are_written(lines: Lines, value: object, written: object) -> None:
    structlog.get_logger().info("odd", offset=value)
    assert lines()[0]["offset"] == written


def test_an_exception_shows_its_type_its_places_and_only_safe_messages(lines: Lines) -> None:
    log = logging.getLogger("streams.partition")
    try:
        try:
            int("Anna")
        except ValueError as problem:
            raise FenceLost(3, "the store went back from write 4 to 2") from problem
    except FenceLost:
        log.exception("partition stopped", extra={"partition": 3})
    (line,) = lines()
    shown = line["exception"]
    assert shown[0] == "streams.state.base.FenceLost: partition 3: the store went back from write 4 to 2"
    assert "ValueError" in shown
    assert any("tests/streams/test_logs.py:" in place for place in shown)
    assert "Anna" not in json.dumps(shown)


def test_bound_values_reach_every_record_inside(lines: Lines) -> None:
    async def work(partition: int) -> None:
        with logs.bound(batch=7, partition=partition, config="a1b2"):
            await asyncio.sleep(0)
            logging.getLogger("faust").info("inside")
            structlog.get_logger().info("inside")

    async def both() -> None:
        await asyncio.gather(work(1), work(2))

    asyncio.run(both())
    logging.getLogger("faust").info("outside")
    inside = [line for line in lines() if line["event"] == "inside"]
    assert sorted(line["partition"] for line in inside) == [1, 1, 2, 2]
    assert all((line["batch"], line["config"]) == (7, "a1b2") for line in inside)
    outside = next(line for line in lines() if line["event"] == "outside")
    assert "batch" not in outside


def test_a_record_that_cannot_be_formatted_says_so_without_its_arguments(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    root.handlers = [
        handler for handler in root.handlers if isinstance(handler, logs._Handler)
    ]  # not pytest's
    logging.getLogger("somebody").info("%d of %s", "Anna", "Anna")
    (line,) = lines()
    assert line["event"] == "a log record could not be written"
    assert line["path"].startswith("test_logs:")
    assert "Anna" not in "".join(capsys.readouterr())


def test_warnings_and_the_loop_s_complaints_are_records_too(lines: Lines) -> None:
    warnings.warn("about 'Anna'", UserWarning, stacklevel=1)

    async def forget() -> None:
        async def failing() -> None:
            raise ValueError("Anna")

        task = asyncio.create_task(failing())
        await asyncio.wait([task])
        del task

    asyncio.run(forget())
    names = {line["logger"] for line in lines()}
    assert {"py.warnings", "asyncio"} <= names
    assert "Anna" not in json.dumps(lines())


def test_a_thread_that_dies_leaves_a_record(lines: Lines) -> None:
    def die() -> None:
        raise ValueError("Anna")

    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    (line,) = lines()
    assert (line["level"], line["exception"][0]) == ("critical", "ValueError")


def test_a_process_that_dies_leaves_a_record(checkout: Path) -> None:
    code = "from streams import logs; logs.configure(); raise ValueError('Anna')"
    died = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=checkout,
        env=os.environ,
        check=False,
    )
    assert died.returncode == 1
    assert json.loads(died.stderr)["exception"][0] == "ValueError"
    assert "Anna" not in died.stderr


def test_the_level_is_kept(lines: Lines) -> None:
    logs.configure("WARNING", stream=io.StringIO())
    assert not logging.getLogger("anything").isEnabledFor(logging.INFO)


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [("DEBUG", 10, 10), ("INFO", 20, 30), ("WARNING", 30, 30), ("ERROR", 40, 40)],
)
def test_libraries_say_less_unless_everything_is_asked_for(
    lines: Lines, level: str, ours: int, theirs: int
) -> None:
    logs.configure(level, stream=io.StringIO())
    assert logging.getLogger("streams.app").getEffectiveLevel() == ours
    for name in ("kafka.conn", "aiokafka.consumer", "faust.app.base", "mode.services"):
        assert logging.getLogger(name).getEffectiveLevel() == theirs


@given(st.text(max_size=80), st.sampled_from(sorted(SECRETS.values())))
def test_scrubbing_is_bounded_and_final(text: str, secret: str) -> None:
    once = logs.scrub(text + " " + secret)
    assert len(once) <= logs.MAX_TEXT + 1
    assert logs.scrub(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "partition 3: applied is 1200, another one was expected",
        "127.0.0.1:9092 is not reachable",
        "topics[1].bank is needed with format pacs008",
        "[Error 15] GroupCoordinatorNotAvailableError",
        "Heartbeat failed for group safehold-g1-monitor because it is rebalancing",
    ],
)
def test_what_an_operator_needs_stays(text: str) -> None:
    assert logs.scrub(text) == text
