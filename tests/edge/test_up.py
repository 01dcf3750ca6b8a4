"""`headgate up` from its first line to its end, in every way of ending."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc.aio
import httpx
import pytest

from headgate.v1.ledger_service_pb2 import GetHeadRequest
from headgate.v1.ledger_service_pb2_grpc import LedgerServiceStub
from headgate_bridge import BridgeConfig, Envoy
from headgate_server.access import admin
from headgate_server.core.errors import SetupError
from headgate_server.process.child import RestartPolicy, keep
from tests.support import database
from tests.support.calls import refused
from tests.support.edge import Edge, failure, statuses
from tests.support.outage import outage
from tests.support.processes import children, is_gone
from tests.support.service import ServerProcess
from tests.support.up import HEADGATE, Up, headgate
from tests.support.waiting import held, until_true

MAPPED = "0000000000000000FFFF00000100007F"
"""::ffff:127.0.0.1 as /proc/net/tcp6 writes it."""


def test_from_nothing_to_the_first_answer_and_again(tmp_path: Path) -> None:
    """The printed request works when pasted. The second start prints no key, and the stored events are there."""
    with Up("--data-dir", "data", folder=tmp_path) as up:
        key = up.key
        pasted = subprocess.run(["bash", "-c", up.request], capture_output=True, text=True, check=True, timeout=30)
        assert statuses(json.loads(pasted.stdout)) == ["accepted", "rejected"]
        assert up.end(signal.SIGTERM) == 0
    assert "headgate: stopped" in up.log.read_text()
    assert "Traceback" not in up.log.read_text()
    with Up("--data-dir", "data", folder=tmp_path) as up:
        events = httpx.get(f"http://{up.rest}/v1/events", headers={"x-api-key": key}).json()["events"]
        assert [event["data"] for event in events] == [{"amount": 49.99}]
        up.signal(signal.SIGINT)
        assert up.wait() == 0
    assert "hg_" not in up.said
    assert key not in up.log.read_text()


def test_settings_by_environment(tmp_path: Path) -> None:
    settings = {
        "HEADGATE_DATA_DIR": str(tmp_path / "elsewhere"),
        "HEADGATE_BATCH_LIMIT": "2",
        "HEADGATE_BODY_LIMIT": "2000",
    }
    with Up(folder=tmp_path, **settings) as up, httpx.Client(base_url=f"http://{up.rest}") as http:
        assert (tmp_path / "elsewhere" / "headgate.db").exists()
        path, headers = "/v1/events/batch", {"x-api-key": up.key}
        many = http.post(path, json={"events": [{"type": "t"}] * 3}, headers=headers)
        assert failure(many) == (400, 3, "TOO_MANY_EVENTS")
        large = http.post(path, json={"events": [{"type": "x" * 2_000}]}, headers=headers)
        assert failure(large) == (413, 8, "BODY_TOO_LARGE")


def test_both_ports_are_of_loopback(tmp_path: Path) -> None:
    with Up("--data-dir", "data", folder=tmp_path) as up:
        assert {address.partition(":")[0] for address in (up.rest, up.grpc)} == {"127.0.0.1"}
        for host_and_port in (up.rest, up.grpc):
            port = f"{int(host_and_port.partition(':')[2]):04X}"
            listening = [
                line.split()[1]
                for table in ("/proc/net/tcp", "/proc/net/tcp6")
                for line in Path(table).read_text().splitlines()[1:]
                if line.split()[3] == "0A" and line.split()[1].endswith(f":{port}")
            ]
            assert len(listening) == 1
            assert listening[0] in (f"0100007F:{port}", f"{MAPPED}:{port}")


def test_kill_9_leaves_nothing_behind(tmp_path: Path) -> None:
    with Up("--data-dir", "data", folder=tmp_path) as up:
        parts = children(up.pid)
        assert len(parts) == 2
        assert any("envoy" in name for name in parts.values())
        up.end(signal.SIGKILL)
        for pid in parts:
            until_true(lambda pid=pid: is_gone(pid))
    # And it starts again on the same data.
    with Up("--data-dir", "data", folder=tmp_path) as up:
        assert httpx.get(f"http://{up.rest}/readyz").status_code == 200


def test_a_server_that_dies_is_replaced(tmp_path: Path) -> None:
    """It starts on its own port, although that was any free one; the stored events are there."""
    with Up("--data-dir", "data", folder=tmp_path) as up:
        (server,) = up.workers()
        with closing(Edge(up, "", up.key)) as edge:
            edge.batch({"type": "t", "idempotency_key": "k"})
            os.kill(server, signal.SIGKILL)
            until_true(lambda: up.workers() - {server})
            until_true(lambda: edge.http.get("/readyz").status_code == 200)
            assert statuses(edge.batch({"type": "t", "idempotency_key": "k"})) == ["duplicate"]
        until_true(lambda: _connects(up.grpc))
        assert up.end(signal.SIGTERM) == 0
    assert "worker_died" in up.log.read_text()
    assert "worker_replaced" in up.log.read_text()


def test_an_envoy_that_dies_is_replaced(tmp_path: Path) -> None:
    """It starts on its own port, although that was any free one. The old temporary folder is removed."""
    with tempfile.TemporaryDirectory(prefix="hgt-", dir="/tmp") as temporary:
        with Up("--data-dir", "data", folder=tmp_path, TMPDIR=temporary) as up:
            (folder,) = Path(temporary).glob("headgate-bridge-*")
            with closing(Edge(up, "", up.key)) as edge:
                edge.batch({"type": "t", "idempotency_key": "k"})
                os.kill(_envoy(up.pid), signal.SIGKILL)
                until_true(lambda: "envoy_replaced" in up.log.read_text())
            with closing(Edge(up, "", up.key)) as edge:
                assert statuses(edge.batch({"type": "t", "idempotency_key": "k"})) == ["duplicate"]
            assert not folder.exists()
            assert up.end(signal.SIGTERM) == 0
        assert not list(Path(temporary).iterdir())
    assert "worker_died" not in up.log.read_text()


async def test_an_envoy_that_cannot_be_replaced_ends_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_bytes((Path(__file__).parents[2] / "envoy.yaml").read_bytes())
    async with Envoy(BridgeConfig(http_port=0, config_file=mine, body_limit=1 << 20, marker="1")) as envoy:
        mine.write_text("no more")
        os.kill(envoy.pid, signal.SIGKILL)
        with pytest.raises(SetupError, match=f"envoy on port {envoy.port} died .* 2 times in a row; .*mine.yaml"):
            await keep(envoy, RestartPolicy(first_pause=0.02, failures=2))


def test_folders_of_a_killed_parent_go_at_the_next_start(tmp_path: Path) -> None:
    """Only those: another running service keeps its own."""
    with tempfile.TemporaryDirectory(prefix="hgt-", dir="/tmp") as temporary:
        with Up("--data-dir", "killed", folder=tmp_path, TMPDIR=temporary) as killed:
            killed.end(signal.SIGKILL)
        (left,) = Path(temporary).iterdir()
        with Up("--data-dir", "one", folder=tmp_path, TMPDIR=temporary):
            (kept,) = Path(temporary).iterdir()
            assert kept != left
            with Up("--data-dir", "two", folder=tmp_path, TMPDIR=temporary):
                assert kept in Path(temporary).iterdir()


def _envoy(parent: int) -> int:
    (pid,) = (pid for pid, name in children(parent).items() if "envoy" in name)
    return pid


def _connects(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_sigterm_finishes_what_is_in_flight(postgres_url: str, tmp_path: Path) -> None:
    """A batch that waits for its ledger's lock at SIGTERM is stored and answered; new ones are refused."""
    with (
        Up("--store", postgres_url, folder=tmp_path) as up,
        closing(Edge(up, postgres_url, up.key)) as edge,
        ThreadPoolExecutor() as pool,
    ):
        with held(database.locked(postgres_url, _workspace_id(postgres_url))):
            batch = pool.submit(edge.batch, {"type": "t", "idempotency_key": "k"})
            until_true(lambda: database.lock_waiters(postgres_url))
            up.signal(signal.SIGTERM)
            until_true(lambda: not _connects(up.rest))
            assert not batch.done()
        assert statuses(batch.result(30)) == ["accepted"]
        assert up.wait() == 0


def _workspace_id(url: str) -> int:
    async def find() -> int:
        async with admin.opened(url) as store:
            return (await store.directory.create_workspace(admin.FIRST_WORKSPACE)).id

    return asyncio.run(find())


def test_how_much_may_wait(postgres_url: str, tmp_path: Path) -> None:
    """Past either bound calls are refused at once, with a time to retry; waiting events are stored."""
    bounds = ("--waiting-events", "4", "--concurrent-calls", "2")  # one workspace may have half of the events
    with (
        Up("--store", postgres_url, *bounds, folder=tmp_path) as up,
        closing(Edge(up, postgres_url, up.key)) as edge,
        ThreadPoolExecutor() as pool,
    ):
        with held(database.locked(postgres_url, _workspace_id(postgres_url))):
            first = pool.submit(edge.batch, {"type": "t"})
            until_true(lambda: database.lock_waiters(postgres_url))
            refused = edge.post("/v1/events/batch", {"events": [{"type": "t"}] * 2})
            assert failure(refused)[:2] == (429, 8)
            assert "waiting to be stored" in refused.json()["message"]
            assert refused.headers["retry-after"]
            # The check itself may take a place, so it is repeated.
            second = pool.submit(until_true, lambda: edge.post("/v1/events", {"type": "t"}).status_code == 200)
            until_true(lambda: edge.http.get("/v1/ledger/head").status_code == 429)
            refused = edge.post("/v1/events", {"type": "t"})
            assert "in progress" in refused.json()["message"]
            assert [detail["@type"].rpartition(".")[2] for detail in refused.json()["details"]][1:] == ["RetryInfo"]
        assert statuses(first.result(30)) == ["accepted"]
        assert second.result(30)


def test_the_store_is_lost_and_found(postgres_url: str, tmp_path: Path) -> None:
    with Up("--store", postgres_url, folder=tmp_path) as up, closing(Edge(up, postgres_url, up.key)) as edge:
        edge.batch({"type": "t"})
        with held(outage(postgres_url)):
            # An answer holds for a second.
            until_true(lambda: edge.http.get("/readyz").status_code == 503)
            assert failure(edge.http.get("/readyz")) == (503, 14, "STORE_UNAVAILABLE")
            assert edge.http.get("/healthz").status_code == 200
            lost = edge.post("/v1/events/batch", {"events": [{"type": "t", "idempotency_key": "k"}]})
            assert failure(lost) == (503, 14, "STORE_UNAVAILABLE")
            kinds = [detail["@type"].rpartition(".")[2] for detail in lost.json()["details"]]
            assert kinds == ["ErrorInfo", "RetryInfo"]
        until_true(lambda: edge.http.get("/readyz").status_code == 200)
        until_true(lambda: edge.post("/v1/events", {"type": "t", "idempotency_key": "k"}).status_code == 200)


def _refused(*arguments: str, **environment: str) -> str:
    """Return the one line with which a command fails."""
    done = headgate(*arguments, **environment)
    assert done.returncode not in (0, 1), done.stderr
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("headgate: ")
    assert len(said[0]) < 600
    return said[0]


@pytest.mark.parametrize("option", ["--grpc-port", "--http-port"])
def test_a_port_in_use(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--grpc-port": "0", "--http-port": "0", option: str(port)}
        arguments = [part for pair in ports.items() for part in pair]
        said = _refused("up", "--data-dir", str(tmp_path), *arguments)
    assert str(port) in said
    assert "in use" in said
    # The key is shown once, so a failed start must not make one.
    with Up("--data-dir", str(tmp_path), folder=tmp_path) as up:
        assert up.key


@pytest.mark.parametrize(
    ("url", "word"),
    [
        pytest.param("mysql://host/x", "mysql", id="another database"),
        pytest.param("nonsense", "store URL", id="no URL"),
        pytest.param("sqlite:////proc/no/such/folder/x.db", "/proc/no", id="a folder that cannot be"),
        pytest.param("postgresql://user:hunter2@127.0.0.1:1/x", "Connection refused", id="nobody there"),
    ],
)
def test_a_bad_store_url(url: str, word: str) -> None:
    said = _refused("up", "--store", url, "--grpc-port", "0", "--http-port", "0")
    assert word in said
    assert "hunter2" not in said


def test_it_can_be_stopped_before_it_is_up(tmp_path: Path) -> None:
    """Also while its server waits for a silent database."""
    with socket.create_server(("127.0.0.1", 0)) as silent, (tmp_path / "log").open("w") as log:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/x"
        command = [*HEADGATE, "up", "--store", url, "--grpc-port", "0", "--http-port", "0"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log) as up:
            silent.settimeout(20)
            with silent.accept()[0]:
                parts = children(up.pid)
                up.send_signal(signal.SIGTERM)
                assert up.wait(20) == 0
    assert parts
    assert all(is_gone(pid) for pid in parts)
    assert (tmp_path / "log").read_text() == "headgate: stopped\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("static_resources: [", id="no YAML"),
        pytest.param("admin: {}", id="parts missing"),
        pytest.param(None, id="no file"),
    ],
)
def test_a_bad_envoy_yaml(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    said = _refused(
        *("up", "--data-dir", str(tmp_path), "--grpc-port", "0", "--http-port", "0", "--envoy-config", str(path))
    )
    assert "mine.yaml" in said


def test_an_envoy_yaml_that_envoy_refuses(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    shipped = (Path(__file__).parents[2] / "envoy.yaml").read_text()
    path.write_text(shipped.replace("connect_timeout: 2s", "connect_timeout: soon"))
    said = _refused(
        *("up", "--data-dir", str(tmp_path), "--grpc-port", "0", "--http-port", "0", "--envoy-config", str(path))
    )
    assert "connect_timeout" in said or "soon" in said


async def test_the_parts_alone(sqlite_url: str) -> None:
    """`serve` and `bridge` in two processes are the same service."""
    async with ServerProcess(sqlite_url) as server, httpx.AsyncClient() as http:
        command = [*HEADGATE, "bridge", "--http-port", "0", "--grpc-port", str(server.port)]
        bridge = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            assert bridge.stdout is not None
            address = (await bridge.stdout.readline()).split()[-1].decode()
            assert (await http.get(f"{address}/readyz")).status_code == 200
            await server.end(signal.SIGTERM)
            # Without its server it keeps running, and answers 503.
            unreachable = await http.get(f"{address}/readyz")
            assert failure(unreachable) == (503, 14, "UPSTREAM_UNAVAILABLE")
            assert unreachable.headers["retry-after"] == "1"
            assert unreachable.json()["details"][1]["retry_delay"] == "1s"
            async with grpc.aio.insecure_channel(address.removeprefix("http://")) as channel:
                refusal = await refused(LedgerServiceStub(channel).GetHead(GetHeadRequest()))
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            assert refusal.trailing["retry-after"] == "1"
            assert refusal.trailing["x-request-id"]
        finally:
            bridge.terminate()
            code = await bridge.wait()
    assert code == 0
