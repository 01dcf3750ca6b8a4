"""CompatService called by a gRPC client, without the bridge: vendors' bodies, our codes, every endpoint guarded."""

from collections.abc import Iterable
from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate_server.access import admin
from headgate_server.core.model import RateLimit, Scope
from headgate_server.receivers.registry import RECEIVERS, VENDOR_SCOPES
from tests.support.calls import Caller, Refusal, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.vendors import VENDORS

RECEIVE = "/headgate.v1.CompatService/Receive"

WRITE = {Scope.EVENTS_WRITE}
VISION = WRITE | {"vision-events:write", "device:update"}
READ = {Scope.EVENTS_READ}
NEEDED: dict[tuple[str, str], set[Scope] | set[str]] = {
    ("POST", "/compat/flokit/v1/batch/events"): WRITE,
    ("POST", "/compat/flokit/v1/events"): WRITE,
    ("POST", "/compat/immutable/api/v1/events/batch"): WRITE,
    ("POST", "/compat/immutable/api/v1/events"): WRITE,
    ("GET", "/compat/immutable/api/v1/events"): READ,
    ("GET", "/compat/immutable/api/v1/events/{id}"): READ,
    ("GET", "/compat/immutable/api/v1/verify"): {Scope.LEDGER_READ},
    ("POST", "/compat/roboflow/vision-events/batch"): VISION,
    ("POST", "/compat/roboflow/vision-events"): VISION,
    ("POST", "/compat/roboflow/vision-events/query"): READ,
    ("POST", "/compat/scrip/v1/events/batch"): WRITE,
    ("POST", "/compat/scrip/v1/events"): WRITE,
    ("GET", "/compat/scrip/v1/events"): READ,
    ("GET", "/compat/scrip/v1/events/{id}"): READ,
    ("POST", "/compat/scrip/v1/events/{id}/retry"): WRITE,
    ("POST", "/compat/vibefollow/api/v1/events/batch"): WRITE,
    ("POST", "/compat/vibefollow/api/v1/events"): WRITE,
}
"""Any one of the scopes admits a key: written here a second time, deliberately."""

each_endpoint = pytest.mark.parametrize(("method", "path"), NEEDED, ids=" ".join)


async def _receive(
    caller: Caller, method: str, path: str, body: Any = None, more: Iterable[tuple[str, str]] = ()
) -> tuple[Any, dict[str, str | bytes]]:
    """Return the answer's JSON, and the metadata that came with it."""
    metadata = (
        *caller.metadata,
        ("x-headgate-bridge", "1"),
        ("x-headgate-method", method),
        ("x-headgate-path", path),
        *more,
    )
    request = HttpBody(data=body if isinstance(body, bytes) else orjson.dumps(body))
    ask = caller._channel.unary_unary(RECEIVE, response_deserializer=HttpBody.FromString)
    call = ask(request.SerializeToString(), metadata=metadata)
    answer = await call
    assert answer.content_type == "application/json"
    return orjson.loads(answer.data), dict(await call.trailing_metadata())


async def _refused(caller: Caller, method: str, path: str, body: Any = None, **more: str) -> Refusal:
    metadata = [(name.replace("_", "-"), value) for name, value in more.items()]
    return await refused(_receive(caller, method, path, body, metadata))


def test_no_endpoint_is_forgotten() -> None:
    served = {
        (method, f"/compat/{name}{path}"): set(endpoint.scopes)
        for name, receiver in RECEIVERS.items()
        for (method, path), endpoint in receiver.routes().items()
    }
    assert served == NEEDED


@on_sqlite
@each_endpoint
async def test_only_the_scopes_that_are_named_let_in(service: Service, method: str, path: str) -> None:
    for scope in (*Scope, *VENDOR_SCOPES):
        async with service.caller(scope) as caller:
            allowed = scope in NEEDED[method, path] or scope is Scope.ADMIN
            code = await _code(caller, method, path)
            assert (code is not grpc.StatusCode.PERMISSION_DENIED) is allowed, scope


@on_sqlite
@each_endpoint
async def test_no_endpoint_answers_without_a_key(service: Service, method: str, path: str) -> None:
    for key in ("", "hg_" + "x" * 43):
        async with Caller(service.port, key) as stranger:
            assert await _code(stranger, method, path) is grpc.StatusCode.UNAUTHENTICATED


async def _code(caller: Caller, method: str, path: str) -> grpc.StatusCode:
    """Return the code of a call without a body."""
    try:
        await _receive(caller, method, path, b"")
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_the_vendors_bodies(caller: Caller) -> None:
    for vendor in VENDORS.values():
        answer, metadata = await _receive(caller, "POST", vendor.batch, {"events": vendor.events(2)})
        assert list(vendor.stored(answer, 2)) == [0, 1]
        assert metadata["x-headgate-http-status"] == str(vendor.success)
        assert metadata["x-request-id"]
    assert await caller.stored() == 10


async def test_another_workspaces_event_is_not_found(service: Service, caller: Caller) -> None:
    vendor = VENDORS["scrip"]
    answer, _ = await _receive(caller, "POST", vendor.batch, {"events": vendor.events(1)})
    path = f"/compat/scrip/v1/events/{answer['results'][0]['event']['id']}"
    assert (await _receive(caller, "GET", path))[0]["idempotency_key"] == "order-0"
    async with service.caller(workspace="other") as neighbour:
        assert (await _refused(neighbour, "GET", path)).code is grpc.StatusCode.NOT_FOUND
        assert (await _receive(neighbour, "GET", "/compat/scrip/v1/events"))[0]["data"] == []


async def test_requests_that_are_none(caller: Caller) -> None:
    """They have our codes and reasons, because without HTTP there is no status for the vendor's."""
    batch = VENDORS["vibefollow"].batch
    refusals = [
        await _refused(caller, "POST", batch, b"{"),
        await _refused(caller, "POST", batch, {"events": 5}),
        await _refused(caller, "PUT", batch, {}),
        await _refused(caller, "POST", "/compat/nobody/v1/events", {}),
        await _refused(caller, "POST", "/v1/events/batch", {}),
        await _refused(caller, "POST", "", {}),
    ]
    assert [(refusal.code.name, refusal.reason) for refusal in refusals] == [
        ("INVALID_ARGUMENT", "MALFORMED_JSON"),
        ("INVALID_ARGUMENT", "WRONG_TYPE"),
        ("NOT_FOUND", "NO_SUCH_PATH"),
        ("NOT_FOUND", "NO_SUCH_RECEIVER"),
        ("NOT_FOUND", "NO_SUCH_RECEIVER"),
        ("NOT_FOUND", "NO_SUCH_RECEIVER"),
    ]
    bytes_that_are_none = caller.send(
        b"\xff",
        HttpBody,
        method=RECEIVE,
        metadata=(("x-headgate-path", batch), ("x-headgate-method", "POST"), ("x-headgate-bridge", "1")),
    )
    assert (await refused(bytes_that_are_none)).reason == "MALFORMED_REQUEST"


async def test_a_rate_limit_says_when_to_come_back(service: Service, caller: Caller) -> None:
    await admin.set_limits(
        service.store.directory, service.store.limits, "acme", ..., {"flokit": RateLimit(1, 3_600_000_000, 1)}
    )
    vendor = VENDORS["flokit"]
    await _receive(caller, "POST", vendor.batch, {"events": vendor.events(1)})
    for _ in range(2):
        refusal = await _refused(caller, "POST", vendor.batch, {"events": vendor.events(1)})
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert refusal.retry_after is not None
        assert 3_500 < refusal.retry_after <= 3_600
        assert 3_500 < int(refusal.trailing["retry-after"]) <= 3_600
    assert await caller.stored() == 1


async def test_a_request_key(caller: Caller) -> None:
    vendor, keyed = VENDORS["flokit"], (("idempotency-key", "k"),)
    body = {"events": vendor.events(2)}
    first, said = await _receive(caller, "POST", vendor.batch, body, keyed)
    again, said_again = await _receive(caller, "POST", vendor.batch, body, keyed)
    assert again == first
    assert (said.get("idempotency-replayed"), said_again["idempotency-replayed"]) == (None, "true")
    refusal = await _refused(caller, "POST", vendor.batch, {"events": []}, idempotency_key="k")
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT  # a request that is not a batch is refused for that first
    refusal = await _refused(caller, "POST", vendor.batch, {"events": vendor.events(1)}, idempotency_key="k")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED")
    assert await caller.stored() == 2
