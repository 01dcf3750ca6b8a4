"""headgate.v1.IngestService."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError, Message

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, IngestResponse
from headgate_server.core.errors import EventConflict, InvalidRequest
from headgate_server.core.jsonbody import INLINE_BYTES
from headgate_server.core.model import Draft, Outcome, Problem, RequestKey, Scope, Status
from headgate_server.ingest.ingest import Ingest, Ingested, request_key
from headgate_server.process.aside import aside
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import decode, wire
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary

SERVICE = "headgate.v1.IngestService"
REQUEST_KEY = "idempotency-key"
REPLAYED_KEY = "idempotency-replayed"

_Decoded = TypeVar("_Decoded")
_Said = TypeVar("_Said", bound=Message)
_Request = RawBatchIngestRequest | RawIngestRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """What one request may hold."""

    max_events: int = 1_000
    """Events of one batch: past some hundreds a larger batch gains nothing, and its sender waits longer for the
    first result.
    """


class IngestServicer:
    """Takes events in, one or many."""

    def __init__(self, ingest: Ingest, config: IngestConfig, metrics: Metrics):
        self._ingest = ingest
        self._config = config
        self._metrics = metrics

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        return (
            Method(
                service=SERVICE,
                name="Ingest",
                request=RawIngestRequest,
                response=IngestResponse,
                access=Needs((Scope.EVENTS_WRITE,)),
                kind=Unary(self.ingest),
                admit=self.check_room,
            ),
            Method(
                service=SERVICE,
                name="BatchIngest",
                request=RawBatchIngestRequest,
                response=BatchIngestResponse,
                access=Needs((Scope.EVENTS_WRITE,)),
                kind=Unary(self.batch_ingest),
                admit=self.check_room,
            ),
        )

    async def check_room(self, call: Call, request: _Request) -> None:
        """Refuse what could not be stored before it is read. Of a JSON body nobody knows yet how many events it has."""
        if not request.validate_only:
            events = len(request.events) or 1 if isinstance(request, RawBatchIngestRequest) else 1
            self._ingest.check_room(call.caller.workspace.id, events, len(call.body))

    async def batch_ingest(self, call: Call, request: RawBatchIngestRequest) -> BatchIngestResponse | HttpBody:
        """Store each event on its own and answer with one result per event."""
        batch = await _decoded(call, request, lambda: decode.batch(request, self._config.max_events))
        outcomes = await self._store(call, request, batch.slots, atomic=batch.atomic, validate_only=batch.validate_only)
        return _said(wire.batch_answer if call.bridged else wire.batch_message, outcomes)

    async def ingest(self, call: Call, request: RawIngestRequest) -> IngestResponse:
        """Store one event; what keeps it from being stored is the call's error."""
        slot = await _decoded(call, request, lambda: decode.single(request))
        (outcome,) = await self._store(call, request, [slot], atomic=False, validate_only=request.validate_only)
        if outcome.problem is not None:
            raise _error(outcome, outcome.problem)
        return _said(lambda outcomes: IngestResponse(result=wire.result_message(0, *outcomes)), [outcome])

    async def _store(
        self, call: Call, request: _Request, slots: Sequence[Draft | Problem], *, atomic: bool, validate_only: bool
    ) -> Sequence[Outcome]:
        """Run the use case, and say in metadata and log what happened."""
        ingested: Ingested = await self._ingest(
            call.caller.workspace.id,
            slots,
            atomic=atomic,
            validate_only=validate_only,
            request_key=_request_key(call, request),
            codec=wire.ANSWERS,
            explain=call.caller.may(Scope.EVENTS_READ),
        )
        if ingested.replayed:
            call.reply_metadata.append((REPLAYED_KEY, "true"))
        with aside("events"):
            statuses = Counter(outcome.status.value for outcome in ingested.outcomes)
            call.log.update(statuses)
            if ingested.replayed:
                call.log["replayed"] = True
            elif not validate_only:
                self._metrics.events(statuses)
        return ingested.outcomes


def _said(write: Callable[[Sequence[Outcome]], _Said], outcomes: Sequence[Outcome]) -> _Said:
    """Return the answer. What is stored must be said: one that cannot be written in full is written without what
    explains it.
    """
    with aside("answer"):
        return write(outcomes)
    return write([_bare(outcome) for outcome in outcomes])


def _bare(outcome: Outcome) -> Outcome:
    problem = outcome.problem
    if problem is not None:
        message = problem.message.encode("ascii", "backslashreplace").decode()
        problem = Problem(problem.reason, "", message, problem.retryable)
    return Outcome(outcome.status, outcome.link, problem)


async def _decoded(call: Call, request: _Request, read: Callable[[], _Decoded]) -> _Decoded:
    """Decode a body: a large one on a thread, so that other calls go on."""
    size = len(request.json.data) if request.HasField("json") else len(call.body)
    return read() if size <= INLINE_BYTES else await asyncio.to_thread(read)


def _request_key(call: Call, request: _Request) -> RequestKey | None:
    """Return the call's `Idempotency-Key`, scoped to the method. Raises `InvalidRequest` if it is empty or too long."""
    key = call.text(REQUEST_KEY)
    if key is None:
        return None
    # The serialized request holds body and options alike. Of a JSON body what was sent is what it inflates to, a
    # retry may be compressed otherwise or not at all; and the bridge does not always write the same message in the
    # same bytes.
    sent = request.SerializeToString(deterministic=True) if request.HasField("json") else _in_one_order(request)
    return request_key(call.method, key, sent)


def _in_one_order(request: _Request) -> bytes:
    """Return a protobuf request with every event written anew: senders write the members of a Struct in any order,
    and a client that was restarted may write the same event in other bytes.
    """
    if isinstance(request, RawIngestRequest):
        one = RawIngestRequest(event=_written_anew(request.event), validate_only=request.validate_only)
        return one.SerializeToString(deterministic=True)
    batch = RawBatchIngestRequest(
        events=map(_written_anew, request.events), atomic=request.atomic, validate_only=request.validate_only
    )
    return batch.SerializeToString(deterministic=True)


def _written_anew(event: bytes) -> bytes:
    try:
        return Event.FromString(event).SerializeToString(deterministic=True)
    except DecodeError:
        return event


def _error(outcome: Outcome, problem: Problem) -> EventConflict | InvalidRequest:
    """Return a single event's problem as the error of the call."""
    if outcome.status is not Status.CONFLICT:
        return InvalidRequest(problem.message, reason=problem.reason, field=problem.field)
    metadata = {}
    if outcome.link is not None:
        metadata = {"event_id": wire.id_text(outcome.link.id), "sequence": str(outcome.link.sequence)}
    if problem.differing_fields:
        metadata["differing_fields"] = ",".join(problem.differing_fields)
    return EventConflict(problem.message, reason=problem.reason, field=problem.field, metadata=metadata)
