"""A test that hangs ends, says where it hung, and is cleaned up."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.limits import SETTING

ROOT = Path(__file__).parents[2]

HANGING = """
import asyncio, pathlib, threading
import pytest
from hypothesis import given, strategies

@pytest.fixture
def resource():
    yield
    with open("ended", "a") as file:
        file.write("x")

def wait_for_nobody():
    threading.Event().wait()

async def ask_nobody():
    await asyncio.Event().wait()

def test_a_thread_that_is_not_the_main_one(resource):
    waiting = threading.Thread(target=wait_for_nobody, daemon=True)
    waiting.start()
    waiting.join()

async def test_a_task(resource):
    waiting = asyncio.create_task(ask_nobody())
    await asyncio.wait([waiting])

async def test_what_keeps_every_exception(resource):
    while True:
        try:
            await ask_nobody()
        except Exception:
            pass

@given(strategies.integers())
def test_examples(number):
    wait_for_nobody()

@pytest.fixture
def stuck():
    yield
    wait_for_nobody()

def test_a_clean_up(resource, stuck):
    pass

def test_the_next_one(resource):
    pass
"""


def _run(folder: Path, code: str, *settings: str) -> "subprocess.CompletedProcess[str]":
    (folder / "test_hanging.py").write_text(code)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    plugins = [f"-p{name}" for name in ("pytest_asyncio.plugin", "tests.support.limits", "no:cacheprovider")]
    options = [f"-o{setting}" for setting in settings]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir=.", *plugins, *options, "test_hanging.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_hanging_test_ends_and_says_where_it_hung(tmp_path: Path) -> None:
    said = _run(tmp_path, HANGING, f"{SETTING}=1").stdout
    assert "4 failed, 2 passed, 1 error" in said, said
    assert (tmp_path / "ended").read_text() == "x" * 5, "every fixture was cleaned up"
    of_each = re.findall(r"the (\S+) of test_hanging.py::(\w+) was not done within 1 s", said)
    assert set(of_each) == {
        ("body", "test_a_thread_that_is_not_the_main_one"),
        ("body", "test_a_task"),
        ("body", "test_what_keeps_every_exception"),
        ("body", "test_examples"),
        ("clean-up", "test_a_clean_up"),
    }
    thread, task, *_ = re.split(r"^_{5,} test_\w+ _{5,}$", said, flags=re.MULTILINE)[1:]
    assert "in wait_for_nobody" in thread
    assert "in ask_nobody" in task


def test_what_python_cannot_interrupt_ends_with_the_process(tmp_path: Path) -> None:
    code = "import ctypes\ndef test_it():\n    libc = ctypes.PyDLL(None)\n    while True: libc.sleep(60)\n"
    done = _run(tmp_path, code, f"{SETTING}=0", "faulthandler_timeout=0.5", "faulthandler_exit_on_timeout=true")
    assert done.returncode == 1
    assert 'test_hanging.py", line 4 in test_it' in done.stderr, done.stderr
