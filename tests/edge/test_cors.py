"""Calls from pages in a browser: none unless an operator names their origins."""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import IngestRequest
from headgate.v1.ingest_service_pb2_grpc import IngestServiceStub
from tests.support.edge import JSON, Edge, failure
from tests.support.up import Up, headgate
from tests.support.vendors import VENDORS
from tests.support.waiting import until_true

ALLOWED, OTHER = "https://app.example.com", "https://evil.example"
ORIGINS = ("--cors-origin", "https://App.example.com:443", "--cors-origin", "http://localhost:3000")
PATHS = ["/v1/events", "/v1/events/batch", "/v1/usage", "/healthz", "/nothing", VENDORS["scrip"].batch]
ASKED = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}


@pytest.fixture(scope="module")
def open_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Return clients of a service that two origins may call, and that prints its spans."""
    folder = tmp_path_factory.mktemp("cors")
    traces = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with Up("--data-dir", "data", *ORIGINS, folder=folder, **traces) as up, closing(Edge(up, "", up.key)) as edge:
        yield edge


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [ALLOWED, "http://localhost:3000"])
def test_a_preflight_needs_no_key(open_edge: Edge, path: str, origin: str) -> None:
    response = httpx.options(f"http://{open_edge.up.rest}{path}", headers={"origin": origin, **ASKED})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["access-control-allow-origin"] == origin
    allowed = response.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "x-api-key", "content-type", "content-encoding", "idempotency-key"} <= set(allowed)
    assert {"traceparent", "tracestate"} <= set(allowed)
    assert {"last-event-id", "prefer", "ce-id", "ce-source", "ce-specversion", "ce-time", "ce-type"} <= set(allowed)
    assert response.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert int(response.headers["access-control-max-age"]) > 0
    assert response.headers["x-request-id"]
    # Whoever holds a page's cookies has no key by that.
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b'{"type":"t"}', b"{"])
def test_a_page_may_read_every_answer(open_edge: Edge, path: str, body: bytes) -> None:
    for headers in ({}, {"x-api-key": ""}, {"content-encoding": "zstd"}, {"content-type": "application/grpc-web"}):
        for method in ("POST", "GET"):
            sent = JSON | {"origin": ALLOWED} | headers
            response = open_edge.http.request(method, path, content=body, headers=sent)
            assert response.headers["access-control-allow-origin"] == ALLOWED
            exposed = response.headers["access-control-expose-headers"].split(", ")
            assert {"retry-after", "x-request-id", "idempotency-replayed", "www-authenticate"} <= set(exposed)
            assert {f"x-ratelimit-{name}" for name in ("limit", "remaining", "reset")} <= set(exposed)


def test_a_webhook_s_sender_and_a_page_ask_with_the_same_method(open_edge: Edge) -> None:
    """OPTIONS of a page is answered before the server, that of a webhook's sender by the server."""
    url = f"http://{open_edge.up.rest}/v1/cloudevents"
    page = httpx.options(url, headers={"origin": ALLOWED, **ASKED})
    assert page.headers["access-control-allow-origin"] == ALLOWED
    assert "allow" not in page.headers
    for origin in ({}, {"origin": ALLOWED}, {"origin": OTHER, **ASKED}):
        sender = httpx.options(url, headers={"webhook-request-origin": "sender.example", **origin})
        assert (sender.status_code, sender.headers["webhook-allowed-origin"]) == (200, "sender.example")
        assert sender.headers.get("access-control-allow-origin") == (ALLOWED if origin == {"origin": ALLOWED} else None)


@pytest.mark.parametrize("origin", [OTHER, "null", "http://app.example.com", "https://app.example.com.evil.example"])
def test_another_origin_gets_no_cors_headers(open_edge: Edge, origin: str) -> None:
    preflight = open_edge.http.options("/v1/events", headers={"origin": origin, **ASKED})
    assert failure(preflight) == (404, 5, "NO_SUCH_PATH")
    for response in (preflight, open_edge.post("/v1/events", {"type": "t"}, origin=origin)):
        assert not any(name.startswith("access-control-") for name in response.headers)


@pytest.mark.parametrize("path", PATHS)
def test_by_default_no_origin_may(edge: Edge, path: str) -> None:
    response = edge.http.options(path, headers={"origin": ALLOWED, **ASKED})
    assert response.status_code == 404
    answer = edge.post(path, {"type": "t"}, origin=ALLOWED)
    assert not any(name.startswith("access-control-") for name in (*response.headers, *answer.headers))


def test_any_origin(tmp_path: Path) -> None:
    with Up("--data-dir", "data", folder=tmp_path, HEADGATE_CORS_ORIGIN="*") as up:
        for origin in (ALLOWED, OTHER):
            response = httpx.get(f"http://{up.rest}/healthz", headers={"origin": origin})
            assert response.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in response.headers
            preflight = httpx.options(f"http://{up.rest}/v1/events", headers={"origin": origin, **ASKED})
            assert preflight.status_code == 200
            assert "access-control-allow-credentials" not in preflight.headers


@pytest.mark.parametrize("command", ["up", "bridge"])
@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://app.example.com/", "null", "", "ftp://x", "https://*.x"]
)
def test_what_is_no_origin(tmp_path: Path, command: str, origin: str) -> None:
    arguments = [
        "--http-port",
        "0",
        "--cors-origin",
        origin,
        *(["--data-dir", str(tmp_path)] if command == "up" else []),
    ]
    done = headgate(command, *arguments)
    assert done.returncode == 2
    assert f"{origin!r} is not an origin" in done.stderr


def test_a_trace_goes_on_in_the_service(open_edge: Edge) -> None:
    """That of a page, of a stub on Envoy's port, and of one on the server's own."""
    traces = [(secrets.token_hex(16), secrets.token_hex(8)) for _ in range(3)]
    sent = [{"traceparent": f"00-{trace}-{parent}-01", "tracestate": "shop=7"} for trace, parent in traces]
    headers = JSON | {"origin": ALLOWED} | sent[0]
    assert open_edge.http.post("/v1/events", content=b'{"type":"t"}', headers=headers).status_code == 200
    request = IngestRequest(event=Event(type="t"))
    open_edge.ingest.Ingest(request, metadata=(*open_edge.metadata, *sent[1].items()))
    with grpc.insecure_channel(open_edge.up.grpc) as channel:
        IngestServiceStub(channel).Ingest(request, metadata=(*open_edge.metadata, *sent[2].items()))
    calls = until_true(lambda: _calls(open_edge.up, {trace for trace, _ in traces}))
    for trace, parent in traces:
        span = calls[trace]
        assert (span["parent_id"], span["name"]) == (f"0x{parent}", "headgate.v1.IngestService/Ingest")
        assert "shop" in span["context"]["trace_state"]


def _calls(up: Up, traces: set[str]) -> dict[str, Any]:
    """Return the spans of calls by trace, when there is one of each of these."""
    spans = [json.loads(text) for text in re.findall(r"^\{\n.*?^\}\n", up.said, re.MULTILINE | re.DOTALL)]
    calls = {one["context"]["trace_id"][2:]: one for one in spans if one["kind"] == "SpanKind.SERVER"}
    return calls if traces <= calls.keys() else {}
