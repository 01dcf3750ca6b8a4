"""The answer to a batch, position by position, and the answer to a single event."""

import re
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.event_pb2 import Event
from headgate.v1.event_service_pb2 import GetEventRequest
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate_server.core.model import Scope
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HASH = re.compile(r"[0-9a-f]{64}")


async def test_every_field_of_the_answer(caller: Caller) -> None:
    started = datetime.now(UTC)
    await caller.batch(event("taken", {"amount": 1}))
    response = await caller.batch(
        event("new", {"amount": 1}, occurred_at=Timestamp(seconds=1, nanos=1)),
        event("taken", {"amount": 1}),
        event("taken", {"amount": 2}),
        event(type=""),
        event("new", {"amount": 1}, occurred_at=Timestamp(seconds=1)),
    )
    assert (response.total, response.success_count, response.error_count) == (5, 3, 2)
    assert [result.index for result in response.results] == [0, 1, 2, 3, 4]
    assert statuses(response) == ["accepted", "duplicate", "conflict", "rejected", "duplicate"]
    assert [result.sequence for result in response.results] == [2, 1, 1, 0, 2]

    new, duplicate, conflict, rejected, sibling = response.results
    for result in (new, duplicate, conflict, sibling):
        assert ID.fullmatch(result.id)
        assert HASH.fullmatch(result.event_hash)
        created_at = result.created_at.ToDatetime(UTC)
        assert started - timedelta(minutes=1) < created_at < datetime.now(UTC) + timedelta(minutes=1)
        assert result.created_at.nanos % 1000 == 0
    assert [link.id for link in (duplicate, sibling)] == [conflict.id, new.id]
    assert (duplicate.event_hash, duplicate.created_at) == (conflict.event_hash, conflict.created_at)
    assert new.id > duplicate.id
    assert new.created_at.ToNanoseconds() > duplicate.created_at.ToNanoseconds()
    assert list(new.warnings) == ["occurred_at is finer than a microsecond and was truncated."]
    assert not any(result.HasField("error") for result in (new, duplicate, sibling))

    assert conflict.error.reason == "IDEMPOTENCY_CONFLICT"
    assert conflict.error.field == "idempotency_key"
    assert list(conflict.error.differing_fields) == ["/data/amount"]
    assert (rejected.id, rejected.event_hash, rejected.HasField("created_at")) == ("", "", False)
    assert (rejected.error.reason, rejected.error.field) == ("MISSING_FIELD", "type")
    assert rejected.error.message == "The type field is required."
    assert await caller.stored() == 2


async def test_the_answers_id_reads_back(caller: Caller) -> None:
    (result,) = (await caller.batch(event("k", {"a": [1, None, True, "é"]}, subject="user_1"))).results
    stored = (await caller.events.GetEvent(GetEventRequest(id=result.id), metadata=caller.metadata)).event
    assert (stored.id, stored.sequence, stored.event_hash) == (result.id, result.sequence, result.event_hash)
    assert stored.created_at == result.created_at
    assert stored.receiver == "native"


async def test_a_thousand_in_order(caller: Caller) -> None:
    response = await caller.batch(*(event(f"k{n}", type="" if n % 7 == 0 else "t") for n in range(1000)))
    assert [result.index for result in response.results] == list(range(1000))
    assert [result.status == "rejected" for result in response.results] == [n % 7 == 0 for n in range(1000)]
    accepted = [result.sequence for result in response.results if result.status == "accepted"]
    assert accepted == list(range(1, len(accepted) + 1))
    keys = [one.idempotency_key for one in await caller.all_events()]
    assert keys == [f"k{n}" for n in range(1000) if n % 7]


@on_sqlite
async def test_paths_that_differ_are_only_for_readers(service: Service) -> None:
    async with (
        service.caller(Scope.EVENTS_WRITE) as writer,
        service.caller(Scope.EVENTS_WRITE, Scope.EVENTS_READ) as both,
    ):
        await writer.batch(event("k", {"amount": 1}))
        differing = event("k", {"amount": 2})
        unseen, seen = await writer.batch(differing), await both.batch(differing)
        hidden, shown = await refused(writer.single(differing)), await refused(both.single(differing))
    assert list(unseen.results[0].error.differing_fields) == []
    assert list(seen.results[0].error.differing_fields) == ["/data/amount"]
    assert "differing_fields" not in hidden.metadata
    assert shown.metadata["differing_fields"] == "/data/amount"


async def test_a_single_event(caller: Caller) -> None:
    accepted = await caller.single(event("k", {"n": 1}))
    assert (accepted.index, accepted.status, accepted.sequence) == (0, "accepted", 1)
    again = await caller.single(event("k", {"n": 1.0}))
    assert (again.status, again.id, again.event_hash) == ("duplicate", accepted.id, accepted.event_hash)

    conflict = await refused(caller.single(event("k", {"n": 2})))
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")
    assert conflict.fields == ["idempotency_key"]
    assert conflict.metadata == {"event_id": accepted.id, "sequence": "1", "differing_fields": "/data/n"}

    rejected = await refused(caller.single(event(type="")))
    assert (rejected.code, rejected.reason, rejected.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "MISSING_FIELD",
        ["type"],
    )
    assert (await caller.single(event("new"), validate_only=True)).id == ""
    assert await caller.stored() == 1


@on_sqlite
async def test_a_stub_of_the_public_protos(caller: Caller) -> None:
    """The server's own view of the request is an extension: it reads a stub's request unchanged."""
    request = BatchIngestRequest(events=[Event(type="t"), Event()], validate_only=True)
    assert statuses(await caller.ingest.BatchIngest(request, metadata=caller.metadata)) == ["accepted", "rejected"]
