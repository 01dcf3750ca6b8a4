"""Access: every method of the descriptor, with every kind of key."""

import importlib
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.empty_pb2 import Empty

import headgate.v1
from headgate.v1 import (
    admin_service_pb2,
    bridge_view_pb2,
    cloudevent_service_pb2,
    compat_service_pb2,
    destination_service_pb2,
    event_service_pb2,
    event_type_service_pb2,
    ingest_service_pb2,
    ledger_service_pb2,
    rejection_service_pb2,
    workspace_service_pb2,
)
from headgate.v1.event_service_pb2 import GetEventRequest, ListEventsRequest
from headgate_bridge.openapi.tables import WORKSPACE
from headgate_server.access import admin
from headgate_server.access.auth import Authenticator
from headgate_server.app.at_store import at_store
from headgate_server.core.audit import RESERVED
from headgate_server.core.errors import Unauthenticated, Unavailable
from headgate_server.core.model import Scope
from headgate_server.process.clock import system_clock
from headgate_server.rpc.pipeline.method import AnyMethod, Needs, Operates, OwnWords, Public
from headgate_server.store import Store
from tests.support.calls import Caller, Refusal, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.openapi import OPERATIONS

FILES = (
    admin_service_pb2,
    bridge_view_pb2,
    cloudevent_service_pb2,
    compat_service_pb2,
    destination_service_pb2,
    event_service_pb2,
    event_type_service_pb2,
    ingest_service_pb2,
    ledger_service_pb2,
    rejection_service_pb2,
    workspace_service_pb2,
)
"""The files of headgate.v1 that hold services; a test checks that there are no others."""

PROBES = "/headgate.v1.ProbeService/"
DOCS = "/headgate.v1.DocsService/"
CHECK_KEY = PROBES + "CheckKey"
"""The bridge's check of a key: any valid key is enough, with any scopes."""
HANDSHAKE = "/headgate.v1.CloudEventService/Handshake"
"""A webhook's sender asks before it has a key."""
COMPAT = "/headgate.v1.CompatService/Receive"
"""Its scopes are those of the vendors' endpoints, which the tests of the receivers check."""


def _descriptors() -> dict[str, MethodDescriptor]:
    return {
        f"/{service.full_name}/{method.name}": method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


DESCRIPTORS = _descriptors()
GUARDED = [
    pytest.param(name, id=name.rpartition(".")[2])
    for name in DESCRIPTORS
    if not name.startswith((PROBES, DOCS, HANDSHAKE, COMPAT))
]

ADMIN = "/headgate.v1.AdminService/"
"""For operators of the service: the scope is that of the reserved workspace."""

NEEDED = {
    **{
        f"{ADMIN}{name}": Scope.ADMIN
        for name in (
            *("CreateManagedWorkspace", "GetManagedWorkspace", "ListManagedWorkspaces", "UpdateManagedWorkspace"),
            *("CreateKey", "GetKey", "ListKeys", "UpdateKey", "RotateKey", "RevokeKey"),
        )
    },
    "/headgate.v1.IngestService/Ingest": Scope.EVENTS_WRITE,
    "/headgate.v1.IngestService/BatchIngest": Scope.EVENTS_WRITE,
    "/headgate.v1.IngestService/StreamIngest": Scope.EVENTS_WRITE,
    "/headgate.v1.CloudEventService/Publish": Scope.EVENTS_WRITE,
    "/headgate.v1.CloudEventService/BatchPublish": Scope.EVENTS_WRITE,
    "/headgate.v1.CloudEventService/Receive": Scope.EVENTS_WRITE,
    "/headgate.v1.EventService/GetEvent": Scope.EVENTS_READ,
    "/headgate.v1.EventService/ListEvents": Scope.EVENTS_READ,
    "/headgate.v1.EventService/Subscribe": Scope.EVENTS_READ,
    "/headgate.v1.LedgerService/GetHead": Scope.LEDGER_READ,
    "/headgate.v1.LedgerService/VerifyLedger": Scope.LEDGER_READ,
    **{
        f"/headgate.v1.DestinationService/{name}": Scope.ADMIN
        for name in (
            *("CreateDestination", "GetDestination", "ListDestinations", "UpdateDestination", "DeleteDestination"),
            *("PauseDestination", "ResumeDestination", "ReplayDestination", "RotateSecret"),
            *("ListFailures", "RetryFailure", "SkipFailure"),
        )
    },
    "/headgate.v1.RejectionService/GetRejection": Scope.EVENTS_READ,
    "/headgate.v1.RejectionService/ListRejections": Scope.EVENTS_READ,
    "/headgate.v1.RejectionService/ReplayRejection": Scope.EVENTS_WRITE,
    "/headgate.v1.RejectionService/ReplayRejections": Scope.EVENTS_WRITE,
    "/headgate.v1.WorkspaceService/GetUsage": Scope.EVENTS_READ,
    "/headgate.v1.WorkspaceService/GetWorkspace": Scope.EVENTS_READ,
    "/headgate.v1.WorkspaceService/UpdateWorkspace": Scope.ADMIN,
    "/headgate.v1.EventTypeService/PutEventType": Scope.ADMIN,
    "/headgate.v1.EventTypeService/DeleteEventType": Scope.ADMIN,
    "/headgate.v1.EventTypeService/GetEventType": Scope.EVENTS_READ,
    "/headgate.v1.EventTypeService/ListEventTypes": Scope.EVENTS_READ,
}
"""The scope that each method needs: written here a second time, deliberately."""


@pytest.fixture
async def served(store_url: str) -> AsyncIterator[dict[str, AnyMethod]]:
    """Return the methods that are served, by name. Commands at a store have the same ones."""
    async with at_store(store_url) as (_, methods):
        yield {method.full_name: method for method in methods}


@on_sqlite
async def test_every_rpc_of_the_descriptor_is_served(served: dict[str, AnyMethod]) -> None:
    assert served.keys() == DESCRIPTORS.keys()
    declared = {name: method.access for name, method in served.items()}
    assert {name: access for name, access in declared.items() if isinstance(access, Needs)} == {
        **{name: Needs((scope,)) for name, scope in NEEDED.items() if not name.startswith(ADMIN)},
        CHECK_KEY: Needs(()),
    }
    assert all(isinstance(access, Operates) == name.startswith(ADMIN) for name, access in declared.items())
    public = (PROBES, DOCS, HANDSHAKE)
    assert all(name.startswith(public) for name, access in declared.items() if isinstance(access, Public))
    assert [name for name, access in declared.items() if isinstance(access, OwnWords)] == [COMPAT]


@on_sqlite
async def test_the_description_names_the_workspace_of_a_call_where_a_method_takes_it(
    served: dict[str, AnyMethod],
) -> None:
    taken = {name.rpartition("/")[2] for name, method in served.items() if isinstance(method.access, Needs)}
    for operation in OPERATIONS:
        method = operation.id[0].upper() + operation.id[1:].partition("_")[0]
        named = any(each["name"] == WORKSPACE for each in operation.value["parameters"])
        assert named == (not operation.is_vendors and method in taken), operation.id
        assert not named or "404" in operation.value["responses"]


def test_no_service_is_forgotten() -> None:
    """The files named above are all that hold services."""
    for module in pkgutil.iter_modules(headgate.v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"headgate.v1.{module.name}").DESCRIPTOR
            known = any(file.name == one.DESCRIPTOR.name for one in FILES)
            assert known is bool(file.services_by_name), file.name


Ask = Callable[..., Awaitable[Refusal]]


@pytest.fixture
async def ask(service: Service) -> AsyncIterator[Ask]:
    """Return a function that calls a method with given metadata and returns the refusal."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:

        def refusal(method: str, **metadata: str) -> Awaitable[Refusal]:
            call = channel.unary_unary(method, response_deserializer=Empty.FromString)
            return refused(call(b"", metadata=[(name.replace("_", "-"), value) for name, value in metadata.items()]))

        yield refusal


@pytest.mark.parametrize("method", GUARDED)
async def test_keys_that_open_nothing(service: Service, ask: Ask, method: str) -> None:
    key = await service.key()
    expired = await admin.create_key(
        service.store.directory,
        "acme",
        frozenset({Scope.ADMIN}),
        lifetime=1_000_000,
        clock=lambda: system_clock() - 2_000_000,
    )
    revoked = await service.key()
    await admin.revoke_key(service.store.directory, (await service.store.directory.list_keys())[-1].id)
    for name, metadata, reason in (
        ("no key", {}, "MISSING_API_KEY"),
        ("an empty key", {"x_api_key": ""}, "MISSING_API_KEY"),
        ("another kind of authorization", {"authorization": "Basic aGc6aGc="}, "MISSING_API_KEY"),
        ("a bearer of nothing", {"authorization": "Bearer "}, "MISSING_API_KEY"),
        ("not one of ours", {"authorization": "Bearer abc"}, "INVALID_API_KEY"),
        ("one that never was", {"x_api_key": "hg_" + "x" * 43}, "INVALID_API_KEY"),
        ("a long one", {"x_api_key": "hg_" + "x" * 5_000}, "INVALID_API_KEY"),
        ("one letter more", {"x_api_key": key + "x"}, "INVALID_API_KEY"),
        ("one letter less", {"authorization": f"Bearer {key[:-1]}"}, "INVALID_API_KEY"),
        ("other case", {"x_api_key": key.swapcase()}, "INVALID_API_KEY"),
        ("expired", {"x_api_key": expired}, "INVALID_API_KEY"),
        ("revoked", {"x_api_key": revoked}, "INVALID_API_KEY"),
    ):
        refusal = await ask(method, **metadata)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason), name
        assert key not in refusal.message


@pytest.mark.parametrize("method", GUARDED)
@on_sqlite
async def test_a_key_of_other_scopes(service: Service, ask: Ask, method: str) -> None:
    needed = NEEDED[method]
    others = [scope for scope in Scope if scope not in (needed, Scope.ADMIN)]
    if method.startswith(ADMIN):
        of_operators = await service.key(Scope.EVENTS_READ, Scope.LEDGER_READ, workspace=RESERVED)
        for key in (of_operators, await service.key(Scope.ADMIN)):
            refusal = await ask(method, x_api_key=key)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MISSING_SCOPE")
            assert refusal.message == 'The API key lacks the scope "admin" of the workspace _headgate.'
        return
    refusal = await ask(method, x_api_key=await service.key(*others))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MISSING_SCOPE")
    assert f'"{needed}"' in refusal.message


@pytest.mark.parametrize("method", GUARDED)
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
@on_sqlite
async def test_the_scope_is_enough(service: Service, method: str, header: str) -> None:
    """With the scope, or with `admin`, the call reaches the handler."""
    for scope in (NEEDED[method], Scope.ADMIN):
        key = await service.key(scope, workspace=RESERVED if method.startswith(ADMIN) else "acme")
        metadata = ((header, f"Bearer {key}" if header == "authorization" else key),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
            if DESCRIPTORS[method].server_streaming:
                stream = channel.unary_stream(method)(b"", metadata=metadata)
                assert await stream.read() is not grpc.aio.EOF
                continue
            call = channel.unary_unary(method)(b"", metadata=metadata)
            code = await call.code()
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=name.rpartition("/")[2])
        for name in DESCRIPTORS
        if name.startswith(PROBES) and name != CHECK_KEY
    ],
)
@on_sqlite
async def test_probes_need_no_key(service: Service, name: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        assert await channel.unary_unary(name)(b"")


async def test_another_workspaces_events(service: Service, caller: Caller) -> None:
    (result,) = (await caller.batch(event("k"))).results
    async with service.caller(workspace="other") as other:
        refusal = await refused(other.events.GetEvent(GetEventRequest(id=result.id), metadata=other.metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")
        for request in (
            ListEventsRequest(),
            ListEventsRequest(newest_first=True),
            ListEventsRequest(source="shop", idempotency_key="k"),
            ListEventsRequest(type="order.*"),
        ):
            assert not (await other.events.ListEvents(request, metadata=other.metadata)).events
        assert await other.stored() == 0
        (own,) = (await other.batch(event("k", {"n": 2}))).results
        assert (own.status, own.sequence) == ("accepted", 1)


@pytest.mark.parametrize("spelled", ["BEARER {}", "bearer {}", "bEaReR   {}", "Bearer {} "])
@on_sqlite
async def test_the_scheme_is_accepted_in_any_case(service: Service, ask: Ask, spelled: str) -> None:
    """RFC 9110, 11.1. A key that was read is refused here only for its scope."""
    key = await service.key(Scope.EVENTS_READ)
    refusal = await ask("/headgate.v1.LedgerService/GetHead", authorization=spelled.format(key))
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


@on_sqlite
async def test_the_bearer_counts_where_both_are_sent(service: Service, ask: Ask) -> None:
    good, bad = await service.key(Scope.EVENTS_READ), "hg_" + "x" * 43
    refusal = await ask("/headgate.v1.LedgerService/GetHead", authorization=f"bearer {good}", x_api_key=bad)
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    refusal = await ask("/headgate.v1.LedgerService/GetHead", authorization=f"Bearer {bad}", x_api_key=good)
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


class _Clock:
    """A clock that only a test moves; `seconds` is its timer."""

    def __init__(self) -> None:
        self.now = system_clock()

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        return self.now / 1e6


async def test_a_revocation_works_within_five_seconds(store: Store) -> None:
    clock = _Clock()
    authenticator = Authenticator(store.directory, clock, clock.seconds)
    key = await admin.create_key(store.directory, "acme", frozenset({Scope.ADMIN}), clock=clock)
    principal = await authenticator.authenticate(key)
    await admin.revoke_key(store.directory, principal.key_id, clock)
    clock.now += 5_000_000
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(key)


async def test_an_expiry_works_at_once(store: Store) -> None:
    clock = _Clock()
    authenticator = Authenticator(store.directory, clock, clock.seconds)
    key = await admin.create_key(store.directory, "acme", frozenset({Scope.ADMIN}), 1_000_000, clock)
    clock.now += 999_999
    assert (await authenticator.authenticate(key)).workspace.name == "acme"
    clock.now += 1
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(key)


async def test_a_key_made_after_it_was_refused(store: Store) -> None:
    """A look-up that found nothing is cached too, only for a few seconds."""
    clock = _Clock()
    authenticator = Authenticator(store.directory, clock, clock.seconds)
    other = Authenticator(store.directory, clock, clock.seconds)
    key = await admin.create_key(store.directory, "acme", frozenset({Scope.ADMIN}), clock=clock)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(key + "x")
    for _ in range(2):
        assert (await authenticator.authenticate(key)) == (await other.authenticate(key))
        clock.now += 5_000_000


async def test_a_look_up_that_fails_is_no_refusal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await admin.create_key(store.directory, "acme", frozenset({Scope.ADMIN}))
    authenticator = Authenticator(store.directory)

    async def lost(_: Sequence[bytes]) -> None:
        raise Unavailable("The store cannot be reached.")

    with monkeypatch.context() as patched:
        patched.setattr(store.directory, "find_keys", lost)
        with pytest.raises(Unavailable):
            await authenticator.authenticate(key)
    assert (await authenticator.authenticate(key)).workspace.name == "acme"
