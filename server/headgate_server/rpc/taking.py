"""What every service that takes events does: it stores them, and notes what became of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from headgate.v1.ingest_service_pb2 import BatchIngestResponse, EventResult
from headgate_server.access.limits import RateLimiter
from headgate_server.core.errors import EventConflict, InvalidRequest
from headgate_server.core.model import STORED, Outcome, Problem, Replayed, Scope, Status, Submission
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding
from headgate_server.core.types import EventId
from headgate_server.ingest.ingest import Ingest
from headgate_server.ingest.rejections import KEPT, Origin, RejectionQueue
from headgate_server.process.aside import aside
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import wire
from headgate_server.rpc.pipeline.call import Call

REPLAYED_KEY = "idempotency-replayed"

_Written = TypeVar("_Written")


class Sent(NamedTuple):
    """The events of a request as they were sent: what is kept of those that are refused."""

    receiver: str
    encoding: Encoding
    texts: Callable[[Sequence[int]], Sequence[bytes]]
    """Returns the events at these positions, which increase."""
    held: int
    """The bytes that `texts` keeps in memory."""


class Taking:
    """Stores the events of calls."""

    def __init__(self, ingest: Ingest, limiter: RateLimiter, metrics: Metrics, rejections: RejectionQueue):
        self._ingest = ingest
        self._limiter = limiter
        self._metrics = metrics
        self._rejections = rejections

    async def admit(self, call: Call, events: int) -> None:
        """Count events against the limit of the call's key. Raises `RateLimited`."""
        await self._limiter.admit_events(call.caller, events)

    async def __call__(
        self, call: Call, submission: Submission, sent: Sent, *, validate_only: bool
    ) -> Sequence[Outcome] | BatchIngestResponse:
        """Run the use case for events that were admitted, and record the result in metadata and log. Return the
        outcomes, or the answer to an earlier request under the same key.
        """
        decision = await self._ingest.take(call.caller.workspace, submission, validate_only=validate_only)
        if isinstance(decision, Replayed):
            return await self._replay(call, submission, BatchIngestResponse.FromString(decision.answer))
        outcomes = decision.outcomes
        with aside("events"):
            statuses = counted(call, outcomes, None if validate_only else self._metrics)
            if not validate_only and KEPT & statuses.keys():
                self._note(call, sent, outcomes)
        return explained(outcomes, await self._differences(call, submission, conflicting(outcomes)))

    def _note(self, call: Call, sent: Sent, outcomes: Sequence[Outcome]) -> None:
        """Note what was refused, so that it can be seen and replayed."""
        caller = call.caller
        origin = Origin(caller.workspace.id, caller.key_id, call.request_id, sent.receiver, "", sent.encoding)
        self._rejections.note(origin, outcomes, sent.texts, sent.held)

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


def counted(call: Call, outcomes: Sequence[Outcome], metrics: Metrics | None) -> Mapping[str, int]:
    """Return the number of outcomes with each status, and record them in the call's log line and in the metrics."""
    statuses = _statuses(outcomes)
    call.log.update(statuses)
    if metrics is not None:
        reasons = None
        if not statuses.keys() <= STORED:
            reasons = Counter(
                (outcome.status.value, str(outcome.problem.reason))
                for outcome in outcomes
                if outcome.problem is not None
            )
        metrics.events(statuses, reasons)
        metrics.workspace_events(call.caller.workspace.name, statuses)
    return statuses


def _statuses(outcomes: Sequence[Outcome]) -> Mapping[str, int]:
    found = [outcome.status for outcome in outcomes]
    # Most calls have one status, and this takes an eighth of the time of a Counter.
    if found and found.count(found[0]) == len(found):
        return {found[0].value: len(found)}
    return Counter(status.value for status in found)


def conflicting(outcomes: Sequence[Outcome]) -> Mapping[int, EventId]:
    """Return, by position, the ids of the stored events with which there are conflicts."""
    if Status.CONFLICT not in [outcome.status for outcome in outcomes]:  # nearly always, and found without a loop
        return {}
    return {
        index: outcome.link.id
        for index, outcome in enumerate(outcomes)
        if outcome.status is Status.CONFLICT and outcome.link is not None
    }


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


def refusal(result: EventResult) -> EventConflict | InvalidRequest:
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
