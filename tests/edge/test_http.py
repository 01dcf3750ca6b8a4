"""HTTP as its clients know it: queries, HEAD, headers of answers, and the origin of errors."""

import gzip
import http.client
import json
from contextlib import closing

import httpx
import pytest

from tests.support.edge import Edge, failure, raw, statuses
from tests.support.vendors import VENDORS

BATCH = "/v1/events/batch"
ONE = b'{"events":[{"type":"t"}]}'

READS = [
    *("/healthz", "/readyz", "/v1/events", "/v1/events?page_size=1", "/v1/ledger/head", "/v1/usage"),
    *("/compat/scrip/v1/events", "/compat/immutable/api/v1/events", "/compat/immutable/api/v1/verify"),
    *("/v1/events/no-uuid", "/v1/events?page_size=many", "/nothing", "/compat/nobody/x", "/compat/scrip/nothing"),
]


@pytest.mark.parametrize("name", ["source", "subject", "idempotency_key"])
def test_a_plus_in_a_query_is_a_space(edge: Edge, name: str) -> None:
    values = ["user one", "user+one", "user%2Bone", "+", " "]
    edge.batch(*({"type": "t", "source": "s", name: value} for value in values))
    fixed = {} if name == "source" else {"source": "s"}
    for value in values:
        # The form encoding of every library: a space is a plus, a plus is %2B.
        found = edge.http.get("/v1/events", params={**fixed, name: value}).json()["events"]
        assert [event[name] for event in found] == [value]
    (found,) = edge.http.get(f"/v1/events?source={fixed.get('source', 'user+one')}&{name}=user+one").json()["events"]
    assert found[name] == "user one"
    (found,) = edge.http.get(f"/v1/events?source={fixed.get('source', 'user%20one')}&{name}=user%20one").json()[
        "events"
    ]
    assert found[name] == "user one"


def test_a_plus_in_a_vendors_query_is_a_space_too(edge: Edge) -> None:
    vendor = VENDORS["immutable"]
    edge.post(vendor.batch, {"events": [vendor.event(0) | {"actor_id": actor} for actor in ("user one", "user+one")]})
    for query, actor in [("user+one", "user one"), ("user%2Bone", "user+one"), ("user%20one", "user one")]:
        found = edge.http.get(f"/compat/immutable/api/v1/events?actor_id={query}").json()
        assert [event["actor_id"] for event in found["data"]] == [actor]


@pytest.mark.parametrize("plus", ["+", "%2B", "%2b"])
@pytest.mark.parametrize("fraction", ["", ".5"])
def test_the_plus_of_a_times_offset(edge: Edge, plus: str, fraction: str) -> None:
    """People write the plus unencoded, and it cannot mean anything else."""
    edge.batch({"type": "t"})
    time = f"2024-01-15T10:30:00{fraction}{plus}02:00"
    query = f"from={time}&to=2100-01-01T00:00:00{plus}01:00"
    assert len(edge.http.get(f"/v1/events?{query}").json()["events"]) == 1
    assert edge.http.get(f"/v1/ledger/verify?{query}").json()["events_checked"] == 1


@pytest.mark.parametrize("path", READS)
def test_head_is_a_get_without_the_body(edge: Edge, path: str) -> None:
    """On one connection: a client would read bytes of a body as the beginning of the next answer."""
    edge.batch(*({"type": "t"} for _ in range(3)))
    key = {"x-api-key": edge.key}
    host, _, port = edge.up.rest.partition(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        answers = []
        for method in ("GET", "HEAD", "GET", "HEAD", "HEAD", "GET"):
            connection.request(method, path, headers=key)
            response = connection.getresponse()
            assert (response.read() == b"") == (method == "HEAD")
            answers.append((response.status, response.getheader("content-type"), response.getheader("content-length")))
    assert len(set(answers)) == 1
    assert answers[0][0] in (200, 400, 404)


def test_head_over_http_2(edge: Edge) -> None:
    with httpx.Client(http1=False, http2=True, base_url=edge.http.base_url, headers=edge.http.headers) as http2:
        for path in ("/healthz", "/v1/events", "/nothing"):
            got, head = http2.get(path), http2.head(path)
            assert (head.status_code, head.content) == (got.status_code, b"")
            assert head.headers["content-length"] == got.headers["content-length"]


def test_head_of_a_page_larger_than_any_buffer(edge: Edge) -> None:
    edge.batch(*({"type": "t", "data": {"a": "x" * 500_000}} for _ in range(4)))
    head = edge.http.head("/v1/events")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 2_000_000
    assert statuses(edge.batch({"type": "t"})) == ["accepted"]


def test_head_without_a_key(edge: Edge) -> None:
    for path in ("/v1/events", "/compat/scrip/v1/events"):
        response = httpx.head(f"http://{edge.up.rest}{path}")
        assert (response.status_code, response.content) == (401, b"")


@pytest.mark.parametrize("coding", ["x-gzip", "X-GZIP", "gzip", "GZip", "identity, gzip"])
def test_gzip_by_all_its_names(edge: Edge, coding: str) -> None:
    for path in (BATCH, "/compat/immutable/api/v1/events/batch"):
        body = ONE if path == BATCH else json.dumps({"events": VENDORS["immutable"].events(1)}).encode()
        response = edge.post(path, gzip.compress(body), content_encoding=coding)
        assert response.status_code in (200, 202), response.text
    assert edge.stored() == 2


@pytest.mark.parametrize("coding", ["", "identity", "Identity", ",", "identity,identity"])
def test_no_coding(edge: Edge, coding: str) -> None:
    assert statuses(edge.post(BATCH, ONE, content_encoding=coding).json()) == ["accepted"]


@pytest.mark.parametrize("coding", ["zstd", "x-compress", "gzip;q=1", "gzip, x-gzip", "gzip br", "\x80"])
def test_a_coding_that_is_not_read_is_refused_with_what_is(edge: Edge, coding: str) -> None:
    headers = [("content-encoding", coding.encode("latin-1")), ("content-type", b"application/json")]
    response = edge.http.post(BATCH, content=ONE, headers=headers)
    assert failure(response) == (415, 3, "UNSUPPORTED_MEDIA_TYPE")
    assert response.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("path", [BATCH, "/v1/events", *(vendor.batch for vendor in VENDORS.values())])
@pytest.mark.parametrize("headers", [{}, {"x-api-key": "hg_" + "x" * 43}, {"authorization": "Basic eDp4"}])
def test_a_401_says_how_to_authenticate(edge: Edge, path: str, headers: dict[str, str]) -> None:
    """RFC 9110, 15.5.2."""
    response = httpx.post(f"http://{edge.up.rest}{path}", content=ONE, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="headgate"'


@pytest.mark.parametrize("path", READS)
def test_no_cache_keeps_an_answer(edge: Edge, path: str) -> None:
    """A cache does not know that the answer depends on X-API-Key."""
    response = edge.http.get(path)
    assert response.headers["cache-control"] == "no-store"
    assert "www-authenticate" not in response.headers
    assert httpx.get(f"http://{edge.up.rest}{path}").headers["cache-control"] == "no-store"


def test_no_cache_keeps_the_answer_to_a_write(edge: Edge) -> None:
    for vendor in VENDORS.values():
        for content in (b"{", json.dumps({"events": vendor.events(1)}).encode()):
            assert edge.http.post(vendor.batch, content=content).headers["cache-control"] == "no-store"
    assert edge.post(BATCH, ONE).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1/events/", "/v1/events//", "/v1/events/?page_size=1", "/v1/events/batch/", "/v1/ledger/head/"),
        *("/v1/usage/", "/healthz/", "/readyz/", "/v1/events/0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42/"),
        *(f"{vendor.batch}/" for vendor in VENDORS.values()),
        *("/compat/scrip/v1/events/", "/compat/scrip/v1/events/?limit=1", "/compat/immutable/api/v1/verify/"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_trailing_slash_is_another_path(edge: Edge, path: str, method: str) -> None:
    """The same rule on every path: it is 404."""
    response = edge.http.request(method, path, content=None if method == "HEAD" else ONE)
    assert response.status_code == 404
    assert edge.stored() == 0


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", "gzip", "chunked, chunked", "x"])
def test_a_transfer_coding_that_is_not_read(edge: Edge, coding: str) -> None:
    request = f"POST {BATCH} HTTP/1.1\r\nhost: x\r\nx-api-key: {edge.key}\r\ntransfer-encoding: {coding}\r\n\r\n"
    status, headers, body = raw(edge, request.encode() + b"19\r\n" + ONE + b"\r\n0\r\n\r\n")
    answer = json.loads(body)
    assert (status, answer["code"]) == (501, 12)
    assert answer["details"][0]["reason"] == "UNSUPPORTED_TRANSFER_ENCODING"
    assert headers["x-request-id"]
    assert edge.stored() == 0


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"nonsense\r\n\r\n", id="no HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", id="a bad host"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\na\x00b: 1\r\n\r\n", id="a bad name"),
        pytest.param(b"GET /%00 HTTP/1.1\r\nhost: x\r\n\r\n", id="a bad path"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", id="a bad length"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: x\r\ntransfer-encoding: y\r\n\r\n", id="a coding"),
        pytest.param(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", id="CONNECT"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", id="an upgrade"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"x" * 100_000 + b"\r\n\r\n", id="large headers"),
    ],
)
def test_what_envoy_refuses_has_our_shape_and_an_id(edge: Edge, request_bytes: bytes) -> None:
    status, headers, body = raw(edge, request_bytes)
    assert 400 <= status < 600
    assert headers["x-request-id"]
    assert headers["content-type"] == "application/json"
    answer = json.loads(body)
    assert answer.keys() == {"code", "message", "details"}
    assert answer["details"][0]["reason"] not in ("INTERNAL", "")
