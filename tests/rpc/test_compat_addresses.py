"""CompatService with all kinds of paths, queries and bodies, also ones that no bridge would send."""

from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from tests.support.calls import Caller, refused
from tests.support.marks import on_sqlite

RECEIVE = "/headgate.v1.CompatService/Receive"
PROGRAM = "550e8400-e29b-41d4-a716-446655440000"
EVENT = {
    "program_id": PROGRAM,
    "idempotency_key": "order-1",
    "event_timestamp": "2024-01-15T10:30:00Z",
    "external_id": "user + 1/2",
    "event_data": {"type": "purchase"},
}


async def _call(caller: Caller, path: str, body: bytes = b"", method: str = "GET") -> Any:
    metadata = (("x-headgate-path", path), ("x-headgate-method", method), ("x-headgate-bridge", "1"))
    answer = await caller.send(HttpBody(data=body).SerializeToString(), HttpBody, method=RECEIVE, metadata=metadata)
    assert answer.content_type == "application/json"
    return orjson.loads(answer.data)


async def test_a_batch_and_its_reads(caller: Caller) -> None:
    body = orjson.dumps({"events": [EVENT, {}]})
    answer = await _call(caller, "/compat/scrip/v1/events/batch", body, "post")
    assert [result["status"] for result in answer["results"]] == ["accepted", "error"]
    event_id = answer["results"][0]["event"]["id"]
    for query in ("external_id=user+%2B+1%2F2", "external_id=x&external_id=user%20%2B%201/2", "limit=1&cursor=", ""):
        listed = await _call(caller, f"/compat/scrip/v1/events?{query}")
        assert [event["id"] for event in listed["data"]] == [event_id]
    for spelled in (event_id, event_id.upper(), event_id.replace("-", "%2D"), event_id + "?limit=x"):
        assert (await _call(caller, f"/compat/scrip/v1/events/{spelled}"))["event_data"] == EVENT["event_data"]
    assert await caller.stored() == 1


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//[x", "/compat", "/compat/", "/compat/nobody/v1/events", "/compat//v1/events", "scrip/v1/events",
        "http://[::1/compat/scrip/v1/events", "?/compat/scrip/v1/events", "/compat/SCRIP/v1/events",
    ],
)  # fmt: skip
@on_sqlite
async def test_a_path_to_no_receiver(caller: Caller, path: str) -> None:
    refusal = await refused(_call(caller, path))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NO_SUCH_RECEIVER")
    for name in ("flokit", "immutable", "roboflow", "scrip", "vibefollow"):
        assert name in refusal.message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/compat/scrip"), ("GET", "/compat/scrip/"), ("DELETE", "/compat/scrip/v1/events"),
        ("GET", "/compat/scrip/v1/events/"), ("GET", "/compat/scrip//v1/events"), ("GET", "/compat/scrip/v1/events;x"),
        ("POST", "/compat/scrip/v1/events/batch/"), ("GET", "/compat/scrip/v1/%65vents"),
        ("POST", "/compat/roboflow/v1/events"), ("", "/compat/scrip/nothing"), ("GET", "/compat/scrip/v1/events/x/y"),
        ("POST", "/compat/scrip/v1/events//retry"), ("POST", "/compat/scrip/v1/events/x/retr%79"),
        ("POST", "/compat/scrip/v1/events/x/retry/"), ("POST", "/compat/scrip/v1/events/x/y/retry"),
    ],
)  # fmt: skip
@on_sqlite
async def test_a_path_that_a_receiver_has_not(caller: Caller, method: str, path: str) -> None:
    refusal = await refused(_call(caller, path, method=method))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NO_SUCH_PATH")


@pytest.mark.parametrize("event_id", ["x", "%00", "%ff", "%2e%2e", "..", "{id}", PROGRAM, "urn:uuid:", "x" * 5_000])
@on_sqlite
async def test_an_id_of_no_event(caller: Caller, event_id: str) -> None:
    for method, end in (("GET", ""), ("POST", "/retry")):
        refusal = await refused(_call(caller, f"/compat/scrip/v1/events/{event_id}{end}", method=method))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("limit=0", "INVALID_LIMIT"), ("limit=201", "INVALID_LIMIT"), ("limit=%C2%B2", "INVALID_LIMIT"),
        ("limit=1&limit=x", "INVALID_LIMIT"), ("cursor=x", "INVALID_CURSOR"), ("cursor=00", "INVALID_CURSOR"),
        ("from=yesterday", "INVALID_TIMESTAMP"), ("to=%00", "INVALID_TIMESTAMP"), ("status=x", "INVALID_FILTER"),
        ("external_id=%00", "INVALID_CHARACTER"), ("program_id=x", "INVALID_FILTER"),
        ("external_id=" + "x" * 300, "TOO_LONG"),
    ],
)  # fmt: skip
@on_sqlite
async def test_an_invalid_query_is_refused(caller: Caller, query: str, reason: str) -> None:
    refusal = await refused(_call(caller, f"/compat/scrip/v1/events?{query}"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


@pytest.mark.parametrize("path", ["scrip/v1/events/batch", "vibefollow/api/v1/events/batch", "flokit/v1/batch/events"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (rb'{"\ud800":1,"\ud800":1,"events":[]}', "DUPLICATE_FIELD"),
        (rb'{"\ud800":1e9999999999,"events":[]}', "NUMBER_OUT_OF_RANGE"),
        (b'{"events":[],"events":[{}]}', "DUPLICATE_FIELD"),
        (b"\xff", "MALFORMED_JSON"),
        (b"", "MALFORMED_JSON"),
        (b'{"events":[]}', "EMPTY_BATCH"),
    ],
)
@on_sqlite
async def test_a_body_that_is_refused_whole(caller: Caller, path: str, body: bytes, reason: str) -> None:
    refusal = await refused(_call(caller, f"/compat/{path}", body, "POST"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
