"""`Idempotency-Key`: for 24 hours the same request gets its first answer again."""

import asyncio

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse, IngestRequest
from headgate_server.core.model import Scope
from tests.support import database
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite


async def test_the_first_answer_again(caller: Caller) -> None:
    request = (event("k", {"n": 1}), event(), event(type=""), event("k", {"n": 2}))
    first, replayed = await caller.keyed("r1", *request)
    assert (statuses(first), replayed) == (["accepted", "accepted", "rejected", "conflict"], False)
    again, replayed = await caller.keyed("r1", *request)
    assert (again, replayed) == (first, True)
    assert list(again.results[3].error.differing_fields) == ["/data/n"]
    # With another key it is another request: events without keys are stored again.
    other, replayed = await caller.keyed("r2", *request)
    assert (statuses(other), replayed) == (["duplicate", "accepted", "rejected", "conflict"], False)
    assert await caller.stored() == 3


async def test_another_request_under_the_key(caller: Caller) -> None:
    await caller.keyed("r", event("a"))
    for other in (caller.keyed("r", event("b")), caller.keyed("r", event("a"), atomic=True)):
        refusal = await refused(other)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED")
        assert refusal.trailing["x-headgate-http-status"] == "422"
    assert await caller.stored() == 1


async def test_across_restarts(store_url: str) -> None:
    async with serving(store_url) as service, service.caller() as caller:
        first, _ = await caller.keyed("r", event(), event(type=""))
    async with serving(store_url) as service, service.caller() as caller:
        assert await caller.keyed("r", event(), event(type="")) == (first, True)
        assert await caller.stored() == 1


async def test_at_the_same_time(caller: Caller) -> None:
    answers = await asyncio.gather(*(caller.keyed("r", event(), event(type="")) for _ in range(12)))
    assert len({answer.SerializeToString() for answer, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 11
    assert await caller.stored() == 1


async def test_a_wholly_rejected_batch_is_remembered(caller: Caller) -> None:
    first, _ = await caller.keyed("r", event(type=""))
    assert await caller.keyed("r", event(type="")) == (first, True)


async def test_an_aborted_batch_is_remembered(caller: Caller) -> None:
    first, _ = await caller.keyed("r", event("k"), event(type=""), atomic=True)
    assert await caller.keyed("r", event("k"), event(type=""), atomic=True) == (first, True)
    assert statuses(first) == ["aborted", "rejected"]


@on_sqlite
async def test_a_refused_request_does_not_take_the_key(caller: Caller) -> None:
    await refused(caller.keyed("r"))
    assert (await caller.keyed("r", event()))[1] is False


async def test_the_key_of_a_single_event(caller: Caller) -> None:
    metadata = (*caller.metadata, ("idempotency-key", "r"))
    calls = [caller.ingest.Ingest(IngestRequest(event=event()), metadata=metadata) for _ in range(2)]
    first, again = await asyncio.gather(*calls)
    assert first == again
    trailing = [dict(await call.trailing_metadata()) for call in calls]
    assert sorted(one.get("idempotency-replayed", "") for one in trailing) == ["", "true"]
    # An error is an answer too.
    metadata = (*caller.metadata, ("idempotency-key", "e"))
    bad = IngestRequest(event=event(type=""))
    rejected = [await refused(caller.ingest.Ingest(bad, metadata=metadata)) for _ in range(2)]
    assert [one.reason for one in rejected] == ["MISSING_FIELD"] * 2
    assert [one.trailing.get("idempotency-replayed") for one in rejected] == [None, "true"]
    # A batch under the same key is another method's request.
    assert (await caller.keyed("r", event()))[1] is False


async def test_keys_of_two_workspaces(service: Service) -> None:
    async with service.caller(workspace="acme") as acme, service.caller(workspace="other") as other:
        await acme.keyed("r", event("a"))
        answer, replayed = await other.keyed("r", event("b"))
    assert (statuses(answer), replayed) == (["accepted"], False)


@on_sqlite
async def test_a_writer_learns_no_paths_from_a_readers_answer(service: Service) -> None:
    request = (event("k", {"n": 1}), event("k", {"n": 2}))
    async with service.caller() as reader, service.caller(Scope.EVENTS_WRITE) as writer:
        first, _ = await reader.keyed("r", *request)
        again, replayed = await writer.keyed("r", *request)
    assert list(first.results[1].error.differing_fields) == ["/data/n"]
    assert (list(again.results[1].error.differing_fields), replayed) == ([], True)


async def test_a_replay_of_conflicts_survives_what_became_of_the_event(caller: Caller, store_url: str) -> None:
    """Paths are computed for each answer; if the event is gone, a replay is the first answer without them."""
    first, _ = await caller.keyed("r", event("k", {"n": 1}), event("k", {"n": 2}))
    await database.execute(store_url, "DELETE FROM events")
    again, replayed = await caller.keyed("r", event("k", {"n": 1}), event("k", {"n": 2}))
    first.results[1].error.ClearField("differing_fields")
    assert (again, replayed) == (first, True)


@pytest.mark.parametrize("key", [pytest.param("", id="empty"), pytest.param("k" * 256, id="256 characters")])
@on_sqlite
async def test_no_request_key(caller: Caller, key: str) -> None:
    refusal = await refused(caller.keyed(key, event()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_IDEMPOTENCY_KEY")
    assert await caller.stored() == 0


@on_sqlite
async def test_a_key_of_255_characters_from_a_stub(caller: Caller) -> None:
    request = BatchIngestRequest(events=[event()])
    metadata = (*caller.metadata, ("idempotency-key", "k" * 255))
    first, again = [await caller.ingest.BatchIngest(request, metadata=metadata) for _ in range(2)]
    assert first == again


@on_sqlite
async def test_a_retry_whose_struct_is_written_in_another_order(caller: Caller) -> None:
    """A sender may write a map's entries in any order, and after a restart often does."""
    one, two = (Struct(fields={name: Value(bool_value=True)}).SerializeToString() for name in "ab")
    batches = [
        RawBatchIngestRequest(events=[b"\x0a\x01t\x2a" + bytes([len(data)]) + data]).SerializeToString()
        for data in (one + two, two + one)
    ]
    metadata = (*caller.metadata, ("idempotency-key", "r"))
    first, again = [await caller.send(batch, BatchIngestResponse, metadata=metadata) for batch in batches]
    assert batches[0] != batches[1]
    assert first == again
    assert await caller.stored() == 1
