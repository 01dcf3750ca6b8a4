"""`headgate events`: list, get and tail, beside a running service."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headgate_server.cli import commands as cli
from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge
from tests.support.up import HEADGATE, headgate


def _lines(*arguments: str) -> list[Any]:
    done = headgate("events", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(params=["sqlite", "postgres"])
def edge(request: pytest.FixtureRequest, make_edge: MakeEdge) -> Edge:
    """Return clients of a workspace with three events."""
    edge = make_edge(workspace=f"w{os.urandom(6).hex()}", store=request.param)
    edge.batch(
        {"type": "order.created", "source": "shop", "idempotency_key": "a", "data": {"n": 12345678901234567890}},
        {"type": "order.paid", "source": "shop", "subject": "s"},
        {"type": "orders", "source": "other"},
    )
    return edge


def _workspace(edge: Edge) -> tuple[str, ...]:
    listed = headgate("keys", "list", "--store", edge.url).stdout
    (line,) = [line for line in listed.splitlines()[1:] if edge.key.startswith(line.split("  ")[1].rstrip("…"))]
    return "--store", edge.url, "--workspace", line.split("  ")[2]


def test_lines_are_what_rest_shows(edge: Edge) -> None:
    where = _workspace(edge)
    stored = edge.http.get("/v1/events").json()["events"]
    assert _lines("list", *where) == stored
    assert _lines("list", *where, "--newest-first", "--limit", "2") == stored[:0:-1]
    assert _lines("list", *where, "--type", "order.*", "--source", "shop") == stored[:2]
    assert _lines("list", *where, "--subject", "s") == stored[1:2]
    assert _lines("list", *where, "--idempotency-key", "a", "--source", "shop") == stored[:1]
    assert _lines("list", *where, "--from", stored[1]["created_at"], "--to", stored[2]["created_at"]) == stored[1:2]
    assert _lines("get", *where, stored[0]["id"]) == stored[:1]
    assert "12345678901234567890" in headgate("events", "get", *where, stored[0]["id"]).stdout


@contextmanager
def _tail(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([*HEADGATE, "events", "tail", *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def _read(process: "subprocess.Popen[str]", count: int) -> list[int]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline())["sequence"] for _ in range(count)]


def test_a_tail_prints_what_is_stored_and_what_comes(edge: Edge) -> None:
    where = _workspace(edge)
    with _tail(*where, "--after", "1") as everything, _tail(*where, "--after", "0", "--type", "order.*") as orders:
        assert _read(everything, 2) == [2, 3]
        assert _read(orders, 2) == [1, 2]
        for _ in range(3):
            edge.batch({"type": "order.created"}, {"type": "other"})
        assert _read(everything, 6) == [4, 5, 6, 7, 8, 9]
        assert _read(orders, 3) == [4, 6, 8]
        everything.send_signal(signal.SIGINT)
        assert everything.wait(60) == 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("list", "--workspace", "nobody"), "nobody", id="no such workspace"),
        pytest.param(("list", "--workspace", "acme", "--from", "yesterday"), "--from", id="no time"),
        pytest.param(("list", "--workspace", "acme", "--limit", "0"), "--limit", id="nothing"),
        pytest.param(("get", "--workspace", "acme", "abc"), "'abc'", id="no id"),
        pytest.param(
            ("get", "--workspace", "acme", "01a1fc55-87c1-728f-9c4c-d55d5623739d"), "01a1fc55", id="not there"
        ),
        pytest.param(("tail", "--workspace", "acme", "--after", "-1"), "--after", id="negative"),
        pytest.param(("tail", "--workspace", "acme", "--after", "x"), "--after", id="no number"),
        pytest.param(("tail", "--workspace", "acme", "--after", "1"), "sequence 0", id="past the head"),
        pytest.param(("tail",), "--workspace", id="no workspace"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    create = ["keys", "create", "--data-dir", str(tmp_path), "--workspace", "acme", "--scope", "admin"]
    assert CliRunner().invoke(cli.headgate, create).exit_code == 0
    done = CliRunner().invoke(cli.headgate, ["events", arguments[0], "--data-dir", str(tmp_path), *arguments[1:]])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr
