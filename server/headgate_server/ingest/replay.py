"""Rejections sent again: back through the one way into the ledger, and marked once they are stored."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from headgate_server.core import jsonbody, ledger, validate
from headgate_server.core.errors import InvalidRequest, RequestKeyReused
from headgate_server.core.model import (
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
)
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding, Rejection
from headgate_server.core.types import EventId, Fingerprint, Salt, WorkspaceId
from headgate_server.ingest.ingest import Ingest
from headgate_server.process.aside import aside
from headgate_server.process.clock import Clock, system_clock
from headgate_server.receivers import HttpRequest, Receiver, Take
from headgate_server.store import Ledgers, Rejections

_SCOPE = "rejections:replay"
"""Of the request keys that keep an event without a key of its own from being stored twice."""
_AT_ONCE = 50
"""Submissions of one call that wait to be stored at once: a small part of what may wait."""

ALREADY_REPLAYED = Problem(
    Reason.ALREADY_REPLAYED, "", "The rejection was replayed before, as an event with other content."
)


class Replay(NamedTuple):
    """What became of a rejection: what was sent in its place, and its outcome."""

    rejection: Rejection
    slot: Draft | Problem
    outcome: Outcome


class Replaying:
    """Sends rejections again. A rejection is stored once at most, however often and by whomever it is replayed: an
    event with an identity by that, any other by the rejection's id.
    """

    def __init__(
        self,
        rejections: Rejections,
        ledgers: Ledgers,
        ingest: Ingest,
        receivers: Mapping[str, Receiver],
        proto_event: Callable[[bytes, Salt], Draft | Problem],
        clock: Clock = system_clock,
    ):
        """`proto_event` judges a serialized event, sealed with a salt."""
        self._rejections = rejections
        self._ledgers = ledgers
        self._ingest = ingest
        self._receivers = receivers
        self._proto_event = proto_event
        self._clock = clock

    async def as_sent(self, rejections: Sequence[Rejection], *, validate_only: bool = False) -> Sequence[Replay]:
        """Replay rejections of one workspace, in order, each through the receiver that it came through.

        Raises what `Ingest.take` raises, though some of them may be stored and marked then: ask again.
        """
        size = sum(len(rejection.event) for rejection in rejections)
        slots = await self._ingest.decoded(size, lambda: list(map(self._slot, rejections)))
        return await self._replay(rejections, slots, validate_only)

    async def edited(self, rejection: Rejection, slot: Draft | Problem, *, validate_only: bool = False) -> Replay:
        """Replay a rejection as another event. Raises what `Ingest.take` raises."""
        (replay,) = await self._replay([rejection], [slot], validate_only)
        return replay

    async def _replay(
        self, rejections: Sequence[Rejection], slots: Sequence[Draft | Problem], validate_only: bool
    ) -> Sequence[Replay]:
        outcomes: list[Outcome] = []
        pairs = list(zip(rejections, slots, strict=True))
        for start in range(0, len(pairs), _AT_ONCE):
            chunk = pairs[start : start + _AT_ONCE]
            work = [self._outcome(rejection, slot, validate_only) for rejection, slot in chunk]
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
            with aside("mark"):  # what is stored must be said; without the mark another replay is a duplicate
                await self._rejections.mark(rejections[0].workspace_id, replayed)

    async def _outcome(self, rejection: Rejection, slot: Draft | Problem, validate_only: bool) -> Outcome:
        if isinstance(slot, Problem):
            return Outcome(Status.REJECTED, problem=slot)
        once = slot.dedupe is None
        if once and rejection.event_id is not None:
            earlier = await self._event(rejection.workspace_id, rejection.event_id)
            if earlier is not None:
                return _settled_before(slot, earlier)
        answer = Answer(encode=_event_id, request_key=_request_key(rejection, slot)) if once else None
        submission = Submission(workspace_id=rejection.workspace_id, slots=[slot], answer=answer)
        try:
            decision = await self._ingest.take(submission, validate_only=validate_only)
        except RequestKeyReused:
            return Outcome(Status.CONFLICT, problem=ALREADY_REPLAYED)
        if not isinstance(decision, Replayed):
            return decision.outcomes[0]
        stored = await self._event(rejection.workspace_id, EventId(decision.answer))
        return Outcome(Status.DUPLICATE, None if stored is None else _link(stored), None, slot.warnings)

    async def _event(self, workspace_id: WorkspaceId, event_id: EventId) -> StoredEvent | None:
        found = await self._ledgers.fetch(workspace_id, [event_id])
        return found[0] if found else None

    def _slot(self, rejection: Rejection) -> Draft | Problem:
        """Judge a rejected event as it was sent."""
        if rejection.is_cut:
            words = f"Only {len(rejection.event)} bytes of the event's {rejection.size} were kept: replay it edited."
            return Problem(Reason.NOT_REPLAYABLE, "", words)
        try:
            if rejection.receiver != NATIVE:
                return self._vendors_slot(rejection)
            (salt,) = validate.salts(1)
            if rejection.encoding == Encoding.PROTOBUF:
                return self._proto_event(rejection.event, salt)
            return validate.native_json(jsonbody.read_one(rejection.event), salt)
        except InvalidRequest as error:
            return Problem(error.reason, error.field, error.message)

    def _vendors_slot(self, rejection: Rejection) -> Draft | Problem:
        """Judge a rejected event of a vendor's, in a request that brings nothing else. Raises `InvalidRequest`."""
        receiver = self._receivers.get(rejection.receiver)
        method, _, path = rejection.endpoint.partition(" ")
        endpoint = None if receiver is None else receiver.routes().get((method, path))
        if not isinstance(endpoint, Take):
            words = f"The receiver {rejection.receiver} does not take events there any more: replay it edited."
            return Problem(Reason.NOT_REPLAYABLE, "", words)
        body = _body(endpoint.list_name, rejection.event)
        request = HttpRequest(method, path, {}, body, self._clock(), content_type="application/json")
        return endpoint.read(request).slots[0]


def _body(list_name: str | None, event: bytes) -> bytes:
    """Return the body of a request with this event alone."""
    if list_name is None:
        return event
    events = b"[" + event + b"]"
    return b"{" + json.dumps(list_name).encode() + b":" + events + b"}" if list_name else events


def _request_key(rejection: Rejection, draft: Draft) -> RequestKey:
    fingerprint = Fingerprint(sha256(draft.receiver.encode() + b"\0" + draft.canonical).digest())
    return RequestKey(scope=_SCOPE, key=rejection.id.hex(), fingerprint=fingerprint)


def _event_id(outcomes: Sequence[Outcome]) -> bytes:
    """Return what is stored under the request key: only of an event that is stored."""
    link = outcomes[0].link
    return b"" if link is None else link.id


def _settled_before(draft: Draft, earlier: StoredEvent) -> Outcome:
    same = draft.receiver == earlier.receiver and (
        ledger.commitment(earlier.salt, draft.canonical) == earlier.commitment
    )
    if same:
        return Outcome(Status.DUPLICATE, _link(earlier), None, draft.warnings)
    return Outcome(Status.CONFLICT, _link(earlier), ALREADY_REPLAYED, draft.warnings)


def _link(event: StoredEvent) -> Link:
    return Link(event.id, event.sequence, event.created_at, event.event_hash, event.salt, event.commitment)
