"""headgate.v1.EventService."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from headgate.v1.event_service_pb2 import (
    CaughtUp,
    GetEventRequest,
    GetEventResponse,
    Heartbeat,
    ListEventsRequest,
    ListEventsResponse,
    SubscribeRequest,
    SubscribeResponse,
)
from headgate_server.background import subscription
from headgate_server.background.subscription import Item, Start, Subscriptions
from headgate_server.core import ledger
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.model import NATIVE, EventQuery, Scope
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventId, WorkspaceId
from headgate_server.reading.filters import type_filter
from headgate_server.rpc import cloudevent_answers, decode, wire
from headgate_server.rpc.pages import page_size, page_token, resume_from
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, ServerStream, Unary
from headgate_server.rpc.pipeline.sse import LAST_EVENT_ID
from headgate_server.store import Deliveries, Ledgers

SERVICE = "headgate.v1.EventService"
_VIEWS = ("", "BASIC", "FULL")
_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1_000
_SEQUENCE = re.compile(r"[0-9]{1,18}")
_INLINE_EVENTS = 100
"""A longer page is written on a thread, so that it does not delay other calls."""


class EventServicer:
    """Reads events back."""

    def __init__(self, ledgers: Ledgers, deliveries: Deliveries, subscriptions: Subscriptions):
        self._ledgers = ledgers
        self._deliveries = deliveries
        self._subscriptions = subscriptions

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
            Method(
                service=SERVICE,
                name="Subscribe",
                request=SubscribeRequest,
                response=SubscribeResponse,
                access=Needs((Scope.EVENTS_READ,)),
                kind=ServerStream(self.subscribe, lasting=True),
            ),
        )

    async def get_event(self, call: Call, request: GetEventRequest) -> GetEventResponse | HttpBody:
        """Return one event of the caller's workspace."""
        event_id = _id(request.id, "id")
        full = _is_full(request.view)
        events = await self._ledgers.fetch(call.caller.workspace.id, [event_id])
        if not events:
            raise NotFound(f"There is no event {request.id} in this workspace.", reason=Reason.EVENT_NOT_FOUND)
        fate = ""
        if full:
            (fate,) = await self._deliveries.fates(call.caller.workspace.id, events)
        if cloudevent_answers.wants_one(call):
            return cloudevent_answers.one(events[0], fate)
        message = wire.event_message(events[0], as_text=call.bridged)
        message.delivery = fate
        return GetEventResponse(event=message)

    async def list_events(self, call: Call, request: ListEventsRequest) -> ListEventsResponse | HttpBody:
        """Return one page of the caller's workspace's events."""
        workspace_id = call.caller.workspace.id
        full = _is_full(request.view)
        page = await self._ledgers.events(_query(workspace_id, request))
        fates = await self._deliveries.fates(workspace_id, page.events) if full else ()
        token = page_token(page.resume, workspace_id, request)
        as_cloudevents = cloudevent_answers.wants_batch(call)
        if as_cloudevents:
            call.reply_metadata += cloudevent_answers.next_link(call, token)

        def response() -> ListEventsResponse | HttpBody:
            if as_cloudevents:
                return cloudevent_answers.batch(page.events, fates)
            events = [wire.event_message(event, as_text=call.bridged) for event in page.events]
            for message, fate in zip(events, fates, strict=False):
                message.delivery = fate
            return ListEventsResponse(events=events, next_page_token=token)

        return response() if len(page.events) <= _INLINE_EVENTS else await asyncio.to_thread(response)

    async def subscribe(self, call: Call, request: SubscribeRequest) -> AsyncGenerator[SubscribeResponse, None]:
        """Send the events of the caller's workspace: first the stored ones, then each new one."""
        _check_texts(request, "type", "source", "subject")
        types = type_filter(request.type)
        query = EventQuery(
            workspace_id=call.caller.workspace.id,
            limit=_LARGEST_PAGE,
            type=types.type,
            type_prefix=types.type_prefix,
            source=request.source or None,
            subject=request.subject or None,
        )
        async with aclosing(self._subscriptions.follow(query, _start(call, request))) as items:
            async for item in items:
                yield _response(item, as_text=call.bridged)


def _is_full(view: str) -> bool:
    if view not in _VIEWS:
        raise InvalidRequest(f"view: {view[:80]!r} is not BASIC or FULL.", reason=Reason.INVALID_FIELD, field="view")
    return view == "FULL"


def _response(item: Item, *, as_text: bool) -> SubscribeResponse:
    match item:
        case subscription.CaughtUp(sequence):
            return SubscribeResponse(caught_up=CaughtUp(sequence=sequence))
        case subscription.Heartbeat(sequence, head):
            return SubscribeResponse(heartbeat=Heartbeat(sequence=sequence, head=head))
        case event:
            return SubscribeResponse(event=wire.event_message(event, as_text=as_text))


def _start(call: Call, request: SubscribeRequest) -> Start:
    """Return the start of a subscription. Raises `InvalidRequest` if there is more than one, or if it is not valid."""
    created_from = getattr(request, "from")  # a field named as Python's keyword
    first = decode.microseconds(created_from, "from") if request.HasField("from") else None
    last_event_id = call.text(LAST_EVENT_ID) if call.bridged else None
    if last_event_id:
        # A client that reconnects repeats its first query. Then only the time still applies, as a filter.
        return Start(after_sequence=_sequence(last_event_id), created_from=first)
    if request.HasField("after_sequence") + bool(request.after_id) + request.HasField("from") > 1:
        raise InvalidRequest(
            "Only one of after_sequence, after_id and from may be given.", reason=Reason.SEVERAL_STARTS
        )
    if request.after_sequence < 0:
        raise InvalidRequest("after_sequence must not be negative.", reason=Reason.NEGATIVE, field="after_sequence")
    return Start(
        after_sequence=request.after_sequence if request.HasField("after_sequence") else None,
        after_id=_id(request.after_id, "after_id") if request.after_id else None,
        created_from=first,
    )


def _sequence(last_event_id: str) -> int:
    if not _SEQUENCE.fullmatch(last_event_id):
        raise InvalidRequest(
            f"The header Last-Event-ID must be the sequence of an event, not {last_event_id[:80]!r}.",
            reason=Reason.INVALID_CURSOR,
            field=LAST_EVENT_ID,
        )
    return int(last_event_id)


def _id(text: str, field: str) -> EventId:
    try:
        return EventId(UUID(text).bytes)
    except ValueError:
        raise InvalidRequest(f"{text[:80]!r} is not a UUID.", reason=Reason.INVALID_ID, field=field) from None


def _check_texts(request: Message, *fields: str) -> None:
    for field in fields:
        if "\0" in getattr(request, field):  # no event has one, and PostgreSQL refuses to compare with it
            raise InvalidRequest(
                f"The {field} field contains the character U+0000.", reason=Reason.INVALID_CHARACTER, field=field
            )


def _query(workspace_id: WorkspaceId, request: ListEventsRequest) -> EventQuery:
    _check_texts(request, "type", "source", "subject", "idempotency_key")
    types = type_filter(request.type)
    dedupe = None
    if request.idempotency_key:
        dedupe = ledger.dedupe_of(ledger.identity(NATIVE, request.source, request.idempotency_key))
    created_from = getattr(request, "from")  # a field named as Python's keyword
    return EventQuery(
        workspace_id=workspace_id,
        limit=page_size(request.page_size, _DEFAULT_PAGE, _LARGEST_PAGE),
        type=types.type,
        type_prefix=types.type_prefix,
        source=request.source or None,
        subject=request.subject or None,
        dedupe=dedupe,
        created_from=decode.microseconds(created_from, "from") if request.HasField("from") else None,
        created_to=decode.microseconds(request.to, "to") if request.HasField("to") else None,
        newest_first=request.newest_first,
        after=resume_from(request.page_token, workspace_id, request),
    )
