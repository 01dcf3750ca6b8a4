"""All callers share Envoy's connections to the server: one caller's headers harm no other caller.

The server's HTTP/2 parser keeps a header that it could not read in the connection's table, and fails every later call
that refers to it there.
"""

from collections.abc import Iterator

import grpc
import httpx
import pytest

from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate.v1.ingest_service_pb2_grpc import IngestServiceStub
from headgate.v1.ledger_service_pb2 import GetHeadRequest
from headgate.v1.ledger_service_pb2_grpc import LedgerServiceStub
from tests.support.edge import Edge

HEAD = "/headgate.v1.LedgerService/GetHead"
EMPTY_MESSAGE = b"\0\0\0\0\0"

UNREADABLE = [
    *(("grpc-encoding", coding) for coding in ("snappy", "", "gzip,gzip", "GZIP")),
    *(("grpc-timeout", time) for time in ("bogus", "", "1", "S", "-1S", "1.5S", "123456789S", "1s", "1 S")),
    ("grpc-accept-encoding", "g\xe4rbage"),
    *(("grpc-previous-rpc-attempts", count) for count in ("x", "-1", "99999999999")),
    ("grpc-retry-pushback-ms", "x"),
    ("grpc-status", "x"),
    ("grpc-internal-encoding-request", "x"),
    ("grpclb_client_stats", "x"),
    *(("x-trace-bin", value) for value in ("!!!", "Y", "YR", "YWJ", "YQ==,YQ==", "a b", "=YQ")),
    *((name, "!") for name in ("grpc-trace-bin", "grpc-tags-bin", "endpoint-load-metrics-bin", "lb-cost-bin")),
    ("x!y", "1"),
    ("x~y", "1"),
]
"""Headers that the server's parser refuses."""

unreadable = pytest.mark.parametrize(("name", "value"), UNREADABLE)


@pytest.fixture(scope="module")
def http2() -> Iterator[httpx.Client]:
    """Return an HTTP/2 client, which sends headers that no gRPC client would."""
    with httpx.Client(http1=False, http2=True, timeout=10) as client:
        yield client


def _grpc(http2: httpx.Client, edge: Edge, path: str = HEAD, method: str = "POST", **headers: str) -> httpx.Response:
    return http2.request(
        method,
        f"http://{edge.up.rest}{path}",
        content=EMPTY_MESSAGE,
        headers=[
            ("x-api-key", edge.key),
            *(
                (name.replace("_", "-"), value)
                for name, value in {"content_type": "application/grpc", **headers}.items()
            ),
        ],
    )


def _assert_others_are_served(edge: Edge) -> None:
    """Call with headers that a table could hold (coding, deadline, binary metadata) over several of Envoy's workers."""
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with grpc.insecure_channel(edge.up.rest, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            for _ in range(3):
                metadata = (*edge.metadata, ("x-trace-bin", b"\x00\xff"), ("x-empty-bin", b""))
                LedgerServiceStub(channel).GetHead(
                    GetHeadRequest(), metadata=metadata, timeout=30, compression=compression
                )


@unreadable
def test_a_rest_callers_headers_of_grpcs_do_nothing(edge: Edge, name: str, value: str) -> None:
    for path in ("/v1/events", "/compat/immutable/api/v1/events"):
        raw = [("x-api-key", edge.key), (name, value.encode("latin-1"))]
        response = httpx.get(f"http://{edge.up.rest}{path}", headers=raw)
        assert response.status_code == 200, response.text
    _assert_others_are_served(edge)


@unreadable
def test_an_unreadable_header_fails_its_own_grpc_call(edge: Edge, http2: httpx.Client, name: str, value: str) -> None:
    url = f"http://{edge.up.rest}{HEAD}"
    for _ in range(2):
        headers = [
            ("x-api-key", edge.key),
            ("content-type", "application/grpc"),
            (name, value.encode("latin-1")),
        ]
        response = http2.post(url, content=EMPTY_MESSAGE, headers=headers)
        unimplemented = name == "grpc-encoding"
        assert (response.status_code, response.headers["grpc-status"]) == (200, "12" if unimplemented else "3")
        assert response.headers["content-type"] == "application/grpc"
        assert name in response.headers["grpc-message"] or "name" in response.headers["grpc-message"]
        if unimplemented:
            assert response.headers["grpc-accept-encoding"] == "identity, deflate, gzip"
    _assert_others_are_served(edge)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "FOO"])
def test_grpc_is_a_post(edge: Edge, http2: httpx.Client, method: str) -> None:
    response = _grpc(http2, edge, method=method)
    assert (response.status_code, response.headers["grpc-status"]) == (200, "12")
    _assert_others_are_served(edge)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grpc-timeout", "30S"),
        ("grpc-timeout", "99999999m"),
        ("grpc-accept-encoding", "identity, deflate, gzip, br"),
        ("grpc-encoding", "identity"),
        ("grpc-previous-rpc-attempts", "2"),
        ("x-trace-bin", "YQ"),
        ("x-trace-bin", "YQ=="),
        ("x-trace-bin", "YWE="),
        ("x-trace-bin", "+/+/"),
        ("x-trace-bin", ""),
        ("grpc-message-type", "headgate.v1.GetHeadRequest"),
        ("x_underscored.name", "1"),
    ],
)
def test_readable_headers_pass(edge: Edge, http2: httpx.Client, name: str, value: str) -> None:
    headers = [("x-api-key", edge.key), ("content-type", "application/grpc"), (name, value)]
    response = http2.post(f"http://{edge.up.rest}{HEAD}", content=EMPTY_MESSAGE, headers=headers)
    assert "grpc-message" not in response.headers
    assert len(response.content) > len(EMPTY_MESSAGE)


def test_a_client_gets_the_error_of_its_own_protocol(edge: Edge) -> None:
    """A real client cannot send binary metadata that is a text; a client that compresses is served."""
    with grpc.insecure_channel(edge.up.rest) as channel:
        stub = IngestServiceStub(channel)
        for compression in (grpc.Compression.Deflate, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as refused:
                stub.BatchIngest(BatchIngestRequest(), metadata=edge.metadata, compression=compression)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "at least one event" in refused.value.details()


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/grpc", "application/grpc+proto", "Application/GRPC", "APPLICATION/GRPC+PROTO"),
        *(
            "application/grpc;charset=utf-8",
            "application/grpc ; a=b",
            "application/grpc+proto; a=b",
            "application/grpc;",
        ),
    ],
)
def test_what_is_grpc(edge: Edge, http2: httpx.Client, content_type: str) -> None:
    response = _grpc(http2, edge, content_type=content_type)
    assert response.headers["content-type"].startswith("application/grpc")
    assert len(response.content) > len(EMPTY_MESSAGE)


NOT_GRPC = [
    *("application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "Application/GRPC-Web"),
    *("application/grpcx", "application/grpc/x", "application/grpc x", "application/grpc,application/grpc"),
    *("application/grpc-web;charset=utf-8", "application/grpc-json"),
]


@pytest.mark.parametrize("content_type", NOT_GRPC)
@pytest.mark.parametrize(
    "path", [HEAD, "/v1/events", "/v1/events?id=x", "/compat/scrip/v1/events", "/healthz", "/nothing"]
)
def test_what_only_begins_like_grpc_is_not_served(edge: Edge, content_type: str, path: str) -> None:
    response = edge.http.post(path, content=b"{}", headers={"content-type": content_type})
    assert response.status_code == 415
    assert response.headers["content-type"] == "application/json"
    assert response.json()["details"][0]["reason"] == "UNSUPPORTED_MEDIA_TYPE"
    assert response.headers["x-request-id"]
    assert edge.stored() == 0
