"""What systemd is told, and that nothing depends on whether it listens."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from headgate_server.process import notify
from headgate_server.process.child import ServerProcess


@pytest.fixture(params=["file", "abstract"])
def told(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that systemd would listen on, with its name in the environment."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@headgate-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listener.settimeout(10)
        monkeypatch.setenv(notify.VARIABLE, name)
        yield listener


def test_ready_and_stopping(told: socket.socket) -> None:
    notify.ready("REST http://127.0.0.1:8080\n gRPC " + "x" * 500)
    ready, status = told.recv(4096).decode().split("\n")
    assert ready == "READY=1"
    assert status.startswith("STATUS=REST http://127.0.0.1:8080 gRPC xxx")
    assert len(status) < 250
    notify.stopping()
    assert told.recv(4096) == b"STOPPING=1\nSTATUS=stopping"


@pytest.mark.parametrize("name", ["/no/such/socket", "@no-such-name", "x" * 300, "vsock:2:1"])
def test_nobody_listens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notify.VARIABLE, name)
    with capture_logs() as logged:
        notify.ready("up")
    assert [each["event"] for each in logged] == ["service_manager_not_told"]


def test_without_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notify.VARIABLE, raising=False)
    with capture_logs() as logged:
        notify.ready("up")
        notify.stopping()
    assert logged == []


def test_workers_do_not_speak_for_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(notify.VARIABLE, "/run/systemd/notify")
    assert notify.VARIABLE not in ServerProcess([], {}, 1)._environment
