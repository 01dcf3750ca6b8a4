"""CloudEvents over gRPC, and what else works for events that came as CloudEvents."""

import asyncio
import json
from base64 import b64decode
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEvent, CloudEventBatch
from headgate.v1 import cloudevent_service_pb2_grpc
from headgate.v1.bridge_view_pb2 import RawReplayRejectionRequest
from headgate.v1.cloudevent_service_pb2 import (
    BatchPublishRequest,
    HandshakeRequest,
    HandshakeResponse,
    PublishRequest,
    ReceiveRequest,
)
from headgate.v1.event_service_pb2 import GetEventRequest, GetEventResponse, ListEventsRequest, SubscribeRequest
from headgate.v1.ingest_service_pb2 import BatchIngestResponse
from headgate.v1.rejection_service_pb2 import (
    ListRejectionsRequest,
    Rejection,
    ReplayRejectionRequest,
)
from headgate.v1.rejection_service_pb2_grpc import RejectionServiceStub
from headgate_server.access import admin
from headgate_server.core.model import EventQuery, Scope
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.reading.verify import verify
from tests.support.calls import Caller, event, refused, statuses
from tests.support.destinations import Operator
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.receivers import answers, receiver
from tests.support.waiting import until
from tests.unit import test_specification as specification

PUBLISH = "/headgate.v1.CloudEventService/Publish"
BATCH_PUBLISH = "/headgate.v1.CloudEventService/BatchPublish"
RECEIVE = "/headgate.v1.CloudEventService/Receive"
BRIDGE = ("x-headgate-bridge", "1")
BATCH = "application/cloudevents-batch+json"


def _cloud(key: str = "A1", text: str = "hello", **more: Any) -> CloudEvent:
    kinds = {"datacontenttype": CloudEvent.CloudEventAttributeValue(ce_string="text/plain")}
    made = {"spec_version": "1.0", "id": key, "source": "/sensors/7", "type": "reading", "text_data": text}
    return CloudEvent(**{**made, **more}, attributes=kinds)


def _json(key: str = "A1", **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": key, "source": "/sensors/7", "type": "reading", **more}


async def _post(caller: Caller, body: Any, content_type: str = BATCH, *more: tuple[str, str]) -> Any:
    """Send an HTTP request as the bridge does, and return the answer's JSON."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    request = ReceiveRequest(json=HttpBody(content_type=content_type, data=data))
    bridged = (("x-envoy-original-path", "/v1/cloudevents"), BRIDGE, *more)
    answer = await caller.send(request.SerializeToString(), HttpBody, method=RECEIVE, metadata=bridged)
    return orjson.loads(answer.data) if answer.data else None


async def _rejections(caller: Caller, count: int) -> list[Rejection]:
    stub = RejectionServiceStub(caller._channel)

    async def page() -> list[Rejection]:
        request = ListRejectionsRequest(receiver="cloudevents")
        found = (await stub.ListRejections(request, metadata=caller.metadata)).rejections
        return list(found) if len(found) == count else []

    return await until(page)


async def test_one_event_of_the_official_message(caller: Caller) -> None:
    stub = cloudevent_service_pb2_grpc.CloudEventServiceStub(caller._channel)
    response = await stub.Publish(PublishRequest(event=_cloud()), metadata=caller.metadata)
    assert (response.result.status, response.result.sequence) == ("accepted", 1)
    again = await stub.Publish(PublishRequest(event=_cloud()), metadata=caller.metadata)
    assert (again.result.status, again.result.id) == ("duplicate", response.result.id)
    conflict = await refused(stub.Publish(PublishRequest(event=_cloud(text="other")), metadata=caller.metadata))
    assert (conflict.code, conflict.reason, conflict.fields) == (
        grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT", ["id"],
    )  # fmt: skip
    assert conflict.metadata["differing_fields"] == "/data"
    bad = await refused(stub.Publish(PublishRequest(event=_cloud(type="")), metadata=caller.metadata))
    assert (bad.code, bad.reason, bad.fields) == (grpc.StatusCode.INVALID_ARGUMENT, "MISSING_FIELD", ["type"])
    none = await refused(stub.Publish(PublishRequest(), metadata=caller.metadata))
    assert (none.code, none.reason, none.fields) == (grpc.StatusCode.INVALID_ARGUMENT, "MISSING_FIELD", ["event"])
    stored = (await caller.events.GetEvent(GetEventRequest(id=response.result.id), metadata=caller.metadata)).event
    assert (stored.receiver, stored.source, stored.idempotency_key) == ("cloudevents", "/sensors/7", "A1")
    assert (stored.data_json, stored.attributes_json) == (b'"hello"', b'{"datacontenttype":"text/plain"}')


async def test_each_event_of_a_batch_on_its_own(caller: Caller) -> None:
    """Also one that is no message; a stub could not send it."""
    good, other = _cloud().SerializeToString(), _cloud("A2").SerializeToString()
    batch = b"".join(b"\x0a" + bytes([len(each)]) + each for each in (good, b"\xff", other, good))
    response = await caller.send(batch, BatchIngestResponse, method=BATCH_PUBLISH)
    assert statuses(response) == ["accepted", "rejected", "accepted", "duplicate"]
    assert (response.total, response.success_count, response.error_count) == (4, 3, 1)
    assert response.results[1].error.reason == "MALFORMED_EVENT"
    # The official batch has the same bytes as the request.
    official = CloudEventBatch(events=[_cloud(), _cloud("A3")]).SerializeToString()
    assert statuses(await caller.send(official, BatchIngestResponse, method=BATCH_PUBLISH)) == ["duplicate", "accepted"]


@on_sqlite
async def test_options_of_a_batch(caller: Caller) -> None:
    stub = cloudevent_service_pb2_grpc.CloudEventServiceStub(caller._channel)
    events = [_cloud(), _cloud("A2", type="")]
    atomic = await stub.BatchPublish(BatchPublishRequest(events=events, atomic=True), metadata=caller.metadata)
    assert statuses(atomic) == ["aborted", "rejected"]
    asked = BatchPublishRequest(events=events, validate_only=True)
    assert statuses(await stub.BatchPublish(asked, metadata=caller.metadata)) == ["accepted", "rejected"]
    assert await caller.stored() == 0
    for count, reason in ((0, "EMPTY_BATCH"), (1_001, "TOO_MANY_EVENTS")):
        request = BatchPublishRequest(events=[_cloud()] * count)
        assert (await refused(stub.BatchPublish(request, metadata=caller.metadata))).reason == reason


@on_sqlite
async def test_a_request_key(caller: Caller) -> None:
    """It is compared with the events, not with their bytes: maps are written in any order."""
    once = CloudEvent(spec_version="1.0", id="A1", source="/s", type="t")
    for name in ("a", "b", "c", "d", "e"):
        once.attributes[name].ce_string = name
    fields = once.SerializeToString(deterministic=True)
    head, entries = fields[: fields.index(b"\x2a")], fields[fields.index(b"\x2a") :]
    size = len(entries) // 5
    backwards = head + b"".join(entries[at : at + size] for at in range(4 * size, -1, -size))
    key = ("idempotency-key", "k")
    for index, serialized in enumerate((fields, backwards)):
        request = b"\x0a" + bytes([len(serialized)]) + serialized
        answer = await caller.send(request, BatchIngestResponse, method=BATCH_PUBLISH, metadata=[key])
        assert statuses(answer) == ["accepted"], index
    other = CloudEventBatch(events=[_cloud("A2")]).SerializeToString()
    reused = await refused(caller.send(other, BatchIngestResponse, method=BATCH_PUBLISH, metadata=[key]))
    assert reused.reason == "IDEMPOTENCY_KEY_REUSED"
    first = await _post(caller, [_json("B1")], BATCH, key)
    assert first == await _post(caller, [_json("B1")], BATCH, key)
    assert first["results"][0]["status"] == "accepted"


@on_sqlite
async def test_what_is_only_for_http(service: Service, caller: Caller) -> None:
    request = ReceiveRequest(json=HttpBody(content_type=BATCH, data=b"[]"))
    refusal = await refused(caller.send(request.SerializeToString(), HttpBody, method=RECEIVE))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = cloudevent_service_pb2_grpc.CloudEventServiceStub(channel)
        assert await stub.Handshake(HandshakeRequest()) == HandshakeResponse()


async def test_an_independent_verifier_finds_the_ledger_sound(service: Service, caller: Caller) -> None:
    """`test_specification` is written from the specification alone."""
    sent = [
        _json("A1", time="2024-01-15T10:30:00Z", data={"n": 1.50, "u": "é"}, traceparent="00-ab", retries=3),
        _json("A2", data=None),
        _json("A3", data_base64="AQID", datacontenttype="image/png"),
        _json("A4", data=12345678901234567890, sampled=False, subject="s"),
        _json("A5"),
    ]
    await _post(caller, sent)
    await caller.batch(event("k", {"n": 1}))
    workspace = await admin.find_workspace(service.store.directory, "acme")
    rows = (await service.store.ledgers.events(EventQuery(workspace_id=workspace.id, limit=10))).events
    assert [row.receiver for row in rows] == ["cloudevents"] * 5 + ["native"]
    previous = sha256(b"headgate/ledger/v1\0acme").digest()
    for row in rows:
        stored = row._asdict() | {"id": row.id.hex()}
        for name in ("data", "attributes"):
            stored[name] = None if stored[name] is None else stored[name].decode()
        commitment = sha256(row.salt + specification.content(stored)).digest()
        named = specification.identity(row.receiver, row.scope or "", row.key or "")
        previous = sha256(specification.frame(previous, stored, named, commitment)).digest()
        assert row.event_hash == previous
    assert (await verify(service.store.proof, workspace, limit=10)).breaks == []


@on_sqlite
async def test_a_time_that_is_filled_in_anew_is_a_duplicate(caller: Caller) -> None:
    times = ("2024-01-15T10:30:00Z", "2024-01-15T10:30:07Z", None)
    slots = [_json(time=time, data=1) for time in times] + [_json(time=times[1], data=2)]
    answer = await _post(caller, slots)
    assert [result["status"] for result in answer["results"]] == ["accepted", "duplicate", "duplicate", "conflict"]
    warning = "Only the time differs: the event was stored with the time 2024-01-15T10:30:00Z, which is kept."
    assert [result.get("warnings") for result in answer["results"]] == [None, [warning], [warning], None]
    assert answer["results"][3]["error"]["differing_fields"] == ["/data"]
    later = await _post(caller, [_json(time="2024-01-15T10:31:00Z", data=1)])
    assert later["results"][0]["warnings"] == [warning]
    assert await caller.stored() == 1


async def test_the_same_event_at_once_is_stored_once(caller: Caller) -> None:
    """Also if the time was filled in anew each time."""
    times = [f"2024-01-15T10:30:{second:02}Z" for second in range(12)]
    answers = await asyncio.gather(*(_post(caller, [_json(time=time, data=1)] * 2) for time in times))
    found = [result["status"] for answer in answers for result in answer["results"]]
    assert sorted(found) == ["accepted"] + ["duplicate"] * 23
    assert await caller.stored() == 1


@on_sqlite
async def test_every_refused_event_is_kept_and_replayed(service: Service, caller: Caller) -> None:
    """As it was sent: JSON, a message, and the headers and body of the binary mode. The quota refuses valid ones."""
    workspace = await admin.find_workspace(service.store.directory, "acme")
    await service.store.limits.set_quota(workspace.id, 0)
    await _post(caller, b'[ {"specversion" : "1.0","id":"J","source":"/s","type":"t"} , 5]')
    serialized = _cloud("P").SerializeToString()
    await refused(caller.send(PublishRequest(event=_cloud("P")).SerializeToString(), HttpBody, method=PUBLISH))
    packed = "specversion=1.0&id=%48&source=/s&type=t&own=%25C3%25BC"
    await refused(_post(caller, b"\xff\x00", "image/png", ("x-headgate-attributes", packed)))
    kept = {one.event or one.event_base64: one for one in await _rejections(caller, 4)}
    assert set(kept) == {
        '{"specversion" : "1.0","id":"J","source":"/s","type":"t"}',
        "5",
        serialized,
        '{"headers":[["ce-specversion","1.0"],["ce-id","H"],["ce-source","/s"],["ce-type","t"],["ce-own","%C3%BC"],'
        '["content-type","image/png"]],"body_base64":"/wA="}',
    }
    await service.store.limits.set_quota(workspace.id, None)
    stub = RejectionServiceStub(caller._channel)
    results = {}
    for text, one in kept.items():
        replayed = await stub.ReplayRejection(ReplayRejectionRequest(id=one.id), metadata=caller.metadata)
        results[text] = replayed.result
    assert [result.status for result in results.values()].count("accepted") == 3
    assert results["5"].error.reason == "WRONG_TYPE"
    stored = (await caller.events.ListEvents(ListEventsRequest(), metadata=caller.metadata)).events
    assert {one.idempotency_key: one.receiver for one in stored} == dict.fromkeys("JPH", "cloudevents")
    binary = next(one for one in stored if one.idempotency_key == "H")
    assert b64decode(json.loads(binary.data_json)) == b"\xff\x00"
    assert json.loads(binary.attributes_json)["own"] == "ü"


@on_sqlite
async def test_a_corrected_cloudevent_is_replayed_as_one(caller: Caller) -> None:
    await _post(caller, [_json(type="")])
    (one,) = await _rejections(caller, 1)
    body = HttpBody(content_type="application/json", data=orjson.dumps({"event": _json(type="reading", own="x")}))
    request = RawReplayRejectionRequest(id=one.id, json=body)
    bridged = (("x-envoy-original-path", "/v1/rejections/x:replay"), BRIDGE)
    replay = "/headgate.v1.RejectionService/ReplayRejection"
    answer = orjson.loads(
        (await caller.send(request.SerializeToString(), HttpBody, method=replay, metadata=bridged)).data
    )
    assert answer["status"] == "accepted"
    stored = (await caller.events.GetEvent(GetEventRequest(id=answer["id"]), metadata=caller.metadata)).event
    assert (stored.receiver, stored.idempotency_key, stored.attributes_json) == ("cloudevents", "A1", b'{"own":"x"}')


async def test_a_destination_delivers_cloudevents_as_they_came(sqlite_url: str) -> None:
    loopback = DeliveryConfig(allowed=(ip_network("127.0.0.0/8"),))
    async with (
        serving(sqlite_url, delivery=loopback) as service,
        service.caller() as caller,
        receiver(answers(200)) as one,
    ):
        await caller.batch(event("native"))
        answer = await _post(caller, [_json(data=[1], traceparent="00-ab")])
        webhook = {"url": f"http://127.0.0.1:{one.port}/hook", "format": "cloudevents"}
        body = {"name": "crm", "webhook": webhook, "start": "beginning", "filter": {"receivers": ["cloudevents"]}}
        await Operator.of(caller).create(body)

        async def delivered() -> str:
            request = GetEventRequest(id=answer["results"][0]["id"], view="FULL")
            found: GetEventResponse = await caller.events.GetEvent(request, metadata=caller.metadata)
            return found.event.delivery if found.event.delivery == "delivered" else ""

        assert await until(delivered) == "delivered"
        (request,) = one.requests
        assert request.headers["content-type"] == "application/cloudevents+json"
        cloud = orjson.loads(request.body)
        assert {name: cloud[name] for name in ("id", "source", "type", "data", "traceparent", "eventid")} == {
            "id": "A1", "source": "/sensors/7", "type": "reading", "data": [1], "traceparent": "00-ab",
            "eventid": answer["results"][0]["id"],
        }  # fmt: skip


@on_sqlite
async def test_subscriptions_and_filters(caller: Caller) -> None:
    await _post(caller, [_json("A1", data=True), _json("A2", source="/other")])
    request = SubscribeRequest(source="/sensors/7", after_sequence=0)
    stream = caller.events.Subscribe(request, metadata=caller.metadata)
    first = (await stream.read()).event
    assert (first.idempotency_key, first.data_json) == ("A1", b"true")
    stream.cancel()


@on_sqlite
async def test_a_key_without_the_scope(service: Service) -> None:
    async with service.caller(Scope.EVENTS_READ) as reader:
        refusal = await refused(_post(reader, [_json()]))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    async with service.caller(Scope.EVENTS_WRITE) as writer:
        await _post(writer, [_json(data=1)])
        (result,) = (await _post(writer, [_json(data=2)]))["results"]
        assert (result["status"], "differing_fields" in result["error"]) == ("conflict", False)


@pytest.mark.parametrize("size", [8 << 20, (8 << 20) + 1])
@on_sqlite
async def test_a_body_as_large_as_bodies_may_be(caller: Caller, size: int) -> None:
    head, tail = b'{"specversion":"1.0","id":"A1","source":"/s","type":"t","data":"', b'"}'
    body = head + b"x" * (size - len(head) - len(tail)) + tail
    if size > 8 << 20:
        assert (await refused(_post(caller, body, "application/cloudevents+json"))).reason == "BODY_TOO_LARGE"
    else:
        assert (await _post(caller, body, "application/cloudevents+json"))["status"] == "accepted"
