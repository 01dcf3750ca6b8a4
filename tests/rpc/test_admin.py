"""AdminService: workspaces and keys over the API, and the limits of keys."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from headgate.v1 import admin_service_pb2 as pb
from headgate.v1.admin_service_pb2_grpc import AdminServiceStub
from headgate.v1.bridge_view_pb2 import RawCreateKeyRequest, RawUpdateManagedWorkspaceRequest
from headgate.v1.event_service_pb2 import SubscribeRequest
from headgate.v1.ingest_service_pb2 import StreamIngestRequest
from headgate.v1.ledger_service_pb2 import GetHeadRequest
from headgate_server.access import admin
from headgate_server.core.audit import RESERVED
from headgate_server.core.model import EventQuery, Scope
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.waiting import until

BRIDGED = (("x-envoy-original-path", "/v1/admin"), ("x-headgate-bridge", "1"))


class Operator:
    """Calls of AdminService with an operator's key."""

    def __init__(self, caller: Caller):
        self.stub = AdminServiceStub(caller._channel)
        self.caller = caller

    async def __call__(self, name: str, request: Message) -> Any:
        """Call a method, and return its answer."""
        return await getattr(self.stub, name)(request, metadata=self.caller.metadata)

    async def json(self, name: str, request: Message) -> Any:
        """Call a method as the bridge does, and return its JSON."""
        method = f"/headgate.v1.AdminService/{name}"
        answer = await self.caller.send(request.SerializeToString(), HttpBody, method=method, metadata=BRIDGED)
        return orjson.loads(answer.data)

    async def key(self, **fields: Any) -> pb.ApiKey:
        """Create a key of the workspace acme."""
        wanted = pb.ApiKey(**{"workspace": "acme", "scopes": [Scope.EVENTS_WRITE, Scope.EVENTS_READ], **fields})
        made: pb.ApiKey = (await self("CreateKey", pb.CreateKeyRequest(key=wanted))).key
        return made


@pytest.fixture
async def operator(service: Service) -> AsyncIterator[Operator]:
    async with service.caller(Scope.ADMIN, workspace=RESERVED) as caller:
        yield Operator(caller)


async def test_a_workspace_from_creation_to_its_limits(operator: Operator, service: Service) -> None:
    create = pb.CreateManagedWorkspaceRequest()
    create.workspace.name = "acme"
    create.workspace.quota = 2
    create.workspace.rates["scrip"] = "10/second:30"
    made = (await operator("CreateManagedWorkspace", create)).workspace
    assert (made.name, made.quota, dict(made.rates), made.used) == ("acme", 2, {"scrip": "10/second:30"}, 0)
    assert made.unknown_event_types == "accept"
    refusal = await refused(operator("CreateManagedWorkspace", create))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")

    async with service.caller() as acme:
        assert statuses(await acme.batch(event("a"), event("b"), event("c"))) == ["accepted", "accepted", "rejected"]
    update = pb.UpdateManagedWorkspaceRequest(workspace_name="acme")
    update.workspace.rates["flokit"] = "none"
    update.workspace.unknown_event_types = "reject"
    shown = (await operator("UpdateManagedWorkspace", update)).workspace
    assert (shown.quota, dict(shown.rates)) == (2, {"flokit": "none", "scrip": "10/second:30"})
    assert (shown.unknown_event_types, shown.used) == ("reject", 2)
    assert (
        await operator("GetManagedWorkspace", pb.GetManagedWorkspaceRequest(workspace_name="acme"))
    ).workspace == shown

    body = b'{"quota": null, "rates": {"scrip": "default"}, "name": "acme", "used": 7}'
    raw = RawUpdateManagedWorkspaceRequest(workspace_name="acme", json=HttpBody(data=body))
    printed = await operator.json("UpdateManagedWorkspace", raw)
    assert printed["rates"] == {"flokit": "none"}
    assert "quota" not in printed
    masked = pb.UpdateManagedWorkspaceRequest(workspace_name="acme", update_mask={"paths": ["rates"]})
    assert not (await operator("UpdateManagedWorkspace", masked)).workspace.rates
    page = await operator("ListManagedWorkspaces", pb.ListManagedWorkspacesRequest(page_size=1))
    assert [one.name for one in page.workspaces] == [RESERVED]
    rest = pb.ListManagedWorkspacesRequest(page_token=page.next_page_token)
    assert [one.name for one in (await operator("ListManagedWorkspaces", rest)).workspaces] == ["acme"]


@on_sqlite
async def test_what_is_refused(operator: Operator) -> None:
    """Each refusal has its reason and field, and nothing of it is stored."""
    await operator.key()
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    workspace, key = pb.ManagedWorkspace, pb.ApiKey
    good = {"workspace": "acme", "scopes": ["admin"]}
    for name, request, code, reason, field in (
        *(
            ("CreateManagedWorkspace", pb.CreateManagedWorkspaceRequest(workspace=sent), invalid, reason, field)
            for sent, reason, field in (
                (workspace(), "MISSING_FIELD", "name"),
                (workspace(name=RESERVED), "INVALID_FIELD", "name"),
                (workspace(name="_other"), "INVALID_REQUEST", "workspace"),
                (workspace(name="b", quota=-1), "NEGATIVE", "quota"),
                (workspace(name="b", rates={"nobody": "1/second"}), "INVALID_FIELD", "rates"),
                (workspace(name="b", rates={"scrip": "fast"}), "INVALID_FIELD", "rates"),
                (workspace(name="b", unknown_event_types="maybe"), "INVALID_FIELD", "unknown_event_types"),
            )
        ),
        *(
            ("CreateKey", pb.CreateKeyRequest(key=sent), invalid, reason, field)
            for sent, reason, field in (
                (key(scopes=["admin"]), "MISSING_FIELD", "workspace"),
                (key(workspace="b"), "MISSING_FIELD", "scopes"),
                (key(workspace="b", scopes=["all"]), "INVALID_FIELD", "scopes"),
                (key(workspace=RESERVED, scopes=["events:write"]), "INVALID_REQUEST", "scopes"),
                (key(**good, calls="5"), "INVALID_FIELD", "calls"),
                (key(**good, events="0/second"), "INVALID_FIELD", "events"),
                (key(**good, expires_at={"seconds": 1}), "INVALID_REQUEST", "expires_at"),
                (key(**good, name="\0"), "INVALID_FIELD", "name"),
            )
        ),
        ("GetManagedWorkspace", pb.GetManagedWorkspaceRequest(), grpc.StatusCode.NOT_FOUND, "NOT_FOUND", None),
        (
            "UpdateManagedWorkspace",
            pb.UpdateManagedWorkspaceRequest(workspace_name="acme"),
            invalid,
            "MISSING_FIELD",
            "update_mask",
        ),
        (
            "UpdateManagedWorkspace",
            pb.UpdateManagedWorkspaceRequest(workspace_name=RESERVED, workspace=workspace(quota=1)),
            *(invalid, "INVALID_FIELD", "workspace"),
        ),
        (
            "UpdateKey",
            pb.UpdateKeyRequest(id="x", update_mask={"paths": ["digest"]}),
            invalid,
            "UNKNOWN_FIELD",
            "update_mask",
        ),
        ("UpdateKey", pb.UpdateKeyRequest(id="x", key=key(workspace="b")), invalid, "MISSING_FIELD", "update_mask"),
        ("GetKey", pb.GetKeyRequest(id="\0"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "id"),
        ("RevokeKey", pb.RevokeKeyRequest(id="key_0"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "id"),
        ("RotateKey", pb.RotateKeyRequest(id="key_0"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "id"),
        ("RotateKey", pb.RotateKeyRequest(id="x", overlap_seconds=-1), invalid, "INVALID_FIELD", "overlap_seconds"),
        ("RotateKey", pb.RotateKeyRequest(id="x", overlap_seconds=2**62), invalid, "INVALID_FIELD", "overlap_seconds"),
        ("ListKeys", pb.ListKeysRequest(workspace="nobody"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND", None),
        ("ListKeys", pb.ListKeysRequest(page_size=-1), invalid, "NEGATIVE", "page_size"),
        ("ListKeys", pb.ListKeysRequest(page_token="eA"), invalid, "INVALID_PAGE_TOKEN", "page_token"),
    ):
        refusal = await refused(operator(name, request))
        assert (refusal.code, refusal.reason) == (code, reason), (name, request, refusal)
        assert field is None or refusal.fields == [field], (name, request, refusal)
    for body, reason in ((b"[]", "NOT_AN_OBJECT"), (b"{", "MALFORMED_JSON"), (b'{"nmae": 1}', "UNKNOWN_FIELD")):
        raw = RawCreateKeyRequest(json=HttpBody(data=body))
        assert (await refused(operator.json("CreateKey", raw))).reason == reason
    listed = await operator("ListManagedWorkspaces", pb.ListManagedWorkspacesRequest())
    assert [one.name for one in listed.workspaces] == [RESERVED, "acme"]
    assert len((await operator("ListKeys", pb.ListKeysRequest(workspace="acme"))).keys) == 1


async def test_a_key_from_creation_to_revocation(operator: Operator, service: Service) -> None:
    """Its secret is shown once, and each step is an act of the operator's key."""
    body = {"workspace": "acme", "scopes": ["events:write", "ledger:read"], "name": "shop", "calls": "100/second"}
    raw = RawCreateKeyRequest(request_id="r1", json=HttpBody(data=orjson.dumps(body)))
    made = await operator.json("CreateKey", raw)
    assert made["secret"].startswith(made["prefix"])
    assert {name: made[name] for name in body} == body
    repeated = await refused(operator.json("CreateKey", raw))
    assert (repeated.code, repeated.metadata["key_id"]) == (grpc.StatusCode.ALREADY_EXISTS, made["id"])
    async with Caller(service.port, made["secret"]) as caller:
        assert statuses(await caller.batch(event("a"))) == ["accepted"]

        update = pb.UpdateKeyRequest(id=made["id"], key=pb.ApiKey(events="7/minute"))
        update.update_mask.paths[:] = ["events", "name"]
        changed = (await operator("UpdateKey", update)).key
        assert (changed.name, changed.calls, changed.events) == ("", "100/second", "7/minute")
        rotated = (await operator("RotateKey", pb.RotateKeyRequest(id=made["id"], overlap_seconds=3600))).key
        assert (rotated.calls, rotated.events, rotated.scopes) == ("100/second", "7/minute", made["scopes"])
        old = (await operator("GetKey", pb.GetKeyRequest(id=made["id"]))).key
        assert (old.state, old.successor, old.secret) == ("rotated", rotated.id, "")
        assert 3_590 < old.expires_at.seconds - rotated.created_at.seconds <= 3_600
        async with Caller(service.port, rotated.secret) as new:
            for one in (caller, new):
                assert await one.stored() == 1

        gone = (await operator("RevokeKey", pb.RevokeKeyRequest(id=made["id"]))).key
        assert (gone.state, gone.HasField("revoked_at")) == ("revoked", True)

        async def refused_now() -> bool:
            try:
                await caller.stored()
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False

        await until(refused_now, seconds=5)

    page = await operator("ListKeys", pb.ListKeysRequest(workspace="acme", page_size=1))
    assert [one.id for one in page.keys] == [made["id"]]
    rest = pb.ListKeysRequest(workspace="acme", page_token=page.next_page_token)
    assert [one.id for one in (await operator("ListKeys", rest)).keys] == [rotated.id]
    other = pb.ListKeysRequest(page_token=page.next_page_token)
    assert (await refused(operator("ListKeys", other))).reason == "INVALID_PAGE_TOKEN"

    reserved = await admin.find_workspace(service.store.directory, RESERVED)
    events = (await service.store.ledgers.events(EventQuery(workspace_id=reserved.id, limit=100))).events
    (first, *_) = await service.store.directory.list_keys(reserved.id)
    told = [(one.type, orjson.loads(one.data or b"")["actor"]) for one in events if one.subject == "acme"]
    assert [name for name, _ in told] == [
        *("workspace.created", "key.created", "key.updated", "key.created", "key.rotated", "key.revoked"),
    ]
    assert all(actor == {"kind": "key", "id": first.id} for _, actor in told)
    everything = b"".join(one.data or b"" for one in events)
    assert made["secret"].encode() not in everything
    assert rotated.secret.encode() not in everything


@on_sqlite
async def test_the_limits_of_a_key(operator: Operator, service: Service) -> None:
    """Calls of every kind count once; events count one by one, whichever method takes them. Other keys are free."""
    limited = await operator.key(calls="4/hour", scopes=["events:write", "ledger:read"])
    async with Caller(service.port, limited.secret) as caller:
        for _ in range(3):
            await caller.stored()
        assert statuses(await caller.batch(event("a"))) == ["accepted"]
        for call in (caller.batch(event("b")), caller.stored()):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
            assert 600 < (refusal.retry_after or 0) <= 900
            assert refusal.message == "More than 4 calls with this key per hour."

    limited = await operator.key(events="5/hour")
    async with Caller(service.port, limited.secret) as caller:
        assert statuses(await caller.batch(event("c"), event("d"), event("c"))) == ["accepted", "accepted", "duplicate"]
        refusal = await refused(caller.batch(event("e"), event("f"), event("g")))
        assert (refusal.reason, refusal.message) == ("RATE_LIMITED", "More than 5 events with this key per hour.")
        assert (await caller.single(event("e"))).status == "accepted"
        requests = [StreamIngestRequest(id=name, events=[event(name)]) for name in ("f", "g")]
        stream = caller.ingest.StreamIngest(iter(requests), metadata=caller.metadata)
        answers = [answer async for answer in stream]
        told = [(answer.id, answer.error.reason, answer.error.retryable) for answer in answers]
        assert told == [("f", "", False), ("g", "RATE_LIMITED", True)]
        assert answers[1].error.retry_after > 600
    async with service.caller() as free:
        assert await free.stored() == 5


@on_sqlite
async def test_the_bridges_check_of_a_key_is_no_call(operator: Operator, service: Service) -> None:
    limited = await operator.key(calls="1/hour", scopes=["ledger:read"])
    async with Caller(service.port, limited.secret) as caller:
        check = caller._channel.unary_unary("/headgate.v1.ProbeService/CheckKey")
        for _ in range(3):
            await check(b"", metadata=caller.metadata)
        assert await caller.stored() == 0


@on_sqlite
async def _read_out(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def test_streams_end_with_their_key(operator: Operator, service: Service) -> None:
    """That of a key that was rotated out, like that of one that was revoked, within seconds."""
    key = await operator.key()
    async with Caller(service.port, key.secret) as caller:
        reading = caller.events.Subscribe(SubscribeRequest(), metadata=caller.metadata)
        writing = caller.ingest.StreamIngest(metadata=caller.metadata)
        await writing.write(StreamIngestRequest(id="1", events=[event("a")]))
        assert (await writing.read()).requests == 1
        await reading.read()
        await operator("RotateKey", pb.RotateKeyRequest(id=key.id, overlap_seconds=0))
        for stream in (reading, writing):
            # The code is known when all messages have been read.
            ended = await asyncio.wait_for(refused(_read_out(stream)), 30)
            assert ended.code is grpc.StatusCode.UNAUTHENTICATED
        refusal = await refused(caller.ledger.GetHead(GetHeadRequest(), metadata=caller.metadata))
        assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
