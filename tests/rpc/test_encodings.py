"""One batch in three encodings gets one answer: a message as grpc-gateway makes it from JSON, raw JSON, and
data_json.
"""

import copy
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.event_service_pb2 import ListEventsRequest
from headgate.v1.ingest_service_pb2 import (
    BatchIngestRequest,
    BatchIngestResponse,
    EventResult,
    IngestRequest,
    IngestResponse,
)
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service

BATCH: dict[str, Any] = {
    "events": [
        {
            "type": "order.completed",
            "source": "shop",
            "idempotency_key": "a",
            "data": {"amount": 49.99, "n": [1, None, {}]},
        },
        {
            "type": "order.completed",
            "source": "shop",
            "idempotencyKey": "a",
            "data": {"n": [1.0, None, {}], "amount": 49.990},
        },
        {"type": "order.completed", "source": "shop", "idempotency_key": "a", "data": {"amount": 50}},
        {"source": "shop"},
        {"type": "t", "occurred_at": "2024-01-15T10:30:00.123456789+01:00"},
        {"type": "x" * 256},
        {"type": "t", "idempotency_key": ""},
        {"type": "é\U0001f600", "subject": "ü", "data": {}},
    ]
}


def _comparable(response: BatchIngestResponse) -> BatchIngestResponse:
    """Return the answer without what differs from one ledger to another."""
    bare = copy.deepcopy(response)
    for result in bare.results:
        for name in ("id", "created_at", "event_hash"):
            result.ClearField(name)
    return bare


@pytest.mark.parametrize(
    "options", [{}, {"atomic": True}, {"validate_only": True}], ids=["plain", "atomic", "validate_only"]
)
async def test_a_batch(service: Service, options: dict[str, bool]) -> None:
    body = {**BATCH, **options}
    typed = json_format.ParseDict(body, BatchIngestRequest())
    exact = copy.deepcopy(typed)
    for one in exact.events:
        if one.HasField("data"):
            one.data_json = json_format.MessageToJson(one.data).encode()
    async with (
        service.caller(workspace="typed") as first,
        service.caller(workspace="json") as second,
        service.caller(workspace="exact") as third,
    ):
        answers = [
            await first.ingest.BatchIngest(typed, metadata=first.metadata),
            json_format.ParseDict(await second.json(body), BatchIngestResponse()),
            await third.ingest.BatchIngest(exact, metadata=third.metadata),
        ]
        ledgers = [await caller.all_events() for caller in (first, second, third)]
    assert _comparable(answers[0]) == _comparable(answers[1]) == _comparable(answers[2])
    contents = [
        [(one.type, one.source, one.subject, one.occurred_at, one.data, one.idempotency_key) for one in events]
        for events in ledgers
    ]
    assert contents[0] == contents[1] == contents[2]
    assert (len(contents[0]) == 3) is (not options)


async def test_all_three_in_one_ledger(caller: Caller) -> None:
    """An event stored through one encoding is a duplicate in the others."""
    sent = {"type": "t", "idempotency_key": "k", "data": {"n": 1, "s": "é", "deep": [{"x": 0.1}]}}
    first = await caller.json({"events": [sent]})
    typed = json_format.ParseDict({"events": [sent]}, BatchIngestRequest())
    again = await caller.ingest.BatchIngest(typed, metadata=caller.metadata)
    exact = await caller.batch(event("k", b'{"s":"\\u00e9","deep":[{"x":1e-1}],"n":1.0}', type="t", source=""))
    assert [again.results[0].status, exact.results[0].status] == ["duplicate", "duplicate"]
    assert {first["results"][0]["id"], again.results[0].id, exact.results[0].id} == {first["results"][0]["id"]}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({"type": "t", "idempotency_key": "single"}, id="accepted"),
        pytest.param({"type": "t", "idempotency_key": "taken", "data": {"n": 2}}, id="conflict"),
        pytest.param({"source": "shop"}, id="rejected"),
    ],
)
async def test_a_single_event(service: Service, sent: dict[str, Any]) -> None:
    method = "/headgate.v1.IngestService/Ingest"
    seen: list[tuple[Any, ...]] = []
    for workspace, in_json in (("typed", False), ("json", True)):
        async with service.caller(workspace=workspace) as caller:
            await caller.json({"events": [{"type": "t", "idempotency_key": "taken", "data": {"n": 1}}]})
            if in_json:
                call = caller.json(sent, method=method)
            else:
                request = json_format.ParseDict({"event": sent}, IngestRequest())
                call = caller.send(request.SerializeToString(), IngestResponse, method=method)
            if sent.get("idempotency_key") == "single":
                answer = await call
                result = json_format.ParseDict(answer, EventResult()) if in_json else answer.result
                seen.append((result.status, result.sequence))
            else:
                refusal = await refused(call)
                refusal.metadata.pop("event_id", None)
                seen.append((refusal.code, refusal.reason, refusal.fields, refusal.metadata, refusal.message))
    assert seen[0] == seen[1]


async def test_reads_in_json(caller: Caller) -> None:
    """The JSON of a page has the page's content."""
    await caller.json(BATCH)
    page = await caller.events.ListEvents(ListEventsRequest(page_size=2), metadata=caller.metadata)
    body = await caller.send(
        ListEventsRequest(page_size=2).SerializeToString(),
        HttpBody,
        method="/headgate.v1.EventService/ListEvents",
        metadata=(("x-envoy-original-path", "/v1/events"), ("x-headgate-bridge", "1")),
    )
    assert json_format.Parse(body.data, type(page)()) == page


def test_the_bridges_view_is_the_public_one() -> None:
    """A field of the public request has the same number and type in the bridge's view, except for the type of
    events.
    """
    for public, raw in ((BatchIngestRequest, RawBatchIngestRequest), (IngestRequest, RawIngestRequest)):
        ours = {field.name: field.number for field in raw.DESCRIPTOR.fields}
        assert {field.name: field.number for field in public.DESCRIPTOR.fields}.items() <= ours.items()
        assert ours.keys() - public.DESCRIPTOR.fields_by_name.keys() == {"json"}
