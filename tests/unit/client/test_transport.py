"""Errors of gRPC as problems, and forks while calls run."""

import ast
import os
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import headgate_client.core
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse, EventResult
from headgate_client import Client, EventRejected, Retry, Unavailable
from headgate_client.environment import needs_fork_support
from headgate_client.transport import _is_of_grpc, problem_of
from tests.support.waiting import until_true


class Error(grpc.RpcError):
    """An error as gRPC raises it."""

    def __init__(self, code=grpc.StatusCode.UNAVAILABLE, details="said", trailing=(), initial=()):
        super().__init__()
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = lambda: trailing
        self.initial_metadata = lambda: initial


def details(*parts):
    status = status_pb2.Status(code=8)
    for part in parts:
        status.details.add().Pack(part)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def test_reason_field_wait_and_request_id_are_read():
    violation = error_details_pb2.BadRequest.FieldViolation(field="page_size")
    error = Error(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        trailing=details(
            error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="headgate"),
            error_details_pb2.BadRequest(field_violations=[violation]),
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
        ),
        initial=(("x-request-id", "r1"),),
    )
    problem = problem_of(error)
    assert (problem.code, problem.message, problem.reason) == ("RESOURCE_EXHAUSTED", "said", "OVERLOADED")
    assert (problem.field, problem.retry_after, problem.request_id) == ("page_size", 1.5, "r1")


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7.0, 7.0),
        ("0", 0.0, 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 1e10),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0, 0.0),
        ("9" * 400, 0.0, 1e10),
    ],
    ids=["seconds", "zero", "date", "past", "huge"],
)
def test_retry_after_is_seconds_or_a_date(header, low, high):
    assert low <= problem_of(Error(trailing=(("retry-after", header),))).retry_after <= high


@pytest.mark.parametrize("header", ["", "soon", "-5", "1.5", "٣", b"\xff"])
def test_a_retry_after_that_says_nothing_is_ignored(header):
    assert problem_of(Error(trailing=(("retry-after", header),))).retry_after is None


@pytest.mark.parametrize("metadata", [None, (), (("grpc-status-details-bin", b"\xff\xff"),)])
def test_an_error_without_details_has_its_code(metadata):
    problem = problem_of(Error(trailing=metadata))
    assert (problem.code, problem.reason, problem.retry_after) == ("UNAVAILABLE", "", None)
    assert problem_of(grpc.RpcError("odd")).code == "UNKNOWN"


class SlowServer:
    """A server in this process that answers when it is told to."""

    def __init__(self, credentials=None, status="accepted"):
        self.status = status
        self.release = threading.Event()
        self.calls = 0
        handler = grpc.method_handlers_generic_handler(
            "headgate.v1.IngestService",
            {
                "BatchIngest": grpc.unary_unary_rpc_method_handler(
                    self._answer, BatchIngestRequest.FromString, BatchIngestResponse.SerializeToString
                )
            },
        )
        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[handler])
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def _answer(self, request, context):
        self.calls += 1
        self.release.wait(20)
        return BatchIngestResponse(
            results=[EventResult(index=i, status=self.status, id="id") for i in range(len(request.events))]
        )

    def stop(self):
        self.release.set()
        self._server.stop(0).wait()


def test_a_fork_by_a_callback_does_not_wait_for_the_call_that_its_thread_has_begun(monkeypatch):
    """The next batch is under way while `on_failure` is called, and only the same thread can wait for its answer."""
    monkeypatch.setattr("headgate_client.transport._CANCELLED_WITHIN", 30.0)
    server = SlowServer(status="rejected")
    took = []

    def fork(failure):
        server.release.clear()
        started = time.monotonic()
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        took.append(time.monotonic() - started)
        server.release.set()

    try:
        with Client(f"127.0.0.1:{server.port}", api_key="hg_x") as client:
            with client.buffered(max_size=1, on_failure=fork) as buffer:
                tickets = [buffer.emit("t") for _ in range(3)]
                server.release.set()
            assert [type(ticket.exception(0)) for ticket in tickets] == [EventRejected] * 3
        assert max(took) < 15
    finally:
        server.stop()


def test_a_direct_call_that_a_fork_ends_is_made_again():
    server = SlowServer()
    try:
        with Client(f"127.0.0.1:{server.port}", api_key="hg_x", retry=Retry(first=60.0, most=60.0)) as client:
            results = []
            thread = threading.Thread(target=lambda: results.append(client.ingest({"type": "t"})))
            thread.start()
            until_true(lambda: server.calls == 1)
            started = time.monotonic()
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
            until_true(lambda: server.calls == 2)
            server.release.set()
            thread.join(10)
            assert results[0].stored
            assert time.monotonic() - started < 10
    finally:
        server.stop()


def test_a_fork_waits_until_the_connection_is_made_and_later_ones_do_not(monkeypatch):
    """A fork while gRPC looks up the name, or connects, can crash both processes."""
    monkeypatch.setattr("headgate_client.transport._OPENED_WITHIN", 30.0)
    server = SlowServer()
    try:
        with Client(f"127.0.0.1:{server.port}", api_key="hg_x") as client:
            transport, results = client._transport, []
            with calling(client, server, results), standing_still(transport) as still:
                server.release.set()
                assert still.wait(20)
            assert [result.status for result in results] == ["accepted"]
            assert server.calls == 1

            server.release.clear()
            with calling(client, server, results), standing_still(transport) as still:
                assert still.wait(20)
                server.release.set()
            assert server.calls == 3
    finally:
        server.stop()


def test_a_fork_does_not_wait_for_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setattr("headgate_client.transport._OPENED_WITHIN", 0.01)
    server = SlowServer()
    try:
        with Client(f"127.0.0.1:{server.port}", api_key="hg_x") as client, calling(client, server, []):
            with standing_still(client._transport) as still:
                assert still.wait(20)
            server.release.set()
    finally:
        server.stop()


def test_a_fork_between_two_attempts_does_not_count_as_a_connection(monkeypatch):
    monkeypatch.setattr("headgate_client.transport._OPENED_WITHIN", 30.0)
    server = SlowServer()
    try:
        with Client(f"127.0.0.1:{server.port}", api_key="hg_x") as client:
            transport, results = client._transport, []
            server.release.set()
            assert client.ingest({"type": "t"}).stored
            server.release.clear()
            # As after a call that found the server gone: the next one connects again.
            assert transport._problem(Error(grpc.StatusCode.UNAVAILABLE)).code == "UNAVAILABLE"
            with standing_still(transport) as still:
                assert still.wait(20)  # no call runs
            with calling(client, server, results), standing_still(transport) as still:
                server.release.set()
                assert still.wait(20)
            assert ([result.status for result in results], server.calls) == (["accepted"], 2)
    finally:
        server.stop()


@contextmanager
def calling(client, server, results):
    """Make a call in a thread, and go on while the server has it. At the end it is awaited."""
    before = server.calls
    calls = threading.Thread(target=lambda: results.append(client.ingest({"type": "t"})))
    calls.start()
    until_true(lambda: server.calls > before)
    yield
    calls.join(20)
    assert not calls.is_alive()


@contextmanager
def standing_still(transport):
    """Prepare for a fork in a thread, and give what is set when everything stands still. At the end all goes on."""
    still, go_on = threading.Event(), threading.Event()

    def fork():
        transport.before_fork()
        still.set()
        go_on.wait(20)
        transport.after_fork_in_parent()

    forks = threading.Thread(target=fork)
    forks.start()
    until_true(lambda: transport._forking)
    yield still
    go_on.set()
    forks.join(20)
    assert not forks.is_alive()


def test_a_connection_is_encrypted_and_the_certificate_is_checked():
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    pair = (certificate.private_key_pem.bytes(), b"".join(part.bytes() for part in certificate.cert_chain_pems))
    server = SlowServer(grpc.ssl_server_credentials([pair]))
    server.release.set()
    url = f"https://localhost:{server.port}"
    try:
        with Client(url, api_key="hg_x", ca=authority.cert_pem.bytes()) as client:
            assert client.ingest({"type": "t"}).stored
        for wrong in (
            Client(url, api_key="hg_x", timeout=0.5, ca=trustme.CA().cert_pem.bytes()),
            Client(url, api_key="hg_x", timeout=0.5),
            Client(f"localhost:{server.port}", api_key="hg_x", timeout=0.5),
        ):
            with wrong, pytest.raises(Unavailable):
                wrong.ingest({"type": "t"})
        assert server.calls == 1
    finally:
        server.stop()


def test_a_call_is_made_where_python_starts_no_thread_any_more(monkeypatch):
    server = SlowServer()
    server.release.set()
    try:
        with Client(f"127.0.0.1:{server.port}", api_key="hg_x", timeout=5.0) as client:
            start = threading.Thread.start

            def refuse(thread):
                if _is_of_grpc(thread):
                    raise RuntimeError("can't create new thread at interpreter shutdown")
                start(thread)

            transport = client._transport
            assert client.ingest({"type": "t"}).stored
            first = transport._channel
            monkeypatch.setattr(threading.Thread, "start", refuse)
            # The thread of the call before may still run: then none is started.
            until_true(lambda: client.ingest({"type": "t"}).stored and transport._channel is not first)
            monkeypatch.setattr(threading.Thread, "start", start)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("version", "needed"),
    [("1.72.2", True), ("1.78.0", True), ("1.80.0", False), ("1.85.1", False), ("2.0.0rc1", False)],
)
def test_older_versions_of_grpc_need_its_support_of_forks(version, needed):
    assert needs_fork_support(version) is needed


def test_the_core_has_no_channel_no_thread_no_loop_no_file():
    forbidden = {"grpc", "threading", "asyncio", "socket", "sqlite3", "subprocess", "logging", "pathlib", "select"}
    for path in Path(headgate_client.core.__file__).parent.glob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
                assert not (node.module or "").startswith("headgate_client.") or (node.module or "").startswith(
                    "headgate_client.core."
                ), f"{path.name} imports {node.module}"
        assert not imported & forbidden, path.name
        assert "headgate_server" not in imported
