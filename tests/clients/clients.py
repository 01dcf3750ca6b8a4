"""Clients in other languages, run against a real `headgate up`: Go, TypeScript, grpcurl and ghz.

`make test-clients` runs it. `make test` does not collect it, because it needs Go and Node.js and compiles for a while.
The stubs are generated from the protos that the server itself shows by reflection, as docs/clients.md describes it.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate_server.core.model import Scope
from tests.support.edge import Edge
from tests.support.service import make_key
from tests.support.up import Up

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOOLS = ROOT / ".build" / "clients" / "bin"
READS = (Scope.EVENTS_READ, Scope.LEDGER_READ)


class Running:
    """The service, and what its clients need to know."""

    def __init__(self, up: Up, url: str):
        self.up = up
        self.url = url
        self.environment = os.environ | {
            "PATH": f"{TOOLS}{os.pathsep}{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HEADGATE_REST": up.rest,
            "HEADGATE_GRPC": up.grpc,
            "HEADGATE_KEY": self.key("clients", (Scope.ADMIN,)),
            "HEADGATE_ENVOY_KEYS": self._keys("envoy"),
            "HEADGATE_GATEWAY_KEYS": self._keys("gateway"),
        }

    def key(self, workspace: str, scopes: tuple[Scope, ...]) -> str:
        """Make a key."""
        return asyncio.run(make_key(self.url, workspace, scopes))

    def run(self, *command: str | Path, folder: Path = ROOT) -> str:
        """Run a client to its end, and return what it printed. If it fails, the test fails with its words."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}", pytrace=False)
        return done.stdout

    def _keys(self, workspace: str) -> str:
        named = {"admin": (Scope.ADMIN,), "reader": READS}
        made = {name: self.key(workspace, scopes) for name, scopes in named.items()}
        return json.dumps(made | {"wrong": "hg_nobody"})


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run the service once for all clients."""
    folder = tmp_path_factory.mktemp("clients")
    url = f"sqlite:///{folder}/headgate.db"
    with Up("--store", url, folder=folder) as up:
        yield Running(up, url)


@pytest.fixture(scope="module")
def protos(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file with the server's protos, as its reflection shows them."""
    path = tmp_path_factory.mktemp("protos") / "headgate.binpb"
    running.run("grpcurl", "-plaintext", "-protoset-out", path, running.up.grpc, "describe")
    assert path.stat().st_size > 10_000
    return path


def _generate(running: Running, protos: Path, folder: Path) -> None:
    running.run("buf", "generate", protos, "--template", "buf.gen.yaml", "--path", "headgate", "--clean", folder=folder)


def test_go(running: Running, protos: Path) -> None:
    """Stubs; the CloudEvents SDK; and a grpc-gateway in front of the server answers as Envoy does."""
    _generate(running, protos, HERE / "go")
    said = running.run("go", "test", "-count=1", "-v", "./...", folder=HERE / "go")
    assert {"TestGatewayAnswersAsEnvoy", "TestCloudEventsBatch", "TestSubscribe"} <= set(said.split())
    assert "--- SKIP" not in said


def test_typescript(running: Running, protos: Path) -> None:
    """The stubs have types that a strict compiler accepts, and they work; and so does the CloudEvents SDK."""
    folder = HERE / "typescript"
    _generate(running, protos, folder)
    running.run(folder / "node_modules" / ".bin" / "tsc", folder=folder)
    scripts = sorted((folder / "gen" / "js" / "src").glob("*.test.js"))
    said = running.run("node", "--test", "--test-reporter=tap", *scripts, folder=folder)
    assert "# pass 10" in said
    assert "# skipped 0" in said


def test_grpcurl(running: Running) -> None:
    """It needs no proto files, also through Envoy."""
    for address in (running.up.grpc, running.up.rest):
        listed = running.run("grpcurl", "-plaintext", address, "list").split()
        assert {"headgate.v1.IngestService", "headgate.v1.EventService", "grpc.health.v1.Health"} <= set(listed)
        described = running.run("grpcurl", "-plaintext", address, "describe", "headgate.v1.IngestService.BatchIngest")
        assert 'post: "/v1/events/batch"' in described
        key = f"x-api-key: {running.environment['HEADGATE_KEY']}"
        body = '{"events": [{"type": "ping", "data": {"n": 1}}, {"source": "grpcurl"}]}'
        answer = json.loads(
            running.run(
                *("grpcurl", "-plaintext", "-H", key, "-d", body),
                *(address, "headgate.v1.IngestService/BatchIngest"),
            )
        )
        assert [result["status"] for result in answer["results"]] == ["accepted", "rejected"]


@pytest.mark.parametrize("method", ["Ingest", "BatchIngest"])
def test_ghz(running: Running, method: str) -> None:
    """Every call of a small load is answered, and every event is stored."""
    workspace, calls = f"ghz-{method}".lower(), 200
    key = running.key(workspace, (Scope.ADMIN,))
    event = {"type": "load", "source": "ghz", "idempotency_key": "{{.UUID}}"}
    data: dict[str, Any] = {"events": [event]} if method == "BatchIngest" else {"event": event}
    said = running.run(
        *("ghz", "--insecure", "--call", f"headgate.v1.IngestService.{method}", "--total", str(calls)),
        *("--concurrency", "10", "--connections", "2", "--metadata", json.dumps({"x-api-key": key})),
        *("--data", json.dumps(data), "--format", "json", running.up.grpc),
    )
    report = json.loads(said)
    assert report["statusCodeDistribution"] == {"OK": calls}, report.get("errorDistribution")
    edge = Edge(running.up, running.url, key)
    assert edge.stored() == calls
    edge.close()
