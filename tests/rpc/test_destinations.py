"""DestinationService: the shapes of its messages, and a clear error for every wrong request."""

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1 import destination_pb2
from headgate.v1 import destination_service_pb2 as pb
from headgate.v1.destination_service_pb2_grpc import DestinationServiceStub
from headgate_server.core.destinations import JetStream, Ordering
from headgate_server.core.model import Scope
from tests.support import destinations
from tests.support.calls import Caller, event, refused
from tests.support.destinations import BAD, Operator
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite

URL = "https://example.com/hook"


def crm(**more: Any) -> dict[str, Any]:
    return {"name": "crm", "webhook": {"url": URL}, **more}


@pytest.fixture
def operator(caller: Caller) -> Operator:
    return Operator.of(caller)


async def paused(operator: Operator, **more: Any) -> dict[str, Any]:
    """Create a paused destination."""
    found: dict[str, Any] = await operator.create(crm(**more))
    await operator.call("PauseDestination", id=found["id"])
    return found


async def test_the_shape_of_a_webhook(caller: Caller, operator: Operator) -> None:
    await caller.batch(*[event() for _ in range(12)])
    made = await operator.create(
        {
            "name": "crm",
            "webhook": {"url": URL, "max_events": 1, "format": "standard", "headers": {"x-token": "hunter2"}},
            "filter": {"types": ["nothing.*"]},
            "start": "beginning",
            "ordering": "ordered",
        }
    )
    secret = made["webhook"].pop("secret")
    assert secret.startswith("whsec_")
    assert made == {
        "id": made["id"],
        "name": "crm",
        "filter": {"types": ["nothing.*"], "sources": [], "receivers": []},
        "ordering": "ordered",
        "webhook": {
            "url": URL, "max_events": 1, "timeout_seconds": 15, "format": "standard", "signature": "hmac",
        },
        "state": "active",
        "cursor": 0,
        "lag_events": 12,
        "lag_seconds": made["lag_seconds"],
        "set_aside": 0,
        "delivered": 0,
        "failed_attempts": 0,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }  # fmt: skip
    assert made["id"].startswith("dst_")
    shown = await operator.get(made["id"])
    assert "secret" not in shown["webhook"]
    assert "hunter2" not in str(shown)
    listed = await operator.call("ListDestinations")
    assert [one["id"] for one in listed["destinations"]] == [made["id"]]
    assert listed["next_page_token"] == ""


@on_sqlite
async def test_the_same_over_grpc(caller: Caller) -> None:
    stub = DestinationServiceStub(caller._channel)
    wanted = destination_pb2.Destination(
        name="crm",
        webhook=destination_pb2.Webhook(url=URL, signature="ed25519", headers={"x-a": "b"}),
        start="beginning",
    )
    made = (
        await stub.CreateDestination(pb.CreateDestinationRequest(destination=wanted), metadata=caller.metadata)
    ).destination
    assert made.webhook.secret.startswith("whpk_")
    change = pb.UpdateDestinationRequest(id=made.id, destination=destination_pb2.Destination(name="new"))
    changed = await stub.UpdateDestination(change, metadata=caller.metadata)
    assert (changed.destination.name, changed.destination.webhook.url) == ("new", URL)
    replayed = pb.ReplayDestinationRequest(id=made.id)
    getattr(replayed, "from").CopyFrom(Timestamp(seconds=1))
    assert (await stub.ReplayDestination(replayed, metadata=caller.metadata)).destination.id == made.id
    await stub.DeleteDestination(pb.DeleteDestinationRequest(id=made.id), metadata=caller.metadata)
    gone = await refused(stub.GetDestination(pb.GetDestinationRequest(id=made.id), metadata=caller.metadata))
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


@pytest.mark.parametrize("start", [3, "3"])
@on_sqlite
async def test_a_sequence_to_start_at(caller: Caller, operator: Operator, start: Any) -> None:
    await caller.batch(*[event() for _ in range(5)])
    made = await operator.create(crm(start=start, filter={"types": ["none"]}))
    assert (made["cursor"], made["lag_events"]) == (2, 3)
    assert (await operator.create({**crm(), "name": "now"}))["cursor"] == 5


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"webhook": {"url": URL}}, "MISSING_FIELD", "name"),
        (crm(name="A"), "INVALID_FIELD", "name"),
        ({"name": "crm"}, "MISSING_FIELD", "webhook"),
        (crm(jetstream={"stream": "S", "subject_prefix": "s"}), "WRONG_TYPE", ""),
        ({"name": "b", "jetstream": {"stream": "S", "subject_prefix": "s"}}, "INVALID_FIELD", "jetstream"),
        ({"name": "b", "jetstream": {"subject_prefix": "s"}}, "MISSING_FIELD", "jetstream.stream"),
        ({"name": "b", "jetstream": {"stream": "A B", "subject_prefix": "s"}}, "INVALID_FIELD", "jetstream.stream"),
        ({"name": "b", "jetstream": {"stream": "S", "subject_prefix": "$JS"}}, "INVALID_FIELD",
         "jetstream.subject_prefix"),
        ({"name": "b", "jetstream": {"stream": "S", "subject_prefix": "s"}, "ordering": "parallel"}, "INVALID_FIELD",
         "ordering"),
        (crm(webhook={}), "MISSING_FIELD", "webhook.url"),
        (crm(webhook={"url": "ftp://example.com"}), "INVALID_URL", "webhook.url"),
        (crm(webhook={"url": "https://user:pass@example.com"}), "INVALID_URL", "webhook.url"),
        (crm(webhook={"url": "http://127.0.0.1/"}), "INVALID_URL", "webhook.url"),
        (crm(webhook={"url": "http://169.254.169.254/"}), "INVALID_URL", "webhook.url"),
        (crm(webhook={"url": "http://[::ffff:10.0.0.1]/"}), "INVALID_URL", "webhook.url"),
        (crm(webhook={"url": URL, "max_events": 101}), "INVALID_FIELD", "webhook.max_events"),
        (crm(webhook={"url": URL, "max_events": -1}), "INVALID_FIELD", "webhook.max_events"),
        (crm(webhook={"url": URL, "max_events": "many"}), "WRONG_TYPE", ""),
        (crm(webhook={"url": URL, "timeout_seconds": 61}), "INVALID_FIELD", "webhook.timeout_seconds"),
        (crm(webhook={"url": URL, "format": "xml"}), "INVALID_FIELD", "webhook.format"),
        (crm(webhook={"url": URL, "headers": {"host": "x"}}), "INVALID_FIELD", "webhook.headers"),
        (crm(webhook={"url": URL, "retries": 3}), "UNKNOWN_FIELD", "webhook.retries"),
        (crm(colour="red"), "UNKNOWN_FIELD", "colour"),
        (crm(ordering="sorted"), "INVALID_FIELD", "ordering"),
        (crm(start="yesterday"), "INVALID_FIELD", "start"),
        (crm(start=-1), "INVALID_FIELD", "start"),
        (crm(start=7), "PAST_THE_END", "start"),
        (crm(filter={"types": ["*"]}), "INVALID_FIELD", "filter.types"),
        (crm(filter={"types": ["a.*.b"]}), "INVALID_FIELD", "filter.types"),
        (crm(filter={"types": [""]}), "INVALID_FIELD", "filter.types"),
        (crm(filter={"types": "order"}), "WRONG_TYPE", ""),
        (crm(filter={"receivers": ["nobody"]}), "INVALID_FIELD", "filter.receivers"),
        (crm(filter={"sources": ["s"] * 101}), "TOO_MANY", "filter.sources"),
        ([], "NOT_AN_OBJECT", ""),
        (b"{", "MALFORMED_JSON", ""),
    ],
)  # fmt: skip
@on_sqlite
async def test_destinations_that_are_refused(operator: Operator, body: Any, reason: str, field: str) -> None:
    refusal = await refused(operator.create(body))
    assert (refusal.code, refusal.reason, refusal.fields) == (BAD, reason, [field] if field else [])
    assert (await operator.call("ListDestinations"))["destinations"] == []


@on_sqlite
async def test_a_name_is_unique(operator: Operator) -> None:
    await operator.create(crm())
    refusal = await refused(operator.create(crm()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")


@on_sqlite
async def test_changes(operator: Operator) -> None:
    made = await operator.create(crm(filter={"types": ["a", "b"], "sources": ["s"]}))
    one = made["id"]
    changed = await operator.update(one, {"webhook": {"max_events": 5}, "filter": {"types": []}})
    assert (changed["webhook"]["max_events"], changed["webhook"]["url"]) == (5, URL)
    assert changed["filter"] == {"types": [], "sources": ["s"], "receivers": []}
    masked = await operator.update(one, {"name": "new", "ordering": "ordered"}, "name", "webhook.max_events")
    assert (masked["name"], masked["ordering"], masked["webhook"]["max_events"]) == ("new", "parallel", 1)
    # The fields of an answer may be sent back.
    same = await operator.update(one, {**masked, "webhook": {**masked["webhook"], "secret": "x"}})
    assert {**same, "updated_at": ""} == {**masked, "updated_at": ""}
    for body, mask, reason in (
        ({}, (), "MISSING_FIELD"),
        ({"start": "now"}, (), "UNKNOWN_FIELD"),
        ({"name": "x"}, ("colour",), "UNKNOWN_FIELD"),
        ({"webhook": {"url": "http://10.0.0.1"}}, (), "INVALID_URL"),
        ({"jetstream": {"stream": "S"}}, (), "UNKNOWN_FIELD"),
        ({"webhook": {}}, ("webhook",), "MISSING_FIELD"),
    ):
        assert (await refused(operator.update(one, body, *mask))).reason == reason, body
    assert (await operator.get(one))["name"] == "new"


async def test_a_stream_keeps_its_name_and_gets_another_filter(service: Service, operator: Operator) -> None:
    workspace = await service.store.directory.workspace("acme")
    assert workspace is not None
    target = JetStream(stream="S", subject_prefix="s")
    status = await destinations.made(service.store, workspace.id, target=target, ordering=Ordering.ORDERED)
    one = status.destination.id
    changed = await operator.update(one, {"filter": {"types": ["order.*"]}})
    assert (changed["filter"]["types"], changed["jetstream"]) == (["order.*"], {"stream": "S", "subject_prefix": "s"})
    # The fields of an answer may be sent back.
    same = await operator.update(one, changed)
    assert {**same, "updated_at": ""} == {**changed, "updated_at": ""}
    for body, mask in (({"jetstream": {"stream": "T"}}, ()), ({"jetstream": {"stream": "T"}}, ("jetstream.stream",))):
        refusal = await refused(operator.update(one, body, *mask))
        assert refusal.reason == "UNKNOWN_FIELD"
        assert "create another destination" in refusal.message


async def test_pause_resume_rotate_and_delete(operator: Operator) -> None:
    made = await operator.create(crm())
    one = made["id"]
    assert (await operator.call("PauseDestination", id=one))["state"] == "paused"
    assert (await operator.call("ResumeDestination", id=one))["state"] == "active"
    rotated = await operator.call("RotateSecret", id=one)
    assert rotated["webhook"]["secret"] not in ("", made["webhook"]["secret"])
    await operator.call("DeleteDestination", id=one)
    assert (await refused(operator.get(one))).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "MISSING_FIELD"),
        ({"set_aside": False}, "MISSING_FIELD"),
        ({"set_aside": True, "after_sequence": 1}, "WRONG_TYPE"),
        ({"after_sequence": 9}, "PAST_THE_END"),
        ({"after_sequence": -1}, "NEGATIVE"),
        ({"from": "yesterday"}, "INVALID_TIMESTAMP"),
        ({"until": 3}, "UNKNOWN_FIELD"),
    ],
)
@on_sqlite
async def test_replays_that_are_refused(operator: Operator, body: Any, reason: str) -> None:
    one = (await operator.create(crm()))["id"]
    assert (await refused(operator.replay(one, body))).reason == reason


@on_sqlite
async def test_a_replay_shows_and_moves_no_cursor(caller: Caller, operator: Operator) -> None:
    await caller.batch(*[event() for _ in range(5)])
    one = (await paused(operator, start="now"))["id"]
    replayed = await operator.replay(one, {"after_sequence": 2})
    assert (replayed["cursor"], replayed["replay"]) == (5, {"after_sequence": 2, "until_sequence": 5})
    since = await operator.replay(one, {"from": "2026-01-01T00:00:00Z"})
    assert since["replay"]["after_sequence"] == 0
    assert (await operator.replay(one, {"set_aside": True}))["cursor"] == 5


@on_sqlite
async def test_unknown_failures(operator: Operator) -> None:
    one = (await operator.create(crm()))["id"]
    assert await operator.call("ListFailures", id=one) == {"failures": [], "next_page_token": ""}
    for method in ("RetryFailure", "SkipFailure"):
        assert (await refused(operator.call(method, id=one, sequence=1))).reason == "NOT_FOUND"
    for token in ("!", "eA"):
        refusal = await refused(operator.call("ListFailures", id=one, page_token=token))
        assert refusal.reason == "INVALID_PAGE_TOKEN"


@on_sqlite
async def test_only_the_scope_admin_of_the_same_workspace(service: Service, operator: Operator) -> None:
    one = (await operator.create(crm()))["id"]
    async with service.caller(Scope.EVENTS_READ, Scope.EVENTS_WRITE, Scope.LEDGER_READ) as weak:
        refusal = await refused(Operator.of(weak).get(one))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "MISSING_SCOPE")
    async with service.caller(workspace="other") as other:
        assert (await refused(Operator.of(other).get(one))).code is grpc.StatusCode.NOT_FOUND
        assert (await Operator.of(other).call("ListDestinations"))["destinations"] == []


@on_sqlite
async def test_pages(operator: Operator) -> None:
    for name in ("a", "b", "c"):
        await operator.create({**crm(), "name": name})
    first = await operator.call("ListDestinations", page_size=2)
    rest = await operator.call("ListDestinations", page_size=2, page_token=first["next_page_token"])
    assert [one["name"] for page in (first, rest) for one in page["destinations"]] == ["a", "b", "c"]
    assert rest["next_page_token"] == ""
