"""Calls to a server, with answers and refusals in a form that tests compare."""

from collections.abc import Awaitable, Iterable
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, EventResult, IngestRequest
from headgate.v1.ledger_service_pb2 import GetHeadRequest
from tests.support.service import Client

BATCH = "/headgate.v1.IngestService/BatchIngest"

Metadata = tuple[tuple[str, str | bytes], ...]

_Answer = TypeVar("_Answer", bound=Message)


class Refusal(NamedTuple):
    """How a call failed: its code, its message, and the content of its google.rpc.Status."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: list[str]
    metadata: dict[str, str]
    retry_after: float | None
    trailing: dict[str, str | bytes]


async def refused(call: Awaitable[Any]) -> Refusal:
    """Return the refusal of a call. Fails if the call was not refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailing = dict(error.trailing_metadata() or ())
    details = trailing.get("grpc-status-details-bin", b"")
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    if details:
        assert (status.code, status.message) == (error.code().value[0], error.details())
    info, violations, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    retried = [detail.Unpack(info) or detail.Unpack(violations) or detail.Unpack(retry) for detail in status.details]
    assert all(retried), status
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        fields=[violation.field for violation in violations.field_violations],
        metadata=dict(info.metadata),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
        trailing=trailing,
    )


class Caller(Client):
    """A client with a key that sends events, also ones that no stub would send."""

    async def batch(
        self, *events: Event | bytes, metadata: Iterable[tuple[str, str]] = (), **options: bool
    ) -> BatchIngestResponse:
        """Send a batch of messages or of serialized messages."""
        return await self.send(batch_bytes(*events, **options), BatchIngestResponse, metadata=metadata)

    async def single(self, event: Event, **options: bool) -> EventResult:
        """Send one event and return its result."""
        response = await self.ingest.Ingest(IngestRequest(event=event, **options), metadata=self.metadata)
        result: EventResult = response.result
        return result

    async def stored(self) -> int:
        """Return the number of events in the workspace."""
        head = await self.ledger.GetHead(GetHeadRequest(), metadata=self.metadata)
        return int(head.sequence)

    async def send(
        self, body: bytes, answer: type[_Answer], *, method: str = BATCH, metadata: Iterable[tuple[str, str]] = ()
    ) -> _Answer:
        """Send bytes to a method."""
        call = self._channel.unary_unary(method, response_deserializer=answer.FromString)
        response: _Answer = await call(body, metadata=(*self.metadata, *metadata))
        return response

    async def keyed(
        self, request_key: str, *events: Event | bytes, **options: bool
    ) -> tuple[BatchIngestResponse, bool]:
        """Send a batch under a request key; return the answer, and whether it was replayed."""
        call = self._channel.unary_unary(BATCH, response_deserializer=BatchIngestResponse.FromString)(
            batch_bytes(*events, **options), metadata=(*self.metadata, ("idempotency-key", request_key))
        )
        answer = await call
        return answer, dict(await call.trailing_metadata()).get("idempotency-replayed") == "true"

    async def json(self, body: Any, *, method: str = BATCH) -> Any:
        """Send a JSON body as the bridge does, and return the JSON that the bridge would forward."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        request = RawBatchIngestRequest(json=HttpBody(content_type="application/json", data=data))
        bridged = (("x-envoy-original-path", "/v1/events/batch"), ("x-headgate-bridge", "1"))
        answer = await self.send(request.SerializeToString(), HttpBody, method=method, metadata=bridged)
        assert answer.content_type == "application/json"
        return orjson.loads(answer.data)


def batch_bytes(*events: Event | bytes, **options: bool) -> bytes:
    """Return a serialized batch of messages or of serialized messages."""
    serialized = [event if isinstance(event, bytes) else event.SerializeToString() for event in events]
    return RawBatchIngestRequest(events=serialized, **options).SerializeToString()


def event(key: str | None = None, data: Any = None, **fields: Any) -> Event:
    """Return an event; `data` is a dict for a Struct, or bytes for data_json."""
    made = Event(**{"type": "order.completed", "source": "shop", **fields})
    if key is not None:
        made.idempotency_key = key
    if isinstance(data, bytes):
        made.data_json = data
    elif data is not None:
        # An empty object is not an absent one.
        made.data.SetInParent()
        made.data.update(data)
    return made


def statuses(response: BatchIngestResponse) -> list[str]:
    """Return the status at each position."""
    return [result.status for result in response.results]
