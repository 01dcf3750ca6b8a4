"""The audit over the API: each administrative call is an event with the caller's key and the call's id."""

from typing import Any

import grpc
import orjson
import pytest

from headgate.v1 import destination_service_pb2 as destinations
from headgate.v1 import event_type_service_pb2 as types
from headgate.v1 import rejection_service_pb2 as rejections
from headgate.v1 import workspace_service_pb2 as workspaces
from headgate.v1.event_service_pb2 import ListEventsRequest, SubscribeRequest
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate_server.access import admin
from headgate_server.core.audit import RESERVED
from headgate_server.core.errors import PermissionDenied
from headgate_server.core.model import EventQuery, Scope, Submission
from headgate_server.ingest.ingest import Ingest
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.waiting import until

_REQUEST = "request-of-the-audit"


class Office:
    """Calls methods as an operator of a workspace, each with its own request id, and reads the acts."""

    def __init__(self, service: Service, caller: Caller):
        self.service = service
        self.caller = caller
        self.calls = 0

    async def call(self, name: str, request: Any, answer: type[Any]) -> Any:
        """Call a method, such as "EventTypeService/PutEventType"."""
        self.calls += 1
        metadata = (("x-request-id", f"{_REQUEST}-{self.calls}"),)
        body = request.SerializeToString()
        return await self.caller.send(body, answer, method=f"/headgate.v1.{name}", metadata=metadata)

    async def acts(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the acts of this office's calls: type and data."""
        workspace = await self.service.store.directory.workspace(RESERVED)
        assert workspace is not None
        page = await self.service.store.ledgers.events(EventQuery(workspace_id=workspace.id, limit=1_000))
        told = [(each.type, orjson.loads(each.data or b"")) for each in page.events]
        return [(name, data) for name, data in told if data.get("request_id", "").startswith(_REQUEST)]


@pytest.fixture
def office(service: Service, caller: Caller) -> Office:
    return Office(service, caller)


@on_sqlite
async def test_every_administrative_call_is_an_act(office: Office) -> None:
    """Each call of the three services, and each replay: one act with the key and the id of the call."""
    put = types.PutEventTypeRequest(event_type="t", schema_json=b"{}")
    await office.call("EventTypeService/PutEventType", put, types.PutEventTypeResponse)
    gone = types.DeleteEventTypeRequest(event_type="t")
    await office.call("EventTypeService/DeleteEventType", gone, types.DeleteEventTypeResponse)
    change = workspaces.UpdateWorkspaceRequest(unknown_event_types="warn")
    await office.call("WorkspaceService/UpdateWorkspace", change, workspaces.UpdateWorkspaceResponse)

    create = destinations.CreateDestinationRequest()
    create.destination.name = "crm"
    create.destination.webhook.url = "http://nobody.invalid/"
    create.destination.start = "beginning"
    made = await office.call("DestinationService/CreateDestination", create, destinations.CreateDestinationResponse)
    one = made.destination.id
    update = destinations.UpdateDestinationRequest(id=one)
    update.destination.name = "other"
    await office.call("DestinationService/UpdateDestination", update, destinations.UpdateDestinationResponse)
    replay = destinations.ReplayDestinationRequest(id=one, set_aside=True)
    await office.call("DestinationService/ReplayDestination", replay, destinations.ReplayDestinationResponse)
    await office.caller.batch(event("a"))
    service, workspace = office.service, await admin.find_workspace(office.service.store.directory, "acme")
    (failure,) = await until(lambda: service.store.destinations.failures(workspace.id, one, 10))
    retry = destinations.RetryFailureRequest(id=one, sequence=failure.sequence)
    await office.call("DestinationService/RetryFailure", retry, destinations.RetryFailureResponse)
    skip = destinations.SkipFailureRequest(id=one, sequence=failure.sequence)
    await office.call("DestinationService/SkipFailure", skip, destinations.SkipFailureResponse)
    for verb, request, answer in (
        ("PauseDestination", destinations.PauseDestinationRequest(id=one), destinations.PauseDestinationResponse),
        ("ResumeDestination", destinations.ResumeDestinationRequest(id=one), destinations.ResumeDestinationResponse),
        ("RotateSecret", destinations.RotateSecretRequest(id=one), destinations.RotateSecretResponse),
        ("DeleteDestination", destinations.DeleteDestinationRequest(id=one), destinations.DeleteDestinationResponse),
    ):
        await office.call(f"DestinationService/{verb}", request, answer)

    await office.caller.batch(event(type=""))
    listing = rejections.ListRejectionsRequest()

    async def refused_event() -> Any:
        found = await office.call("RejectionService/ListRejections", listing, rejections.ListRejectionsResponse)
        return list(found.rejections)

    (rejection,) = await until(refused_event)
    edited = rejections.ReplayRejectionRequest(id=rejection.id, validate_only=True)
    edited.event.type = "t"
    for validate_only in (True, False):
        edited.validate_only = validate_only
        await office.call("RejectionService/ReplayRejection", edited, rejections.ReplayRejectionResponse)
    await office.caller.batch(event(type=""))
    await until(refused_event_of_two(office))
    everything = rejections.ReplayRejectionsRequest()
    await office.call("RejectionService/ReplayRejections", everything, rejections.ReplayRejectionsResponse)

    acts = await office.acts()
    assert [name for name, _ in acts] == [
        *("event_type.put", "event_type.deleted", "workspace.settings_changed"),
        *("destination.created", "destination.updated", "destination.replayed"),
        *("delivery.retried", "delivery.skipped", "destination.paused", "destination.resumed"),
        *("destination.secret_rotated", "destination.deleted"),
        *("rejection.replay_requested", "rejection.replay_requested"),
    ]
    (key,) = await service.store.directory.list_keys(workspace.id)
    for _, data in acts:
        assert data["actor"] == {"kind": "key", "id": key.id}
        assert data["workspace"] == "acme"
    assert len({data["request_id"] for _, data in acts}) == len(acts)
    assert acts[-2][1]["after"] == {"rejections": [rejection.id], "edited": True}


def refused_event_of_two(office: Office) -> Any:
    """Return what waits for the second rejection."""

    async def seen() -> bool:
        listing = rejections.ListRejectionsRequest(replayed=False)
        found = await office.call("RejectionService/ListRejections", listing, rejections.ListRejectionsResponse)
        return len(found.rejections) == 1

    return seen


@on_sqlite
async def test_nobody_writes_events_of_the_reserved_workspace(service: Service) -> None:
    """Not even its operator, and not by a key that another version made. Its own keys read it as their scopes say."""
    async with service.caller(Scope.ADMIN, workspace=RESERVED) as operator:
        before = await operator.stored()
        refusal = await refused(operator.batch(event("a")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MISSING_SCOPE")
        refusal = await refused(
            operator.send(
                rejections.ReplayRejectionsRequest().SerializeToString(),
                BatchIngestRequest,
                method="/headgate.v1.RejectionService/ReplayRejections",
            )
        )
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
        assert await operator.stored() == before
        page = await operator.events.ListEvents(ListEventsRequest(type="key.*"), metadata=operator.metadata)
        assert [one.type for one in page.events] == ["key.created"]

    async with service.caller(Scope.LEDGER_READ, workspace=RESERVED) as auditor:
        assert await auditor.stored() > before
        refusal = await refused(auditor.events.ListEvents(ListEventsRequest(), metadata=auditor.metadata))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED

    # An ordinary operator sees nothing of it.
    async with service.caller(Scope.ADMIN) as other:
        assert not (await other.events.ListEvents(ListEventsRequest(), metadata=other.metadata)).events
        stream = other.events.Subscribe(SubscribeRequest(after_sequence=0), metadata=other.metadata)
        assert (await stream.read()).WhichOneof("content") == "caught_up"
        stream.cancel()


@on_sqlite
async def test_the_use_case_refuses_too(service: Service) -> None:
    """Commands at the store have no key: they pass the use case alone."""
    await service.key()
    workspace = await admin.find_workspace(service.store.directory, RESERVED)
    ingest = Ingest(None, None, None, None)  # type: ignore[arg-type]
    with pytest.raises(PermissionDenied, match="Only the service itself"):
        await ingest.take(workspace, Submission(workspace_id=workspace.id, slots=[]))
