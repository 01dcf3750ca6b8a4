"""headgate.v1.WorkspaceService."""

from collections.abc import Sequence
from typing import Any

from headgate.v1.workspace_service_pb2 import GetUsageRequest, GetUsageResponse
from headgate_server.core import timestamps
from headgate_server.core.model import Scope
from headgate_server.process.clock import Clock
from headgate_server.rpc import wire
from headgate_server.rpc.call import Call, Method
from headgate_server.store import Store

SERVICE = "headgate.v1.WorkspaceService"


class WorkspaceServicer:
    """Shows what a workspace has used."""

    def __init__(self, store: Store, clock: Clock):
        self._store = store
        self._clock = clock

    def methods(self) -> Sequence[Method]:
        """Return the service's methods."""
        return (Method(service=SERVICE, name="GetUsage", scope=Scope.EVENTS_READ, handler=self.get_usage),)

    async def get_usage(self, call: Call) -> bytes:
        """Return what the caller's workspace has stored this month, and may."""
        call.read(GetUsageRequest)
        usage = await self._store.usage(call.caller.workspace.id)
        month, end = timestamps.month(self._clock())
        start = timestamps.month_start(month)
        used = usage.events if usage.month == month else 0

        def message() -> GetUsageResponse:
            response = GetUsageResponse(used=used, quota=usage.quota)
            wire.set_timestamp(response.period_start, start)
            wire.set_timestamp(response.period_end, end)
            return response

        def json() -> dict[str, Any]:
            quota = {} if usage.quota is None else {"quota": usage.quota}
            return {
                "used": used,
                **quota,
                "period_start": timestamps.format(start),
                "period_end": timestamps.format(end),
            }

        return call.answer(message, json)
