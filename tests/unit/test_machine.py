"""What this process may use of its machine, and how many workers that makes."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from headgate_server.cli.workers import counted
from headgate_server.config import Settings, StoreConfig
from headgate_server.core.errors import SetupError
from headgate_server.process import machine
from headgate_server.process.child import RestartPolicy, keep
from headgate_server.process.ports import HIGHEST_PORT, reserved

_GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "quotas"),
    [
        ("max 100000\n", []),
        ("150000 100000\n", [1.5]),
        ("50000 100000\n", [0.5]),
        ("", []),
        ("100000\n", []),
        ("100000 0\n", []),
        ("much more\n", []),
    ],
)
def test_quotas_of_processor_time(tmp_path: Path, text: str, quotas: Sequence[float]) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert list(machine.cpu_quotas([tmp_path / "without", tmp_path])) == quotas


@pytest.mark.parametrize(("text", "limits"), [("max\n", []), ("536870912\n", [536870912]), ("", []), ("1 2\n", [])])
def test_limits_of_memory(tmp_path: Path, text: str, limits: Sequence[int]) -> None:
    (tmp_path / "memory.max").write_text(text)
    assert list(machine.memory_limits([tmp_path / "without", tmp_path])) == limits


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest limit applies, of the machine, of a cgroup, or of one around it."""
    free = (machine.processors(), machine.memory())
    assert free[0] >= 1
    assert free[1] > 1 << 20
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "cpu.max").write_text("30000 100000")
    (inner / "cpu.max").write_text("max 100000")
    (inner / "memory.max").write_text("1048576")
    (tmp_path / "own").write_text("1:name=systemd:/x\n0::/outer/inner\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_PROCESS", tmp_path / "own")
    assert (machine.processors(), machine.memory()) == (1, 1048576)
    monkeypatch.setattr(machine, "_PROCESS", tmp_path / "none")
    assert machine.memory() >= free[1]


@pytest.mark.parametrize(
    ("url", "processors", "memory", "workers"),
    [
        (None, 1, 64 * _GIB, 1),
        (None, 2, 64 * _GIB, 2),
        (None, 64, 64 * _GIB, 2),
        (None, 64, 1 * _GIB, 1),
        (None, 64, _GIB // 2, 1),
        ("sqlite:///x.db", 8, 64 * _GIB, 2),
        ("postgresql://h/d", 3, 64 * _GIB, 3),
        ("postgresql://h/d", 64, 64 * _GIB, 4),
        ("postgresql://h/d", 64, 3 * _GIB, 3),
    ],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, url: str | None, processors: int, memory: int, workers: int) -> None:
    monkeypatch.setattr(machine, "processors", lambda: processors)
    monkeypatch.setattr(machine, "memory", lambda: memory)
    settings = Settings(store=StoreConfig(url=url))
    assert counted(settings, serves_alone=False).workers == workers
    assert counted(settings, serves_alone=True).workers == 1
    asked = Settings(store=StoreConfig(url=url), workers=7)
    assert counted(asked, serves_alone=False) == counted(asked, serves_alone=True) == asked


def test_later_ports_that_are_taken() -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(socket.socket())
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match="the port is in use"):
            stack.enter_context(reserved("127.0.0.1", port - 1, 2, "a test"))
        first, second = stack.enter_context(reserved("127.0.0.1", port - 1, 2, "a test", elsewhere=True))
        assert first == port - 1
        assert second not in (0, first, port)
        with pytest.raises(SetupError, match="the port is in use"):
            stack.enter_context(reserved("127.0.0.1", port, 1, "a test", elsewhere=True))


def test_ports_past_the_highest() -> None:
    with reserved("127.0.0.1", HIGHEST_PORT, 2, "a test", elsewhere=True) as (first, second):
        assert first == HIGHEST_PORT > second > 0
    with pytest.raises(SetupError, match="there is no such port"), reserved("127.0.0.1", HIGHEST_PORT, 2, "a test"):
        pass


class _Child:
    """A child whose first starts fail."""

    kind, port = "worker", 0

    def __init__(self, failures: int):
        self.failures, self.starts = failures, 0

    async def start(self) -> None:
        self.starts += 1
        if self.starts <= self.failures:
            raise SetupError("no memory")

    async def wait(self) -> int:
        raise TimeoutError  # of the test: it runs


@pytest.mark.parametrize(("failures", "error"), [(0, TimeoutError), (2, TimeoutError), (3, SetupError)])
async def test_a_child_that_is_started_later(failures: int, error: type[Exception]) -> None:
    """It is tried again as one that died."""
    child = _Child(failures)
    policy = RestartPolicy(first_pause=0.001, growth=1, failures=3)
    with pytest.raises(error) as raised:
        await keep(child, policy, started=False)
    assert child.starts == min(failures + 1, 3)
    if error is SetupError:
        assert str(raised.value) == "the worker could not be started, 3 times in a row; no memory"
