"""Replays rejections: they pass ingest like every event, and are marked when they are stored."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from headgate_server.core import jsonbody, ledger, validate
from headgate_server.core.audit import Act, Actor
from headgate_server.core.errors import InvalidRequest, RequestKeyReused
from headgate_server.core.model import (
    CLOUDEVENTS,
    NATIVE,
    STORED,
    Answer,
    Draft,
    Link,
    Outcome,
    Problem,
    Replayed,
    RequestKey,
    Status,
    StoredEvent,
    Submission,
    Workspace,
)
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding, Rejection
from headgate_server.core.types import EventId, Fingerprint, Salt, WorkspaceId
from headgate_server.ingest.ingest import Ingest
from headgate_server.process.aside import aside
from headgate_server.process.clock import Clock, system_clock
from headgate_server.receivers import HttpRequest, Receiver, Take
from headgate_server.store import Audit, Ledgers, Rejections

_SCOPE = "rejections:replay"
"""The scope of the request keys of replays. They prevent that an event without an idempotency key is stored twice."""
_IDS_OF_AN_ACT = 1_000
_AT_ONCE = 50
"""The most submissions of one call that wait at by_rejection: a small part of the queue."""

ALREADY_REPLAYED = Problem(
    Reason.ALREADY_REPLAYED, "", "The rejection was replayed before, as an event with other content."
)


class Replay(NamedTuple):
    """The replay of a rejection: the event that was submitted for it, and its outcome."""

    rejection: Rejection
    slot: Draft | Problem
    outcome: Outcome


class Replaying:
    """Replays rejections. A rejection is stored at most by_rejection, even if it is replayed several times or by
    several callers. An event with an identity is deduplicated by it, any other event by the rejection's id.
    """

    def __init__(
        self,
        rejections: Rejections,
        ledgers: Ledgers,
        ingest: Ingest,
        receivers: Mapping[str, Receiver],
        proto_event: Callable[[bytes, Salt], Draft | Problem],
        cloudevent: Callable[[bytes, str, Salt], Draft | Problem],
        audit: Audit,
        clock: Clock = system_clock,
    ):
        """`proto_event` decodes a serialized event and seals it with a salt. `cloudevent` does so with a CloudEvent in
        an encoding of rejections.
        """
        self._rejections = rejections
        self._ledgers = ledgers
        self._ingest = ingest
        self._receivers = receivers
        self._proto_event = proto_event
        self._cloudevent = cloudevent
        self._audit = audit
        self._clock = clock

    async def as_sent(
        self, workspace: Workspace, rejections: Sequence[Rejection], by: Actor, *, validate_only: bool = False
    ) -> Sequence[Replay]:
        """Replay rejections of a workspace in order, each through its own receiver.

        Raises the errors of `Ingest.take`. Some rejections may be stored and marked then; a repeated call is safe.
        """
        size = sum(len(rejection.event) for rejection in rejections)
        slots = await self._ingest.decoded(size, lambda: list(map(self._slot, rejections)))
        if rejections and not validate_only:
            await self._note(workspace, rejections, by, edited=False)
        return await self._replay(workspace, rejections, slots, validate_only)

    async def _note(self, workspace: Workspace, rejections: Sequence[Rejection], by: Actor, *, edited: bool) -> None:
        """Record that rejections are replayed, before that is done: the committer stores the events of many callers in
        one transaction, and an act must never be done without its event.
        """
        ids = [str(UUID(bytes=rejection.id)) for rejection in rejections]
        for start in range(0, len(ids), _IDS_OF_AN_ACT):
            some = ids[start : start + _IDS_OF_AN_ACT]
            act = Act("rejection.replay_requested", some[0], after={"rejections": some, "edited": edited})
            await self._audit.by(by).note(workspace.id, act)

    async def edited(
        self,
        workspace: Workspace,
        rejection: Rejection,
        slot: Draft | Problem,
        by: Actor,
        *,
        validate_only: bool = False,
    ) -> Replay:
        """Replay a rejection as another event. Raises the errors of `Ingest.take`."""
        if not validate_only:
            await self._note(workspace, [rejection], by, edited=True)
        (replay,) = await self._replay(workspace, [rejection], [slot], validate_only)
        return replay

    async def _replay(
        self,
        workspace: Workspace,
        rejections: Sequence[Rejection],
        slots: Sequence[Draft | Problem],
        validate_only: bool,
    ) -> Sequence[Replay]:
        outcomes: list[Outcome] = []
        pairs = list(zip(rejections, slots, strict=True))
        for start in range(0, len(pairs), _AT_ONCE):
            chunk = pairs[start : start + _AT_ONCE]
            work = [self._outcome(workspace, rejection, slot, validate_only) for rejection, slot in chunk]
            done = await asyncio.gather(*work, return_exceptions=True)
            if not validate_only:
                await self._mark([rejection for rejection, _ in chunk], done)
            for outcome in done:
                if isinstance(outcome, BaseException):
                    raise outcome
                outcomes.append(outcome)
        return list(map(Replay, rejections, slots, outcomes))

    async def _mark(self, rejections: Sequence[Rejection], done: Sequence[Outcome | BaseException]) -> None:
        replayed = {
            rejection.id: outcome.link.id
            for rejection, outcome in zip(rejections, done, strict=True)
            if isinstance(outcome, Outcome) and outcome.status in STORED and outcome.link is not None
        }
        if replayed:
            with aside("mark"):  # the event is stored; without the mark another replay is a duplicate
                await self._rejections.mark(rejections[0].workspace_id, replayed)

    async def _outcome(
        self, workspace: Workspace, rejection: Rejection, slot: Draft | Problem, validate_only: bool
    ) -> Outcome:
        if isinstance(slot, Problem):
            return Outcome(Status.REJECTED, problem=slot)
        by_rejection = slot.dedupe is None
        if by_rejection and rejection.event_id is not None:
            earlier = await self._event(rejection.workspace_id, rejection.event_id)
            if earlier is not None:
                return _outcome_of_earlier(slot, earlier)
        answer = Answer(encode=_event_id, request_key=_request_key(rejection, slot)) if by_rejection else None
        submission = Submission(workspace_id=rejection.workspace_id, slots=[slot], answer=answer)
        try:
            decision = await self._ingest.take(workspace, submission, validate_only=validate_only)
        except RequestKeyReused:
            return Outcome(Status.CONFLICT, problem=ALREADY_REPLAYED)
        if not isinstance(decision, Replayed):
            return decision.outcomes[0]
        stored = await self._event(rejection.workspace_id, EventId(decision.answer))
        return Outcome(Status.DUPLICATE, None if stored is None else _link(stored), None, slot.warnings)

    async def _event(self, workspace_id: WorkspaceId, event_id: EventId) -> StoredEvent | None:
        events = await self._ledgers.fetch(workspace_id, [event_id])
        return events[0] if events else None

    def _slot(self, rejection: Rejection) -> Draft | Problem:
        """Decode a rejected event as it was sent."""
        if rejection.is_cut:
            message = f"Only {len(rejection.event)} bytes of the event's {rejection.size} were kept: replay it edited."
            return Problem(Reason.NOT_REPLAYABLE, "", message)
        try:
            (salt,) = validate.salts(1)
            if rejection.receiver == CLOUDEVENTS:
                return self._cloudevent(rejection.event, rejection.encoding, salt)
            if rejection.receiver != NATIVE:
                return self._vendor_slot(rejection)
            if rejection.encoding == Encoding.PROTOBUF:
                return self._proto_event(rejection.event, salt)
            return validate.native_json(jsonbody.read_one(rejection.event), salt)
        except InvalidRequest as error:
            return Problem(error.reason, error.field, error.message)

    def _vendor_slot(self, rejection: Rejection) -> Draft | Problem:
        """Decode a rejected event of a vendor as a request with this event only. Raises `InvalidRequest`."""
        receiver = self._receivers.get(rejection.receiver)
        method, _, path = rejection.endpoint.partition(" ")
        endpoint = None if receiver is None else receiver.routes().get((method, path))
        if not isinstance(endpoint, Take):
            message = f"The receiver {rejection.receiver} does not take events there any more: replay it edited."
            return Problem(Reason.NOT_REPLAYABLE, "", message)
        body = _body(endpoint.list_name, rejection.event)
        request = HttpRequest(method, path, {}, body, self._clock(), content_type="application/json")
        return endpoint.read(request).slots[0]


def _body(list_name: str | None, event: bytes) -> bytes:
    """Return the body of a request with only this event."""
    if list_name is None:
        return event
    events = b"[" + event + b"]"
    return b"{" + json.dumps(list_name).encode() + b":" + events + b"}" if list_name else events


def _request_key(rejection: Rejection, draft: Draft) -> RequestKey:
    fingerprint = Fingerprint(sha256(draft.receiver.encode() + b"\0" + draft.canonical).digest())
    return RequestKey(scope=_SCOPE, key=rejection.id.hex(), fingerprint=fingerprint)


def _event_id(outcomes: Sequence[Outcome]) -> bytes:
    """Return the answer to store under the request key: the id of the stored event. Empty if it is not stored."""
    link = outcomes[0].link
    return b"" if link is None else link.id


def _outcome_of_earlier(draft: Draft, earlier: StoredEvent) -> Outcome:
    same = draft.receiver == earlier.receiver and (
        ledger.commitment(earlier.salt, draft.canonical) == earlier.commitment
    )
    if same:
        return Outcome(Status.DUPLICATE, _link(earlier), None, draft.warnings)
    return Outcome(Status.CONFLICT, _link(earlier), ALREADY_REPLAYED, draft.warnings)


def _link(event: StoredEvent) -> Link:
    return Link(
        event.id, event.sequence, event.created_at, event.event_hash, event.salt, event.commitment, event.occurred_at
    )
