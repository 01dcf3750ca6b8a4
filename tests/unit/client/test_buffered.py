"""The buffer of the thread client, on gRPC's test channel and a clock that stands still."""

import sys
import threading
import uuid

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from headgate.v1.ingest_service_pb2 import BatchIngestResponse, EventResult
from headgate_client import (
    Closed,
    Denied,
    Dropped,
    EventConflict,
    EventRejected,
    NotSent,
    QueueFull,
    SpoolError,
)
from headgate_client.core.events import prepare
from headgate_client.spool import Spool
from tests.support.waiting import until_true

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def retry_info(seconds):
    status = status_pb2.Status(code=14)
    delay = Duration()
    delay.FromSeconds(seconds)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="headgate"))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return (("grpc-status-details-bin", status.SerializeToString()),)


def types(batch):
    return [event.type for event in batch.events]


def test_a_full_batch_is_sent_at_once_with_the_key_and_each_event_has_one(make, server):
    buffer = make()
    tickets = [buffer.emit(name) for name in "abc"]
    batch = server.accept()
    assert server.metadata["authorization"] == "Bearer hg_x"
    assert types(batch) == ["a", "b", "c"]
    assert [event.idempotency_key for event in batch.events] == [ticket.key for ticket in tickets]
    assert {uuid.UUID(ticket.key).version for ticket in tickets} == {7}
    assert [ticket.result(5).status for ticket in tickets] == ["accepted"] * 3


def test_a_batch_waits_for_its_age(make, server, clock):
    buffer = make(max_age=5.0)
    ticket = buffer.emit("a")
    until_true(lambda: clock._waiting)
    assert not ticket.done()
    clock.move(4.9)
    assert buffer.stats.calls == 0
    clock.move(0.2)
    assert types(server.accept()) == ["a"]
    assert ticket.result(5).id == "id"


def test_the_same_events_are_sent_again_after_the_wait_that_the_server_asked_for(make, server, clock):
    buffer = make()
    tickets = [buffer.emit(name) for name in "abc"]
    first = server.fail(UNAVAILABLE, metadata=retry_info(60))
    until_true(lambda: buffer.last_problem)
    assert buffer.last_problem.reason == "OVERLOADED"
    clock.move(59.0)
    assert buffer.stats.calls == 1
    clock.move(2.1)
    assert server.accept() == first
    assert tickets[2].result(5).status == "accepted"
    assert buffer.stats.retries == 1


def test_retry_after_is_a_floor_too(make, server, clock):
    buffer = make()
    for name in "abc":
        buffer.emit(name)
    server.fail(UNAVAILABLE, metadata=(("retry-after", "60"),))
    until_true(lambda: buffer.last_problem)
    assert buffer.last_problem.retry_after == 60.0
    clock.move(59.0)
    assert buffer.stats.calls == 1
    clock.move(2.1)
    server.accept()


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNKNOWN, "Stream removed"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (grpc.StatusCode.CANCELLED, "Cancelled by a proxy"),
    ],
)
def test_a_connection_that_breaks_is_an_unknown_outcome_and_the_same_keys_are_sent_again(
    make, server, clock, code, details
):
    buffer = make()
    tickets = [buffer.emit(name) for name in "abc"]
    first = server.fail(code, details)
    until_true(lambda: buffer.last_problem)
    clock.move(2.0)
    assert server.answer(lambda event: "duplicate") == first
    assert [ticket.result(5).status for ticket in tickets] == ["duplicate"] * 3
    assert buffer.stats.failed == 0


def test_rejected_and_conflict_are_reported_once_and_never_sent_again(make, server):
    told = []
    buffer = make(on_failure=told.append)
    tickets = {name: buffer.emit(name) for name in ("good", "rejected", "conflict")}
    server.answer(lambda event: "accepted" if event.type == "good" else event.type)
    assert tickets["good"].result(5).stored
    with pytest.raises(EventRejected, match="WHY"):
        tickets["rejected"].result(5)
    assert isinstance(tickets["conflict"].exception(5), EventConflict)
    assert [(one.event.type, type(one.error)) for one in told] == [
        ("rejected", EventRejected),
        ("conflict", EventConflict),
    ]
    assert buffer.flush(5) == 0
    stats = buffer.stats
    assert (stats.calls, stats.accepted, stats.rejected, stats.conflict, stats.waiting) == (1, 1, 1, 1, 0)


def test_a_callback_that_raises_stops_nothing(make, server):
    def broken(failure):
        raise RuntimeError("mine")

    buffer = make(on_failure=broken)
    tickets = [buffer.emit(name) for name in "abc"]
    server.answer(lambda event: "rejected")
    assert isinstance(tickets[2].exception(5), EventRejected)
    ticket, *_ = [buffer.emit(name) for name in "def"]
    server.accept()
    assert ticket.result(5).stored


def test_a_wrong_key_is_told_to_the_tickets(make, server):
    buffer = make()
    tickets = [buffer.emit(name) for name in "abc"]
    server.fail(grpc.StatusCode.UNAUTHENTICATED)
    assert isinstance(tickets[0].exception(5), Denied)
    assert buffer.stats.failed == 3


def test_a_refused_batch_is_divided(make, server):
    buffer = make(max_size=2)
    tickets = [buffer.emit(name) for name in ("a", "bad")]
    assert types(server.fail(grpc.StatusCode.INVALID_ARGUMENT)) == ["a", "bad"]
    assert types(server.accept()) == ["a"]
    assert types(server.fail(grpc.StatusCode.INVALID_ARGUMENT)) == ["bad"]
    assert tickets[0].result(5).stored
    assert tickets[1].exception(5).code == "INVALID_ARGUMENT"


def test_a_full_queue_raises(make, server):
    buffer = make(max_items=3)
    for name in "abc":
        buffer.emit(name)
    with pytest.raises(QueueFull):
        buffer.emit("d")
    server.accept()
    assert buffer.flush(5) == 0
    buffer.emit("d")


def test_a_full_queue_blocks_until_there_is_room(make, server):
    buffer = make(max_items=3, when_full="block")
    for name in "abc":
        buffer.emit(name)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (buffer.emit("d"), done.set()))
    thread.start()
    assert not done.wait(0.1)
    server.accept()
    thread.join(5)
    assert done.is_set()
    assert buffer.stats.emitted == 4


def test_a_full_queue_drops_the_oldest_and_says_so(make, server):
    told = []
    buffer = make(max_items=4, when_full="drop_oldest", on_failure=told.append)
    for name in "abc":
        buffer.emit(name)
    _, call = server.take()
    oldest = buffer.emit("d")
    buffer.emit("e")
    assert isinstance(oldest.exception(0), Dropped)
    assert [(one.event.type, type(one.error)) for one in told] == [("d", Dropped)]
    assert buffer.stats.dropped == 1
    call.terminate(None, (), UNAVAILABLE, "")


def test_no_event_is_dropped_for_one_that_is_not_taken(make, server):
    told = []
    buffer = make(max_bytes=4_000, max_size=1, when_full="drop_oldest", on_failure=told.append)
    buffer.emit("a", {"text": "x" * 1_000})
    _, call = server.take()
    waiting = buffer.emit("b")
    with pytest.raises(QueueFull):
        buffer.emit("c", {"text": "x" * 2_000})
    assert (told, waiting.done(), buffer.stats.dropped, buffer.stats.waiting) == ([], False, 0, 2)
    call.terminate(None, (), UNAVAILABLE, "")


def test_no_event_is_dropped_for_one_that_cannot_be_written(make, server, tmp_path, monkeypatch):
    told = []
    buffer = make(max_items=3, when_full="drop_oldest", spool=tmp_path / "events.db", on_failure=told.append)
    tickets = [buffer.emit(name) for name in "ab"] + [buffer.emit("c")]
    _, call = server.take()
    call.terminate(None, (), UNAVAILABLE, "")
    until_true(lambda: buffer.last_problem)

    def fail(*_):
        raise SpoolError("the disk is full")

    monkeypatch.setattr(Spool, "add", fail)
    with pytest.raises(SpoolError):
        buffer.emit("d")
    assert (told, [ticket.done() for ticket in tickets], buffer.stats.dropped) == ([], [False] * 3, 0)
    monkeypatch.undo()
    buffer.emit("d")
    assert [ticket.done() for ticket in tickets] == [True, False, False]


def test_a_callback_that_ends_its_thread_stops_nothing(make, server):
    buffer = make(on_failure=lambda failure: sys.exit(1))
    first = [buffer.emit(name) for name in "abc"]
    server.answer(lambda event: "rejected")
    assert all(isinstance(ticket.exception(5), EventRejected) for ticket in first)
    second = [buffer.emit(name) for name in "def"]
    server.accept()
    assert [ticket.result(5).status for ticket in second] == ["accepted"] * 3


def test_events_that_another_process_left_in_a_full_spool_are_sent_also_by_a_child(make, server, tmp_path):
    """The child of a fork opens the spool with its first event, and nothing has started its sender yet."""
    path = tmp_path / "events.db"
    buffer = make(max_items=3, when_full="block", spool=path)
    buffer.before_fork()
    buffer.after_fork_in_child()
    left = Spool(path)
    left.open()
    left.add_all([(name, prepare({"type": "old"}).encoded) for name in "abc"])
    left.close()
    emitted = []
    thread = threading.Thread(target=lambda: emitted.append(buffer.emit("new")))
    thread.start()
    assert types(server.accept()) == ["old"] * 3
    thread.join(5)
    assert [ticket.done() for ticket in emitted] == [False]


def test_close_interrupts_the_wait_for_a_retry_and_says_what_is_left(make, server, clock):
    told = []
    buffer = make(on_failure=told.append)
    tickets = [buffer.emit(name, {"n": 1}) for name in "abc"]
    server.fail(UNAVAILABLE, metadata=retry_info(60))
    until_true(lambda: buffer.last_problem)
    closed = []
    thread = threading.Thread(target=lambda: closed.append(buffer.close(10.0)))
    thread.start()
    server.fail(UNAVAILABLE, metadata=retry_info(60))  # at once, and the next wait is longer than close has time
    thread.join(5)
    (left,) = closed
    assert [event.type for event in left] == ["a", "b", "c"]
    assert [event.key for event in left] == [ticket.key for ticket in tickets]
    assert left[0].data == {"n": 1}
    assert isinstance(tickets[0].exception(0), NotSent)
    assert [type(one.error) for one in told] == [NotSent] * 3
    assert buffer.stats.left == 3
    assert buffer.close() == []
    with pytest.raises(Closed):
        buffer.emit("d")


@pytest.mark.parametrize("created_at", [None, Timestamp(seconds=2**62)], ids=["too few results", "no time"])
def test_an_answer_that_cannot_be_read_is_no_answer(make, server, clock, created_at):
    results = [EventResult(status="accepted", created_at=created_at)] * (1 if created_at is None else 3)
    buffer = make()
    tickets = [buffer.emit(name) for name in "abc"]
    _, call = server.take()
    call.terminate(BatchIngestResponse(results=results), (), grpc.StatusCode.OK, "")
    until_true(lambda: buffer.last_problem)
    clock.move(2.0)
    server.accept()
    assert tickets[0].result(5).stored


def test_the_callback_may_emit_and_close_but_not_wait_for_itself(make, server):
    seen = []

    def callback(failure):
        if seen:
            return
        try:
            buffer.flush()
        except RuntimeError as error:
            seen.append(str(error))
        seen.append(buffer.emit("again"))
        seen.append(buffer.close(0.0))

    buffer = make(on_failure=callback)
    for name in "abc":
        buffer.emit(name)
    server.answer(lambda event: "rejected")
    until_true(lambda: len(seen) >= 3)
    assert "on_failure" in seen[0]
    assert [event.type for event in seen[2]] == ["again"]


def test_a_ticket_can_be_waited_for_with_a_timeout(make):
    ticket = make().emit("a")
    with pytest.raises(TimeoutError):
        ticket.result(0.01)


async def test_a_ticket_of_the_thread_client_can_be_awaited(make, server):
    import asyncio

    buffer = make()
    tickets = [buffer.emit(name) for name in "abc"]
    waiting = asyncio.ensure_future(_awaited(tickets[0]))
    await asyncio.to_thread(server.accept)
    assert (await waiting).stored
    assert (await tickets[1]).stored


async def _awaited(ticket):
    return await ticket
