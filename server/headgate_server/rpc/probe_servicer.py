"""headgate.v1.ProbeService: the probes of load balancers over HTTP, and the bridge's question about a key."""

from collections.abc import Callable, Sequence

from headgate.v1.bridge_view_pb2 import (
    CheckKeyRequest,
    CheckKeyResponse,
    GetHealthRequest,
    GetHealthResponse,
    GetReadinessRequest,
    GetReadinessResponse,
    JobHealth,
    PartHealth,
)
from headgate_server.background.supervisor import Supervisor
from headgate_server.core.errors import Unavailable
from headgate_server.ingest.readiness import Part, Readiness
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Public, Unary

SERVICE = "headgate.v1.ProbeService"


class ProbeServicer:
    """Says whether the process runs, whether it can store events, and whether a key is valid."""

    def __init__(self, readiness: Readiness, supervisor: Supervisor, parts: Sequence[Callable[[], Part]]):
        """`parts` return the states of the parts beside Envoy."""
        self._parts = parts
        self._readiness = readiness
        self._supervisor = supervisor

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods; all but one need no key."""
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
            Method(
                service=SERVICE,
                name="CheckKey",
                request=CheckKeyRequest,
                response=CheckKeyResponse,
                access=Needs(()),
                kind=Unary(self.check_key),
                counted=False,
            ),
        )

    async def get_health(self, call: Call, request: GetHealthRequest) -> GetHealthResponse:
        """Answer: a process that answers is alive."""
        return GetHealthResponse(status="ok")

    async def get_readiness(self, call: Call, request: GetReadinessRequest) -> GetReadinessResponse:
        """Answer if an event can be stored. Otherwise the store's error is the call's error."""
        try:
            await self._readiness.check()
        except Unavailable as error:
            error.metadata = {
                part.name: f"{part.state}: {part.detail}" if part.detail else part.state for part in self._states(call)
            }
            raise
        jobs = [
            JobHealth(name=job.name, state=job.state, failures=job.failures, last_error=job.last_error)
            for job in self._supervisor.statuses()
        ]
        parts = [PartHealth(name=name, state=state, detail=detail) for name, state, detail in self._states(call)]
        return GetReadinessResponse(status="ready", jobs=jobs, parts=parts)

    def _states(self, call: Call) -> Sequence[Part]:
        envoy = Part("envoy", "serving") if call.bridged else Part("envoy", "unknown", "It was not asked.")
        return [*(part() for part in self._parts), envoy]

    async def check_key(self, call: Call, request: CheckKeyRequest) -> CheckKeyResponse:
        """Answer: a call with an invalid key is refused before this method."""
        return CheckKeyResponse()
