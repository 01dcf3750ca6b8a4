"""gRPC's own test channel and a clock that tests move: the threads of a client without a server and without waiting."""

import threading

import grpc
import grpc_testing

from headgate.v1 import event_service_pb2, ingest_service_pb2
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse, EventError, EventResult
from headgate_client.clock import Clock

_SERVICES = (
    *ingest_service_pb2.DESCRIPTOR.services_by_name.values(),
    *event_service_pb2.DESCRIPTOR.services_by_name.values(),
)
_BATCH = ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"].methods_by_name["BatchIngest"]


class FakeClock(Clock):
    """A clock that stands still until it is moved."""

    def __init__(self):
        self._now = 1_000.0
        self._waiting: list[threading.Condition] = []

    def now(self):
        return self._now

    def wait(self, condition, seconds):
        self._waiting.append(condition)
        # Ten seconds end a test that waits for something that never comes.
        if seconds is None or seconds > 0:
            assert condition.wait(10.0), "nothing changes any more"
        self._waiting.remove(condition)

    def move(self, seconds):
        """Move the clock, and wake all who wait."""
        self._now += seconds
        for condition in tuple(self._waiting):
            with condition:
                condition.notify_all()


class FakeServer:
    """Takes the calls of a test channel one by one, and answers them."""

    def __init__(self):
        self.channel = grpc_testing.channel(_SERVICES, grpc_testing.strict_fake_time(0))

    def take(self):
        """Wait for the next batch, and return it and its call."""
        metadata, request, call = self.channel.take_unary_unary(_BATCH)
        call.send_initial_metadata(())
        self.metadata = dict(metadata)
        return BatchIngestRequest.FromString(request), call

    def accept(self):
        """Answer the next batch with `accepted` for each event, and return the batch."""
        return self.answer(lambda event: "accepted")

    def answer(self, status):
        """Answer the next batch with `status(event)` for each event, and return the batch."""
        batch, call = self.take()
        results = [
            EventResult(index=index, status=said, id="id", sequence=1)
            if (said := status(event)) in ("accepted", "duplicate")
            else EventResult(index=index, status=said, error=EventError(reason="WHY", retryable=said == "aborted"))
            for index, event in enumerate(batch.events)
        ]
        call.terminate(BatchIngestResponse(results=results), (), grpc.StatusCode.OK, "")
        return batch

    def fail(self, code, details="", metadata=()):
        """End the next batch's call with an error, and return the batch."""
        batch, call = self.take()
        call.terminate(None, metadata, code, details)
        return batch
