"""docker-compose.yml and the image, which no test here can start: what can be checked without an engine is checked."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from streams import settings, versions
from tests.rigs import parts

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy" / "image" / "Dockerfile").read_text()
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("safehold:")}
BIN = ROOT / ".venv" / "bin"


def test_fits_the_compose_specification() -> None:
    command = [
        BIN / "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        ROOT / "docker-compose.yml",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "version" not in COMPOSE


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run(
        [BIN / "hadolint", ROOT / "deploy" / "image" / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_images_are_pinned_and_services_keep_no_rights(service: dict[str, Any]) -> None:
    name, _, tag = service["image"].rpartition(":")
    assert name
    assert re.search(r"\d+\.\d+", tag), "a version, never `latest`"
    assert "bitnami" not in name
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), "loopback only"


def test_what_must_be_ready_is_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, wait in service.get("depends_on", {}).items():
            condition = wait["condition"]
            if condition == "service_healthy":
                assert "healthcheck" in SERVICES[other], (
                    f"{name} waits for {other}, which has no health check"
                )
    assert SERVICES["worker"]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert SERVICES["topics"]["entrypoint"] == ["safehold", "topics", "create"]


def test_the_store_never_evicts_and_writes_everything_down() -> None:
    command = SERVICES["valkey"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_the_tested_broker_is_the_shipped_one() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{parts.KAFKA_VERSION}"
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_the_environment_is_settings_that_a_worker_accepts(service: dict[str, Any]) -> None:
    environment = {
        key: str(value) for key, value in service["environment"].items() if key.startswith("SAFEHOLD_")
    }
    loaded = settings.load(None, environment)
    kafka = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert loaded.bootstrap_servers == ("kafka:9092",)
    assert "INTERNAL://kafka:9092" in kafka
    assert loaded.redis_url.reveal() == "redis://valkey:6379/0"
    assert loaded.mode is not settings.Mode.ADVISE, "advice is switched on by people, not by a compose file"
    bank = SERVICES["bank-topic"]["command"]
    assert [topic.name for topic in loaded.topics] == [bank[bank.index("--topic") + 1]]


def test_ports_agree_everywhere() -> None:
    port = next(field.default for field in settings.FIELDS if field.name == "health_port")
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"] == [{"targets": [f"worker:{port}"]}]
    assert SERVICES["worker"]["environment"]["SAFEHOLD_HEALTH_PORT"] == str(port)
    assert f":{port}/readyz" in json.dumps(SERVICES["worker"]["healthcheck"])
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert f":{port}/livez" in DOCKERFILE


def test_mounted_files_exist() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name} mounts {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name} mounts {source}"


def test_secrets_are_written_where_they_are_read(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "compose_keys.sh"
    script.parent.mkdir()
    script.write_text((ROOT / "scripts" / "compose_keys.sh").read_text())
    subprocess.run(["bash", script], check=True, capture_output=True)
    first = {}
    for secret in COMPOSE["secrets"].values():
        file = tmp_path / secret["file"]
        first[file] = file.read_text()
        assert re.fullmatch(r"k1:[0-9a-f]{64}\n", first[file])
    subprocess.run(["bash", script], check=True, capture_output=True)
    assert {file: file.read_text() for file in first} == first, "a key is never overwritten"
    assert len(set(first.values())) == 2


def test_the_image_runs_a_worker_as_nobody_special() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[-1] == "10001:10001"
    assert 'ENTRYPOINT ["safehold", "worker"]' in DOCKERFILE
    assert "HEALTHCHECK" in DOCKERFILE
    assert "demo" not in re.sub(r"#.*", "", DOCKERFILE)


def test_the_image_is_told_its_commit_and_passes_it_on() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert f"ARG {versions.REVISION}=unknown\nENV {versions.REVISION}=${versions.REVISION}\n" in last
    assert f"org.opencontainers.image.revision=${versions.REVISION}\n" in last
    for name, service in OURS.items():
        assert service["build"]["args"] == {versions.REVISION: f"${{{versions.REVISION}:-unknown}}"}, name
        assert versions.REVISION not in service["environment"], "it would hide what the image says"


def locked(name: str) -> dict[str, Version]:
    lines = re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {package: Version(version) for package, version in lines}


def test_the_production_lock_holds_neither_the_demo_nor_tools() -> None:
    production, everything = locked("requirements.lock"), locked("requirements-dev.lock")
    assert not {"noida-db", "pytest", "mypy", "ruff", "uv", "hypothesis"} & set(production)
    assert {name: everything[name] for name in production} == production, "both locks name the same versions"
    assert all(
        "--hash=sha256:" in (ROOT / name).read_text()
        for name in ("requirements.lock", "requirements-dev.lock")
    )


def test_the_locks_satisfy_the_project() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    base = project["project"]["dependencies"]
    extra = project["project"]["optional-dependencies"]["demo"] + project["dependency-groups"]["dev"]
    for lock, wanted in (("requirements.lock", base), ("requirements-dev.lock", base + extra)):
        versions = locked(lock)
        for line in wanted:
            need = Requirement(line)
            name = need.name.lower()
            assert name in versions, f"{lock} lacks {name}: run `make lock`"
            assert need.specifier.contains(versions[name]), (
                f"{lock}: {name} {versions[name]} is not {need.specifier}"
            )


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    assert copied
    for source in itertools.chain.from_iterable(copied):
        assert (ROOT / source).exists(), source
        assert source in allowed, f"{source} is left out by .dockerignore"


@pytest.mark.slow
def test_the_wheel_holds_the_program_and_its_shipped_files_and_nothing_else(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "detectors", "streams", "deploy/config"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    command = [BIN / "uv", "build", "--wheel", "--quiet", "--out-dir", tmp_path / "dist", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"detectors", "streams", "safehold-0.1.0.dist-info"}
    assert "streams/_data/mappings/berka.yaml" in names
    assert "streams/cli/__init__.py" in names
