"""gRPC's own test channel and a clock that tests move: the threads of a client without a server and without waiting.

gRPC's test channel has no calls for event loops. For those there is a server whose every call the test answers.
"""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc_testing

from headgate.v1 import event_service_pb2, ingest_service_pb2
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse, EventError, EventResult
from headgate.v1.ingest_service_pb2_grpc import IngestServiceServicer, add_IngestServiceServicer_to_server
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


class LocalServer(IngestServiceServicer):
    """The same for event loops: takes calls one by one over a real connection. Its methods wait: call them on a thread.

    Use as `with`.
    """

    def __init__(self):
        self._calls = queue.Queue()
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_IngestServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()

    def BatchIngest(self, request, context):
        """Wait until the test says how the call ends."""
        answer = queue.Queue()
        self._calls.put((request, answer))
        while context.is_active():
            try:
                code, details = answer.get(timeout=0.05)
            except queue.Empty:
                continue
            if code is not None:
                context.abort(code, details)
            break
        results = [EventResult(index=index, status="accepted", id="id") for index in range(len(request.events))]
        return BatchIngestResponse(results=results)

    def accept(self):
        """Answer the next batch with `accepted` for each event, and return the batch."""
        return self._end(None, "")

    def fail(self, code, details=""):
        """End the next batch's call with an error, and return the batch."""
        return self._end(code, details)

    def _end(self, code, details):
        request, answer = self._calls.get(timeout=10)
        answer.put((code, details))
        return request
