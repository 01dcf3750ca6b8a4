"""headgate.v1.WorkspaceService."""

from collections.abc import Sequence

from headgate.v1.bridge_view_pb2 import RawUpdateWorkspaceRequest
from headgate.v1.workspace_service_pb2 import (
    GetUsageRequest,
    GetUsageResponse,
    GetWorkspaceRequest,
    GetWorkspaceResponse,
    UpdateWorkspaceRequest,
    UpdateWorkspaceResponse,
)
from headgate.v1.workspace_service_pb2 import Workspace as WorkspaceMessage
from headgate_server.core import event_types, timestamps
from headgate_server.core.model import Scope
from headgate_server.ingest.change_event_types import ChangeEventTypes
from headgate_server.rpc import bodies, wire
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary
from headgate_server.store import EventTypes, Limits

SERVICE = "headgate.v1.WorkspaceService"


class WorkspaceServicer:
    """Shows a workspace and its usage, and changes its settings."""

    def __init__(self, limits: Limits, topic: EventTypes, change: ChangeEventTypes):
        self._limits = limits
        self._topic = topic
        self._change = change

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        read = Needs((Scope.EVENTS_READ,))
        return (
            Method(
                service=SERVICE,
                name="GetUsage",
                request=GetUsageRequest,
                response=GetUsageResponse,
                access=read,
                kind=Unary(self.get_usage),
            ),
            Method(
                service=SERVICE,
                name="GetWorkspace",
                request=GetWorkspaceRequest,
                response=GetWorkspaceResponse,
                access=read,
                kind=Unary(self.get_workspace),
            ),
            Method(
                service=SERVICE,
                name="UpdateWorkspace",
                request=RawUpdateWorkspaceRequest,
                response=UpdateWorkspaceResponse,
                access=Needs((Scope.ADMIN,)),
                kind=Unary(self.update_workspace),
            ),
        )

    async def get_usage(self, call: Call, request: GetUsageRequest) -> GetUsageResponse:
        """Return this month's number of stored events in the caller's workspace, and its quota."""
        usage = await self._limits.usage(call.caller.workspace.id)
        # The month is that of the store's clock, as for the quota: the next event is counted in it.
        start = timestamps.month_start(usage.month)
        response = GetUsageResponse(used=usage.events, quota=usage.quota)
        wire.set_timestamp(response.period_start, start)
        wire.set_timestamp(response.period_end, timestamps.month(start)[1])
        return response

    async def get_workspace(self, call: Call, request: GetWorkspaceRequest) -> GetWorkspaceResponse:
        """Return the caller's workspace, as it is stored now."""
        workspace = call.caller.workspace
        index = await self._topic.index(workspace.id)
        return GetWorkspaceResponse(workspace=WorkspaceMessage(name=workspace.name, unknown_event_types=index.unknown))

    async def update_workspace(self, call: Call, request: RawUpdateWorkspaceRequest) -> UpdateWorkspaceResponse:
        """Change the settings of the caller's workspace."""
        sent = UpdateWorkspaceRequest(unknown_event_types=request.unknown_event_types)
        if request.HasField("json"):
            body = bodies.read_object(request.json.data)
            body.pop("name", None)  # an answer has it, and nobody can change it
            bodies.fill(sent, body)
        workspace = call.caller.workspace
        unknown = event_types.unknown_of(sent.unknown_event_types)
        await self._change.set_unknown(workspace.id, unknown, call.actor)
        return UpdateWorkspaceResponse(workspace=WorkspaceMessage(name=workspace.name, unknown_event_types=unknown))
