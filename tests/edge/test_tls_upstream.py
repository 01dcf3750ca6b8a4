"""What Envoy passes on to servers on other machines: over TLS to whom it knows, and nothing that a client claims."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
import trustme

from headgate_bridge import BridgeConfig, Envoy
from headgate_server.process.certificates import load
from headgate_server.process.clock import system_clock
from headgate_server.process.tls import TlsFiles, TlsMaterial
from tests.support.tls import Client, chain_of

AUTHORITY, BRIDGES = trustme.CA(), trustme.CA()
SERVING = b"\x08\x01"
CLAIMS = {
    "x-forwarded-client-cert": "Subject=admin",
    "x-envoy-original-path": "/x",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-headgate-bridge": "1",
    "x-headgate-path": "/x",
    "x-api-key": "hg_x",
}


class Recorder(grpc.GenericRpcHandler):
    """Answers every method, and records the metadata of calls of the API."""

    def __init__(self) -> None:
        self.calls: list[dict[str, str]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method.startswith("/headgate.v1."):
            self.calls.append(dict(details.invocation_metadata))
        return grpc.unary_unary_rpc_method_handler(_answer)


async def _answer(request: bytes, context: object) -> bytes:
    return SERVING


def _material(folder: Path, leaf: trustme.LeafCert, trusted: trustme.CA | None) -> TlsMaterial:
    (folder / "cert").write_bytes(chain_of(leaf))
    (folder / "key").write_bytes(leaf.private_key_pem.bytes())
    if trusted is not None:
        (folder / "ca").write_bytes(trusted.cert_pem.bytes())
    return load(TlsFiles(folder / "cert", folder / "key", trusted and folder / "ca"), system_clock)


@pytest.fixture
async def recorder() -> AsyncIterator[tuple[Recorder, int]]:
    """A server that asks the bridge for a certificate, and its port."""
    leaf = AUTHORITY.issue_cert("localhost")
    pairs = [(leaf.private_key_pem.bytes(), chain_of(leaf))]
    server = grpc.aio.server()
    recorder = Recorder()
    server.add_generic_rpc_handlers((recorder,))
    credentials = grpc.ssl_server_credentials(pairs, BRIDGES.cert_pem.bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield recorder, port
    await server.stop(0)


@contextlib.asynccontextmanager
async def _bridge(port: int, name: str, upstream: TlsMaterial, tls: TlsMaterial) -> AsyncIterator[httpx.AsyncClient]:
    config = BridgeConfig(
        http_port=0,
        upstreams=((name, port),),
        body_limit=1 << 20,
        marker="secret",
        tls=tls,
        upstream_tls=upstream,
        hsts=31536000,
    )
    client = Client(AUTHORITY).context()
    async with (
        Envoy(config) as envoy,
        httpx.AsyncClient(verify=client, base_url=f"https://localhost:{envoy.port}") as http,
    ):
        yield http


async def test_claims_do_not_reach_the_servers(recorder: tuple[Recorder, int], tmp_path: Path) -> None:
    seen, port = recorder
    tls = _material(tmp_path, AUTHORITY.issue_cert("localhost"), None)
    upstream = _material(tmp_path, BRIDGES.issue_cert("bridge.example"), AUTHORITY)
    async with _bridge(port, "localhost", upstream, tls) as http:
        answer = await http.get("/v1/ledger/head", headers=CLAIMS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert len(seen.calls) == 2  # whose key is it, and the call itself
    call = seen.calls[-1]
    assert call["x-envoy-original-path"] == "/v1/ledger/head"
    assert call["x-headgate-bridge"] == "secret"
    own = {"x-envoy-original-path", "x-envoy-original-method", "x-headgate-bridge"}
    assert {name for name in call if name.startswith(("x-envoy-", "x-headgate-"))} == own
    assert "x-forwarded-client-cert" not in call


@pytest.mark.parametrize("fault", ["another authority", "another name", "no certificate"])
async def test_a_server_that_is_not_known_gets_nothing(
    recorder: tuple[Recorder, int], tmp_path: Path, fault: str
) -> None:
    seen, port = recorder
    tls = _material(tmp_path, AUTHORITY.issue_cert("localhost"), None)
    trusted = BRIDGES if fault == "another authority" else AUTHORITY
    upstream = _material(tmp_path, BRIDGES.issue_cert("bridge.example"), trusted)
    if fault == "no certificate":
        upstream = upstream._replace(chain=b"", key=b"")
    async with _bridge(port, "127.0.0.1" if fault == "another name" else "localhost", upstream, tls) as http:
        answer = await http.get("/v1/ledger/head", headers=CLAIMS)
    assert answer.status_code == 503
    assert seen.calls == []
