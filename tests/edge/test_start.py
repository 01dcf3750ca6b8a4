"""How a command starts: odd folders and addresses, closed streams, signals, missing packages."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from headgate.v1.ledger_service_pb2 import GetHeadRequest
from headgate_server.cli.commands import headgate as command
from tests.support.edge import Edge, statuses
from tests.support.processes import children, command_line
from tests.support.service import Client, ServerProcess, make_key
from tests.support.up import HEADGATE, Up, headgate
from tests.support.waiting import until_true

KEY = re.compile(r"hg_[0-9A-Za-z]{43}\n")


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "a b", "ü☃", "\udcff", "file:x?mode=ro", "-x", "%s", "'\"$x"])
@pytest.mark.parametrize("is_relative", [False, True])
def test_a_data_folder_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_relative: bool) -> None:
    monkeypatch.chdir(tmp_path)
    folder = name if is_relative else str(tmp_path / name)
    made = CliRunner().invoke(command, ["keys", "create", f"--data-dir={folder}", "--workspace=a", "--scope=admin"])
    assert made.exit_code == 0, made.stderr
    assert KEY.fullmatch(made.stdout)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name / "headgate.db").exists()
    listed = CliRunner().invoke(command, ["ledger", "verify"], env={"HEADGATE_DATA_DIR": folder})
    assert listed.stdout == "_headgate: 2 events, sound\na: 0 events, sound\n"


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = headgate("keys", "list", "--data-dir", str(tmp_path / "file"))
    assert done.returncode == 2
    assert done.stderr == f"headgate: The store's folder {tmp_path / 'file'} is not a folder.\n"


def test_the_service_in_an_odd_folder_at_an_ipv6_address(tmp_path: Path) -> None:
    """The printed request works when pasted, also into a shell that expands patterns."""
    arguments = ("--data-dir", "a?b #%20ü", "--http-host", "::1", "--grpc-host", "[::1]")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(f"\0headgate-{tmp_path}")
    with closing(listener), Up(*arguments, folder=tmp_path, NOTIFY_SOCKET=f"@headgate-{tmp_path}") as up:
        # systemd is told by `headgate up` itself, once, when both ports accept calls.
        assert listener.recv(1000).decode() == f"READY=1\nSTATUS=REST http://{up.rest}, gRPC {up.grpc}"
        assert up.rest.startswith("[::1]:")
        assert up.grpc.startswith("[::1]:")
        assert f"curl 'http://{up.rest}/v1/events/batch'" in up.request
        pasted = subprocess.run(["bash", "-c", up.request], capture_output=True, text=True, check=True, timeout=60)
        assert statuses(json.loads(pasted.stdout)) == ["accepted", "rejected"]
        with closing(Edge(up, "", up.key)) as edge:
            assert edge.ledger.GetHead(GetHeadRequest(), metadata=edge.metadata).sequence == 1
        up.end(signal.SIGTERM)
        assert listener.recv(1000) == b"STOPPING=1\nSTATUS=stopping"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(1000)
    assert (tmp_path / "a?b #%20ü" / "headgate.db").exists()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_asks_to_read_settings_again_ends_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with Up("--data-dir", "data", folder=tmp_path) as up:
        parts = {up.pid, *up.workers()}
        before = set(children(up.pid))
        for pid in parts:
            os.kill(pid, number)
        until_true(lambda: up.log.read_text().count("signal_ignored") == len(parts))
        assert httpx.get(f"http://{up.rest}/readyz").status_code == 200
        assert set(children(up.pid)) == before
        assert up.end(signal.SIGTERM) == 0
    assert "died" not in up.log.read_text()


def _closed(streams: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a command with some standard streams closed, in a shell's notation; `&2` and `&1` are pipes."""
    return subprocess.Popen(
        ["bash", "-c", f'exec "$0" "$@" {streams}', *HEADGATE, *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_up_with_closed_streams(tmp_path: Path, streams: str) -> None:
    """It serves. If its key cannot be shown, it makes none."""
    ports = [part for option in ("--http-port", "--grpc-port") for part in (option, "0")]
    no_key = b"no API key was made, since standard output cannot be written"
    with _closed(streams, "up", "--data-dir", str(tmp_path), *ports) as up:
        try:
            until_true(lambda: any("envoy" in name for name in children(up.pid).values()))
            if ">&-" not in streams.split():
                assert up.stdout is not None
                assert b"REST" in b"".join(up.stdout.readline() for _ in range(2))
            elif streams == ">&-":
                assert up.stderr is not None
                assert any(no_key in line for line in up.stderr)
            else:
                until_true(lambda: _listens(up.pid))
        finally:
            up.send_signal(signal.SIGTERM)
            said = up.communicate(timeout=60)[1].decode()
        assert up.returncode == 0, said
    assert bool(_keys_in(tmp_path)) == (">&-" not in streams.split())


def _keys_in(folder: Path) -> str:
    """Return what `headgate keys list` says of a data folder."""
    listed = CliRunner().invoke(command, ["keys", "list", f"--data-dir={folder}"])
    assert listed.exit_code == 0
    return listed.stdout


def _listens(parent: int) -> bool:
    """Whether the Envoy of a process listens, which is the last step of a start."""
    tables = (Path(f"/proc/{pid}/net/tcp") for pid, name in children(parent).items() if "envoy" in name)
    owned = {
        _target(link).removeprefix("socket:[").removesuffix("]")
        for pid, name in children(parent).items()
        if "envoy" in name
        for link in Path(f"/proc/{pid}/fd").iterdir()
    }
    rows = (line.split() for table in tables for line in table.read_text().splitlines()[1:])
    return any(row[3] == "0A" and row[9] in owned for row in rows)


def _target(link: Path) -> str:
    """Return what a descriptor of another process refers to; nothing if it was closed meanwhile."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


COMMANDS = [
    pytest.param(("keys", "create", "--workspace", "a", "--scope", "admin"), id="keys create"),
    pytest.param(("keys", "list"), id="keys list"),
    pytest.param(("workspaces", "list"), id="workspaces list"),
    pytest.param(("ledger", "verify"), id="ledger verify"),
]


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize(
    ("streams", "word"), [(">&-", "standard output is closed"), (">/dev/full", "No space left on device")]
)
def test_a_result_that_cannot_be_written(tmp_path: Path, arguments: tuple[str, ...], streams: str, word: str) -> None:
    """One line says so, and no key is made that was not shown."""
    asyncio.run(make_key(f"sqlite:///{tmp_path}/headgate.db"))
    done = _closed(streams, *arguments, "--data-dir", str(tmp_path))
    said = done.communicate(timeout=60)[1].decode()
    assert done.returncode == 2
    assert said.startswith("headgate: ")
    assert word in said
    assert said.count("\n") == 1
    assert _keys_in(tmp_path).count("  valid  ") == 1


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_command_without_standard_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    asyncio.run(make_key(f"sqlite:///{tmp_path}/headgate.db"))
    done = _closed("2>&- <&-", *arguments, "--data-dir", str(tmp_path))
    said = done.communicate(timeout=60)[0].decode()
    assert done.returncode == 0
    assert said


def test_a_refusal_without_standard_error() -> None:
    done = _closed("2>&-", "keys", "list", "--data-dir", "/proc/nowhere")
    done.communicate(timeout=60)
    assert done.returncode == 2


def _forbid(folder: Path, *packages: str) -> str:
    """Return a PYTHONPATH with which these packages cannot be imported, also not in child processes."""
    for name in packages:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('forbidden', name={name!r})\n")
    return str(folder)


async def test_serve_needs_neither_envoy_nor_the_bridge(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir()
    path = _forbid(forbidden, "envoy", "yaml", "headgate_bridge")
    for arguments in (("up",), ("bridge",)):
        done = headgate(*arguments, PYTHONPATH=path)
        assert done.returncode == 1
        assert done.stderr == (
            "headgate: headgate_bridge is not installed; this command needs: pip install 'headgate[server,bridge]'\n"
        )
    assert headgate("--help", PYTHONPATH=path).returncode == 0
    key = await make_key(sqlite_url)
    monkeypatch.setenv("PYTHONPATH", path)
    async with ServerProcess(sqlite_url) as server, Client(server.port, key) as client:
        assert (await client.ledger.GetHead(GetHeadRequest(), metadata=client.metadata)).sequence == 0


async def test_workers_are_handed_an_option_by_its_field(postgres_url: str, tmp_path: Path) -> None:
    """The command line of each worker, as other users see it, has the options and no password."""
    async with ServerProcess(postgres_url, "--workers", "2", "--waiting-events", "123") as server:
        lines = [command_line(pid) for pid in children(server.pid)]
        assert len(lines) == 2
        for line in lines:
            assert "--waiting-events=123" in line
            assert not [part for part in line if "postgresql" in part]
