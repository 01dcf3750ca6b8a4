"""headgate.v1.CloudEventService."""

from collections.abc import Sequence
from contextlib import suppress

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError

from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEvent
from headgate.v1.bridge_view_pb2 import RawBatchPublishRequest, RawPublishRequest
from headgate.v1.cloudevent_service_pb2 import HandshakeRequest, HandshakeResponse, ReceiveRequest
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, EventResult, IngestResponse
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import CLOUDEVENTS, Answer, Draft, Outcome, Problem, Scope, Submission
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding
from headgate_server.ingest.ingest import Ingest, request_key
from headgate_server.rpc import cloudevents, decode, status, wire
from headgate_server.rpc.ingest_servicer import IngestConfig
from headgate_server.rpc.pipeline.call import REQUEST_KEY, Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Public, Unary
from headgate_server.rpc.pipeline.printer import print_json
from headgate_server.rpc.taking import Sent, Taking, refusal, written

SERVICE = "headgate.v1.CloudEventService"

ATTRIBUTES_KEY = "x-headgate-attributes"
"""The metadata in which the bridge passes the headers that begin with `ce-`."""
_ORIGIN_KEY = "webhook-request-origin"
_MINIMAL = "return=minimal"

_Taken = Sequence[Outcome] | BatchIngestResponse
_Messages = RawPublishRequest | RawBatchPublishRequest


class CloudEventServicer:
    """Stores CloudEvents, one or many."""

    def __init__(self, ingest: Ingest, config: IngestConfig, taking: Taking):
        self._ingest = ingest
        self._config = config
        self._taking = taking

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        write = Needs((Scope.EVENTS_WRITE,))
        return (
            Method(
                service=SERVICE,
                name="Publish",
                request=RawPublishRequest,
                response=IngestResponse,
                access=write,
                kind=Unary(self.publish),
                admit=self.check_room,
            ),
            Method(
                service=SERVICE,
                name="BatchPublish",
                request=RawBatchPublishRequest,
                response=BatchIngestResponse,
                access=write,
                kind=Unary(self.batch_publish),
                admit=self.check_room,
            ),
            Method(
                service=SERVICE,
                name="Receive",
                request=ReceiveRequest,
                response=HttpBody,
                access=write,
                kind=Unary(self.receive),
                admit=self.check_room,
            ),
            Method(
                service=SERVICE,
                name="Handshake",
                request=HandshakeRequest,
                response=HandshakeResponse,
                access=Public(),
                kind=Unary(self.handshake),
            ),
        )

    async def check_room(self, call: Call, request: _Messages | ReceiveRequest) -> None:
        """Refuse a request before it is read if it could not be stored. The number of events in an HTTP body is not
        known yet; it counts as one.
        """
        events = 1
        if isinstance(request, RawBatchPublishRequest):
            events = len(request.events)
            decode.check_count(events, self._config.max_events)
        if not request.validate_only:
            self._ingest.check_room(call.caller.workspace.id, events, call.size)

    async def publish(self, call: Call, request: RawPublishRequest) -> IngestResponse:
        """Store one event. If it is not stored, its problem is the call's error."""
        if not request.event:
            raise InvalidRequest("The event field is required.", reason=Reason.MISSING_FIELD, field="event")
        return IngestResponse(result=_stored(await self._take_messages(call, request, [request.event])))

    async def batch_publish(self, call: Call, request: RawBatchPublishRequest) -> BatchIngestResponse:
        """Store each event on its own and answer with one result for each."""
        taken = await self._take_messages(call, request, request.events)
        return taken if isinstance(taken, BatchIngestResponse) else written(wire.batch_message, taken)

    async def receive(self, call: Call, request: ReceiveRequest) -> HttpBody:
        """Store the events of an HTTP request, each on its own, and answer as the mode of the request wants it."""
        if not request.HasField("json") and not call.bridged:
            raise InvalidRequest("Receive is for HTTP requests: use Publish or BatchPublish.")
        body, packed = request.json, call.text(ATTRIBUTES_KEY) or ""
        size = len(body.data) + len(packed)
        received = await self._ingest.decoded(size, lambda: cloudevents.received(body, packed, self._config.max_events))
        sent = Sent(CLOUDEVENTS, received.encoding, received.texts, size)
        content = b"\0".join((body.content_type.encode(), packed.encode(), body.data))
        taken = await self._take(call, request, received.slots, sent, content)
        if received.batched:
            return (
                _json(print_json(taken))
                if isinstance(taken, BatchIngestResponse)
                else written(wire.batch_answer, taken)
            )
        result = _stored(taken)
        if _MINIMAL in _preferences(call.text("prefer")):
            call.reply_metadata += ((status.HTTP_STATUS_KEY, "204"), ("preference-applied", _MINIMAL))
            return HttpBody()
        return _json(print_json(result))

    async def handshake(self, call: Call, request: HandshakeRequest) -> HandshakeResponse:
        """Allow a webhook's sender to send. This says nothing about its key."""
        call.reply_metadata.append(("allow", "OPTIONS, POST"))
        origin = call.text(_ORIGIN_KEY)
        if origin:
            call.reply_metadata += (("webhook-allowed-origin", origin), ("webhook-allowed-rate", "*"))
        return HandshakeResponse()

    async def _take_messages(self, call: Call, request: _Messages, events: Sequence[bytes]) -> _Taken:
        slots = await self._ingest.decoded(call.size, lambda: cloudevents.from_messages(events))
        sent = Sent(CLOUDEVENTS, Encoding.PROTOBUF, lambda at: [events[each] for each in at], call.size)
        return await self._take(call, request, slots, sent, b"".join(map(_framed, events)))

    async def _take(
        self,
        call: Call,
        request: _Messages | ReceiveRequest,
        slots: Sequence[Draft | Problem],
        sent: Sent,
        content: bytes,
    ) -> _Taken:
        """Store events. `content` is what a second request under the same `Idempotency-Key` must have too."""
        atomic = False if isinstance(request, RawPublishRequest) else request.atomic
        answer = None
        if (key := call.text(REQUEST_KEY)) is not None:
            options = b"%d%d" % (atomic, request.validate_only)
            answer = Answer(encode=wire.stored_answer, request_key=request_key(call.method, key, options + content))
        submission = Submission(workspace_id=call.caller.workspace.id, slots=slots, atomic=atomic, answer=answer)
        await self._taking.admit(call, len(submission.slots))
        return await self._taking(call, submission, sent, validate_only=request.validate_only)


def _stored(taken: _Taken) -> EventResult:
    """Return the result of a single event. Raises its problem if it is not stored."""
    if isinstance(taken, BatchIngestResponse):
        (result,) = taken.results
    else:
        result = written(lambda outcomes: wire.result_message(0, *outcomes), taken)
    if result.HasField("error"):
        raise refusal(result)
    return result


def _json(data: bytes) -> HttpBody:
    return HttpBody(content_type="application/json", data=data)


def _preferences(prefer: str | None) -> set[str]:
    """Return the preferences of a header `Prefer` (RFC 7240), without their parameters."""
    parts = (part.partition(";")[0] for part in (prefer or "").lower().split(","))
    return {part.replace(" ", "").replace('"', "") for part in parts}


def _framed(event: bytes) -> bytes:
    """Return an event in one form of bytes, with its length. Clients write the entries of a map in any order."""
    with suppress(DecodeError):
        event = CloudEvent.FromString(event).SerializeToString(deterministic=True)
    return len(event).to_bytes(4) + event
