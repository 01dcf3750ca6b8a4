"""Any failure between the commit and the answer: a stored event is answered as stored."""

from collections.abc import Callable
from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate_server.ingest import compat
from headgate_server.ingest import ingest as use_case
from headgate_server.ingest.pace import Pace
from headgate_server.ingest.readiness import Readiness
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import taking, wire
from headgate_server.rpc.ingest_servicer import IngestServicer
from headgate_server.rpc.pipeline import interceptors
from headgate_server.rpc.pipeline.call import Call
from headgate_server.store import Ledgers
from tests.support.calls import BATCH, batch_bytes, event, refused, statuses
from tests.support.inprocess import serving
from tests.support.vendors import VENDORS, Vendor


def bug(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a bug")


def once(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that fails at every other call, the first one first."""
    calls = 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return bug() if calls % 2 else work(*arguments, **named)

    return failing


class _BrokenLog:
    info = error = warning = exception = bug

    def bind(self) -> "_BrokenLog":
        return self


PLACES: dict[str, tuple[Any, str, Any]] = {
    "counting events": (Metrics, "events", bug),
    "counting calls": (Metrics, "call", bug),
    "the log": (interceptors, "log", _BrokenLog()),
    "timing the store": (Pace, "stored", bug),
    "noting a commit": (Readiness, "stored", bug),
    "counting statuses": (taking, "_statuses", bug),
    "reading what a conflict is with": (Ledgers, "fetch", bug),
    "comparing a conflict": (use_case, "differing_paths", bug),
    "writing the message": (wire, "batch_bytes", once(wire.batch_bytes)),
    "writing the JSON": (wire, "batch_answer", once(wire.batch_answer)),
}


@pytest.mark.parametrize(("owner", "name", "fault"), PLACES.values(), ids=PLACES)
async def test_the_answer_is_given(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fault: Any
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fault)
        async with serving(sqlite_url) as service, service.caller() as caller:
            assert statuses(await caller.batch(event("a"), event("b"), event(type=""))) == [
                "accepted", "accepted", "rejected",
            ]  # fmt: skip
            mixed = await caller.batch(event("a"), event("b", {"other": 1}), event("c"))
            assert statuses(mixed) == ["duplicate", "conflict", "accepted"]
            assert (await caller.single(event("d"))).status == "accepted"
            body = {"events": [{"type": "t", "idempotency_key": "e"}, {"type": "t", "idempotency_key": 5}]}
            answer = await caller.json(body)
            assert [result["status"] for result in answer["results"]] == ["accepted", "rejected"]
            assert answer["results"][0]["sequence"] == 5


@pytest.mark.parametrize("header", [("Not A Name", "true"), ("x-ok", "two\nlines"), ("x-ok", "caf\u00e9")])
@pytest.mark.parametrize("bridged", [True, False])
async def test_a_header_that_cannot_be_sent(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, header: tuple[str, str], bridged: bool
) -> None:
    """It is left out; the answer and its other headers are sent."""
    take = IngestServicer._take

    async def with_header(self: IngestServicer, call: Call, *arguments: Any, **named: Any) -> Any:
        taken = await take(self, call, *arguments, **named)
        call.reply_metadata += [header, ("x-other", "kept")]
        return taken

    monkeypatch.setattr(IngestServicer, "_take", with_header)
    async with serving(sqlite_url) as service, service.caller() as caller:
        more = [("x-envoy-original-path", "/v1/events/batch"), ("x-headgate-bridge", "1")] if bridged else []
        call = caller._channel.unary_unary(BATCH)(batch_bytes(event("a")), metadata=(*caller.metadata, *more))
        assert await call
        sent = await (call.initial_metadata() if bridged else call.trailing_metadata())
        assert dict(sent)["x-other"] == "kept"
        assert await caller.stored() == 1


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
async def test_a_vendors_answer_is_made_before_the_commit(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, vendor: Vendor
) -> None:
    """If the answer cannot be made, the call fails and nothing is stored."""
    monkeypatch.setattr(compat, "_encode", bug)
    async with serving(sqlite_url) as service, service.caller() as caller:
        request = HttpBody(data=orjson.dumps({"events": vendor.events(1)}))
        metadata = [("x-headgate-method", "POST"), ("x-headgate-path", vendor.batch), ("x-headgate-bridge", "1")]
        refusal = await refused(
            caller.send(
                request.SerializeToString(), HttpBody, method="/headgate.v1.CompatService/Receive", metadata=metadata
            )
        )
        assert refusal.code is grpc.StatusCode.INTERNAL
        assert await caller.stored() == 0
