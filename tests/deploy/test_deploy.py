"""What is in `deploy/`, as far as it can be checked without tools that are built first (`make test-deploy`)."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from headgate_server.cli.commands import headgate
from tests.support import containers

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def _pins(path: Path) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in _PIN.findall(path.read_text())}


def accepts(command: Sequence[str]) -> None:
    """Fail unless the command line takes these arguments."""
    name, *arguments = command
    found = headgate.get_command(headgate.make_context("headgate", [name]), name)
    assert found is not None, name
    found.make_context(name, list(arguments))


def test_the_image_has_the_packages_that_the_tests_have() -> None:
    tested, pinned = _pins(ROOT / "constraints.txt"), _pins(DEPLOY / "requirements.txt")
    assert {name: tested[name] for name in pinned if name in tested} == {
        name: version for name, version in pinned.items() if name in tested
    }
    assert set(pinned) - set(tested) == {"dumb-init"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for wanted in (*project["dependencies"], *extras["server"], *extras["bridge"]):
        name = re.sub(r"[-_.]+", "-", re.split(r"[\[><=; ]", wanted)[0]).lower()
        assert name in pinned, f"{name} is missing in deploy/requirements.txt: make deploy-lock"


@pytest.mark.parametrize("name", ["requirements.txt", "build.txt"])
def test_every_package_has_hashes_and_no_index_is_named(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=[A-Za-z0-9])", text.partition("make deploy-lock\n")[2]):
        assert "--hash=sha256:" in block, block


def test_the_image_runs_as_nobody_from_pinned_bases() -> None:
    steps = list(containers.steps(DOCKERFILE))
    assert [step.text.partition(" AS ")[0] for step in steps if step.name == "FROM"] == ["${PYTHON_IMAGE}"] * 2
    assert steps[0].name == "ARG"
    assert not steps[0].text.endswith(":latest")
    users = [step.text for step in steps if step.name == "USER"]
    assert users == ["65532:65532"]
    assert [step.name for step in steps][-2:] == ["ENTRYPOINT", "CMD"]
    runs = " && ".join(step.text for step in steps if step.name == "RUN")
    packages = re.findall(r"pip[^&]* (?:install|wheel) [^&]*", runs)
    assert len(packages) == 4
    for command in packages:
        assert "--require-hashes" in command or "--no-deps" in command, command


def test_what_is_copied_is_in_the_context() -> None:
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for step in containers.steps(DOCKERFILE):
        if step.name == "COPY" and not step.text.startswith("--from="):
            for source in shlex.split(step.text)[:-1]:
                assert (ROOT / source).exists(), source
                pattern = "deploy/*.txt" if source.startswith("deploy/") else source.rstrip("/")
                assert f"!{pattern}" in allowed, source


def test_the_image_takes_its_own_command() -> None:
    (command,) = [step.text for step in containers.steps(DOCKERFILE) if step.name == "CMD"]
    accepts(yaml.safe_load(command))
    (entry,) = [step.text for step in containers.steps(DOCKERFILE) if step.name == "ENTRYPOINT"]
    assert yaml.safe_load(entry) == ["dumb-init", "--", "headgate"]


def test_compose_has_health_checks_and_no_privileges() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"postgres", "migrate", "headgate"}
    for name in ("migrate", "headgate"):
        accepts(services[name]["command"])
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    assert {"healthcheck"} <= set(services["postgres"]) & set(services["headgate"])
    assert services["headgate"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert all(port.startswith("127.0.0.1:") for port in services["headgate"]["ports"])


def _unit(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_what_there_is(path: Path) -> None:
    settings = dict(_unit(path))
    program, *command = shlex.split(settings["ExecStart"])
    assert program == "/opt/headgate/bin/headgate"
    accepts(command)
    assert (settings["Type"], settings["User"]) == ("notify", "headgate")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_accepts_the_unit_and_finds_it_hardened(path: Path, tmp_path: Path) -> None:
    # A program of this machine: systemd-analyze looks for it.
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/headgate/bin/headgate", sys.executable))
    verified = _systemd("verify", "--man=no", str(unit))
    assert verified.returncode == 0, verified.stderr
    assert str(path.name) not in verified.stderr
    security = _systemd("security", "--offline=true", "--threshold=20", str(unit))
    assert security.returncode == 0, security.stdout[-2000:]


def _systemd(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
