"""headgate.v1.EventTypeService."""

from collections.abc import Sequence
from typing import Any

from headgate.v1 import event_type_service_pb2 as pb
from headgate.v1.bridge_view_pb2 import RawPutEventTypeRequest
from headgate_server.core import event_types, jsonbody
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.event_types import EventType, Mode
from headgate_server.core.model import Problem, Scope
from headgate_server.core.reasons import Reason
from headgate_server.ingest.change_event_types import ChangeEventTypes
from headgate_server.ingest.decoding import Decoding
from headgate_server.rpc import wire
from headgate_server.rpc.pages import name_after, name_token, page_size
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary
from headgate_server.store import EventTypes
from headgate_server.store.event_types import absent

SERVICE = "headgate.v1.EventTypeService"

_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1_000
_OUTPUT = frozenset({"created_at", "updated_at", "createdAt", "updatedAt"})
"""Fields of an answer that a client may send back. They are ignored."""


class EventTypeServicer:
    """Manages event types."""

    def __init__(self, topic: EventTypes, change: ChangeEventTypes, decoded: Decoding):
        self._topic = topic
        self._change = change
        self._decoded = decoded

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        read, change = Needs((Scope.EVENTS_READ,)), Needs((Scope.ADMIN,))
        return (
            Method(
                service=SERVICE,
                name="PutEventType",
                request=RawPutEventTypeRequest,
                response=pb.PutEventTypeResponse,
                access=change,
                kind=Unary(self.put),
            ),
            Method(
                service=SERVICE,
                name="GetEventType",
                request=pb.GetEventTypeRequest,
                response=pb.GetEventTypeResponse,
                access=read,
                kind=Unary(self.get),
            ),
            Method(
                service=SERVICE,
                name="ListEventTypes",
                request=pb.ListEventTypesRequest,
                response=pb.ListEventTypesResponse,
                access=read,
                kind=Unary(self.list),
            ),
            Method(
                service=SERVICE,
                name="DeleteEventType",
                request=pb.DeleteEventTypeRequest,
                response=pb.DeleteEventTypeResponse,
                access=change,
                kind=Unary(self.delete),
            ),
        )

    async def put(self, call: Call, request: RawPutEventTypeRequest) -> pb.PutEventTypeResponse:
        """Create or replace an event type."""
        type_ = event_types.type_of(request.event_type)
        size = len(request.json.data) if request.HasField("json") else len(request.schema_json)
        schema, mode = await self._decoded(size, lambda: _sent(request))
        put = await self._change.put(call.caller.workspace.id, type_, schema, mode, call.actor)
        return pb.PutEventTypeResponse(event_type=_message(put))

    async def get(self, call: Call, request: pb.GetEventTypeRequest) -> pb.GetEventTypeResponse:
        """Return an event type."""
        type_ = event_types.type_of(request.event_type)
        found = await self._topic.get(call.caller.workspace.id, type_)
        if found is None:
            raise absent(type_)
        return pb.GetEventTypeResponse(event_type=_message(found))

    async def list(self, call: Call, request: pb.ListEventTypesRequest) -> pb.ListEventTypesResponse:
        """Return one page of event types."""
        size = page_size(request.page_size, _DEFAULT_PAGE, _LARGEST_PAGE)
        page, more = await self._topic.list(call.caller.workspace.id, size, name_after(request.page_token))
        token = name_token(page[-1].type) if more else ""
        return pb.ListEventTypesResponse(event_types=map(_message, page), next_page_token=token)

    async def delete(self, call: Call, request: pb.DeleteEventTypeRequest) -> pb.DeleteEventTypeResponse:
        """Remove an event type."""
        await self._change.delete(call.caller.workspace.id, event_types.type_of(request.event_type), call.actor)
        return pb.DeleteEventTypeResponse()


def _sent(request: RawPutEventTypeRequest) -> tuple[bytes, Mode]:
    """Return the schema and the mode of a request in either encoding. Raises `InvalidRequest`."""
    if not request.HasField("json"):
        return event_types.schema_of(_read(request.schema_json)), event_types.mode_of(request.mode)
    body = jsonbody.read_one(request.json.data) if request.json.data.strip() else {}
    if isinstance(body, Problem):
        raise InvalidRequest(body.message, reason=body.reason, field=body.field)
    if type(body) is not dict:
        raise InvalidRequest("The body must be a JSON object.", reason=Reason.NOT_AN_OBJECT)
    members: dict[str, Any] = body
    for name in members:
        if name not in _OUTPUT and name not in ("schema", "mode", "type"):
            raise InvalidRequest(f"The field {name[:80]!r} is not known.", reason=Reason.UNKNOWN_FIELD, field=name[:80])
    if members.get("type") not in (None, request.event_type):
        raise InvalidRequest("The type must be that of the path.", reason=Reason.INVALID_FIELD, field="type")
    return event_types.schema_of(members.get("schema")), event_types.mode_of(members.get("mode"))


def _read(schema: bytes) -> Any:
    if not schema:
        return None
    try:
        return jsonbody.read_one(schema)
    except InvalidRequest as error:
        message = error.message.replace("The body", "The schema")
        raise InvalidRequest(message, reason=Reason.INVALID_JSON, field="schema_json") from None


def _message(one: EventType) -> pb.EventType:
    message = pb.EventType(type=one.type, schema_json=one.schema, mode=one.mode)
    wire.set_timestamp(message.created_at, one.created_at)
    wire.set_timestamp(message.updated_at, one.updated_at)
    return message
