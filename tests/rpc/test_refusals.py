"""Requests that are not batches get one clear error, and nothing of them is stored."""

import grpc
import pytest

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, IngestRequest, IngestResponse
from tests.support.calls import Caller, batch_bytes, event, refused
from tests.support.inprocess import serving
from tests.support.marks import on_sqlite


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        pytest.param(b"", "EMPTY_BATCH", "events", id="nothing"),
        pytest.param(batch_bytes(atomic=True), "EMPTY_BATCH", "events", id="no events"),
        pytest.param(batch_bytes(*[event()] * 1001), "TOO_MANY_EVENTS", "events", id="too many events"),
        pytest.param(b"\xff\xff\xff\xff", "MALFORMED_REQUEST", "", id="no protobuf"),
        pytest.param(batch_bytes(event())[:-1], "MALFORMED_REQUEST", "", id="cut off"),
    ],
)
@on_sqlite
async def test_no_batch_at_all(caller: Caller, body: bytes, reason: str, field: str) -> None:
    refusal = await refused(caller.send(body, BatchIngestResponse))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.fields == ([field] if field else [])
    assert refusal.retry_after is None
    assert await caller.stored() == 0


@on_sqlite
async def test_two_encodings(caller: Caller) -> None:
    """Return a request of the bridge. From any other caller the JSON is an unknown field."""
    both = RawBatchIngestRequest(events=[b""], json={"data": b'{"events":[{}]}'}).SerializeToString()
    bridged = (("x-envoy-original-path", "/v1/events/batch"), ("x-headgate-bridge", "1"))
    refusal = await refused(caller.send(both, BatchIngestResponse, metadata=bridged))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TWO_ENCODINGS")
    (result,) = (await caller.send(both, BatchIngestResponse)).results
    assert result.error.reason == "MISSING_FIELD"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "MALFORMED_JSON", id="an empty body"),
        pytest.param(b"{", "MALFORMED_JSON", id="malformed"),
        pytest.param(b'{"events":[{"type":"t"},]}', "MALFORMED_JSON", id="a comma too many"),
        pytest.param(b'{"events":[{"type":"t","data":{"a":NaN}}]}', "MALFORMED_JSON", id="NaN"),
        pytest.param(b'{"events":[{"type":"\xff"}]}', "MALFORMED_JSON", id="no UTF-8"),
        pytest.param(b'{"events":[{"type":"t"}]} {}', "MALFORMED_JSON", id="something after it"),
        pytest.param(b"[]", "EMPTY_BATCH", id="an empty list"),
        pytest.param(b"null", "NOT_AN_OBJECT", id="null"),
        pytest.param(b"{}", "MISSING_FIELD", id="no events"),
        pytest.param(b'{"events":null}', "MISSING_FIELD", id="null for events"),
        pytest.param(b'{"events":{}}', "WRONG_TYPE", id="an object for events"),
        pytest.param(b'{"events":[]}', "EMPTY_BATCH", id="no event"),
        pytest.param(b'{"events":[%s]}' % b",".join([b"{}"] * 1001), "TOO_MANY_EVENTS", id="too many events"),
        pytest.param(b'{"events":[{"type":"t"}],"atomic":1}', "WRONG_TYPE", id="an option that is a number"),
        pytest.param(b'{"events":[{"type":"t"}],"atomik":true}', "UNKNOWN_FIELD", id="an option that is not known"),
        pytest.param(b'{"events":[{"type":"t"}],"events":[]}', "DUPLICATE_FIELD", id="events twice"),
    ],
)
@on_sqlite
async def test_no_batch_in_json(caller: Caller, body: bytes, reason: str) -> None:
    refusal = await refused(caller.json(body))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert await caller.stored() == 0


async def test_limits_are_settings(sqlite_url: str) -> None:
    async with serving(sqlite_url, body_limit=10_000, max_events=2) as service, service.caller() as caller:
        assert (await caller.batch(event(), event())).success_count == 2
        many = await refused(caller.batch(event(), event(), event()))
        assert (many.reason, "at most 2 events" in many.message) == ("TOO_MANY_EVENTS", True)
        for large in (event(data=b'{"a":"%s"}' % (b"x" * 10_000)), event("k" * 10_001)):
            refusal = await refused(caller.batch(large))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BODY_TOO_LARGE")
            assert refusal.trailing["x-headgate-http-status"] == "413"
        # grpc words the refusal of a request that is too large for it to read.
        assert (await refused(caller.batch(event("k" * 3_000_000)))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await caller.stored() == 2


@on_sqlite
async def test_a_single_call_without_an_event(caller: Caller) -> None:
    refusal = await refused(
        caller.send(IngestRequest().SerializeToString(), IngestResponse, method="/headgate.v1.IngestService/Ingest")
    )
    assert (refusal.reason, refusal.fields) == ("MISSING_FIELD", ["event"])
