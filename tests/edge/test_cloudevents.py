"""CloudEvents over HTTP through the real Envoy: the official SDK's own requests, headers, the handshake, and reads."""

import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion
from cloudevents.v1.http import CloudEvent as OldCloudEvent

from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEvent as Message
from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEventBatch as MessageBatch
from headgate.v1 import cloudevent_service_pb2_grpc
from headgate.v1.cloudevent_service_pb2 import BatchPublishRequest
from tests.support.edge import Edge, failure
from tests.support.vendors import VENDORS
from tests.support.waiting import until_true

PATH = "/v1/cloudevents"
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
FORMAT = JSONFormat()
LEAST = {"specversion": "1.0", "id": "A1", "source": "/sensors/7", "type": "reading"}
HEADERS = {f"ce-{name}": value for name, value in LEAST.items()}

Send = Callable[[Edge, CloudEvent], httpx.Response]


def _post(edge: Edge, body: Any, content_type: str = STRUCTURED, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return edge.http.post(PATH, content=content, headers={"content-type": content_type, **named})


def _send(edge: Edge, message: HTTPMessage) -> httpx.Response:
    return edge.http.post(PATH, content=message.body, headers=message.headers)


def _binary(edge: Edge, one: CloudEvent) -> httpx.Response:
    return _send(edge, to_binary(one, FORMAT))


def _structured(edge: Edge, one: CloudEvent) -> httpx.Response:
    return _send(edge, to_structured(one, FORMAT))


def _old(convert: Callable[..., tuple[dict[str, str], bytes]]) -> Send:
    """Return how the SDK's first interface sends. It does not encode headers."""

    def send(edge: Edge, one: CloudEvent) -> httpx.Response:
        attributes = {name: value for name, value in one.get_attributes().items() if name != "specversion"}
        attributes["time"] = attributes["time"].isoformat()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            headers, body = convert(OldCloudEvent(attributes, one.get_data()))
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return edge.http.post(PATH, content=body, headers=raw)

    return send


SENDS = {
    "binary": _binary,
    "structured": _structured,
    "binary, first interface": _old(conversion.to_binary),
    "structured, first interface": _old(conversion.to_structured),
}


def _event(time: datetime | None = None, **attributes: Any) -> CloudEvent:
    """Return an event. The SDK fills in the time if none is given."""
    made = {"id": "A1", "type": "reading", "source": "/sensors/7", "subject": "größe 7 €", **attributes}
    if time is not None:
        made["time"] = time
    return CloudEvent(made, {"celsius": 21.5, "text": "ü"})


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
@pytest.mark.parametrize("kind", [{}, {"datacontenttype": "application/json"}], ids=["no type", "a type"])
def test_the_official_sdk(edge: Edge, send: Send, kind: dict[str, str]) -> None:
    """All its modes send the same event. A resend has another time, and is a duplicate with a warning."""
    first = send(edge, _event(traceparent="00-ab", **kind))
    assert first.status_code == 200, first.text
    assert first.json()["status"] == "accepted"
    assert "warnings" not in first.json()
    again = send(edge, _event(traceparent="00-ab", **kind))
    assert (again.status_code, again.json()["status"], again.json()["id"]) == (200, "duplicate", first.json()["id"])
    (warning,) = again.json()["warnings"]
    assert warning.startswith("Only the time differs")
    for other in (_binary, _structured):
        assert other(edge, _event(traceparent="00-ab")).json()["status"] == "duplicate"
    conflict = send(edge, _event(traceparent="00-ac", **kind))
    assert failure(conflict) == (409, 6, "IDEMPOTENCY_CONFLICT")
    stored = edge.http.get(f"/v1/events/{first.json()['id']}").json()
    assert (stored["receiver"], stored["subject"], stored["data"]) == (
        "cloudevents", "größe 7 €", {"celsius": 21.5, "text": "ü"},
    )  # fmt: skip
    assert stored["attributes"] == {"traceparent": "00-ab"}


def test_the_sdk_reads_what_it_sent(edge: Edge) -> None:
    sent = _event(datetime(2026, 11, 30, 10, 0, 0, 5, UTC), traceparent="00-ab", datacontenttype="application/json")
    event_id = _binary(edge, sent).json()["id"]
    answer = edge.http.get(f"/v1/events/{event_id}", headers={"accept": STRUCTURED})
    read = from_structured(HTTPMessage(dict(answer.headers), answer.content), FORMAT)
    assert read.get_data() == sent.get_data()
    assert sent.get_attributes().items() <= read.get_attributes().items()
    assert _structured(edge, sent).json()["status"] == "duplicate"


def test_a_bad_event_touches_its_own_position(any_edge: Edge) -> None:
    """A batch with one event without a type and one twice, and one in the binary mode with a wrong encoding."""
    slots = [LEAST, {**LEAST, "id": "A2", "type": None}, {**LEAST, "id": "A3", "data": [None]}, LEAST, "text"]
    answer = _post(any_edge, slots, BATCH)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["total"], body["success_count"], body["error_count"]) == (5, 3, 2)
    assert [result["status"] for result in body["results"]] == [
        "accepted", "rejected", "accepted", "duplicate", "rejected",
    ]  # fmt: skip
    assert body["results"][1]["error"]["reason"] == "MISSING_FIELD"
    assert body["results"][1]["error"]["field"] == "type"
    assert body["results"][3]["id"] == body["results"][0]["id"]
    wrong = any_edge.http.post(PATH, content=b"5", headers={**HEADERS, "ce-id": "A4", "ce-subject": "%C0%A0"})
    assert failure(wrong) == (400, 3, "INVALID_UNICODE")
    assert any_edge.http.post(PATH, content=b"5", headers={**HEADERS, "ce-id": "A5"}).json()["sequence"] == 3
    kept = until_true(lambda: len(_rejections(any_edge)) == 3 and _rejections(any_edge))
    assert [(one["reason"], one["field"], one["receiver"]) for one in kept] == [
        ("INVALID_UNICODE", "subject", "cloudevents"),
        ("WRONG_TYPE", "", "cloudevents"),
        ("MISSING_FIELD", "type", "cloudevents"),
    ]
    assert ["ce-subject", "%C0%A0"] in json.loads(kept[0]["event"])["headers"]
    verified = any_edge.http.get("/v1/ledger/verify").json()
    assert (verified["events_checked"], verified["breaks"]) == (3, [])


def _rejections(edge: Edge) -> list[Any]:
    found: list[Any] = edge.http.get("/v1/rejections").json()["rejections"]
    return found


def test_headers_of_every_kind(edge: Edge) -> None:
    """gRPC would take names that end in -bin for its own, join equal names, and refuse bytes beyond ASCII."""
    raw = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    own = [(b"ce-bin", b"x"), (b"CE-Upper", b"a%20b"), (b"ce-raw", "ü&=%".encode()), (b"ce-empty", b"")]
    answer = edge.http.post(PATH, headers=[*raw, *own])
    assert answer.status_code == 200, answer.text
    stored = edge.http.get(f"/v1/events/{answer.json()['id']}").json()
    assert stored["attributes"] == {"bin": "x", "upper": "a b", "raw": "ü&=%", "empty": ""}
    assert "data" not in stored
    twice = edge.http.post(PATH, headers=[*raw, (b"ce-id", b"A2")])
    assert failure(twice) == (400, 3, "DUPLICATE_FIELD")
    large = edge.http.post(PATH, headers=[*raw, (b"ce-large", b"x" * 50_000)])
    assert failure(large)[::2] == (431, "HEADERS_TOO_LARGE")
    forged = edge.http.post(PATH, headers={"x-headgate-attributes": "&".join(f"{k}={v}" for k, v in LEAST.items())})
    assert failure(forged) == (400, 3, "MISSING_FIELD")


def test_protobuf_over_http_and_grpc(edge: Edge) -> None:
    message = Message(spec_version="1.0", id="A1", source="/sensors/7", type="reading", binary_data=b"[1.0]")
    message.attributes["datacontenttype"].ce_string = "application/json"
    one = _post(edge, message.SerializeToString(), "application/cloudevents+protobuf")
    assert (one.status_code, one.json()["status"]) == (200, "accepted")
    batch = MessageBatch(events=[message, Message(id="A2")]).SerializeToString()
    answer = _post(edge, batch, "application/cloudevents-batch+protobuf; x=y")
    assert [result["status"] for result in answer.json()["results"]] == ["duplicate", "rejected"]
    stub = cloudevent_service_pb2_grpc.CloudEventServiceStub(edge.channel)
    published = stub.BatchPublish(BatchPublishRequest(events=[message]), metadata=edge.metadata)
    assert [result.status for result in published.results] == ["duplicate"]
    assert _post(edge, LEAST | {"data": [1]}).json()["status"] == "duplicate"


def test_the_answers_of_one_event(edge: Edge) -> None:
    minimal = _post(edge, LEAST, prefer="respond-async, return=minimal")
    assert (minimal.status_code, minimal.content) == (204, b"")
    assert minimal.headers["preference-applied"] == "return=minimal"
    assert _post(edge, LEAST, prefer="return=representation").json()["status"] == "duplicate"
    for body, content_type, wanted in (
        (LEAST | {"data": 1}, STRUCTURED, (409, 6, "IDEMPOTENCY_CONFLICT")),
        (LEAST | {"specversion": "0.3"}, STRUCTURED, (400, 3, "INVALID_FIELD")),
        (b"{", STRUCTURED, (400, 3, "MALFORMED_JSON")),
        (b"[]", BATCH, (400, 3, "EMPTY_BATCH")),
        (b"x", "application/cloudevents+avro", (415, 3, "UNSUPPORTED_MEDIA_TYPE")),
        (LEAST, "application/json", (400, 3, "MISSING_FIELD")),
    ):
        assert failure(_post(edge, body, content_type, prefer="return=minimal")) == wanted
    anyone = httpx.post(f"http://{edge.up.rest}{PATH}", json=LEAST, headers={"content-type": STRUCTURED})
    assert failure(anyone) == (401, 16, "MISSING_API_KEY")


def test_options_charsets_and_compression(edge: Edge) -> None:
    body = gzip.compress(json.dumps([LEAST, {}]).encode())
    packed = {"content-encoding": "gzip", "content-type": 'Application/CloudEvents-Batch+JSON; Charset="UTF-8"'}
    for query, wanted in (("?validate_only=true", ["accepted", "rejected"]), ("?atomic=true", ["aborted", "rejected"])):
        answer = edge.http.post(PATH + query, content=body, headers=packed)
        assert [result["status"] for result in answer.json()["results"]] == wanted
        assert edge.stored() == 0
    first = edge.http.post(PATH, content=body, headers=packed | {"idempotency-key": "k"})
    again = edge.http.post(PATH, content=body, headers=packed | {"idempotency-key": "k"})
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    other = _post(edge, [LEAST], BATCH, idempotency_key="k")
    assert failure(other) == (422, 9, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize("origin", [{}, {"origin": "https://app.example.com"}])
def test_the_handshake_of_a_webhook_s_sender_needs_no_key(edge: Edge, origin: dict[str, str]) -> None:
    asked = {"webhook-request-origin": "eventgrid.azure.net", "webhook-request-rate": "120", **origin}
    answer = httpx.options(f"http://{edge.up.rest}{PATH}", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    assert answer.headers["webhook-allowed-rate"] == "*"
    assert answer.headers["allow"] == "OPTIONS, POST"
    unasked = httpx.options(f"http://{edge.up.rest}{PATH}", headers=origin)
    assert "webhook-allowed-origin" not in unasked.headers


def test_every_event_is_read_as_a_cloudevent(edge: Edge) -> None:
    """Whichever API it came through."""
    edge.batch({"type": "t", "source": "my shop", "idempotency_key": "k", "data": {"n": 1.5}})
    vendor = VENDORS["scrip"]
    assert edge.post(vendor.batch, {"events": vendor.events(1)}).is_success
    _post(edge, LEAST | {"data_base64": "AQID", "datacontenttype": "image/png", "sequence": "own"})
    listed = edge.http.get("/v1/events", headers={"accept": STRUCTURED})
    assert listed.headers["content-type"] == BATCH
    assert "link" not in listed.headers
    native, of_vendor, own = listed.json()
    assert native["id"] == edge.http.get("/v1/events").json()["events"][0]["id"]
    assert (native["source"], native["idempotencykey"], native["data"]) == ("my%20shop", "k", {"n": 1.5})
    assert (of_vendor["receiver"], of_vendor["specversion"]) == ("scrip", "1.0")
    assert own.items() >= {**LEAST, "data_base64": "AQID", "datacontenttype": "image/png", "sequence": "own"}.items()
    assert "time" not in own
    for cloud in listed.json():
        path = f"/v1/events/{cloud.get('eventid', cloud['id'])}"
        one = edge.http.get(path, headers={"accept": STRUCTURED})
        assert (one.headers["content-type"], one.json()) == (STRUCTURED, cloud)
        full = edge.http.get(path, params={"view": "FULL"}, headers={"accept": STRUCTURED}).json()
        assert full == cloud | {"delivery": "none"}
        assert edge.http.get(path, headers={"accept": "*/*"}).headers["content-type"] == "application/json"
    assert failure(edge.http.get(f"/v1/events/{of_vendor['id'][:-4]}0000", headers={"accept": STRUCTURED}))[0] == 404


def _pages(edge: Edge, path: str) -> Iterator[httpx.Response]:
    answer = edge.http.get(path, headers={"accept": BATCH})
    yield answer
    while "next" in answer.links:
        answer = edge.http.get(answer.links["next"]["url"], headers={"accept": BATCH})
        yield answer


def test_pages_are_linked(edge: Edge) -> None:
    _post(edge, [LEAST | {"id": str(n), "source": "/ä&b"} for n in range(5)] + [LEAST], BATCH)
    pages = list(_pages(edge, "/v1/events?page_size=2&source=%2F%C3%A4%26b&newest_first=true"))
    assert [[cloud["id"] for cloud in page.json()] for page in pages][:3] == [["4", "3"], ["2", "1"], ["0"]]
    assert all(page.status_code == 200 for page in pages)
    assert "link" not in edge.http.get("/v1/events", params={"page_size": 2}).headers
