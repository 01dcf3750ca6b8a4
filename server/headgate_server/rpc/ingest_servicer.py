"""headgate.v1.IngestService."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError, Message

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, EventResult, IngestResponse
from headgate_server.core.errors import EventConflict, InvalidRequest
from headgate_server.core.model import NATIVE, Answer, Outcome, Problem, Replayed, Scope, Status, Submission
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding
from headgate_server.core.types import EventId
from headgate_server.ingest.ingest import Ingest, request_key
from headgate_server.ingest.rejections import KEPT, Origin, RejectionQueue
from headgate_server.process.aside import aside
from headgate_server.process.metrics import Metrics
from headgate_server.process.setting import setting
from headgate_server.rpc import decode, wire
from headgate_server.rpc.decode import DecodedBatch
from headgate_server.rpc.pipeline.call import REQUEST_KEY, Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary

SERVICE = "headgate.v1.IngestService"
REPLAYED_KEY = "idempotency-replayed"

_Written = TypeVar("_Written", bound=Message)
_Request = RawBatchIngestRequest | RawIngestRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """The limits of one request."""

    max_events: int = setting(1_000, "batch-limit", "The most events of one batch.", least=1, most=100_000)
    """Beyond some hundred events a larger batch is no faster, and its sender waits longer for the first result."""


class IngestServicer:
    """Stores events, one or many."""

    def __init__(self, ingest: Ingest, config: IngestConfig, metrics: Metrics, rejections: RejectionQueue):
        self._ingest = ingest
        self._config = config
        self._metrics = metrics
        self._rejections = rejections

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
        """Refuse a request before it is read if it could not be stored. The number of events in a JSON body is not
        known yet; it counts as one.
        """
        if isinstance(request, RawBatchIngestRequest) and len(request.events) > self._config.max_events:
            decode.check_count(len(request.events), self._config.max_events)
        if not request.validate_only:
            events = len(request.events) or 1 if isinstance(request, RawBatchIngestRequest) else 1
            self._ingest.check_room(call.caller.workspace.id, events, call.size)

    async def batch_ingest(self, call: Call, request: RawBatchIngestRequest) -> BatchIngestResponse | HttpBody:
        """Store each event on its own and answer with one result for each."""
        batch = await self._ingest.decoded(_size(call, request), lambda: decode.batch(request, self._config.max_events))
        taken = await self._take(call, request, batch)
        if isinstance(taken, BatchIngestResponse):
            return taken
        if call.bridged:
            return written(lambda outcomes: wire.batch_answer(outcomes, batch.lines), taken)
        return written(wire.batch_message, taken)

    async def ingest(self, call: Call, request: RawIngestRequest) -> IngestResponse:
        """Store one event. If it is not stored, its problem is the call's error."""
        slot = await self._ingest.decoded(_size(call, request), lambda: decode.single(request))
        taken = await self._take(call, request, DecodedBatch([slot], validate_only=request.validate_only))
        if isinstance(taken, BatchIngestResponse):
            (result,) = taken.results
        else:
            result = written(lambda outcomes: wire.result_message(0, *outcomes), taken)
        if result.HasField("error"):
            raise _error(result)
        return IngestResponse(result=result)

    async def _take(
        self, call: Call, request: _Request, batch: DecodedBatch
    ) -> Sequence[Outcome] | BatchIngestResponse:
        """Run the use case, and record the result in metadata and log. Return the outcomes, or the answer to an earlier
        request under the same key.
        """
        submission = Submission(
            workspace_id=call.caller.workspace.id,
            slots=batch.slots,
            atomic=batch.atomic,
            answer=_stored_answer(call, request, batch.lines),
        )
        decision = await self._ingest.take(submission, validate_only=batch.validate_only)
        if isinstance(decision, Replayed):
            return await self._replay(call, submission, BatchIngestResponse.FromString(decision.answer))
        outcomes = decision.outcomes
        with aside("events"):
            statuses = Counter(outcome.status.value for outcome in outcomes)
            call.log.update(statuses)
            if not batch.validate_only:
                self._metrics.events(statuses)
                if KEPT & statuses.keys():
                    self._note(call, request, outcomes)
        conflicts = {
            index: outcome.link.id
            for index, outcome in enumerate(outcomes)
            if outcome.status is Status.CONFLICT and outcome.link is not None
        }
        return explained(outcomes, await self._differences(call, submission, conflicts))

    def _note(self, call: Call, request: _Request, outcomes: Sequence[Outcome]) -> None:
        """Note what was refused, so that it can be seen and replayed."""
        encoding = Encoding.JSON if request.HasField("json") else Encoding.PROTOBUF
        caller = call.caller
        origin = Origin(caller.workspace.id, caller.key_id, call.request_id, NATIVE, "", encoding)
        self._rejections.note(origin, outcomes, lambda positions: decode.sent(request, positions), _size(call, request))

    async def _replay(self, call: Call, submission: Submission, answer: BatchIngestResponse) -> BatchIngestResponse:
        """Return the stored answer, and add where conflicts differ, which is not stored with it."""
        call.reply_metadata.append((REPLAYED_KEY, "true"))
        with aside("events"):
            call.log.update(Counter(result.status for result in answer.results))
            call.log["replayed"] = True
        differences = await self._differences(call, submission, wire.conflicts(answer.results))
        for index, paths in differences.items():
            answer.results[index].error.differing_fields.extend(paths)
        return answer

    async def _differences(
        self, call: Call, submission: Submission, conflicts: Mapping[int, EventId]
    ) -> Mapping[int, tuple[str, ...]]:
        """Return where conflicts differ. The result is empty for callers that may not read events."""
        if not conflicts or not call.caller.may(Scope.EVENTS_READ):
            return {}
        return await self._ingest.differences(submission.workspace_id, submission.slots, conflicts)


def explained(outcomes: Sequence[Outcome], differences: Mapping[int, tuple[str, ...]]) -> Sequence[Outcome]:
    """Return the outcomes, and add the differences of their conflicts."""
    if not differences:
        return outcomes
    explained = list(outcomes)
    for index, paths in differences.items():
        problem = outcomes[index].problem
        if problem is not None:
            explained[index] = outcomes[index]._replace(problem=problem._replace(differing_fields=paths))
    return explained


def written(write: Callable[[Sequence[Outcome]], _Written], outcomes: Sequence[Outcome]) -> _Written:
    """Return the answer. If it cannot be written in full, it is written without explanations, because the caller must
    learn which events are stored.
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


def _size(call: Call, request: _Request) -> int:
    """Return how many bytes of a request have to be read."""
    return len(request.json.data) if request.HasField("json") else call.size


def _stored_answer(call: Call, request: _Request, lines: Sequence[int]) -> Answer | None:
    """Return how the answer is stored under the call's `Idempotency-Key`, scoped to the method; None without one.

    Raises `InvalidRequest` if the key is empty or too long.
    """
    key = call.text(REQUEST_KEY)
    if key is None:
        return None
    # The serialized request contains the body and the options. A JSON body is already decompressed here, because a
    # retry may be compressed differently or not at all. It is serialized again, because the bridge does not always
    # write the same message in the same bytes.
    sent = request.SerializeToString(deterministic=True) if request.HasField("json") else _in_one_order(request)
    encode = partial(wire.stored_answer, lines=lines) if lines else wire.stored_answer
    return Answer(encode=encode, request_key=request_key(call.method, key, sent))


def _in_one_order(request: _Request) -> bytes:
    """Return a protobuf request with every event serialized again. Clients write the members of a Struct in any order,
    so a client that was restarted may write the same event in other bytes.
    """
    if isinstance(request, RawIngestRequest):
        one = RawIngestRequest(event=_reserialized(request.event), validate_only=request.validate_only)
        return one.SerializeToString(deterministic=True)
    batch = RawBatchIngestRequest(
        events=map(_reserialized, request.events), atomic=request.atomic, validate_only=request.validate_only
    )
    return batch.SerializeToString(deterministic=True)


def _reserialized(event: bytes) -> bytes:
    try:
        return Event.FromString(event).SerializeToString(deterministic=True)
    except DecodeError:
        return event


def _error(result: EventResult) -> EventConflict | InvalidRequest:
    """Return a single event's problem as the error of the call."""
    problem = result.error
    reason = Reason(problem.reason)  # also for a stored answer of an earlier version: reasons are never removed
    if result.status != Status.CONFLICT:
        return InvalidRequest(problem.message, reason=reason, field=problem.field)
    metadata = {}
    if result.id:
        metadata = {"event_id": result.id, "sequence": str(result.sequence)}
    if problem.differing_fields:
        metadata["differing_fields"] = ",".join(problem.differing_fields)
    return EventConflict(problem.message, reason=reason, field=problem.field, metadata=metadata)
