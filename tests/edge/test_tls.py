"""TLS on both ports: who is refused, and certificates that are replaced while calls go on."""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from click.testing import CliRunner
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import IngestRequest
from headgate.v1.ingest_service_pb2_grpc import IngestServiceStub
from headgate_client import Client as HeadgateClient
from headgate_client import Unavailable
from headgate_server.cli.commands import headgate as headgate_command
from tests.support import postgres
from tests.support.processes import children
from tests.support.service import ServerProcess, make_key
from tests.support.tls import Client, Files, chain_of, expired, put, serial
from tests.support.up import Up, headgate
from tests.support.waiting import held, until_true

SERVERS, CLIENTS, STRANGER = trustme.CA(), trustme.CA(), trustme.CA()
GOOD = Client(SERVERS, CLIENTS.issue_cert("shop@example.com"))


class Secured:
    """A service whose ports ask for certificates."""

    def __init__(self, up: Up, files: Files, leaf: trustme.LeafCert):
        self.up, self.files, self.leaf = up, files, leaf
        self.rest = int(up.rest.rpartition(":")[2])
        self.ports = {"REST": self.rest, "gRPC": up.ports[0]}
        self.key = up.key

    def http(self, client: Client, name: str = "localhost") -> httpx.Client:
        """Return a client of REST that reaches the port under a name."""
        return httpx.Client(
            base_url=f"https://{name}:{self.rest}", verify=client.context(), headers={"x-api-key": self.key}, timeout=30
        )

    @contextlib.contextmanager
    def stub(self, port: int, client: Client, name: str = "localhost") -> Iterator[Callable[[], str]]:
        """Yield a function that stores an event over gRPC and returns its status."""
        shown = (None, None) if client.leaf is None else (client.leaf.private_key_pem.bytes(), chain_of(client.leaf))
        credentials = grpc.ssl_channel_credentials(client.trusted.cert_pem.bytes(), *shown)
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(f"{name}:{port}", credentials, options) as channel:
            stub = IngestServiceStub(channel)
            request = IngestRequest(event=Event(type="t"))
            yield lambda: str(stub.Ingest(request, metadata=[("x-api-key", self.key)], timeout=30).result.status)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    leaf = SERVERS.issue_cert("localhost")
    files = Files(folder, leaf, CLIENTS)
    with Up("--data-dir", str(folder / "data"), "--metrics-port", "0", *files.options, folder=folder) as up:
        yield Secured(up, files, leaf)


BOTH = pytest.mark.parametrize("port", ["REST", "gRPC"])


def test_both_ports_with_certificate_and_key(secured: Secured) -> None:
    with secured.http(GOOD) as http:
        assert http.post("/v1/events", json={"type": "t"}).json()["status"] == "accepted"
        assert http.post("/v1/events", json={"type": "t"}, headers={"x-api-key": "hg_wrong"}).status_code == 401
        ready = http.get("/readyz")
    assert ready.status_code == 200
    assert {"name": "tls_renewal", "state": "running"}.items() <= ready.json()["jobs"][0].items()
    assert "strict-transport-security" not in ready.headers
    for port in secured.ports.values():
        with secured.stub(port, GOOD) as ingest:
            assert ingest() == "accepted"


def test_the_metrics_say_when_the_certificates_expire(secured: Secured) -> None:
    """Of Envoy's and of the servers' own ports. And how much room the disk of the store has."""
    page = httpx.get(f"http://127.0.0.1:{secured.up.metrics_port}/metrics").text
    found = {
        sample.labels.get("shown", sample.name): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if family.name in ("headgate_tls_certificate_expires_timestamp_seconds", "headgate_store_free_bytes")
    }
    ends = x509.load_pem_x509_certificate(chain_of(secured.leaf)).not_valid_after_utc.timestamp()
    free = found.pop("headgate_store_free_bytes")
    assert found == {"grpc": ends, "rest": ends}
    assert 0 < free <= shutil.disk_usage(secured.files.cert.parent).total


def test_http_2_and_a_stream(secured: Secured) -> None:
    url = f"https://localhost:{secured.rest}"
    with httpx.Client(http2=True, base_url=url, verify=GOOD.context(), headers={"x-api-key": secured.key}) as http:
        assert http.get("/v1/events").http_version == "HTTP/2"
        with http.stream("GET", "/v1/events:subscribe", params={"after_sequence": 0}) as stream:
            assert next(stream.iter_lines()).startswith(('{"event', '{"caught_up'))


@BOTH
@pytest.mark.parametrize(
    "leaf",
    [None, STRANGER.issue_cert("shop@example.com"), expired(CLIENTS, "shop@example.com")],
    ids=["no certificate", "another authority", "expired"],
)
def test_a_client_without_a_valid_certificate_is_refused(
    secured: Secured, port: str, leaf: trustme.LeafCert | None
) -> None:
    client = Client(SERVERS, leaf)
    if port == "REST":
        with secured.http(client) as http, pytest.raises(httpx.TransportError):
            http.get("/healthz")
    with secured.stub(secured.ports[port], client) as ingest, pytest.raises(grpc.RpcError) as refused:
        ingest()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@BOTH
@pytest.mark.parametrize(
    ("trusted", "name"), [(STRANGER, "localhost"), (SERVERS, "127.0.0.1")], ids=["another authority", "another name"]
)
def test_a_client_refuses_a_server_that_it_does_not_know(
    secured: Secured, port: str, trusted: trustme.CA, name: str
) -> None:
    client = Client(trusted, GOOD.leaf)
    if port == "REST":
        with secured.http(client, name) as http, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            http.get("/healthz")
    with secured.stub(secured.ports[port], client, name) as ingest, pytest.raises(grpc.RpcError) as refused:
        ingest()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@BOTH
def test_plain_text_gets_no_answer(secured: Secured, port: str) -> None:
    with socket.create_connection(("127.0.0.1", secured.ports[port]), 10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        try:
            said = plain.recv(100)
        except ConnectionError:
            said = b""
    assert not said.startswith(b"HTTP/")


@BOTH
def test_an_old_version_of_tls_is_refused(secured: Secured, port: str) -> None:
    old = GOOD.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", secured.ports[port]), 10) as plain, pytest.raises(ssl.SSLError) as no:
        old.wrap_socket(plain, server_hostname="localhost")
    # Envoy says why, gRPC ends the connection.
    assert isinstance(no.value, ssl.SSLEOFError) or "VERSION" in str(no.value)


def test_our_own_client(secured: Secured) -> None:
    shown = {"client_cert": chain_of(GOOD.leaf), "client_key": GOOD.leaf.private_key_pem.bytes()}
    trusted = SERVERS.cert_pem.bytes()
    for port in secured.ports.values():
        url = f"localhost:{port}"
        with HeadgateClient(f"https://{url}", api_key=secured.key, ca=trusted, **shown) as client:
            assert client.ingest({"type": "t"}).stored
        for wrong in ({"ca": trusted}, {"ca": STRANGER.cert_pem.bytes(), **shown}, shown):
            client = HeadgateClient(f"https://{url}", api_key=secured.key, timeout=0.5, **wrong)
            with client, pytest.raises(Unavailable):
                client.ingest({"type": "t"})


def test_a_command(secured: Secured, tmp_path: Path) -> None:
    """It trusts `--ca` and shows `--client-cert`; without one of them it ends, and says so."""
    ca, cert, key = (tmp_path / name for name in ("ca.crt", "client.crt", "client.key"))
    put(ca, SERVERS.cert_pem.bytes())
    put(cert, chain_of(GOOD.leaf))
    put(key, GOOD.leaf.private_key_pem.bytes())
    events = tmp_path / "events.ndjson"
    events.write_text('{"type": "imported"}\n')
    trusted, shown = ("--ca", str(ca)), ("--client-cert", str(cert), "--client-key", str(key))
    with secured.http(GOOD) as http:
        assert http.post("/v1/events", json={"type": "t"}).status_code == 200
    for port in secured.ports.values():
        there = ("events", "list", "--limit", "1", "--url", f"https://localhost:{port}", "--key", secured.key)
        done = CliRunner().invoke(headgate_command, [*there, *trusted, *shown])
        assert (done.exit_code, done.stdout.count("\n")) == (0, 1), done.stderr
        sent = ("import", str(events), "--url", f"https://localhost:{port}", "--key", secured.key)
        done = CliRunner().invoke(headgate_command, [*sent, "--name", f"over {port}", *trusted, *shown])
        assert (done.exit_code, "1 accepted" in done.stdout) == (0, True), done.output
        for less in (trusted, shown):
            done = CliRunner().invoke(headgate_command, [*there, *less])
            assert (done.exit_code, done.stdout) == (2, "")
            assert f"the service at https://localhost:{port} gives no answer" in done.stderr


def test_a_broken_pair_changes_nothing(secured: Secured) -> None:
    """Not even for an Envoy that is started again meanwhile. What is mended is used."""
    put(secured.files.key, STRANGER.issue_cert("localhost").private_key_pem.bytes())
    # The parent, for Envoy, and the server: both look at the files.
    until_true(lambda: secured.up.log.read_text().count("tls_not_renewed") == 2)
    (envoy,) = [pid for pid, name in children(secured.up.pid).items() if "envoy" in name]
    os.kill(envoy, signal.SIGKILL)
    until_true(lambda: "envoy_replaced" in secured.up.log.read_text())
    for port in secured.ports.values():
        assert GOOD.shown_by(port) == serial(chain_of(secured.leaf))
    secured.leaf = SERVERS.issue_cert("localhost")
    secured.files.replace(secured.leaf)
    for port in secured.ports.values():
        until_true(lambda port=port: GOOD.shown_by(port) == serial(chain_of(secured.leaf)))


class Load:
    """Threads that call again and again, on kept and on new connections."""

    def __init__(self, calls: list[Callable[[], None]]):
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.counts = [0] * len(calls)
        self._threads = [threading.Thread(target=self._run, args=each) for each in enumerate(calls)]

    def _run(self, index: int, call: Callable[[], None]) -> None:
        while not self._stop.wait(0.02):
            try:
                call()
            except Exception as error:
                self.failures.append(repr(error))
            self.counts[index] += 1

    def has_called(self, before: list[int]) -> bool:
        """Whether each thread has begun and ended a call since it had made so many."""
        return all(now > was + 1 for now, was in zip(self.counts, before, strict=True))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_rotation_under_load_fails_no_call(postgres_server: None, tmp_path: Path) -> None:
    """On both ports of two workers. Connections that exist go on, new ones see the new certificate."""
    leaf = SERVERS.issue_cert("localhost")
    files = Files(tmp_path, leaf, CLIENTS)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(held(postgres.fresh_database()))
        up = stack.enter_context(Up("--store", url, "--workers", "2", *files.options, folder=tmp_path))
        secured = Secured(up, files, leaf)
        ports = (secured.rest, *up.ports)

        def fresh(port: int) -> Callable[[], None]:
            def call() -> None:
                with secured.stub(port, GOOD) as ingest:
                    assert ingest() == "accepted"

            return call

        def fresh_http() -> None:
            with secured.http(GOOD) as http:
                assert http.post("/v1/events", json={"type": "t"}).status_code == 200

        kept = [stack.enter_context(secured.stub(port, GOOD)) for port in ports]
        with Load([*map(fresh, ports), fresh_http, *kept]) as load:
            for _ in range(2):
                leaf, before = SERVERS.issue_cert("localhost"), list(load.counts)
                files.replace(leaf)
                for port in ports:
                    until_true(lambda port=port, leaf=leaf: GOOD.shown_by(port) == serial(chain_of(leaf)))
                until_true(
                    lambda before=before: all(now > was + 1 for now, was in zip(load.counts, before, strict=True))
                )
        assert load.failures == []
        # Clients of another authority from now on: those of the first are refused, on each port.
        put(files.client_ca, STRANGER.cert_pem.bytes())
        new = Client(SERVERS, STRANGER.issue_cert("shop@example.com"))
        for port in ports:
            with secured.stub(port, new) as ingest:
                until_true(lambda ingest=ingest: _accepts(ingest))
            with secured.stub(port, GOOD) as ingest:
                assert not _accepts(ingest)


def _accepts(ingest: Callable[[], str]) -> bool:
    try:
        return ingest() == "accepted"
    except grpc.RpcError:
        return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--grpc-host", "0.0.0.0"], "gRPC on 0.0.0.0:50051 would show keys"),
        (["up", "--tls-cert", "missing", "--tls-key", "missing"], "cannot read missing: No such file or directory"),
        (["bridge", "--http-host", "::"], "REST on [::]:8080 would show keys"),
    ],
    ids=["serve", "up", "bridge"],
)
def test_what_would_not_be_safe_does_not_start(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = headgate(*arguments, HEADGATE_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 2
    assert done.stderr.startswith("headgate: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


async def test_plain_text_on_a_network_is_said_aloud(sqlite_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    key = await make_key(sqlite_url)
    async with ServerProcess(sqlite_url, "--grpc-host", "0.0.0.0", "--plaintext", log=log) as server:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
        async with channel:
            call = channel.unary_unary("/headgate.v1.LedgerService/GetHead")
            assert await call(b"", metadata=[("x-api-key", key)]) is not None
    warnings = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["event"], each["host"]) for each in warnings] == [("plaintext_on_network", "0.0.0.0")]
