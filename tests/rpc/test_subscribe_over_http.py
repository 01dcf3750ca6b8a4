"""Subscribe as the bridge sees it: lines of JSON, and server-sent events."""

import orjson
import pytest

from headgate.v1.event_service_pb2 import SubscribeRequest
from tests.support.calls import Caller, event, refused
from tests.support.marks import on_sqlite
from tests.support.sse import parse
from tests.support.subscribing import SSE, Bridged, Stream


@on_sqlite
async def test_http_gets_lines_of_json(caller: Caller) -> None:
    await caller.batch(event(data=b'{"n":12345678901234567890}'))
    stream = Bridged(caller, after_sequence=0)
    one, caught_up = await stream.next(), await stream.next()
    assert (one.content_type, caught_up.content_type) == ("application/x-ndjson", "application/x-ndjson")
    assert b'"data":{"n":12345678901234567890}' in one.data
    assert orjson.loads(one.data)["event"]["sequence"] == 1
    assert caught_up.data == b'{"caught_up":{"sequence":1}}\n'


@on_sqlite
async def test_http_gets_server_sent_events(caller: Caller) -> None:
    await caller.batch(event())
    stream = Bridged(caller, SSE, after_sequence=0)
    one, caught_up = await stream.next(), await stream.next()
    assert one.content_type == "text/event-stream"
    ((event_id, name, data),) = parse(one.data)
    assert (event_id, name, orjson.loads(data)["sequence"]) == ("1", "message", 1)
    assert parse(caught_up.data) == [(None, "caught_up", '{"sequence":1}')]


@on_sqlite
async def test_the_last_event_id_takes_precedence(caller: Caller) -> None:
    results = (await caller.batch(*[event() for _ in range(4)])).results
    back = ("last-event-id", "2")
    for request in ({}, {"after_sequence": 0}, {"after_id": results[0].id}, {"from": "2024-01-15T10:30:00Z"}):
        stream = Bridged(caller, SSE, back, **request)
        assert [parse((await stream.next()).data)[0].id for _ in range(2)] == ["3", "4"]
    # The same for lines of JSON. An empty header is ignored.
    assert orjson.loads((await Bridged(caller, back).next()).data)["event"]["sequence"] == 3
    assert b"caught_up" in (await Bridged(caller, ("last-event-id", "")).next()).data
    # A gRPC client has no such header.
    other = caller.events.Subscribe(SubscribeRequest(after_sequence=0), metadata=(*caller.metadata, back))
    assert await Stream(other).sequences(1) == [1]


@on_sqlite
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("abc", "INVALID_CURSOR"),
        ("-1", "INVALID_CURSOR"),
        ("1.5", "INVALID_CURSOR"),
        ("1, 2", "INVALID_CURSOR"),
        ("9" * 30, "INVALID_CURSOR"),
        ("7", "SEQUENCE_PAST_HEAD"),
    ],
)
async def test_last_event_ids_that_are_refused(caller: Caller, value: str, reason: str) -> None:
    refusal = await refused(Bridged(caller, SSE, ("last-event-id", value)).next())
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", reason)
