"""How a request is written and its answer read: protobuf for gRPC, JSON for HTTP."""

from collections.abc import Sequence
from typing import Protocol

import orjson

from bench import workload
from bench.workload import Order
from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, IngestResponse


class Wire(Protocol):
    """One encoding of one call."""

    def event(self, order: Order) -> bytes:
        """Return one event."""

    def request(self, events: Sequence[bytes]) -> bytes:
        """Return the request that carries these events."""

    def statuses(self, answer: bytes) -> Sequence[str]:
        """Return what an answer says of each event, in order."""


class ProtoBatch:
    """IngestService.BatchIngest. The bridge's view of its request takes events that are serialized already."""

    def event(self, order: Order) -> bytes:
        """Return one event."""
        return workload.protobuf(order)

    def request(self, events: Sequence[bytes]) -> bytes:
        """Return the request that carries these events."""
        return RawBatchIngestRequest(events=events).SerializeToString()

    def statuses(self, answer: bytes) -> Sequence[str]:
        """Return what an answer says of each event, in order."""
        return [result.status for result in BatchIngestResponse.FromString(answer).results]


class ProtoSingle:
    """IngestService.Ingest."""

    def event(self, order: Order) -> bytes:
        """Return one event."""
        return workload.protobuf(order)

    def request(self, events: Sequence[bytes]) -> bytes:
        """Return the request that carries the one event."""
        (event,) = events
        return RawIngestRequest(event=event).SerializeToString()

    def statuses(self, answer: bytes) -> Sequence[str]:
        """Return what an answer says of the event."""
        return [IngestResponse.FromString(answer).result.status]


class JsonBatch:
    """POST …/events/batch, of the product through Envoy and of the peer alike."""

    def event(self, order: Order) -> bytes:
        """Return one event."""
        return workload.json(order)

    def request(self, events: Sequence[bytes]) -> bytes:
        """Return the body that carries these events."""
        return b'{"events":[' + b",".join(events) + b"]}"

    def statuses(self, answer: bytes) -> Sequence[str]:
        """Return what an answer says of each event, in order."""
        return [result["status"] for result in orjson.loads(answer)["results"]]


class JsonSingle:
    """POST /v1/events."""

    def event(self, order: Order) -> bytes:
        """Return one event."""
        return workload.json(order)

    def request(self, events: Sequence[bytes]) -> bytes:
        """Return the body that is the one event."""
        (event,) = events
        return event

    def statuses(self, answer: bytes) -> Sequence[str]:
        """Return what an answer says of the event."""
        return [orjson.loads(answer)["status"]]
