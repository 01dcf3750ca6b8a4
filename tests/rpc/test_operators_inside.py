"""Calls of an operator inside a workspace, which the header Headgate-Workspace names."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import orjson
import pytest

from headgate.v1 import admin_service_pb2, event_type_service_pb2
from headgate.v1.admin_service_pb2_grpc import AdminServiceStub
from headgate.v1.event_service_pb2 import ListEventsRequest, SubscribeRequest
from headgate.v1.event_type_service_pb2_grpc import EventTypeServiceStub
from headgate.v1.ingest_service_pb2 import IngestRequest
from headgate_server.access import admin
from headgate_server.core.audit import RESERVED
from headgate_server.core.model import EventQuery, Scope
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite

pytestmark = on_sqlite
_DENIED, _MISSING, _INVALID = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
)


@pytest.fixture
async def operator(service: Service) -> AsyncIterator[Caller]:
    async with service.caller(Scope.ADMIN, workspace=RESERVED) as caller:
        yield caller


def inside(caller: Caller, *workspaces: str) -> Any:
    """Return the metadata of a call in a workspace."""
    return [*caller.metadata, *(("headgate-workspace", one) for one in workspaces)]


async def test_an_operator_works_in_each_workspace(service: Service, operator: Caller) -> None:
    """As a key of the workspace with the scope admin would. Its acts are those of the operator's key."""
    async with service.caller() as acme, service.caller(workspace="other") as other:
        await acme.batch(event("a"))
        await other.batch(event("b"), event("c"))
        for name, count in (("acme", 1), ("other", 2)):
            listed = await operator.events.ListEvents(ListEventsRequest(), metadata=inside(operator, name))
            assert len(listed.events) == count
        types = EventTypeServiceStub(operator._channel)
        put = event_type_service_pb2.PutEventTypeRequest(event_type="order", schema_json=b"{}")
        await types.PutEventType(put, metadata=inside(operator, "acme"))
        stream = operator.events.Subscribe(SubscribeRequest(after_sequence=0), metadata=inside(operator, "acme"))
        first = await stream.read()
        assert first.event.sequence == 1
        stream.cancel()
        own = await acme.events.ListEvents(ListEventsRequest(), metadata=inside(acme, "acme"))
        assert len(own.events) == 1
    reserved = await admin.find_workspace(service.store.directory, RESERVED)
    acts = (await service.store.ledgers.events(EventQuery(workspace_id=reserved.id, limit=100))).events
    (key, *_) = await service.store.directory.list_keys(reserved.id)
    told = orjson.loads(acts[-1].data or b"")
    assert (acts[-1].type, told["workspace"]) == ("event_type.put", "acme")
    assert told["actor"] == {"kind": "key", "id": key.id}


async def test_who_may_not(service: Service, operator: Caller) -> None:
    async with (
        service.caller() as acme,
        service.caller(workspace="other") as other,
        service.caller(Scope.EVENTS_READ, workspace=RESERVED) as reader,
    ):
        await other.batch(event("b"))

        def listing(caller: Caller, *names: str) -> Callable[[], Awaitable[Any]]:
            return lambda: caller.events.ListEvents(ListEventsRequest(), metadata=inside(caller, *names))

        keys = admin_service_pb2.ListKeysRequest()
        for call, code in (
            (listing(acme, "other"), _DENIED),
            (listing(acme, RESERVED), _DENIED),
            (listing(acme, "nobody"), _DENIED),
            (listing(reader, "other"), _DENIED),
            (listing(operator, "nobody"), _MISSING),
            (listing(operator, ""), _MISSING),
            (listing(operator, "x" * 3_000), _MISSING),
            (listing(operator, "Acme' OR 1=1"), _MISSING),
            (listing(operator, "acme", "other"), _INVALID),
            (lambda: AdminServiceStub(operator._channel).ListKeys(keys, metadata=inside(operator, "acme")), _DENIED),
            (lambda: operator.ingest.Ingest(IngestRequest(event=event("a")), metadata=operator.metadata), _DENIED),
        ):
            assert (await refused(call())).code is code
        # The same name twice is one name, and the key's own is always right.
        assert not (await listing(operator, "acme", "acme")()).events
        assert (await listing(reader, RESERVED)()).events
