"""headgate.v1.ProbeService: what a load balancer asks over HTTP."""

from collections.abc import Sequence

from headgate.v1.bridge_view_pb2 import (
    GetHealthRequest,
    GetHealthResponse,
    GetReadinessRequest,
    GetReadinessResponse,
)
from headgate_server.ingest.readiness import Readiness
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Public, Unary

SERVICE = "headgate.v1.ProbeService"


class ProbeServicer:
    """Says whether the process runs, and whether it can store events."""

    def __init__(self, readiness: Readiness):
        self._readiness = readiness

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods; they alone need no key."""
        return (
            Method(
                service=SERVICE,
                name="GetHealth",
                request=GetHealthRequest,
                response=GetHealthResponse,
                access=Public(),
                kind=Unary(self.get_health),
            ),
            Method(
                service=SERVICE,
                name="GetReadiness",
                request=GetReadinessRequest,
                response=GetReadinessResponse,
                access=Public(),
                kind=Unary(self.get_readiness),
            ),
        )

    async def get_health(self, call: Call, request: GetHealthRequest) -> GetHealthResponse:
        """Answer: who can answer is alive."""
        return GetHealthResponse(status="ok")

    async def get_readiness(self, call: Call, request: GetReadinessRequest) -> GetReadinessResponse:
        """Answer if an event can be stored; what the store says otherwise is the call's error."""
        await self._readiness.check()
        return GetReadinessResponse(status="ready")
