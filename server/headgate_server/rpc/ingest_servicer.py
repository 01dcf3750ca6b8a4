"""headgate.v1.IngestService."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest, RawStreamIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, IngestResponse, StreamIngestResponse
from headgate_server.core.model import NATIVE, Answer, Outcome, Scope, Submission
from headgate_server.core.rejections import Encoding
from headgate_server.ingest.ingest import Ingest, request_key
from headgate_server.process.setting import setting
from headgate_server.rpc import decode, wire
from headgate_server.rpc.decode import DecodedBatch
from headgate_server.rpc.ingest_stream import LARGEST_REQUEST, IngestStream
from headgate_server.rpc.pipeline.call import REQUEST_KEY, Call
from headgate_server.rpc.pipeline.method import AnyMethod, BothWays, Method, Needs, Serialized, Unary
from headgate_server.rpc.taking import Sent, Taking, refusal, written

SERVICE = "headgate.v1.IngestService"
_Request = RawBatchIngestRequest | RawIngestRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """The limits of one request."""

    max_events: int = setting(1_000, "batch-limit", "The most events of one batch.", least=1, most=100_000)
    """Beyond some hundred events a larger batch is no faster, and its sender waits longer for the first result."""


class IngestServicer:
    """Stores events, one or many."""

    def __init__(self, ingest: Ingest, config: IngestConfig, taking: Taking):
        self._ingest = ingest
        self._config = config
        self._taking = taking

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
            Method(
                service=SERVICE,
                name="StreamIngest",
                request=RawStreamIngestRequest,
                response=StreamIngestResponse,
                access=Needs((Scope.EVENTS_WRITE,)),
                kind=BothWays(IngestStream(self._ingest, self._config.max_events, self._taking), lasting=True),
                largest=LARGEST_REQUEST,
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

    async def batch_ingest(
        self, call: Call, request: RawBatchIngestRequest
    ) -> BatchIngestResponse | HttpBody | Serialized:
        """Store each event on its own and answer with one result for each."""
        batch = await self._ingest.decoded(_size(call, request), lambda: decode.batch(request, self._config.max_events))
        taken = await self._take(call, request, batch)
        if isinstance(taken, BatchIngestResponse):
            return taken
        if call.bridged:
            return written(lambda outcomes: wire.batch_answer(outcomes, batch.lines), taken)
        return written(lambda outcomes: Serialized(wire.batch_bytes(outcomes)), taken)

    async def ingest(self, call: Call, request: RawIngestRequest) -> IngestResponse | Serialized:
        """Store one event. If it is not stored, its problem is the call's error."""
        slot = await self._ingest.decoded(_size(call, request), lambda: decode.single(request))
        taken = await self._take(call, request, DecodedBatch([slot], validate_only=request.validate_only))
        if isinstance(taken, BatchIngestResponse):
            (result,) = taken.results
        elif taken[0].problem is None and not call.bridged:
            return written(lambda outcomes: Serialized(wire.single_bytes(*outcomes)), taken)
        else:
            result = written(lambda outcomes: wire.result_message(0, *outcomes), taken)
        if result.HasField("error"):
            raise refusal(result)
        return IngestResponse(result=result)

    async def _take(
        self, call: Call, request: _Request, batch: DecodedBatch
    ) -> Sequence[Outcome] | BatchIngestResponse:
        """Store a request's events. Return the outcomes, or the answer to an earlier request under the same key."""
        submission = Submission(
            workspace_id=call.caller.workspace.id,
            slots=batch.slots,
            atomic=batch.atomic,
            answer=_stored_answer(call, request, batch.lines),
        )
        sent = Sent(
            NATIVE,
            Encoding.JSON if request.HasField("json") else Encoding.PROTOBUF,
            lambda positions: decode.sent(request, positions),
            _size(call, request),
        )
        await self._taking.admit(call, len(submission.slots))
        return await self._taking(call, submission, sent, validate_only=batch.validate_only)


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
