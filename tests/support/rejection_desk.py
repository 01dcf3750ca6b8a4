"""An operator's requests to RejectionService, and what the tests of rejections share."""

from collections.abc import Sequence
from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody

from headgate.v1.bridge_view_pb2 import (
    RawReplayRejectionRequest,
)
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import EventResult
from headgate.v1.rejection_service_pb2 import (
    GetRejectionRequest,
    ListRejectionsRequest,
    ListRejectionsResponse,
    Rejection,
    ReplayRejectionRequest,
    ReplayRejectionsRequest,
    ReplayRejectionsResponse,
)
from headgate.v1.rejection_service_pb2_grpc import RejectionServiceStub
from tests.support.calls import Caller
from tests.support.inprocess import Service
from tests.support.waiting import until

BRIDGED = (("x-envoy-original-path", "/v1/x"), ("x-headgate-bridge", "1"))
SINGLE = "/headgate.v1.IngestService/Ingest"
REPLAY = "/headgate.v1.RejectionService/ReplayRejection"
REPLAY_ALL = "/headgate.v1.RejectionService/ReplayRejections"
BAD = b'{ "source":"shop",\t"data": {"n": 1.50, "u": "\\u00e9 \xc3\xa9"}}'


class Desk:
    """An operator's requests with a caller's key."""

    def __init__(self, caller: Caller):
        self.caller = caller
        self.stub = RejectionServiceStub(caller._channel)

    async def page(self, **request: Any) -> ListRejectionsResponse:
        """Return one page."""
        answer: ListRejectionsResponse = await self.stub.ListRejections(
            ListRejectionsRequest(**request), metadata=self.caller.metadata
        )
        return answer

    async def seen(self, count: int, **request: Any) -> Sequence[Rejection]:
        """Return so many rejections, the oldest first, as soon as they are written."""

        async def there() -> Sequence[Rejection]:
            page = await self.page(page_size=1_000, **request)
            return page.rejections if len(page.rejections) >= count else ()

        found = await until(there)
        assert len(found) == count
        return found[::-1]

    async def get(self, rejection_id: str) -> Rejection:
        """Return one rejection."""
        request = GetRejectionRequest(id=rejection_id)
        answer = await self.stub.GetRejection(request, metadata=self.caller.metadata)
        found: Rejection = answer.rejection
        return found

    async def replay(self, rejection_id: str, edited: Event | None = None, **options: bool) -> EventResult:
        """Replay one rejection."""
        request = ReplayRejectionRequest(id=rejection_id, event=edited, **options)
        answer = await self.stub.ReplayRejection(request, metadata=self.caller.metadata)
        result: EventResult = answer.result
        return result

    async def replay_json(self, rejection_id: str, body: bytes) -> Any:
        """Replay one rejection like the bridge."""
        request = RawReplayRejectionRequest(id=rejection_id, json=HttpBody(data=body))
        answer = await self.caller.send(request.SerializeToString(), HttpBody, method=REPLAY, metadata=BRIDGED)
        return orjson.loads(answer.data)

    async def replay_all(self, **request: Any) -> ReplayRejectionsResponse:
        """Replay all that match."""
        answer: ReplayRejectionsResponse = await self.stub.ReplayRejections(
            ReplayRejectionsRequest(**request), metadata=self.caller.metadata
        )
        return answer


async def receive(caller: Caller, path: str, body: Any) -> None:
    """Send a vendor's request. The answer may be an error."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    metadata = (*BRIDGED, ("x-headgate-method", "POST"), ("x-headgate-path", path))
    method = "/headgate.v1.CompatService/Receive"
    await caller.send(HttpBody(data=data).SerializeToString(), HttpBody, method=method, metadata=metadata)


async def set_quota(service: Service, quota: int | None) -> None:
    """Set the quota of the workspace `acme`."""
    workspace = await service.store.directory.workspace("acme")
    assert workspace is not None
    await service.store.limits.set_quota(workspace.id, quota)


async def keys_of(desk: Desk) -> set[str]:
    """Return the ids of the keys of the newest rejections."""
    return {rejection.key_id for rejection in (await desk.page()).rejections}
