"""A process's name says whether it has ended, and never says so of a process that still runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headgate_server.process.identity import has_ended, process_name

_CHILD = """
from headgate_server.process.identity import process_name
print(process_name(), flush=True)
input()
"""

_HOST, _BOOT, _NAMESPACE, _PID, _START, _RANDOM = range(6)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def changed(name: str, part: int, text: str) -> str:
    parts = name.split("/")
    parts[part] = text
    return "/".join(parts)


def test_a_killed_process_has_ended_and_a_frozen_one_has_not(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert not has_ended(name)
    child.send_signal(signal.SIGSTOP)
    assert not has_ended(name)
    child.kill()
    child.wait()
    assert has_ended(name)
    assert not has_ended(changed(name, _BOOT, "another kernel"))
    assert not has_ended(changed(name, _NAMESPACE, "pid:[1]"))


def test_each_name_is_another_one_and_this_process_has_not_ended() -> None:
    one, other = process_name(), process_name()
    assert one != other
    assert not has_ended(one)


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    assert has_ended(changed(process_name(), _START, "1"))


def test_a_process_of_another_user_that_runs_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert not has_ended(process_name())


@pytest.mark.parametrize("part", [_PID, _START])
@pytest.mark.parametrize("text", ["-", "", "one", "-1"])
def test_a_process_that_could_not_read_its_own_name_may_still_run(part: int, text: str) -> None:
    assert not has_ended(changed(process_name(), part, text))


@pytest.mark.parametrize("name", ["", "one", "host:12:0f", "a/b/c/d/e", "-/-/-/-/-/-", "a/-/-/999999999/1/x"])
def test_nothing_is_known_of_another_name(name: str) -> None:
    assert not has_ended(name)
