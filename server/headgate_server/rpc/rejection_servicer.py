"""headgate.v1.RejectionService."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from headgate.v1.bridge_view_pb2 import RawReplayRejectionRequest, RawReplayRejectionsRequest
from headgate.v1.ingest_service_pb2 import EventResult
from headgate.v1.rejection_service_pb2 import (
    GetRejectionRequest,
    GetRejectionResponse,
    ListRejectionsRequest,
    ListRejectionsResponse,
    RejectionReplay,
    ReplayRejectionResponse,
    ReplayRejectionsRequest,
    ReplayRejectionsResponse,
)
from headgate_server.access.limits import RateLimiter
from headgate_server.core import validate
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.model import CLOUDEVENTS, NATIVE, STORED, Outcome, Scope
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Rejection, RejectionQuery
from headgate_server.core.types import EventId, RejectionId, WorkspaceId
from headgate_server.ingest.ingest import Ingest
from headgate_server.ingest.replay import Replay, Replaying
from headgate_server.process.aside import aside
from headgate_server.process.metrics import Metrics
from headgate_server.receivers import Receiver
from headgate_server.rpc import decode, replay_requests, wire
from headgate_server.rpc.pages import page_size, page_token, resume_from
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary
from headgate_server.rpc.taking import conflicting, counted, explained, written
from headgate_server.store import Rejections

SERVICE = "headgate.v1.RejectionService"
_DEFAULT_PAGE = 50
_DEFAULT_REPLAYS = 100
_LARGEST_PAGE = 1_000


class RejectionServicer:
    """Shows rejections, and replays them."""

    def __init__(
        self,
        rejections: Rejections,
        ingest: Ingest,
        replaying: Replaying,
        receivers: Mapping[str, Receiver],
        limiter: RateLimiter,
        metrics: Metrics,
    ):
        self._rejections = rejections
        self._ingest = ingest
        self._replaying = replaying
        self._receivers = (NATIVE, *sorted({CLOUDEVENTS, *receivers}))
        self._limiter = limiter
        self._metrics = metrics

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        read, replay = Needs((Scope.EVENTS_READ,)), Needs((Scope.EVENTS_WRITE,))
        return (
            Method(
                service=SERVICE,
                name="GetRejection",
                request=GetRejectionRequest,
                response=GetRejectionResponse,
                access=read,
                kind=Unary(self.get_rejection),
            ),
            Method(
                service=SERVICE,
                name="ListRejections",
                request=ListRejectionsRequest,
                response=ListRejectionsResponse,
                access=read,
                kind=Unary(self.list_rejections),
            ),
            Method(
                service=SERVICE,
                name="ReplayRejection",
                request=RawReplayRejectionRequest,
                response=ReplayRejectionResponse,
                access=replay,
                kind=Unary(self.replay_rejection),
            ),
            Method(
                service=SERVICE,
                name="ReplayRejections",
                request=RawReplayRejectionsRequest,
                response=ReplayRejectionsResponse,
                access=replay,
                kind=Unary(self.replay_rejections),
            ),
        )

    async def get_rejection(self, call: Call, request: GetRejectionRequest) -> GetRejectionResponse:
        """Return one rejection of the caller's workspace."""
        rejection = await self._get(call.caller.workspace.id, request.id)
        return GetRejectionResponse(rejection=wire.rejection_message(rejection))

    async def list_rejections(self, call: Call, request: ListRejectionsRequest) -> ListRejectionsResponse:
        """Return one page of the caller's workspace's rejections."""
        workspace_id = call.caller.workspace.id
        replayed = request.replayed if request.HasField("replayed") else None
        page = await self._rejections.page(self._query(workspace_id, request, _DEFAULT_PAGE, replayed=replayed))
        return ListRejectionsResponse(
            rejections=map(wire.rejection_message, page.rejections),
            next_page_token=page_token(page.resume, workspace_id, request),
            omitted=await self._rejections.omitted(workspace_id),
        )

    async def replay_rejection(self, call: Call, request: RawReplayRejectionRequest) -> ReplayRejectionResponse:
        """Replay one rejection, unchanged or edited."""
        size = len(request.json.data) if request.HasField("json") else call.size
        slot, validate_only = await self._ingest.decoded(size, lambda: replay_requests.one(request))
        workspace = call.caller.workspace
        rejection = await self._get(workspace.id, request.id)
        await self._limiter.admit_events(call.caller, 1)
        if slot is None:
            (replay,) = await self._replaying.as_sent(workspace, [rejection], call.actor, validate_only=validate_only)
        else:
            replay = await self._replaying.edited(workspace, rejection, slot, call.actor, validate_only=validate_only)
        problem = replay.outcome.problem
        if problem is not None and problem.reason is Reason.NOT_REPLAYABLE:
            raise InvalidRequest(problem.message, reason=Reason.NOT_REPLAYABLE, field="event")
        (result,) = await self._results(call, [replay], validate_only)
        return ReplayRejectionResponse(result=result)

    async def replay_rejections(self, call: Call, raw: RawReplayRejectionsRequest) -> ReplayRejectionsResponse:
        """Replay, unchanged, one page of the rejections that match and that no replay has stored."""
        workspace = call.caller.workspace
        request = replay_requests.many(raw)
        query = self._query(workspace.id, request, _DEFAULT_REPLAYS, replayed=False, newest_first=False)
        page = await self._rejections.page(query)
        await self._limiter.admit_events(call.caller, len(page.rejections))
        replays = await self._replaying.as_sent(
            workspace, page.rejections, call.actor, validate_only=request.validate_only
        )
        results = await self._results(call, replays, request.validate_only)
        stored = sum(replay.outcome.status in STORED for replay in replays)
        return ReplayRejectionsResponse(
            total=len(results),
            success_count=stored,
            error_count=len(results) - stored,
            results=[
                RejectionReplay(rejection_id=wire.id_text(replay.rejection.id), result=result)
                for replay, result in zip(replays, results, strict=True)
            ],
            next_page_token=page_token(page.resume, workspace.id, request),
        )

    async def _get(self, workspace_id: WorkspaceId, rejection_id: str) -> Rejection:
        try:
            rejection = await self._rejections.get(workspace_id, RejectionId(EventId(UUID(rejection_id).bytes)))
        except ValueError:
            message = f"{rejection_id[:80]!r} is not a UUID."
            raise InvalidRequest(message, reason=Reason.INVALID_ID, field="id") from None
        if rejection is None:
            message = f"There is no rejection {rejection_id} in this workspace."
            raise NotFound(message, reason=Reason.REJECTION_NOT_FOUND)
        return rejection

    def _query(
        self,
        workspace_id: WorkspaceId,
        request: ListRejectionsRequest | ReplayRejectionsRequest,
        default: int,
        *,
        replayed: bool | None,
        newest_first: bool = True,
    ) -> RejectionQuery:
        """Return the query of a request. Raises `InvalidRequest`."""
        _check_choice("reason", request.reason, tuple(Reason))
        _check_choice("receiver", request.receiver, self._receivers)
        problem = validate.text_problem("key_id", request.key_id)
        if problem is not None:
            raise InvalidRequest(problem.message, reason=problem.reason, field=problem.field)
        after = resume_from(request.page_token, workspace_id, request)
        received_from = getattr(request, "from")  # a field named as Python's keyword
        return RejectionQuery(
            workspace_id=workspace_id,
            limit=page_size(request.page_size, default, _LARGEST_PAGE),
            reason=request.reason or None,
            receiver=request.receiver or None,
            key_id=request.key_id or None,
            received_from=decode.microseconds(received_from, "from") if request.HasField("from") else None,
            received_to=decode.microseconds(request.to, "to") if request.HasField("to") else None,
            replayed=replayed,
            newest_first=newest_first,
            after=None if after is None else RejectionId(after),
        )

    async def _results(self, call: Call, replays: Sequence[Replay], validate_only: bool) -> Sequence[EventResult]:
        """Return the results of replays like those of a batch, and record them in log and metrics."""
        outcomes: Sequence[Outcome] = [replay.outcome for replay in replays]
        with aside("events"):
            counted(call, outcomes, None if validate_only else self._metrics)
        conflicts = conflicting(outcomes)
        if conflicts and call.caller.may(Scope.EVENTS_READ):
            slots = [replay.slot for replay in replays]
            outcomes = explained(outcomes, await self._ingest.differences(call.caller.workspace.id, slots, conflicts))
        return written(wire.batch_message, outcomes).results


def _check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """Raise `InvalidRequest` if no rejection can have the value. An empty answer would not tell the caller why."""
    if value and value not in choices:
        listed = f"; there are: {', '.join(choices)}" if len(choices) < 20 else ""
        raise InvalidRequest(f"There is no {field} {value[:80]!r}{listed}.", reason=Reason.INVALID_FILTER, field=field)
