"""Events against their event types: modes, unknown types, duplicates, atomic batches, dry runs and replays."""

from typing import Any

import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate.v1.cloudevent_service_pb2 import ReceiveRequest
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, EventResult
from headgate.v1.rejection_service_pb2 import ListRejectionsRequest, Rejection, ReplayRejectionRequest
from headgate.v1.rejection_service_pb2_grpc import RejectionServiceStub
from headgate_server.access import auth
from headgate_server.core.event_types import Mode, Unknown
from tests.support.calls import Caller, event, refused, statuses
from tests.support.eventtypes import AMOUNT, BRIDGED, Types, store_type, store_unknown
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.vendors import VENDORS
from tests.support.waiting import until

GOOD = {"amount": 49.99}
BAD = {"amount": "SECRET"}


def _errors(answer: BatchIngestResponse) -> list[tuple[str, str]]:
    return [(result.error.reason, result.error.field) for result in answer.results]


async def test_a_strict_type_rejects_what_does_not_match(service: Service, caller: Caller) -> None:
    await store_type(service, "order.completed")
    batch = (event("a", GOOD), event("b", BAD), event(), event("d", BAD, type="other"), event(data=b'{"amount": -1}'))
    answer = await caller.batch(*batch)
    assert statuses(answer) == ["accepted", "rejected", "rejected", "accepted", "rejected"]
    assert _errors(answer)[1:] == [
        *(("SCHEMA_MISMATCH", "data.amount"), ("SCHEMA_MISMATCH", "data"), ("", ""), ("SCHEMA_MISMATCH", "data.amount"))
    ]
    assert [result.error.message for result in answer.results][1:3] == [
        'The data does not match the schema of "order.completed": the value is not of type "number".',
        'The data does not match the schema of "order.completed": "amount" is a required property.',
    ]
    refusal = await refused(caller.single(event(data=BAD)))
    assert (refusal.reason, refusal.fields) == ("SCHEMA_MISMATCH", ["data.amount"])
    in_json = await caller.json({"events": [{"type": "order.completed", "data": BAD}]})
    assert in_json["results"][0]["error"]["field"] == "data.amount"
    assert await caller.stored() == 2


@on_sqlite
async def test_a_permissive_type_warns(service: Service, caller: Caller) -> None:
    await store_type(service, "order.completed", mode=Mode.PERMISSIVE)
    answer = await caller.batch(event("a", GOOD), event("b", BAD))
    assert statuses(answer) == ["accepted", "accepted"]
    assert list(answer.results[0].warnings) == []
    (warning,) = answer.results[1].warnings
    assert warning == (
        'data.amount: The data does not match the schema of "order.completed": the value is not of type "number".'
    )
    again = await caller.batch(event("b", BAD))
    assert (statuses(again), list(again.results[0].warnings)) == (["duplicate"], [warning])


@on_sqlite
@pytest.mark.parametrize(
    ("unknown", "status", "warnings"), [(Unknown.ACCEPT, "accepted", 0), (Unknown.WARN, "accepted", 1)]
)
async def test_unknown_types_that_are_stored(
    service: Service, caller: Caller, unknown: Unknown, status: str, warnings: int
) -> None:
    await store_type(service, "known")
    await store_unknown(service, unknown)
    answer = await caller.batch(event(), event(type="known", data=GOOD))
    assert statuses(answer) == [status, "accepted"]
    assert list(answer.results[0].warnings) == ['The workspace has no event type "order.completed".'] * warnings
    assert not answer.results[1].warnings


@on_sqlite
async def test_unknown_types_that_are_rejected(service: Service, caller: Caller) -> None:
    """Also while the workspace has no event type at all."""
    await store_unknown(service, Unknown.REJECT)
    answer = await caller.batch(event(), event(type="x" * 255))
    assert _errors(answer) == [("UNKNOWN_EVENT_TYPE", "type")] * 2
    assert len(answer.results[1].error.message) < 150


@on_sqlite
async def test_a_vendors_events_have_the_vendors_schemas_only(service: Service, caller: Caller) -> None:
    await store_unknown(service, Unknown.REJECT)
    for vendor in VENDORS.values():
        metadata = (*BRIDGED, ("x-headgate-method", "POST"), ("x-headgate-path", vendor.batch))
        body = HttpBody(data=orjson.dumps({"events": vendor.events(1)})).SerializeToString()
        await caller.send(body, HttpBody, method="/headgate.v1.CompatService/Receive", metadata=metadata)
    assert await caller.stored() == len(VENDORS)


@on_sqlite
async def test_cloudevents_are_checked(service: Service, caller: Caller) -> None:
    async def send(*events: dict[str, Any]) -> list[dict[str, Any]]:
        kind = "application/cloudevents-batch+json"
        whole = [{"specversion": "1.0", "source": "/shop", "type": "order.completed"} | each for each in events]
        request = ReceiveRequest(json=HttpBody(content_type=kind, data=orjson.dumps(whole)))
        method = "/headgate.v1.CloudEventService/Receive"
        answer = await caller.send(request.SerializeToString(), HttpBody, method=method, metadata=BRIDGED)
        results: list[dict[str, Any]] = orjson.loads(answer.data)["results"]
        return results

    assert [result["status"] for result in await send({"id": "old", "data": BAD})] == ["accepted"]
    await Types(caller).put("order.completed", AMOUNT)
    results = await send(
        {"id": "1", "data": GOOD},
        {"id": "2", "data": BAD},
        {"id": "3"},
        {"id": "4", "data": "text"},
        {"id": "5", "data_base64": "AAAA"},
        {"id": "old", "data": BAD, "time": "2024-01-15T10:30:00Z"},
        {"id": "6", "type": "other"},
    )
    assert [result["status"] for result in results] == [
        *("accepted", "rejected", "rejected", "rejected", "rejected", "duplicate", "accepted")
    ]
    fields = [result["error"]["field"] for result in results if "error" in result]
    assert fields == ["data.amount", "data", "data", "data"]


async def test_a_stored_event_stays_a_duplicate_when_its_schema_changes(service: Service, caller: Caller) -> None:
    """Other content under its key is a conflict, as without a schema."""
    types = Types(caller)
    assert statuses(await caller.batch(event("a", BAD))) == ["accepted"]
    await types.put("order.completed", AMOUNT)
    answer = await caller.batch(event("a", BAD), event("a", {"amount": "other"}), event("a", GOOD), event("b", BAD))
    assert statuses(answer) == ["duplicate", "conflict", "conflict", "rejected"]
    assert answer.results[0].sequence == answer.results[1].sequence == 1
    assert await caller.stored() == 1
    # The key of a rejected event is free.
    assert statuses(await caller.batch(event("b", GOOD))) == ["accepted"]


@on_sqlite
async def test_an_event_without_a_key_is_rejected_without_a_transaction(service: Service, caller: Caller) -> None:
    await store_type(service, "order.completed")
    assert statuses(await caller.batch(event(data=BAD), event(data=BAD))) == ["rejected"] * 2


@on_sqlite
async def test_an_atomic_batch_and_a_dry_run(service: Service, caller: Caller) -> None:
    await store_type(service, "order.completed")
    batch = (event("a", GOOD), event("b", BAD), event(data=BAD))
    for options in ({"atomic": True}, {"atomic": True, "validate_only": True}):
        answer = await caller.batch(*batch, **options)
        assert statuses(answer) == ["aborted", "rejected", "rejected"]
        assert _errors(answer)[1] == ("SCHEMA_MISMATCH", "data.amount")
    assert statuses(await caller.batch(*batch, validate_only=True)) == ["accepted", "rejected", "rejected"]
    assert await caller.stored() == 0


async def test_a_request_key_does_not_keep_a_refusal_by_a_schema(service: Service, caller: Caller) -> None:
    """After the schema is corrected the same request must not get the old refusal; nothing of it was stored."""
    types = Types(caller)
    await types.put("order.completed", AMOUNT)
    for _ in range(2):
        answer, replayed = await caller.keyed("k", event(data=BAD), event("x", BAD))
        assert (statuses(answer), replayed) == (["rejected"] * 2, False)
    await types.put("order.completed", {})
    answer, replayed = await caller.keyed("k", event(data=BAD), event("x", BAD))
    assert (statuses(answer), replayed) == (["accepted"] * 2, False)
    again, replayed = await caller.keyed("k", event(data=BAD), event("x", BAD))
    assert (again, replayed) == (answer, True)


async def test_a_replay_is_checked_by_the_schema_of_now(service: Service, caller: Caller) -> None:
    types = Types(caller)
    stub = RejectionServiceStub(caller._channel)
    await types.put("order.completed", AMOUNT)
    await caller.batch(event(data=BAD), event("key", BAD))

    async def kept() -> list[Rejection]:
        answer = await stub.ListRejections(ListRejectionsRequest(), metadata=caller.metadata)
        return list(answer.rejections) if len(answer.rejections) == 2 else []

    async def replay(rejection: Rejection, **options: Any) -> EventResult:
        request = ReplayRejectionRequest(id=rejection.id, **options)
        result: EventResult = (await stub.ReplayRejection(request, metadata=caller.metadata)).result
        return result

    rejections = await until(kept)
    assert {(each.reason, each.field) for each in rejections} == {("SCHEMA_MISMATCH", "data.amount")}
    for rejection in rejections:
        assert (await replay(rejection)).error.reason == "SCHEMA_MISMATCH"
        assert (await replay(rejection, event=event(data=BAD))).error.reason == "SCHEMA_MISMATCH"
    await types.put("order.completed", {"properties": {"amount": {"type": "string"}}})
    for rejection in rejections:
        assert (await replay(rejection)).status == "accepted"
        assert (await replay(rejection)).status == "duplicate"
    await types.put("order.completed", AMOUNT)
    # It is stored, so it stays a duplicate, with and without a key.
    assert [(await replay(rejection)).status for rejection in rejections] == ["duplicate"] * 2
    assert await caller.stored() == 2


async def test_a_change_in_another_process_applies_within_five_seconds(service: Service, caller: Caller) -> None:
    """The revision comes with the key, which is looked up again after three seconds."""
    assert auth.CACHE_SECONDS <= 3
    types = Types(caller)
    assert statuses(await caller.batch(event(data=BAD))) == ["accepted"]
    await store_type(service, "order.completed")

    async def is_rejected() -> bool:
        return statuses(await caller.batch(event(data=BAD))) == ["rejected"]

    await until(is_rejected)
    # In this process a change applies at once, also one that follows a change of another process.
    await types.put("order.completed", {})
    assert statuses(await caller.batch(event(data=BAD))) == ["accepted"]
    await types.put("order.completed", AMOUNT)
    assert statuses(await caller.batch(event(data=BAD))) == ["rejected"]
    await types.delete("order.completed")
    assert statuses(await caller.batch(event(data=BAD))) == ["accepted"]


@on_sqlite
async def test_a_schema_that_this_version_cannot_read_stops_no_event(service: Service, caller: Caller) -> None:
    await store_type(service, "order.completed", {"type": "objekt"})
    answer = await caller.batch(event(data=BAD))
    assert statuses(answer) == ["accepted"]
    assert list(answer.results[0].warnings) == [
        'The schema of "order.completed" cannot be read; the event was not checked.'
    ]
