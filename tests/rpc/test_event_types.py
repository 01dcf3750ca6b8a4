"""EventTypeService: put, get, list and delete, with everything that is refused."""

import asyncio
from typing import Any

import grpc
import orjson
import pytest
from sqlalchemy import insert

from headgate.v1.workspace_service_pb2 import GetWorkspaceRequest, UpdateWorkspaceRequest
from headgate.v1.workspace_service_pb2_grpc import WorkspaceServiceStub
from headgate_server.core.model import Scope
from headgate_server.store.schema import event_types
from tests.support.calls import Caller, event, refused, statuses
from tests.support.eventtypes import AMOUNT, Types, store_type
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite


@pytest.fixture
def types(caller: Caller) -> Types:
    """Return an operator's calls with a key that has every scope."""
    return Types(caller)


async def test_an_event_type_is_put_and_read_back_and_deleted(types: Types, service: Service) -> None:
    made = await types.put("order.completed", b'{ "required":["amount"], "minimum": 1.50 }')
    assert (made.type, made.mode) == ("order.completed", "strict")
    assert made.schema_json == b'{"minimum":1.5,"required":["amount"]}'
    assert made.created_at == made.updated_at
    assert await types.get("order.completed") == made

    body = b'{"schema": {"type": "object"}, "mode": "permissive", "type": "order.completed", "created_at": "then"}'
    printed = await types.put_json("order.completed", body)
    assert printed.keys() == {"type", "schema", "mode", "created_at", "updated_at"}
    assert (printed["schema"], printed["mode"]) == ({"type": "object"}, "permissive")
    changed = await types.get("order.completed")
    assert changed.created_at == made.created_at
    assert changed.updated_at.ToNanoseconds() > made.updated_at.ToNanoseconds()

    # Another workspace does not see it.
    async with service.caller(workspace="other") as other:
        theirs = Types(other)
        assert (await refused(theirs.get("order.completed"))).code is grpc.StatusCode.NOT_FOUND
        assert (await refused(theirs.delete("order.completed"))).code is grpc.StatusCode.NOT_FOUND
        assert not (await theirs.page()).event_types

    await types.delete("order.completed")
    for call in (types.get("order.completed"), types.delete("order.completed")):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert refusal.message == 'The workspace has no event type "order.completed".'


@on_sqlite
async def test_what_is_refused(types: Types) -> None:
    """One service for all: each refusal has its reason and field, and nothing of it is stored."""
    schemas = {
        b"": ("MISSING_FIELD", "schema"),
        b"{": ("INVALID_JSON", "schema_json"),
        b"\xff": ("INVALID_JSON", "schema_json"),
        b"[]": ("WRONG_TYPE", "schema"),
        b'{"a":1,"a":2}': ("DUPLICATE_FIELD", "schema"),
        b'{"type":"objekt"}': ("INVALID_SCHEMA", "schema.type"),
        b'{"items":{"$ref":"http://127.0.0.1:1/x"}}': ("INVALID_SCHEMA", "schema.items.$ref"),
        b'{"$ref":"file:///etc/passwd"}': ("INVALID_SCHEMA", "schema.$ref"),
        b'{"$ref":"#/nowhere"}': ("INVALID_SCHEMA", "schema"),
        b'{"pattern":"(?=a)"}': ("INVALID_SCHEMA", "schema.pattern"),
        b'{"description":"%s"}' % (b"x" * 65_536): ("TOO_LONG", "schema"),
        b'{"not":' * 101 + b"true" + b"}" * 101: ("NESTING_TOO_DEEP", "schema"),
    }
    for schema, expected in schemas.items():
        refusal = await refused(types.put("t", schema))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert (refusal.reason, *refusal.fields) == expected, schema[:40]
    bodies = {
        b"": ("MISSING_FIELD", "schema"),
        b"[]": ("NOT_AN_OBJECT",),
        b"{": ("MALFORMED_JSON",),
        b'{"schema":null}': ("MISSING_FIELD", "schema"),
        b'{"schema":{},"mode":"loose"}': ("INVALID_FIELD", "mode"),
        b'{"schema":{},"mode":5}': ("INVALID_FIELD", "mode"),
        b'{"schema":{},"name":"x"}': ("UNKNOWN_FIELD", "name"),
        b'{"schema":{},"type":"other"}': ("INVALID_FIELD", "type"),
        b'{"schema":{"minimum":1e9999999999}}': ("NUMBER_OUT_OF_RANGE",),
    }
    for body, expected in bodies.items():
        refusal = await refused(types.put_json("t", body))
        assert (refusal.reason, *refusal.fields) == expected, body
    for name, reason in {"": "MISSING_FIELD", "x" * 256: "TOO_LONG", "a\0": "INVALID_CHARACTER"}.items():
        for call in (types.put(name, True), types.get(name), types.delete(name)):
            refusal = await refused(call)
            assert (refusal.reason, *refusal.fields) == (reason, "event_type")
    assert not (await types.page()).event_types


async def test_a_list_has_every_event_type_once(types: Types, service: Service) -> None:
    names = [f"type {number:02}" for number in range(25)]
    for name in reversed(names):
        await store_type(service, name)
    listed, token = [], ""
    while True:
        page = await types.page(10, token)
        listed += [each.type for each in page.event_types]
        assert orjson.loads(page.event_types[0].schema_json) == AMOUNT
        token = page.next_page_token
        if not token:
            break
    assert listed == names
    assert len((await types.page()).event_types) == 25
    assert (await refused(types.page(-1))).reason == "NEGATIVE"
    for bad in ("%", "/w=", "a"):
        assert (await refused(types.page(10, bad))).reason == "INVALID_PAGE_TOKEN"


@on_sqlite
async def test_the_setting_for_unknown_types(caller: Caller, service: Service) -> None:
    stub = WorkspaceServiceStub(caller._channel)
    sent = caller.metadata

    async def setting() -> str:
        answer = await stub.GetWorkspace(GetWorkspaceRequest(), metadata=sent)
        assert answer.workspace.name == "acme"
        return str(answer.workspace.unknown_event_types)

    assert await setting() == "accept"
    for value in ("warn", "reject", "accept", "reject"):
        answer = await stub.UpdateWorkspace(UpdateWorkspaceRequest(unknown_event_types=value), metadata=sent)
        assert answer.workspace.unknown_event_types == await setting() == value
    for value, reason in {"": "MISSING_FIELD", "ignore": "INVALID_FIELD"}.items():
        refusal = await refused(stub.UpdateWorkspace(UpdateWorkspaceRequest(unknown_event_types=value), metadata=sent))
        assert (refusal.reason, *refusal.fields) == (reason, "unknown_event_types")
    # It was effective at once in this process, and other workspaces keep their own.
    assert statuses(await caller.batch(event())) == ["rejected"]
    async with service.caller(workspace="other") as other:
        assert statuses(await other.batch(event())) == ["accepted"]


async def test_concurrent_puts_and_events_of_the_type(types: Types, caller: Caller) -> None:
    """While the schema changes, every event is checked by one of the schemas, and none fails."""
    good = {"type": "object"}
    bad = {"required": ["missing"]}
    await types.put("order.completed", good)

    async def change() -> None:
        for number in range(6):
            await types.put("order.completed", bad if number % 2 == 0 else good)
            await types.put(f"other {number % 2}", good)

    async def send() -> list[str]:
        return [status for _ in range(15) for status in statuses(await caller.batch(event(), event()))]

    *_, one, two = await asyncio.gather(change(), change(), send(), send())
    assert {*one, *two} <= {"accepted", "rejected"}
    await types.put("order.completed", bad)
    assert statuses(await caller.batch(event())) == ["rejected"]
    assert [each.type for each in (await types.page()).event_types] == ["order.completed", "other 0", "other 1"]


def _row(number: int) -> dict[str, Any]:
    """Return the row of an event type of the first workspace, as `put` writes it."""
    schema = b'{"required":["field %d"]}' % number
    times = {"created_at": 1, "updated_at": 1}
    return {"workspace_id": 1, "type": f"type {number}", "mode": "strict", "revision": 1, "schema": schema, **times}


@on_sqlite
async def test_a_thousand_event_types(types: Types, caller: Caller, service: Service) -> None:
    """The bound holds, and an event is checked by its own schema."""
    await types.put("type 0", {"required": ["field 0"]})
    rows = [_row(number) for number in range(1, 1_000)]
    await service.store.database.write(lambda connection: connection.execute(insert(event_types), rows).close())
    refusal = await refused(types.put("one more", {}))
    assert (refusal.reason, *refusal.fields) == ("TOO_MANY", "event_type")
    await types.put("type 7", {"required": ["field 7"], "minProperties": 1})
    batch = [event(type=f"type {number}", data={f"field {number}": 1}) for number in range(1_000)]
    assert statuses(await caller.batch(*batch)) == ["accepted"] * 1_000
    shifted = [event(type=f"type {number}", data={f"field {number + 1}": 1}) for number in range(1_000)]
    assert statuses(await caller.batch(*shifted)) == ["rejected"] * 1_000


@on_sqlite
async def test_a_key_that_only_sends_can_neither_read_nor_change_event_types(service: Service) -> None:
    async with service.caller(Scope.EVENTS_WRITE) as sender, service.caller(Scope.EVENTS_READ) as reader:
        for call in (Types(sender).get("t"), Types(sender).put("t", {}), Types(reader).put("t", {})):
            assert (await refused(call)).reason == "MISSING_SCOPE"
        assert (await refused(Types(reader).get("t"))).reason == "NOT_FOUND"
