"""headgate.v1.WorkspaceService."""

from collections.abc import Sequence

from headgate.v1.workspace_service_pb2 import GetUsageRequest, GetUsageResponse
from headgate_server.core import timestamps
from headgate_server.core.model import Scope
from headgate_server.rpc import wire
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary
from headgate_server.store import Limits

SERVICE = "headgate.v1.WorkspaceService"


class WorkspaceServicer:
    """Shows a workspace's usage."""

    def __init__(self, limits: Limits):
        self._limits = limits

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        return (
            Method(
                service=SERVICE,
                name="GetUsage",
                request=GetUsageRequest,
                response=GetUsageResponse,
                access=Needs((Scope.EVENTS_READ,)),
                kind=Unary(self.get_usage),
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
