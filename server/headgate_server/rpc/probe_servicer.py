"""headgate.v1.ProbeService: what a load balancer asks over HTTP."""

from collections.abc import Sequence

from headgate.v1.bridge_view_pb2 import GetHealthResponse, GetReadinessResponse
from headgate_server.rpc.call import Call, Method
from headgate_server.store import Store

SERVICE = "headgate.v1.ProbeService"


class ProbeServicer:
    """Says whether the process runs, and whether it can store events."""

    def __init__(self, store: Store):
        self._store = store

    def methods(self) -> Sequence[Method]:
        """Return the service's methods; they alone need no key."""
        return (
            Method(service=SERVICE, name="GetHealth", scope=None, handler=self.get_health),
            Method(service=SERVICE, name="GetReadiness", scope=None, handler=self.get_readiness),
        )

    async def get_health(self, call: Call) -> bytes:
        """Answer: who can answer is alive."""
        return call.answer(lambda: GetHealthResponse(status="ok"), lambda: {"status": "ok"})

    async def get_readiness(self, call: Call) -> bytes:
        """Answer once the store answers; its `Unavailable` is the call's."""
        await self._store.ping()
        return call.answer(lambda: GetReadinessResponse(status="ready"), lambda: {"status": "ready"})
