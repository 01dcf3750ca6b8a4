"""headgate.v1.EventService."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from headgate.v1.event_service_pb2 import GetEventRequest, GetEventResponse, ListEventsRequest, ListEventsResponse
from headgate_server.core import ledger
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.model import NATIVE, EventQuery, Scope
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventId, WorkspaceId
from headgate_server.reading.filters import type_filter
from headgate_server.rpc import decode, wire
from headgate_server.rpc.pages import page_size, page_token, resume_from
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary
from headgate_server.store import Deliveries, Ledgers

SERVICE = "headgate.v1.EventService"
_VIEWS = ("", "BASIC", "FULL")
_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1_000
_INLINE_EVENTS = 100
"""A longer page is written on a thread, so that it does not delay other calls."""


class EventServicer:
    """Reads events back."""

    def __init__(self, ledgers: Ledgers, deliveries: Deliveries):
        self._ledgers = ledgers
        self._deliveries = deliveries

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        return (
            Method(
                service=SERVICE,
                name="GetEvent",
                request=GetEventRequest,
                response=GetEventResponse,
                access=Needs((Scope.EVENTS_READ,)),
                kind=Unary(self.get_event),
            ),
            Method(
                service=SERVICE,
                name="ListEvents",
                request=ListEventsRequest,
                response=ListEventsResponse,
                access=Needs((Scope.EVENTS_READ,)),
                kind=Unary(self.list_events),
            ),
        )

    async def get_event(self, call: Call, request: GetEventRequest) -> GetEventResponse:
        """Return one event of the caller's workspace."""
        try:
            event_id = EventId(UUID(request.id).bytes)
        except ValueError:
            raise InvalidRequest(f"{request.id[:80]!r} is not a UUID.", reason=Reason.INVALID_ID, field="id") from None
        full = _is_full(request.view)
        events = await self._ledgers.fetch(call.caller.workspace.id, [event_id])
        if not events:
            raise NotFound(f"There is no event {request.id} in this workspace.", reason=Reason.EVENT_NOT_FOUND)
        message = wire.event_message(events[0], as_text=call.bridged)
        if full:
            (message.delivery,) = await self._deliveries.fates(call.caller.workspace.id, events)
        return GetEventResponse(event=message)

    async def list_events(self, call: Call, request: ListEventsRequest) -> ListEventsResponse:
        """Return one page of the caller's workspace's events."""
        workspace_id = call.caller.workspace.id
        full = _is_full(request.view)
        page = await self._ledgers.events(_query(workspace_id, request))
        fates = await self._deliveries.fates(workspace_id, page.events) if full else ()
        token = page_token(page.resume, workspace_id, request)

        def response() -> ListEventsResponse:
            events = [wire.event_message(event, as_text=call.bridged) for event in page.events]
            for message, fate in zip(events, fates, strict=False):
                message.delivery = fate
            return ListEventsResponse(events=events, next_page_token=token)

        return response() if len(page.events) <= _INLINE_EVENTS else await asyncio.to_thread(response)


def _is_full(view: str) -> bool:
    if view not in _VIEWS:
        raise InvalidRequest(f"view: {view[:80]!r} is not BASIC or FULL.", reason=Reason.INVALID_FIELD, field="view")
    return view == "FULL"


def _query(workspace_id: WorkspaceId, request: ListEventsRequest) -> EventQuery:
    for field in ("type", "source", "subject", "idempotency_key"):
        if "\0" in getattr(request, field):  # no event has one, and PostgreSQL refuses to compare with it
            raise InvalidRequest(
                f"The {field} field contains the character U+0000.", reason=Reason.INVALID_CHARACTER, field=field
            )
    wanted = type_filter(request.type)
    dedupe = None
    if request.idempotency_key:
        dedupe = ledger.dedupe_of(ledger.identity(NATIVE, request.source, request.idempotency_key))
    created_from = getattr(request, "from")  # a field named as Python's keyword
    return EventQuery(
        workspace_id=workspace_id,
        limit=page_size(request.page_size, _DEFAULT_PAGE, _LARGEST_PAGE),
        type=wanted.type,
        type_prefix=wanted.type_prefix,
        source=request.source or None,
        subject=request.subject or None,
        dedupe=dedupe,
        created_from=decode.microseconds(created_from, "from") if request.HasField("from") else None,
        created_to=decode.microseconds(request.to, "to") if request.HasField("to") else None,
        newest_first=request.newest_first,
        after=resume_from(request.page_token, workspace_id, request),
    )
