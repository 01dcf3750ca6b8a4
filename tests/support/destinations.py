"""Creates destinations for tests."""

from typing import Any, Self

import grpc
import orjson
from google.api.httpbody_pb2 import HttpBody

from headgate.v1 import bridge_view_pb2, destination_service_pb2
from headgate_server.core.destinations import BEGINNING, EventFilter, Ordering, Secrets, Status, Target, Webhook
from headgate_server.store import Store
from headgate_server.store.destinations import NewDestination
from tests.support.calls import Caller

_SERVICE = "/headgate.v1.DestinationService/"
_BRIDGED = (("x-envoy-original-path", "/v1/destinations"), ("x-headgate-bridge", "1"))

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def new(name: str = "crm", **values: Any) -> NewDestination:
    """Return a new destination: a webhook for every event, from the beginning."""
    target: Target = values.pop("target", None) or Webhook(url=values.pop("url", "https://example.com/hook"))
    wanted = {
        "filter": EventFilter(),
        "ordering": Ordering.PARALLEL,
        "secrets": Secrets(current=SECRET),
        "start": BEGINNING,
    }
    return NewDestination(name=name, target=target, **{**wanted, **values})


async def made(store: Store, workspace: int, name: str = "crm", **values: Any) -> Status:
    """Create a destination."""
    return await store.destinations.create(workspace, new(name, **values))


class Operator:
    """Calls DestinationService like the bridge, with JSON requests and answers."""

    def __init__(self, caller: Caller):
        self._caller = caller

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """Return an operator with the caller's key."""
        return cls(caller)

    async def create(self, body: Any) -> Any:
        """POST /v1/destinations."""
        raw = bridge_view_pb2.RawCreateDestinationRequest(json=_json(body))
        return await self._call("CreateDestination", raw)

    async def update(self, destination_id: str, body: Any, *mask: str) -> Any:
        """PATCH /v1/destinations/{id}."""
        raw = bridge_view_pb2.RawUpdateDestinationRequest(id=destination_id, json=_json(body))
        raw.update_mask.paths.extend(mask)
        return await self._call("UpdateDestination", raw)

    async def replay(self, destination_id: str, body: Any) -> Any:
        """POST /v1/destinations/{id}:replay."""
        raw = bridge_view_pb2.RawReplayDestinationRequest(id=destination_id, json=_json(body))
        return await self._call("ReplayDestination", raw)

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method whose request is not a body."""
        return await self._call(method, getattr(destination_service_pb2, f"{method}Request")(**fields))

    async def get(self, destination_id: str) -> Any:
        """GET /v1/destinations/{id}."""
        return await self.call("GetDestination", id=destination_id)

    async def _call(self, method: str, request: Any) -> Any:
        answer = await self._caller.send(
            request.SerializeToString(), HttpBody, method=_SERVICE + method, metadata=_BRIDGED
        )
        return orjson.loads(answer.data)


def _json(body: Any) -> HttpBody:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpBody(content_type="application/json", data=data)


BAD = grpc.StatusCode.INVALID_ARGUMENT
