"""Invalid requests, refused by Envoy or the server: one JSON form, an id, nothing stored, no other caller affected."""

import gzip
import http.client
import json
import os
import socket

import httpx
import pytest

from tests.support.edge import JSON, Edge, failure, statuses
from tests.support.waiting import until_true

BATCH = "/v1/events/batch"
ONE = b'{"events":[{"type":"t"}]}'
MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "MALFORMED_JSON", id="empty"),
        pytest.param(b"{", "MALFORMED_JSON", id="malformed"),
        pytest.param(b'{"events":[{"type":"\xff"}]}', "MALFORMED_JSON", id="not UTF-8"),
        pytest.param(b"5", "NOT_AN_OBJECT", id="a number"),
        pytest.param(b"{}", "MISSING_FIELD", id="no events"),
        pytest.param(b'{"events":[]}', "EMPTY_BATCH", id="an empty list"),
        pytest.param(b'{"events":[%s]}' % b",".join([b"{}"] * 1001), "TOO_MANY_EVENTS", id="1,001 events"),
        pytest.param(b'{"events":[{}],"colour":1}', "UNKNOWN_FIELD", id="an unknown field"),
    ],
)
def test_no_batch(edge: Edge, body: bytes, reason: str) -> None:
    assert failure(edge.post(BATCH, body)) == (400, 3, reason)
    assert edge.stored() == 0


@pytest.mark.parametrize(
    "size", [pytest.param(8 * MEGABYTE + 1, id="just over"), pytest.param(20 * MEGABYTE, id="far over")]
)
def test_a_body_over_the_limit(edge: Edge, size: int) -> None:
    body = b'{"events":[{"type":"%s"}]}' % (b"x" * size)
    assert failure(edge.post(BATCH, body)) == (413, 8, "BODY_TOO_LARGE")
    assert statuses(edge.batch({"type": "t"})) == ["accepted"]


def test_a_body_just_within_the_limit(edge: Edge) -> None:
    body = b'{"events":[{"type":"t","data":{"a":"%s"}}]}'
    whole = body % (b"x" * (8 * MEGABYTE - len(body) + 2))
    assert len(whole) == 8 * MEGABYTE
    assert edge.post(BATCH, whole).json()["success_count"] == 1


# Requests to unknown paths.
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("DELETE", "/v1/events"),
        ("PUT", "/v1/events/batch"),
        ("GET", "/v1/events/batch/x"),
        ("POST", "/headgate.v1.IngestService/BatchIngest"),
        ("OPTIONS", "/v1/events"),
    ],
)
def test_no_such_path(edge: Edge, method: str, path: str) -> None:
    status, _, _ = failure(edge.http.request(method, path))
    assert status in (400, 404, 405)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(f"{BATCH}?events=x", id="events"),
        pytest.param(f"{BATCH}?events.type=x", id="a field of an event"),
        pytest.param(f"{BATCH}?json=x", id="the body's own field"),
        pytest.param(f"{BATCH}?json.data=e30=", id="within it"),
        pytest.param(f"{BATCH}?%6ason.data=e30=", id="the same, escaped"),
        pytest.param(f"{BATCH}?atomic=true&json.content_type=x", id="behind another"),
        pytest.param(f"{BATCH}?colour=red", id="an unknown one"),
        pytest.param(f"{BATCH}?atomic=yes%20please", id="an option that is not a boolean"),
        pytest.param("/v1/events?event.type=x", id="the single event"),
        pytest.param("/v1/events?json.data=e30=", id="the single event's body"),
    ],
)
def test_a_query_that_names_what_the_body_fills(edge: Edge, path: str) -> None:
    assert failure(edge.post(path, ONE)) == (400, 3, "INVALID_REQUEST")
    assert edge.stored() == 0


@pytest.mark.parametrize("query", ["id=0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42", "%69d=x", "page_size=1"])
def test_a_query_on_a_path_that_names_the_event(edge: Edge, query: str) -> None:
    (result,) = edge.batch({"type": "t"})["results"]
    assert failure(edge.http.get(f"/v1/events/{result['id']}?{query}")) == (400, 3, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("page_size=many", "INVALID_REQUEST"),
        ("from=yesterday", "INVALID_TIMESTAMP"),
        ("colour=red", "INVALID_REQUEST"),
        ("page_size=-1", "NEGATIVE"),
        ("page_token=x", "INVALID_PAGE_TOKEN"),
        ("source=%00", "INVALID_CHARACTER"),
    ],
)
def test_no_list(edge: Edge, query: str, reason: str) -> None:
    assert failure(edge.http.get(f"/v1/events?{query}")) == (400, 3, reason)


def test_no_event_of_that_id(edge: Edge) -> None:
    assert failure(edge.http.get("/v1/events/no-uuid")) == (400, 3, "INVALID_ID")
    assert failure(edge.http.get("/v1/events/0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42")) == (404, 5, "EVENT_NOT_FOUND")


def test_gzip(edge: Edge) -> None:
    members = gzip.compress(ONE[:10]) + gzip.compress(ONE[10:])
    for body in (gzip.compress(ONE), members):
        response = edge.post(BATCH, body, content_encoding="gzip")
        assert response.status_code == 200, response.text
        assert statuses(response.json()) == ["accepted"]
    assert edge.stored() == 2


@pytest.mark.parametrize("path", [BATCH, f"{BATCH}?atomic=true"])
def test_a_retry_may_be_compressed_otherwise(edge: Edge, path: str) -> None:
    """A request with a request key is the same request if its body is plain, in chunks, or compressed at any level."""
    first = edge.post(path, ONE, idempotency_key="r")
    chunked = edge.http.post(path, content=iter([ONE[:5], ONE[5:]]), headers=JSON | {"idempotency-key": "r"})
    packed = [
        edge.post(path, gzip.compress(ONE, level), content_encoding="GZIP", idempotency_key="r") for level in (1, 9)
    ]
    for again in (chunked, *packed):
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert edge.stored() == 1


def _corrupt(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]


LONG = b'{"events":[{"type":"t","data":{"a":"%s"}}]}' % os.urandom(1_000).hex().encode()


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param(_corrupt(gzip.compress(LONG)), 400, "CORRUPT_GZIP", id="corrupt"),
        pytest.param(gzip.compress(LONG)[:-9], 400, "CORRUPT_GZIP", id="cut off"),
        pytest.param(gzip.compress(LONG)[:-1], 400, "CORRUPT_GZIP", id="cut off in its check sum"),
        pytest.param(gzip.compress(LONG) + b"x", 400, "CORRUPT_GZIP", id="something after it"),
        pytest.param(LONG, 400, "CORRUPT_GZIP", id="no gzip"),
        pytest.param(b"", 400, "MALFORMED_JSON", id="empty"),
        pytest.param(gzip.compress(b" " * (200 * MEGABYTE), 1), 413, "BODY_TOO_LARGE", id="a bomb"),
        pytest.param(gzip.compress(gzip.compress(ONE)), 400, "MALFORMED_JSON", id="twice"),
    ],
)
def test_bad_gzip(edge: Edge, body: bytes, status: int, reason: str) -> None:
    assert failure(edge.post(BATCH, body, content_encoding="gzip"))[::2] == (status, reason)
    assert edge.stored() == 0


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_another_content_coding(edge: Edge, coding: str) -> None:
    assert failure(edge.post(BATCH, ONE, content_encoding=coding)) == (415, 3, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/cloudevents+json"]
)
def test_any_content_type_is_read_as_json(edge: Edge, content_type: str) -> None:
    """curl -d says form-urlencoded by default: only the body counts."""
    assert edge.post(BATCH, ONE, content_type=content_type).status_code == 200


def test_a_chunked_body(edge: Edge) -> None:
    response = edge.http.post(BATCH, content=iter([ONE[:5], ONE[5:9], ONE[9:]]))
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert statuses(response.json()) == ["accepted"]
    over = edge.http.post(BATCH, content=(b" " * MEGABYTE for _ in range(12)))
    assert failure(over) == (413, 8, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"x-envoy-original-path": "/v1/events"}, id="the original path"),
        pytest.param({"x-envoy-original-method": "GET"}, id="the original method"),
        pytest.param({"x-envoy-upstream-rq-timeout-ms": "1"}, id="a time limit"),
        pytest.param({"x-headgate-http-status": "201"}, id="a status"),
        pytest.param({"x-headgate-content-encoding": "gzip"}, id="a coding"),
        pytest.param({"x-secret-bin": "not base64!"}, id="binary metadata that is none"),
        pytest.param({"grpc-encoding": "gzip"}, id="gRPC's compression"),
    ],
)
def test_headers_that_are_between_envoy_and_server(edge: Edge, headers: dict[str, str]) -> None:
    """They do nothing where a client sends them."""
    response = edge.http.post(BATCH, content=ONE, headers=headers)
    assert response.status_code == 200, response.text
    assert statuses(response.json()) == ["accepted"]
    assert not any(name.startswith(("x-headgate-", "grpc-")) for name in response.headers)


def test_an_upgrade_harms_nobody(edge: Edge) -> None:
    headers = {"connection": "Upgrade", "upgrade": "websocket"}
    # No upgrade is supported; Envoy may also ignore the request for one.
    assert edge.http.get("/v1/events", headers=headers).status_code in (200, 400, 403, 426)
    assert statuses(edge.batch({"type": "t"})) == ["accepted"]


def test_what_is_no_http(edge: Edge) -> None:
    host, _, port = edge.up.rest.partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = connection.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"x-request-id: " in head.lower()
    assert json.loads(body).keys() == {"code", "message", "details"}


def test_headers_that_are_too_large(edge: Edge) -> None:
    assert failure(edge.http.get("/v1/events", headers={"x-large": "x" * 100_000})) == (431, 8, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize("path", ["/healthz", "/v1/events", "/nothing", "/v1/events/x?id=1"])
@pytest.mark.parametrize("given", [None, "my-own-id"])
def test_every_answer_has_a_request_id(edge: Edge, path: str, given: str | None) -> None:
    response = edge.http.get(path, headers={} if given is None else {"x-request-id": given})
    answered = response.headers.get_list("x-request-id")
    assert len(answered) == 1
    assert answered[0]
    assert given in (None, answered[0])


def test_the_request_id_is_in_the_log(edge: Edge) -> None:
    response = edge.batch({"type": "t"})
    assert response
    answered = edge.http.get("/v1/events").headers["x-request-id"]

    def logged() -> list[str]:
        written = edge.up.log.read_text().splitlines()
        lines = [json.loads(line) for line in written if line.startswith("{") and line.endswith("}")]
        return [line["method"] for line in lines if line.get("request_id") == answered]

    # A thread writes the log, a moment after the answer.
    assert until_true(logged) == ["/headgate.v1.EventService/ListEvents"]
    assert edge.key not in edge.up.log.read_text()


def test_probes_need_no_key(edge: Edge) -> None:
    assert httpx.get(f"http://{edge.up.rest}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"http://{edge.up.rest}/readyz").json()["status"] == "ready"


def test_http_1_0(edge: Edge) -> None:
    """Some load balancers still use HTTP/1.0, without a host."""
    host, _, port = edge.up.rest.partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, json.loads(response.read())["status"]) == (200, "ready")
