"""headgate.v1.DestinationService."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headgate.v1 import destination_pb2
from headgate.v1 import destination_service_pb2 as pb
from headgate.v1.bridge_view_pb2 import (
    RawCreateDestinationRequest,
    RawReplayDestinationRequest,
    RawUpdateDestinationRequest,
)
from headgate_server.core.destinations import Destination, JetStream, State, Status
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Scope
from headgate_server.core.reasons import Reason
from headgate_server.delivery import manage
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.rpc import bodies, decode
from headgate_server.rpc import destination_messages as messages
from headgate_server.rpc.pages import bad_token, name_after, name_token, page_size
from headgate_server.rpc.pipeline import query
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary
from headgate_server.store import Destinations

SERVICE = "headgate.v1.DestinationService"
_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1_000


class DestinationServicer:
    """Creates, shows, changes, pauses and replays destinations."""

    def __init__(self, destinations: Destinations, config: DeliveryConfig):
        """`config` has the networks that webhooks may reach, and the address of the NATS server."""
        self._destinations = destinations
        self._networks = config.networks
        self._has_nats = config.nats.url is not None

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        return (
            _method("CreateDestination", RawCreateDestinationRequest, pb.CreateDestinationResponse, self.create),
            _method("GetDestination", pb.GetDestinationRequest, pb.GetDestinationResponse, self.get),
            _method("ListDestinations", pb.ListDestinationsRequest, pb.ListDestinationsResponse, self.list),
            _method("UpdateDestination", RawUpdateDestinationRequest, pb.UpdateDestinationResponse, self.update),
            _method("DeleteDestination", pb.DeleteDestinationRequest, pb.DeleteDestinationResponse, self.delete),
            _method("PauseDestination", pb.PauseDestinationRequest, pb.PauseDestinationResponse, self.pause),
            _method("ResumeDestination", pb.ResumeDestinationRequest, pb.ResumeDestinationResponse, self.resume),
            _method("ReplayDestination", RawReplayDestinationRequest, pb.ReplayDestinationResponse, self.replay),
            _method("RotateSecret", pb.RotateSecretRequest, pb.RotateSecretResponse, self.rotate_secret),
            _method("ListFailures", pb.ListFailuresRequest, pb.ListFailuresResponse, self.list_failures),
            _method("RetryFailure", pb.RetryFailureRequest, pb.RetryFailureResponse, self.retry),
            _method("SkipFailure", pb.SkipFailureRequest, pb.SkipFailureResponse, self.skip),
        )

    async def create(self, call: Call, request: RawCreateDestinationRequest) -> pb.CreateDestinationResponse:
        """Create a destination."""
        message = request.destination
        if request.HasField("json"):
            body = bodies.read_object(request.json.data)
            if type(body.get("start")) is int:
                body["start"] = str(body["start"])
            bodies.fill(message, body)
        settings = messages.settings_of(message, self._networks)
        if isinstance(settings.target, JetStream) and not self._has_nats:
            raise InvalidRequest(
                "This service has no NATS server: its operator sets --nats-url.",
                reason=Reason.INVALID_FIELD,
                field="jetstream",
            )
        shown = await manage.create(self._destinations.by(call.actor), call.caller.workspace.id, settings)
        return pb.CreateDestinationResponse(destination=messages.shown_message(shown))

    async def get(self, call: Call, request: pb.GetDestinationRequest) -> pb.GetDestinationResponse:
        """Return a destination."""
        status = await self._destinations.get(call.caller.workspace.id, request.id)
        return pb.GetDestinationResponse(destination=messages.destination_message(status))

    async def list(self, call: Call, request: pb.ListDestinationsRequest) -> pb.ListDestinationsResponse:
        """Return one page of destinations."""
        size = page_size(request.page_size, _DEFAULT_PAGE, _LARGEST_PAGE)
        after = name_after(request.page_token)
        statuses = await self._destinations.list(call.caller.workspace.id, size + 1, after)
        page = [messages.destination_message(status) for status in statuses[:size]]
        token = name_token(page[-1].id) if len(statuses) > size else ""
        return pb.ListDestinationsResponse(destinations=page, next_page_token=token)

    async def update(self, call: Call, request: RawUpdateDestinationRequest) -> pb.UpdateDestinationResponse:
        """Change a destination."""
        workspace_id = call.caller.workspace.id
        named = _named(request)
        status = await self._destinations.get(workspace_id, request.id)
        settings = messages.changed_settings(status, request.destination, named, self._networks)

        def change(old: Destination) -> Destination:
            return replace(
                old, name=settings.name, filter=settings.filter, ordering=settings.ordering, target=settings.target
            )

        acting = self._destinations.by(call.actor)
        status = await acting.update(workspace_id, request.id, change)
        if "webhook.headers" in named or ("webhook" in named and request.destination.webhook.headers):
            headers = dict(request.destination.webhook.headers)
            status = await manage.set_headers(acting, workspace_id, request.id, headers)
        return pb.UpdateDestinationResponse(destination=messages.destination_message(status))

    async def delete(self, call: Call, request: pb.DeleteDestinationRequest) -> pb.DeleteDestinationResponse:
        """Remove a destination."""
        await self._destinations.by(call.actor).delete(call.caller.workspace.id, request.id)
        return pb.DeleteDestinationResponse()

    async def pause(self, call: Call, request: pb.PauseDestinationRequest) -> pb.PauseDestinationResponse:
        """Stop delivery."""
        return pb.PauseDestinationResponse(destination=await self._set(call, request.id, State.PAUSED))

    async def resume(self, call: Call, request: pb.ResumeDestinationRequest) -> pb.ResumeDestinationResponse:
        """Start delivery again."""
        return pb.ResumeDestinationResponse(destination=await self._set(call, request.id, State.ACTIVE))

    async def replay(self, call: Call, request: RawReplayDestinationRequest) -> pb.ReplayDestinationResponse:
        """Deliver events again."""
        if request.HasField("json"):
            public = pb.ReplayDestinationRequest()
            body = bodies.read_object(request.json.data)
            if type(instant := body.pop("from", None)) is str:
                getattr(public, "from").FromMicroseconds(query.instant("from", instant))
            bodies.fill(public, body)
        else:
            public = pb.ReplayDestinationRequest.FromString(request.SerializeToString())
        status = await self._replay(call, request.id, public)
        return pb.ReplayDestinationResponse(destination=messages.destination_message(status))

    async def rotate_secret(self, call: Call, request: pb.RotateSecretRequest) -> pb.RotateSecretResponse:
        """Make a new secret."""
        shown = await manage.rotate(self._destinations.by(call.actor), call.caller.workspace.id, request.id)
        return pb.RotateSecretResponse(destination=messages.shown_message(shown))

    async def list_failures(self, call: Call, request: pb.ListFailuresRequest) -> pb.ListFailuresResponse:
        """Return one page of failures."""
        size = page_size(request.page_size, _DEFAULT_PAGE, _LARGEST_PAGE)
        after = name_after(request.page_token)
        if after and not after.isdigit():
            raise bad_token()
        failures = await self._destinations.failures(call.caller.workspace.id, request.id, size + 1, int(after or 0))
        page = [messages.failure_message(failure) for failure in failures[:size]]
        token = name_token(str(page[-1].sequence)) if len(failures) > size else ""
        return pb.ListFailuresResponse(failures=page, next_page_token=token)

    async def retry(self, call: Call, request: pb.RetryFailureRequest) -> pb.RetryFailureResponse:
        """Try a failed event again."""
        failure = await self._destinations.by(call.actor).retry(call.caller.workspace.id, request.id, request.sequence)
        return pb.RetryFailureResponse(failure=messages.failure_message(failure))

    async def skip(self, call: Call, request: pb.SkipFailureRequest) -> pb.SkipFailureResponse:
        """Skip a failed event."""
        failure = await self._destinations.by(call.actor).skip(call.caller.workspace.id, request.id, request.sequence)
        return pb.SkipFailureResponse(failure=messages.failure_message(failure))

    async def _set(self, call: Call, destination_id: str, state: State) -> destination_pb2.Destination:
        status = await self._destinations.by(call.actor).set_state(call.caller.workspace.id, destination_id, state)
        return messages.destination_message(status)

    async def _replay(self, call: Call, destination_id: str, request: pb.ReplayDestinationRequest) -> Status:
        what = request.WhichOneof("what")
        return await manage.replay(
            self._destinations.by(call.actor),
            call.caller.workspace.id,
            destination_id,
            set_aside=request.set_aside,
            after=request.after_sequence if what == "after_sequence" else None,
            since=decode.microseconds(getattr(request, "from"), "from") if what == "from" else None,
        )


def _method(name: str, request: type[Any], response: type[Any], handler: Any) -> AnyMethod:
    return Method(
        service=SERVICE,
        name=name,
        request=request,
        response=response,
        access=Needs((Scope.ADMIN,)),
        kind=Unary(handler),
    )


def _named(request: RawUpdateDestinationRequest) -> list[str]:
    """Return the paths of the fields to change: those of the mask, or without a mask those that the request has."""
    mask = list(request.update_mask.paths)
    if request.HasField("json"):
        body = bodies.read_object(request.json.data)
        bodies.fill(request.destination, body)
        sent = list(bodies.paths(request.destination.DESCRIPTOR, body))
    else:
        sent = list(_set_fields(request.destination))
    named = messages.leave_output_out(mask or sent)
    if not named:
        raise InvalidRequest("The request names nothing to change.", reason=Reason.MISSING_FIELD, field="update_mask")
    return named


def _set_fields(message: Any) -> list[str]:
    fields = []
    for field, value in message.ListFields():
        nested = field.message_type is not None and not field.is_repeated
        if nested and not field.message_type.file.package.startswith("google."):
            fields += [f"{field.name}.{rest}" for rest in _set_fields(value)]
        else:
            fields.append(field.name)
    return fields
