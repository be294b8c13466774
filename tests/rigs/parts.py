"""Finds the real parts on this machine, and installs those that are missing.

Standard library only, so that it runs before anything else is set up:

    python -m tests.rigs.parts check      what is here and what is not
    python -m tests.rigs.parts install    bring what is missing, or say exactly what to run
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KAFKA_VERSION = "4.3.1"
JAVA_AT_LEAST = 17
COPIER = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
TRIES = 3
POM = Path(__file__).with_name("kafka-pom.xml")
SAY_NO = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True, slots=True)
class Part:
    """One thing the tests need, where it is, and the Debian package that brings it."""

    name: str
    found: str | None
    package: str


def cache_dir() -> Path:
    """The folder that keeps downloads between runs."""
    return Path(os.environ.get("SAFEHOLD_CACHE") or Path.home() / ".cache" / "safehold")


def kafka_libs() -> Path | None:
    """The folder of Kafka's jars, if it was filled completely."""
    libs = cache_dir() / f"kafka-{KAFKA_VERSION}"
    return libs if (libs / ".complete").exists() else None


def find_java() -> str | None:
    """A java of at least JAVA_AT_LEAST: JAVA_HOME first, then the path, then the usual folder."""
    candidates = [shutil.which("java")]
    if home := os.environ.get("JAVA_HOME"):
        candidates.insert(0, str(Path(home) / "bin" / "java"))
    candidates += sorted(map(str, Path("/usr/lib/jvm").glob("*/bin/java")))
    for java in candidates:
        if java and _java_version(java) >= JAVA_AT_LEAST:
            return java
    return None


def _java_version(java: str) -> int:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found.group(1)) if found else 0


def find_redis() -> str | None:
    """A Redis or Valkey server program."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def find_promtool() -> str | None:
    """Prometheus' rule checker."""
    return shutil.which("promtool")


def system_parts() -> list[Part]:
    """Everything that comes from the system's packages. Maven is needed only while the jars are not cached."""
    parts = [
        Part("Java 17 or newer", find_java(), "openjdk-17-jre-headless"),
        Part("Redis server", find_redis(), "redis-server"),
        Part("promtool", find_promtool(), "prometheus"),
    ]
    if kafka_libs() is None:
        parts.append(Part("Maven", shutil.which("mvn"), "maven"))
    return parts


def apt_line(packages: list[str]) -> str:
    """The line that a person runs where we may not."""
    return f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {' '.join(packages)}"


def say(text: str) -> None:
    print(f"parts: {text}", flush=True)


def check() -> bool:
    """Print what is here and what is missing."""
    whole = True
    for part in system_parts():
        say(f"{part.name}: {part.found or f'missing (package {part.package})'}")
        whole &= part.found is not None
    libs = kafka_libs()
    say(f"Apache Kafka {KAFKA_VERSION}: {libs or 'not cached yet'}")
    return whole and libs is not None


def install() -> bool:
    """Bring what is missing. False, with the line to run, where that is not allowed."""
    missing = [part for part in system_parts() if part.found is None]
    if missing and not _install_packages(missing):
        return False
    return fetch_kafka()


def _install_packages(missing: list[Part]) -> bool:
    packages = [_offered(part.package) for part in missing]
    names = ", ".join(part.name for part in missing)
    prefix = _root_prefix()
    if prefix is None or shutil.which("apt-get") is None:
        say(f"missing: {names}. Install it, then run this again:")
        say(f"  {apt_line(packages)}")
        return False
    say(f"missing: {names}. Installing {' '.join(packages)} with apt")
    quiet = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    with _services_stay_down(prefix):
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(
                [*quiet, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode:
                say(f"apt-get {command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
                say(f"install it by hand, then run this again:\n  {apt_line(packages)}")
                return False
    still = [part for part in system_parts() if part.found is None]
    for part in still:
        say(f"{part.name} is still missing after installing {part.package}")
    return not still


def _offered(package: str) -> str:
    """The package, or the system's default Java where version 17 is not offered by its own name."""
    if package.startswith("openjdk-") and shutil.which("apt-cache"):
        shown = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
        if shown.returncode:
            return "default-jre-headless"
    return package


def _root_prefix() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
        if asked.returncode == 0:
            return ["sudo", "-n"]
    return None


@contextlib.contextmanager
def _services_stay_down(prefix: list[str]) -> Iterator[None]:
    """Keep packages from starting their own service (Redis on 6379, Prometheus on 9090) while they install."""
    if SAY_NO.exists():
        yield
        return
    script = f"printf '#!/bin/sh\\nexit 101\\n' > {SAY_NO} && chmod 755 {SAY_NO}"
    subprocess.run([*prefix, "sh", "-c", script], check=True)
    try:
        yield
    finally:
        subprocess.run([*prefix, "rm", "-f", str(SAY_NO)], check=True)


def fetch_kafka() -> bool:
    """Kafka's jars into the cache folder, through Maven."""
    if kafka_libs() is not None:
        return True
    final = cache_dir() / f"kafka-{KAFKA_VERSION}"
    filling = final.with_name(f"{final.name}.filling-{os.getpid()}")
    shutil.rmtree(filling, ignore_errors=True)
    filling.mkdir(parents=True)
    say(f"fetching Apache Kafka {KAFKA_VERSION} (about 55 MB) into {final}")
    command = ["mvn", "-B", "-f", str(POM), f"-Dkafka.version={KAFKA_VERSION}"]
    command += [f"{COPIER}:copy-dependencies", f"-DoutputDirectory={filling}"]
    started = time.monotonic()
    for attempt in range(1, TRIES + 1):
        problem = _run_maven(command, started)
        if problem is None:
            break
        say(f"Maven failed (try {attempt} of {TRIES}):\n{problem}")
    else:
        shutil.rmtree(filling, ignore_errors=True)
        return False
    jars = len(list(filling.glob("*.jar")))
    (filling / ".complete").write_text(f"{jars} jars\n")
    shutil.rmtree(final, ignore_errors=True)
    try:
        filling.rename(final)
    except OSError:  # another run was first
        shutil.rmtree(filling, ignore_errors=True)
    say(f"Apache Kafka {KAFKA_VERSION}: {jars} jars in {time.monotonic() - started:.0f} s")
    return kafka_libs() is not None


def _run_maven(command: list[str], started: float) -> str | None:
    """What Maven last said when it failed, or None."""
    tail: list[str] = []
    jars = 0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as maven:
        assert maven.stdout is not None
        for line in maven.stdout:
            if "Downloaded from" in line and ".jar " in line:
                jars += 1
                if jars % 25 == 0:
                    say(f"  {jars} jars fetched, {time.monotonic() - started:.0f} s")
            elif "Downloaded from" not in line and "Downloading from" not in line:
                tail = [*tail[-20:], line]
    return "".join(tail) if maven.returncode else None


def main(arguments: list[str]) -> int:
    match arguments:
        case ["check"]:
            return 0 if check() else 1
        case ["install"]:
            return 0 if install() else 1
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
