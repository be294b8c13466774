"""`safehold doctor`: what is here, what is not, and what to do about it."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streams.cli.connect import SETTINGS_OPTION
from streams.cli.exits import CliError, Exit
from streams.cli.output import JSON_OPTION, emit, say, terminal_width

if TYPE_CHECKING:
    from streams.settings import Settings

LEAST_PYTHON = (3, 11)
SOCKET_SECONDS = 3.0
MARKS = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "·"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: str  # ok, warn, fail, skip
    found: str
    do: str = ""


def doctor(settings: Path | None = SETTINGS_OPTION, as_json: bool = JSON_OPTION) -> None:
    """Check this machine and, where settings are given, the installation. Changes nothing."""
    findings = list(_machine())
    chosen, finding = _settings(settings)
    findings.append(finding)
    if chosen is not None:
        findings += _installation(chosen)
    else:
        findings.append(
            Finding("broker and store", "skip", "not looked at without settings", "give --settings FILE")
        )
    failed = sum(finding.state == "fail" for finding in findings)
    if as_json:
        emit({"healthy": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            _tell(finding, width)
        say("")
        say("everything that was looked at is in order" if not failed else f"{failed} to mend")
    if failed:
        raise typer.Exit(1)


def _tell(finding: Finding, width: int) -> None:
    """A finding; every problem of it begins a line."""
    room = terminal_width() - width - 4
    lines = [part for line in finding.found.split("\n") for part in textwrap.wrap(line, room) or [""]]
    if finding.do and finding.state != "ok":
        lines += textwrap.wrap(f"→ {finding.do}", room, subsequent_indent="  ")
    for number, line in enumerate(lines):
        head = f"{MARKS[finding.state]} {finding.name.ljust(width)}" if not number else " " * (width + 2)
        say(f"{head}  {line}")


# -- the machine ----------------------------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    yield _python()
    yield _packages()
    for name in ("streams", "detectors"):
        yield _name(name)
    yield _compile_cache()
    yield _embedded()


def _python() -> Finding:
    found = f"Python {sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < LEAST_PYTHON:
        return Finding("python", "fail", found, "install Python 3.11 or newer and run make setup again")
    return Finding("python", "ok", found)


def _packages() -> Finding:
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        needed = requires("safehold") or []
    except PackageNotFoundError:
        return Finding("packages", "fail", "safehold itself is not installed here", "make setup")
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return Finding("packages", "warn", "versions cannot be compared without the package `packaging`")
    wrong = []
    parsed = [Requirement(line) for line in needed]
    wanted = [
        requirement
        for requirement in parsed
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    for requirement in wanted:
        try:
            have = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(have, prereleases=True):
            wrong.append(f"{requirement.name} {have} is not {requirement.specifier}")
    if wrong:
        return Finding(
            "packages",
            "fail",
            "; ".join(wrong),
            "make setup, or install requirements.lock with --require-hashes",
        )
    return Finding("packages", "ok", f"{len(wanted)} direct dependencies at fitting versions")


def _name(name: str) -> Finding:
    import importlib.util
    from importlib.metadata import packages_distributions

    here = Path(__file__).resolve().parents[2]
    spec = importlib.util.find_spec(name)
    place = Path(spec.origin).resolve().parent if spec and spec.origin else None
    others = sorted(set(packages_distributions().get(name, [])) - {"safehold"})
    remedy = "run Safehold in an environment of its own: the name belongs to another distribution here"
    if place != here / name:
        return Finding(f"name {name}", "fail", f"`import {name}` finds {place}, not Safehold's", remedy)
    if others:
        return Finding(f"name {name}", "fail", f"{', '.join(others)} also installs `{name}`", remedy)
    return Finding(f"name {name}", "ok", "is Safehold's own")


def _compile_cache() -> Finding:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "detectors" / "__pycache__"
    place = folder if folder.exists() else folder.parent
    if not os.access(place, os.W_OK):
        return Finding(
            "compile cache", "warn", f"{folder} cannot be written: every start compiles again (about a minute)",
            "set NUMBA_CACHE_DIR to a folder that the worker may write and that outlives it",
        )  # fmt: skip
    compiled = sum(1 for _ in folder.rglob("*.nbc")) if folder.exists() else 0
    if not compiled:
        return Finding(
            "compile cache",
            "warn",
            "empty: the first start compiles for about a minute",
            "nothing; it fills itself",
        )
    return Finding("compile cache", "ok", f"{compiled} compiled functions")


def _embedded() -> Finding:
    from streams.embedded import INSTALL, binary

    if binary() is None:
        return Finding(
            "demo parts", "skip", "the embedded broker is not installed (only the demo needs it)", INSTALL
        )
    return Finding("demo parts", "ok", "embedded broker and store for the demo are installed")


# -- the installation -----------------------------------------------------------------------------------------------


def _settings(path: Path | None) -> tuple[Settings | None, Finding]:
    from streams.cli.connect import settings_of

    if path is None and "SAFEHOLD_BOOTSTRAP_SERVERS" not in os.environ:
        return None, Finding(
            "settings", "skip", "none given", "give --settings FILE to check an installation"
        )
    try:
        chosen = settings_of(path)
    except CliError as problem:
        return None, Finding("settings", "fail", "\n".join(problem.details) or str(problem), problem.look)
    return chosen, Finding("settings", "ok", f"{len(chosen.topics)} bank topics, mode {chosen.mode}")


def _installation(chosen: Settings) -> list[Finding]:
    looks: list[Callable[[Settings], Finding]] = [
        _pseudonym_key,
        _vault_key,
        _configuration,
        _kafka,
        _store,
        _stopped,
    ]
    return [look(chosen) for look in looks]


def _key_file(path: Path) -> str:
    """What is wrong with how a key file lies there; empty when nothing is."""
    if not path.is_file():
        return f"{path} is not there"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read by this user"
    if path.stat().st_mode & 0o077:
        return f"{path} can be read by others: chmod 600"
    return ""


def _pseudonym_key(chosen: Settings) -> Finding:
    from streams.pseudonyms import PUBLIC_KEY, PseudonymKey

    path = Path(chosen.pseudonym_key_file)
    problem = _key_file(path)
    if problem:
        return Finding(
            "pseudonym key", "fail", problem, "keep it readable by the worker alone, in a secret of its own"
        )
    try:
        key = PseudonymKey.load(path)
    except ValueError as wrong:
        return Finding("pseudonym key", "fail", str(wrong))
    if key.reveal() == PUBLIC_KEY.reveal():
        return Finding(
            "pseudonym key",
            "fail",
            "this is the published key of the demo: it hides nothing",
            "make a key of your own",
        )
    return Finding("pseudonym key", "ok", f"key {key.id}")


def _vault_key(chosen: Settings) -> Finding:
    if not chosen.vault_key_file:
        return Finding(
            "vault key",
            "warn",
            "none: nobody can get from a recommendation to the account",
            "set vault_key_file",
        )
    problem = _key_file(Path(chosen.vault_key_file))
    return (
        Finding("vault key", "fail", problem)
        if problem
        else Finding("vault key", "ok", "is there, readable by its owner alone")
    )


def _configuration(chosen: Settings) -> Finding:
    from streams.cli.check_config import read_config

    try:
        config = read_config(Path(chosen.config_file) if chosen.config_file else None)
    except CliError as problem:
        return Finding(
            "configuration", "fail", "\n".join([str(problem), *problem.details]), "safehold check-config FILE"
        )
    return Finding(
        "configuration", "ok", f"{chosen.config_file or 'the shipped defaults'}, version {config.version}"
    )


def _kafka(chosen: Settings) -> Finding:
    from streams.cli.connect import MEND_BROKER, admin, wanted_topics
    from streams.topics import check, missing_sources

    try:
        with admin(chosen) as client:
            problems = check(client, wanted_topics(chosen))
            theirs = missing_sources(client, wanted_topics(chosen))
    except CliError as problem:
        do = MEND_BROKER if problem.code == Exit.UNREACHABLE else problem.look
        return Finding("kafka", "fail", str(problem), do)
    if problems:
        do = "safehold topics create, then safehold topics check"
        if len(theirs) == len(problems):
            do = "ask the bank for them, then safehold topics check"
        return Finding("kafka", "fail", "\n".join(problems), do)
    return Finding("kafka", "ok", f"{', '.join(chosen.bootstrap_servers)}; every topic is as it must be")


def _stopped(chosen: Settings) -> Finding:
    """Partitions that stand at a frame, and gaps that were accepted."""
    from streams.cli.connect import probe, run
    from streams.cli.quarantine import HALF, SIGNED, STANDS, WORDS, known, state_of

    name = "ledger frames"
    try:
        probe(chosen)
        cases, stored = run(chosen, known(chosen))
    except CliError as problem:
        return Finding(name, "skip", f"not looked at: {problem}")
    states = {place: state_of(case, stored) for place, case in sorted(cases.all.items())}
    standing = [
        f"partition {partition} at offset {offset} {WORDS[state]}"
        for (partition, offset), state in states.items()
        if state in (STANDS, HALF, SIGNED)
    ]
    if standing:
        return Finding(
            name, "fail", "; ".join(standing), "docs/runbooks/partition-stopped.md; safehold quarantine list"
        )
    aside = sum(len(head.quarantined) for head in stored.values())
    gaps = sum(len(head.gaps) for head in stored.values())
    if aside or gaps:
        said = f"{aside} set aside, {gaps} gaps accepted: their days may stay broken in the balance"
        return Finding(name, "warn", said, "safehold quarantine list; docs/runbooks/balance-break.md")
    return Finding(name, "ok", "no partition stands at one")


def _store(chosen: Settings) -> Finding:
    if chosen.store != "redis":
        return Finding(
            "store", "warn", "memory: everything is forgotten when the worker ends", "store: redis"
        )
    import redis

    url = chosen.redis_url.reveal()
    try:
        with redis.Redis.from_url(
            url,
            username=chosen.redis_username or None,
            password=chosen.redis_password.reveal() or None,
            socket_timeout=SOCKET_SECONDS,
            **({"ssl_ca_certs": chosen.redis_ca_file} if chosen.redis_ca_file else {}),
        ) as client:
            policy = str(client.config_get("maxmemory-policy").get("maxmemory-policy", "unknown"))
            version = str(client.info("server").get("redis_version", "unknown"))
    except redis.RedisError as problem:
        return Finding(
            "store",
            "fail",
            f"Redis does not answer ({type(problem).__name__})",
            "start it, or mend redis_url",
        )
    if policy != "noeviction":
        return Finding(
            "store",
            "fail",
            f"Redis may forget keys (maxmemory-policy {policy})",
            "set maxmemory-policy noeviction",
        )
    return Finding("store", "ok", f"Redis {version}, noeviction")
