"""Calls to EventTypeService, and event types that are put without it."""

from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody

from headgate.v1 import event_type_service_pb2 as pb
from headgate.v1.bridge_view_pb2 import RawPutEventTypeRequest
from headgate.v1.event_type_service_pb2_grpc import EventTypeServiceStub
from headgate_server.core import event_types
from headgate_server.core.event_types import EventType, Mode, Unknown
from tests.support.calls import Caller
from tests.support.inprocess import Service

BRIDGED = (("x-envoy-original-path", "/v1/x"), ("x-headgate-bridge", "1"))
PUT = "/headgate.v1.EventTypeService/PutEventType"

AMOUNT = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "number", "minimum": 0}, "child": {"type": "object"}},
}


class Types:
    """An operator's calls with a caller's key."""

    def __init__(self, caller: Caller):
        self.caller = caller
        self.stub = EventTypeServiceStub(caller._channel)

    async def put(self, type_: str, schema: Any, mode: str = "") -> pb.EventType:
        """Put an event type; a schema of bytes is sent as it is."""
        text = schema if isinstance(schema, bytes) else orjson.dumps(schema)
        request = pb.PutEventTypeRequest(event_type=type_, schema_json=text, mode=mode)
        answer: pb.PutEventTypeResponse = await self.stub.PutEventType(request, metadata=self.caller.metadata)
        return answer.event_type

    async def put_json(self, type_: str, body: bytes) -> Any:
        """Put an event type like the bridge."""
        request = RawPutEventTypeRequest(event_type=type_, json=HttpBody(data=body))
        answer = await self.caller.send(request.SerializeToString(), HttpBody, method=PUT, metadata=BRIDGED)
        return orjson.loads(answer.data)

    async def get(self, type_: str) -> pb.EventType:
        """Return an event type."""
        request = pb.GetEventTypeRequest(event_type=type_)
        answer: pb.GetEventTypeResponse = await self.stub.GetEventType(request, metadata=self.caller.metadata)
        return answer.event_type

    async def page(self, size: int = 0, token: str = "") -> pb.ListEventTypesResponse:
        """Return a page."""
        request = pb.ListEventTypesRequest(page_size=size, page_token=token)
        answer: pb.ListEventTypesResponse = await self.stub.ListEventTypes(request, metadata=self.caller.metadata)
        return answer

    async def delete(self, type_: str) -> None:
        """Delete an event type."""
        request = pb.DeleteEventTypeRequest(event_type=type_)
        await self.stub.DeleteEventType(request, metadata=self.caller.metadata)


async def store_type(
    service: Service, type_: str, schema: Any = AMOUNT, mode: Mode = Mode.STRICT, workspace: str = "acme"
) -> EventType:
    """Store an event type as another process does. A server notices it when it looks up a key again."""
    row = await service.store.directory.create_workspace(workspace)
    return await service.store.event_types.put(row.id, type_, event_types.schema_of(schema), mode)


async def store_unknown(service: Service, unknown: Unknown, workspace: str = "acme") -> None:
    """Store the setting for unknown types in the same way."""
    row = await service.store.directory.create_workspace(workspace)
    await service.store.event_types.set_unknown(row.id, unknown)
