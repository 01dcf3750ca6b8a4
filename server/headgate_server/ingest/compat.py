"""The use case of a vendor's request: the receiver reads it, the core handles it, and the receiver words the reply."""

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, assert_never

import orjson

from headgate_server.core.audit import Actor
from headgate_server.core.errors import InvalidRequest, NotFound, QuotaExceeded
from headgate_server.core.model import Answer, EventQuery, Outcome, Replayed, StoredEvent, Submission, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventHash, EventId
from headgate_server.ingest.ingest import Ingest, request_key
from headgate_server.reading.verify import verify
from headgate_server.receivers import (
    STATUSES,
    Checked,
    Endpoint,
    Find,
    Get,
    HttpRequest,
    Intake,
    Page,
    Receiver,
    Reply,
    Retried,
    Retry,
    Search,
    Take,
    Verify,
)
from headgate_server.store import Deliveries, Destinations, Ledgers, Proof
from headgate_server.store.ledgers import PAGE_BYTES

_BASE64 = "base64"
_MATCH_PAGE = 200
_MATCH_PAGES = 10
"""The bounds for a filter on the events' content: one page of results reads at most this many pages of the store, of at
most this many events each. At the bound the page may be short or empty, and its cursor leads to the next one. Pages are
counted, because each page of the store scans a bounded number of rows, even if it returns no event.
"""


class Exchange(NamedTuple):
    """A reply, or the refusal by the quota. `replayed` means that it is the stored reply to an earlier request under
    the same request key.
    """

    reply: Reply | QuotaExceeded
    outcomes: Sequence[Outcome] = ()
    replayed: bool = False


class Compat:
    """Answers requests to receivers' endpoints."""

    def __init__(
        self, ledgers: Ledgers, proof: Proof, deliveries: Deliveries, destinations: Destinations, ingest: Ingest
    ):
        self._ledgers = ledgers
        self._deliveries = deliveries
        self._destinations = destinations
        self._proof = proof
        self._ingest = ingest

    def check_room(self, workspace: Workspace, size: int) -> None:
        """Raise `Overloaded` if events of this many bytes could not wait to be stored now. This is called before the
        request is read, so the number of its events is not known yet.
        """
        self._ingest.check_room(workspace.id, 1, size)

    async def __call__(
        self,
        receiver: Receiver,
        endpoint: Endpoint,
        workspace: Workspace,
        request: HttpRequest,
        idempotency_key: str | None,
        by: Actor,
        admit: Callable[[int], Awaitable[None]],
    ) -> Exchange:
        """Answer one request. `admit` is called with the number of events before any is stored. Raises what it, the
        endpoint, the store and the committer raise.
        """
        match endpoint:
            case Take():
                return await self._take(receiver, endpoint, workspace, request, idempotency_key, admit)
            case Find():
                page = await self._find(receiver, workspace, endpoint.read(request))
                return Exchange(await asyncio.to_thread(endpoint.reply, request, page))
            case Get():
                page = await self._get(receiver, endpoint, workspace, request)
                return Exchange(await asyncio.to_thread(endpoint.reply, request, page))
            case Verify():
                check = endpoint.read(request)
                found = await verify(
                    self._proof,
                    workspace,
                    created_from=check.created_from,
                    created_to=check.created_to,
                    limit=check.limit,
                )
                return Exchange(endpoint.reply(request, Checked(found.events_checked, found.breaks)))
            case Retry():
                event = await self._event(receiver, workspace, endpoint.read(request))
                tried = await self._destinations.by(by).retry_event(workspace.id, event)
                return Exchange(endpoint.reply(request, Retried(event.id, tried)))
            case _ as never:
                assert_never(never)

    async def _take(
        self,
        receiver: Receiver,
        endpoint: Take,
        workspace: Workspace,
        request: HttpRequest,
        idempotency_key: str | None,
        admit: Callable[[int], Awaitable[None]],
    ) -> Exchange:
        intake = await self._ingest.decoded(len(request.body), lambda: endpoint.read(request))
        await admit(len(intake.slots))
        key = None
        if endpoint.request_key and idempotency_key is not None:
            scope = f"{receiver.name} {request.method} {request.path}"
            key = request_key(scope, idempotency_key, request.body)
        replies: list[Reply | QuotaExceeded] = []

        def encode(outcomes: Sequence[Outcome]) -> bytes:
            # This runs before the commit, which may be tried several times. The last attempt's reply is the stored one.
            replies[:] = [_reply(endpoint, request, intake, outcomes)]
            return _encode(replies[0])

        answer = Answer(encode=encode, request_key=key)
        decision = await self._ingest.take(
            workspace,
            Submission(workspace_id=workspace.id, slots=intake.slots, atomic=intake.atomic, answer=answer),
        )
        if isinstance(decision, Replayed):
            return Exchange(_decode(decision.answer), replayed=True)
        reply = replies[0] if replies else _reply(endpoint, request, intake, decision.outcomes)
        return Exchange(reply, decision.outcomes)

    async def _find(self, receiver: Receiver, workspace: Workspace, search: Search) -> Page:
        if search.fates is not None and not search.fates:
            return Page((), None)
        events: list[StoredEvent] = []
        resume = _from_cursor(search.cursor)
        filtered = search.match is not None or search.fates is not None
        for _ in range(_MATCH_PAGES):
            missing = search.limit - len(events)
            found = await self._ledgers.events(
                EventQuery(
                    workspace_id=workspace.id,
                    limit=_MATCH_PAGE if filtered else missing,
                    receiver=receiver.name,
                    type=search.type,
                    type_prefix=search.type_prefix,
                    source=search.source,
                    subject=search.subject,
                    created_from=search.created_from,
                    created_to=search.created_to,
                    newest_first=search.newest_first,
                    current_only=search.current_only,
                    after=resume,
                )
            )
            matching = found.events
            if search.match is not None:
                matching = await asyncio.to_thread(
                    lambda match, events: list(filter(match, events)), search.match, matching
                )
            if search.fates is not None:
                fates = await self._deliveries.fates(workspace.id, matching)
                matching = [event for event, fate in zip(matching, fates, strict=True) if fate in search.fates]
            events += matching[:missing]
            resume = matching[missing - 1].id if len(matching) > missing else found.resume
            full = len(events) == search.limit or sum(len(event.data or b"") for event in events) >= PAGE_BYTES
            if resume is None or not filtered or full:
                break
        previous = await self._previous(workspace, events) if search.with_previous else ()
        fates = await self._deliveries.fates(workspace.id, events) if search.with_fates else ()
        return Page(events, None if resume is None else resume.hex(), previous, fates)

    async def _get(self, receiver: Receiver, endpoint: Get, workspace: Workspace, request: HttpRequest) -> Page:
        events = [await self._event(receiver, workspace, endpoint.read(request))]
        previous = await self._previous(workspace, events) if endpoint.with_previous else ()
        fates = await self._deliveries.fates(workspace.id, events) if endpoint.with_fates else ()
        return Page(events, None, previous, fates)

    async def _event(self, receiver: Receiver, workspace: Workspace, event_id: EventId) -> StoredEvent:
        for event in await self._ledgers.fetch(workspace.id, [event_id]):
            if event.receiver == receiver.name:
                return event
        raise NotFound("There is no such event.", reason=Reason.EVENT_NOT_FOUND)

    async def _previous(self, workspace: Workspace, events: Sequence[StoredEvent]) -> Sequence[EventHash]:
        hashes = await self._ledgers.hashes_before(workspace, [event.id for event in events])
        return [hashes[event.id] for event in events]


def _reply(endpoint: Take, request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply | QuotaExceeded:
    try:
        reply = endpoint.reply(request, intake, outcomes)
    except QuotaExceeded as refusal:
        return refusal
    if reply.status not in STATUSES:
        raise ValueError(f"{reply.status} is not an allowed status of a reply")
    return reply


def _encode(reply: Reply | QuotaExceeded) -> bytes:
    """Return the stored form of a reply. For a refusal by the quota it is empty: the request may be sent again next
    month.
    """
    if isinstance(reply, QuotaExceeded):
        return b""
    status, body, headers, content_type = reply
    if isinstance(body, bytes):
        return orjson.dumps((status, b64encode(body).decode(), headers, content_type, _BASE64))
    return orjson.dumps((status, body, headers, content_type))


def _decode(answer: bytes) -> Reply:
    """Return a reply that `_encode` wrote, also one of an earlier version that could only write JSON."""
    status, body, headers, content_type, coding, *_ = (*orjson.loads(answer), None, None)[:5]
    if coding == _BASE64:
        body = b64decode(body)
    pairs = tuple((name, value) for name, value in headers)
    return Reply(status, body, pairs) if content_type is None else Reply(status, body, pairs, content_type)


def _from_cursor(cursor: str | None) -> EventId | None:
    if not cursor:
        return None
    try:
        event_id = EventId(bytes.fromhex(cursor))
    except ValueError:
        event_id = EventId(b"")
    if len(event_id) != 16:
        raise InvalidRequest(
            "The cursor does not come from an answer of this service.", reason=Reason.INVALID_CURSOR, field="cursor"
        )
    return event_id
