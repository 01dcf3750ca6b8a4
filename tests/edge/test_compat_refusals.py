"""Bad input at each vendor's endpoints is refused in the vendor's own body; nothing is stored, no other caller
affected.
"""

import gzip
import json
from collections.abc import Collection

import httpx
import pytest

from headgate_server.core.model import Scope
from tests.edge.conftest import MakeEdge
from tests.support import poison
from tests.support.edge import Edge, failure
from tests.support.vendors import VENDORS, Vendor, with_payload

MEGABYTE = 1 << 20

each_vendor = pytest.mark.parametrize("vendor", [pytest.param(vendor, id=name) for name, vendor in VENDORS.items()])
IN_BODY = 0
"""Stands for the vendor's status for a body that is JSON of a wrong form."""


def _batch(vendor: Vendor, count: int = 1) -> bytes:
    return json.dumps({"events": vendor.events(count)}).encode()


def _assert_refused(vendor: Vendor, response: httpx.Response, status: int, *said: str) -> None:
    refusal = vendor.refusal(response)
    assert refusal[:2] == (status, vendor.codes.get(status, ""))
    for words in said:
        assert words in refusal.message


@each_vendor
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"x-api-key": ""}, id="an empty one"),
        pytest.param({"authorization": "Bearer hg_" + "x" * 43}, id="an unknown one"),
        pytest.param({"authorization": "Basic aGc6eA=="}, id="another scheme"),
    ],
)
def test_no_key(edge: Edge, vendor: Vendor, headers: dict[str, str]) -> None:
    response = httpx.post(f"http://{edge.up.rest}{vendor.batch}", content=_batch(vendor), headers=headers)
    _assert_refused(vendor, response, 401)


@each_vendor
def test_a_key_without_the_scope(make_edge: MakeEdge, vendor: Vendor) -> None:
    reader = make_edge(Scope.EVENTS_READ, Scope.LEDGER_READ)
    _assert_refused(vendor, reader.post(vendor.batch, _batch(vendor)), 403)
    assert reader.stored() == 0


@pytest.mark.parametrize("path", ["immutable/api/v1/events", "immutable/api/v1/verify", "scrip/v1/events"])
def test_a_key_that_may_not_read(make_edge: MakeEdge, path: str) -> None:
    vendor = VENDORS[path.partition("/")[0]]
    _assert_refused(vendor, make_edge(Scope.EVENTS_WRITE).http.get(f"/compat/{path}"), 403)


@each_vendor
@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", 400, id="empty"),
        pytest.param(b"{", 400, id="malformed"),
        pytest.param(b'{"events":[{}]', 400, id="cut off"),
        pytest.param(b'{"events":[NaN]}', 400, id="NaN"),
        pytest.param(b'{"events":[{"a":"\xff"}]}', 400, id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf", 400, id="a byte order mark"),
        pytest.param(b"5", IN_BODY, id="a number"),
        pytest.param(b"[]", IN_BODY, id="a list"),
        pytest.param(b"{}", IN_BODY, id="no events"),
        pytest.param(b'{"events":null}', IN_BODY, id="events null"),
        pytest.param(b'{"events":{}}', IN_BODY, id="events an object"),
        pytest.param(b'{"events":"x"}', IN_BODY, id="events a string"),
        pytest.param(b'{"events":[]}', IN_BODY, id="no event"),
    ],
)
def test_no_batch(edge: Edge, vendor: Vendor, body: bytes, status: int) -> None:
    _assert_refused(vendor, edge.post(vendor.batch, body), status or vendor.in_body)
    assert edge.stored() == 0


@each_vendor
def test_as_many_as_may_be_and_one_over(edge: Edge, vendor: Vendor) -> None:
    over = edge.post(vendor.batch, _batch(vendor, vendor.most + 1))
    _assert_refused(vendor, over, vendor.in_body, f"Batch size exceeds maximum of {vendor.most} events")
    assert edge.stored() == 0
    assert edge.post(vendor.batch, _batch(vendor, vendor.most)).status_code == vendor.success
    assert edge.stored() == vendor.most


@each_vendor
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"5", id="a number"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'""', id="empty"),
        pytest.param(b'"%s"' % (b"x" * 300), id="too long"),
        pytest.param(b'"a\\u0000"', id="NUL"),
        pytest.param(b'"\\ud800"', id="a lone surrogate"),
    ],
)
def test_a_required_text_that_is_none(edge: Edge, vendor: Vendor, value: bytes) -> None:
    events = json.dumps([vendor.event(0), vendor.event(1) | {vendor.text: "%"}, vendor.event(2)])
    response = edge.post(vendor.batch, b'{"events":%s}' % events.encode().replace(b'"%"', value))
    _assert_only_the_second_suffers(edge, vendor, response)


@each_vendor
@pytest.mark.parametrize("event", [b"5", b"null", b'"x"', b"[]", b"{}", b'{"a":1,"a":1}', b"[" * 2_000 + b"]" * 2_000])
def test_an_event_that_is_none(edge: Edge, vendor: Vendor, event: bytes) -> None:
    first, third = (json.dumps(vendor.event(n)).encode() for n in (0, 2))
    _assert_only_the_second_suffers(edge, vendor, edge.post(vendor.batch, poison.json_batch(first, event, third)))


def _assert_only_the_second_suffers(edge: Edge, vendor: Vendor, response: httpx.Response) -> None:
    if vendor.name == "vibefollow":  # all or nothing; the field names the event
        _assert_refused(vendor, response, 422)
        assert [error["field"].partition(".")[0] for error in response.json()["errors"]] == ["events[1]"]
        assert edge.stored() == 0
    else:
        assert response.status_code == vendor.success, response.text
        assert list(vendor.stored(response.json(), 3)) == [0, 2]
        assert edge.stored() == 2


REFUSED = {
    "a lone surrogate": b'{"a":"\\ud800"}',
    "an exponent of ten digits": b'{"a":1e9999999999}',
    "nesting 200": poison.nested(200),
    "nesting 2,000": poison.nested(2_000),
    "nesting 100,000": poison.nested(100_000),
    "a name twice": b'{"a":1,"a":1}',
    "a list": b"[1]",
    "a number": b"5",
}
TAKEN = poison.TAKEN | {"nesting 100": poison.nested(99)}  # the event is a level too


@each_vendor
def test_poison_touches_only_its_own_position(any_edge: Edge, vendor: Vendor) -> None:
    stored = 0
    for number, (name, payload) in enumerate((REFUSED | TAKEN).items()):
        events = [vendor.event(n) | _own_identity(vendor, f"{number}-{n}") for n in range(3)]
        texts = [json.dumps(event).encode() for event in events]
        texts[1] = with_payload(vendor, events[1], payload)
        response = any_edge.post(vendor.batch, poison.json_batch(*texts))
        assert list(_stored(vendor, response, events)) == _expected(vendor, name, payload), (name, response.text[:500])
        stored += len(_expected(vendor, name, payload))
    assert any_edge.stored() == stored
    assert any_edge.http.get("/v1/ledger/verify").json()["valid"] is True


def _own_identity(vendor: Vendor, identity: str) -> dict[str, str]:
    return {vendor.text: identity} if vendor.name in ("roboflow", "scrip") else {}


def _stored(vendor: Vendor, response: httpx.Response, events: list[dict[str, str]]) -> Collection[int]:
    if vendor.name == "roboflow":
        return [n for n, event in enumerate(events) if event["eventId"] in response.json()["eventIds"]]
    return vendor.taken(response, 3)


def _expected(vendor: Vendor, name: str, payload: bytes) -> list[int]:
    """Return the stored positions; Immutable's metadata may have 64 KB, VibeFollow stores all or nothing."""
    if name in TAKEN and not (vendor.name == "immutable" and len(payload) > 64 << 10):
        return [0, 1, 2]
    return [] if vendor.name == "vibefollow" else [0, 2]


@each_vendor
@pytest.mark.parametrize("path", ["", "/", "/nothing", "/v1/events/batch/x/y", "/v1%2fevents", "/%7bid%7d", "//"])
def test_an_unknown_path(edge: Edge, vendor: Vendor, path: str) -> None:
    _assert_refused(vendor, edge.post(f"/compat/{vendor.name}{path}", _batch(vendor)), 404)


@each_vendor
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_an_unknown_method(edge: Edge, vendor: Vendor, method: str) -> None:
    response = edge.http.request(method, vendor.batch, content=_batch(vendor))
    _assert_refused(vendor, response, 404)  # GET of Immutable and Scrip: no event has the id "batch"
    assert edge.stored() == 0


@each_vendor
def test_another_vendors_path(edge: Edge, vendor: Vendor) -> None:
    for other in VENDORS.values():
        path = other.batch.replace(f"/compat/{other.name}/", f"/compat/{vendor.name}/")
        if path != vendor.batch:
            _assert_refused(vendor, edge.post(path, _batch(vendor)), 404)


# Envoy does not bind the vendors' methods and paths to fields, so a query cannot override them.
@each_vendor
@pytest.mark.parametrize(
    "query",
    ["path=/v1/events/batch", "id=x", "%69d=x", "json.data=e30=", "data=e30=", "content_type=x", "a=%zz&="],
)
def test_a_query_does_not_lead_elsewhere(edge: Edge, vendor: Vendor, query: str) -> None:
    assert edge.post(f"{vendor.batch}?{query}", _batch(vendor)).status_code == vendor.success
    assert edge.stored() == 1
    _assert_refused(vendor, edge.post(f"/compat/{vendor.name}/nothing?{query}", _batch(vendor)), 404)


@each_vendor
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"x-headgate-path": "/compat/scrip/v1/events", "x-headgate-method": "GET"}, id="path and method"),
        pytest.param({"x-headgate-http-status": "201"}, id="a status"),
        pytest.param({"x-headgate-content-encoding": "gzip"}, id="a coding"),
        pytest.param({"x-envoy-original-path": "/v1/events", "x-envoy-original-method": "GET"}, id="Envoy's own"),
        pytest.param({"x-http-method-override": "GET", "x-original-url": "/v1/events"}, id="what others heed"),
        pytest.param({"grpc-timeout": "1n", "grpc-encoding": "gzip", "x-a-bin": "!"}, id="gRPC's"),
    ],
)
def test_headers_that_are_between_envoy_and_server(edge: Edge, vendor: Vendor, headers: dict[str, str]) -> None:
    """They do nothing where a client sends them."""
    response = edge.http.post(vendor.batch, content=_batch(vendor), headers=headers)
    assert response.status_code == vendor.success, response.text
    assert not any(name.startswith(("x-headgate-", "grpc-")) for name in response.headers)
    assert edge.stored() == 1
    _assert_refused(vendor, edge.http.post(f"/compat/{vendor.name}/nothing", headers=headers), 404)


def test_a_native_path_is_not_reached_by_the_bridges_headers(edge: Edge) -> None:
    headers = {"x-headgate-path": "/compat/scrip/v1/events", "x-headgate-method": "GET"}
    assert failure(edge.http.post("/compat", content=b"{}", headers=headers))[0] == 404
    assert edge.http.post("/v1/events/batch", content=b'{"events":[{"type":"t"}]}', headers=headers).status_code == 200


@each_vendor
def test_gzip(edge: Edge, vendor: Vendor) -> None:
    good = edge.post(vendor.batch, gzip.compress(_batch(vendor)), content_encoding="gzip")
    assert good.status_code == vendor.success, good.text
    _assert_refused(vendor, edge.post(vendor.batch, _batch(vendor), content_encoding="gzip"), 400, "gzip")
    bomb = gzip.compress(b" " * (64 * MEGABYTE), 1)
    _assert_refused(vendor, edge.post(vendor.batch, bomb, content_encoding="gzip"), 413)
    assert edge.stored() == 1


@each_vendor
def test_a_body_over_the_limit(edge: Edge, vendor: Vendor) -> None:
    most = (5 if vendor.name == "vibefollow" else 8) * MEGABYTE
    text = _batch(vendor)
    assert edge.post(vendor.batch, text + b" " * (most - len(text))).status_code == vendor.success
    over = text + b" " * (most - len(text) + 1)
    _assert_refused(vendor, edge.post(vendor.batch, over), 413)
    _assert_refused(vendor, edge.post(vendor.batch, gzip.compress(over, 1), content_encoding="gzip"), 413)
    assert edge.stored() == 1


def test_what_is_far_over_the_limit_envoy_refuses_by_itself(edge: Edge) -> None:
    """Envoy refuses it before it knows the vendor, so the body is Headgate's own."""
    response = edge.post(VENDORS["flokit"].batch, b" " * (12 * MEGABYTE))
    assert failure(response) == (413, 8, "BODY_TOO_LARGE")


@pytest.mark.parametrize("vendor", ["nobody", "", "Scrip", "scrip%00x", "x" * 3_000])
def test_an_unknown_vendor(edge: Edge, vendor: str) -> None:
    response = edge.post(f"/compat/{vendor}/v1/events", b"{}")
    if "%00" in vendor:
        assert failure(response)[0] == 400  # Envoy refuses such a path
        return
    status, code, reason = failure(response)
    assert (status, code, reason) == (404, 5, "NO_SUCH_RECEIVER")
    assert response.json()["message"].endswith("there are: flokit, immutable, roboflow, scrip, vibefollow.")
