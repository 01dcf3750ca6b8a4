"""The core as it is released: its wheel and its sources, each installed beside the server's wheel in a new environment.

`make test-native-packages` runs it. It needs cargo, and installs the server's requirements twice.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.up import HEADGATE, Up

ROOT = Path(__file__).parent.parent.parent
NATIVE = ROOT / "native"
OTHER = "9.9.9"
"""The version of a core that this server refuses."""


def _run(*command: str | Path, folder: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of the server, and the wheel and the sources of the core, as docs/native.md says."""
    folder = tmp_path_factory.mktemp("dist")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    _run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    maturin = Path(sys.executable).parent / "maturin"
    _run(maturin, "build", "--release", "--locked", "--manifest-path", NATIVE / "Cargo.toml", "--out", folder)
    _run(maturin, "sdist", "--manifest-path", NATIVE / "Cargo.toml", "--out", folder)
    return folder


@pytest.fixture(scope="session", params=["headgate_native-*-cp311-abi3-*.whl", "headgate_native-*.tar.gz"])
def program(request: pytest.FixtureRequest, dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return `headgate` of a new environment with the server's wheel and one package of the core."""
    (server,) = dist.glob("headgate-*.whl")
    (core,) = dist.glob(request.param)
    environment = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", environment)
    pip = (environment / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    _run(*pip, "--constraint", ROOT / "constraints.txt", f"{server}[server,bridge]")
    before = _run(environment / "bin/headgate", "--version", folder=environment)
    assert before.stderr == "core: pure Python; headgate_native is not installed\n"
    _run(*pip, core, CARGO_TARGET_DIR=str(NATIVE / "target"))
    return environment / "bin/headgate"


class _Installed(Up):
    """`headgate up` of another installation than this one."""

    def __init__(self, program: Path, *arguments: str, **options: Any):
        super().__init__(*arguments, **options)
        self._command[: len(HEADGATE)] = [str(program)]


def _ingested(program: Path, folder: Path, **environment: str) -> tuple[str, str, str]:
    """Serve, and store an event over REST and read it again. Return what was printed, the log, and the metric."""
    folder.mkdir()
    options = ("--data-dir", "data", "--metrics-port", "0")
    with _Installed(program, *options, folder=folder, **environment) as up:
        sent = httpx.post(
            f"http://{up.rest}/v1/events/batch",
            json={"events": [{"type": "t", "data": {"b": 1, "a": 1.50}, "idempotency_key": "k"}, {"type": ""}]},
            headers={"x-api-key": up.key},
        )
        assert [result["status"] for result in sent.json()["results"]] == ["accepted", "rejected"]
        (event,) = httpx.get(f"http://{up.rest}/v1/events", headers={"x-api-key": up.key}).json()["events"]
        assert (event["type"], event["data"]) == ("t", {"a": 1.5, "b": 1})
        metrics = httpx.get(f"http://127.0.0.1:{up.metrics_port}/metrics").text
    assert up.wait() == 0
    (used,) = re.findall(r"^headgate_build_info\{.*core=\"(\w+)\".*\} 1", metrics, re.MULTILINE)
    assert "headgate_core_failures_total 0.0" in metrics
    return up.said, up.log.read_text(), used


def test_nothing_of_the_source_tree_is_used(program: Path, tmp_path: Path) -> None:
    python = program.parent / "python"
    names = "import headgate_server, headgate_native; print(headgate_server.__file__, headgate_native.__file__)"
    places = _run(python, "-c", names, folder=tmp_path).stdout.split()
    assert [str(program.parent.parent) in place for place in places] == [True, True]


def test_the_core_is_used_and_said(program: Path, tmp_path: Path) -> None:
    said, log, used = _ingested(program, tmp_path / "up")
    assert (used, "compiled, headgate_native" in said) == ("compiled", True)
    assert "core_refused" not in log
    shown = _run(program, "--version", folder=tmp_path)
    assert re.fullmatch(r"core: compiled, headgate_native \S+\n", shown.stderr)


def test_the_environment_turns_it_off(program: Path, tmp_path: Path) -> None:
    said, _, used = _ingested(program, tmp_path / "up", HEADGATE_PURE="1")
    assert (used, "pure Python, because HEADGATE_PURE is set" in said) == ("python", True)
    shown = _run(program, "--version", folder=tmp_path, HEADGATE_PURE="1")
    assert shown.stderr == "core: pure Python, because HEADGATE_PURE is set\n"


@pytest.fixture(scope="session")
def other_core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a core of another version."""
    sources, folder = tmp_path_factory.mktemp("sources") / "native", tmp_path_factory.mktemp("other")
    shutil.copytree(NATIVE, sources, ignore=shutil.ignore_patterns("target"))
    for name in ("Cargo.toml", "Cargo.lock"):
        text = (sources / name).read_text()
        changed = re.sub(r'(name = "headgate_native"\nversion = )"[^"]+"', rf'\1"{OTHER}"', text)
        assert changed != text
        (sources / name).write_text(changed)
    pip: Sequence[str] = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    target = str(NATIVE / "target" / "other")
    _run(*(*pip, "--no-build-isolation", "--no-deps", "--target", folder, sources), PATH=path, CARGO_TARGET_DIR=target)
    return folder


def test_a_core_of_another_version_is_refused_in_one_line(program: Path, other_core: Path, tmp_path: Path) -> None:
    said, log, used = _ingested(program, tmp_path / "up", PYTHONPATH=str(other_core))
    assert used == "python"
    assert log.count("core_refused") == 1
    (line,) = [line for line in said.splitlines() if "Core:" in line]
    assert f"headgate_native is of version {OTHER}" in line


def test_the_sources_have_what_the_build_needs_and_nothing_else(dist: Path) -> None:
    (sources,) = dist.glob("headgate_native-*.tar.gz")
    with tarfile.open(sources) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"Cargo.toml", "Cargo.lock", "pyproject.toml", "PKG-INFO", "src/lib.rs"} <= names
    assert not [name for name in names if "target" in name or name.startswith("..")]
