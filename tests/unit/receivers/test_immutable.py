"""Immutable's contract: from requests to drafts, and from outcomes to answers."""

from typing import Any
from uuid import UUID

import orjson
import pytest

from headgate_server.core.errors import (
    BodyTooLarge,
    HeadgateError,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from headgate_server.core.model import Scope
from headgate_server.core.settle import QUOTA_EXCEEDED
from headgate_server.receivers import Find, Get, Reply, Take, Verify
from headgate_server.receivers.immutable import Immutable
from headgate_server.rpc import status
from tests.unit.receivers.workspace import NOW, UNTIL_MARCH, Workspace

BATCH, SINGLE, ONE, CHECK = "/api/v1/events/batch", "/api/v1/events", "/api/v1/events/{id}", "/api/v1/verify"
ROUTES = Immutable().routes()

# The example requests of the vendor's pages.
EXAMPLE = [
    {
        "actor_id": "user_2hG9kLm",
        "actor_name": "Sarah Chen",
        "action": "document.created",
        "resource_id": "doc_8nXpQr3",
        "resource_name": "Q4 Financial Report",
    },
    {
        "actor_id": "user_2hG9kLm",
        "actor_name": "Sarah Chen",
        "action": "document.shared",
        "resource_id": "doc_8nXpQr3",
        "resource_name": "Q4 Financial Report",
        "targets": [{"type": "team", "id": "team_5bR7cNx", "name": "Engineering"}],
    },
    {
        "actor_id": "user_9pK3mNq",
        "actor_name": "James Rivera",
        "action": "comment.added",
        "resource_id": "doc_8nXpQr3",
        "metadata": {"comment_id": "cmt_7xL2bRw", "body": "Looks good, approved."},
    },
]


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(Immutable())


def event(**members: Any) -> dict[str, Any]:
    return {"actor_id": "user_1", "action": "document.created"} | members


def statuses(reply: Reply) -> list[str]:
    assert reply.status == 202
    return [result["status"] for result in reply.body["events"]]


# Ingestion


def test_the_example_of_the_page(workspace: Workspace) -> None:
    reply = workspace.post(BATCH, {"events": EXAMPLE})
    assert reply.status == 202
    assert reply.body == {"events": [{"id": str(UUID(bytes=row.id)), "status": "queued"} for row in workspace.rows]}
    assert [orjson.loads(row.data or b"") for row in workspace.rows] == EXAMPLE
    assert [row.created_at for row in workspace.rows] == [NOW, NOW + 1, NOW + 2]


def test_an_event_s_members_are_its_fields(workspace: Workspace) -> None:
    sent = event(resource="document", occurred_at="2026-03-15T14:32:18.847312Z", idempotency_key="k")
    workspace.post(SINGLE, sent)
    [row] = workspace.rows
    assert (row.receiver, row.type, row.source, row.subject) == ("immutable", "document.created", "document", "user_1")
    assert (row.occurred_at, row.scope, row.key) == (1_773_585_138_847_312, "", "k")


def test_a_single_event(workspace: Workspace) -> None:
    reply = workspace.post(SINGLE, event(idempotency_key="k"))
    assert reply == Reply(202, {"id": str(UUID(bytes=workspace.rows[0].id)), "status": "queued"})
    assert workspace.post(SINGLE, event(idempotency_key="k")) == Reply(202, reply.body | {"status": "duplicate"})
    refusal = workspace.post(SINGLE, {"action": "a.b"})
    assert refusal == Reply(422, {"error": "validation_failed", "message": "The actor_id field is required."})


def test_a_key_is_a_duplicate_whatever_the_content(workspace: Workspace) -> None:
    first, second, other, without = (
        event(idempotency_key="k"),
        event(idempotency_key="k", metadata={"n": 1}),
        event(idempotency_key="other"),
        event(),
    )
    reply = workspace.post(BATCH, {"events": [first, first, second, other, without, without]})
    assert statuses(reply) == ["queued", "duplicate", "duplicate", "queued", "queued", "queued"]
    assert len({result["id"] for result in reply.body["events"][:3]}) == 1
    assert len(workspace.rows) == 4


def test_an_invalid_event_keeps_its_place(workspace: Workspace) -> None:
    reply = workspace.post(BATCH, {"events": [event(), {"action": "a.b"}, event()]})
    assert statuses(reply) == ["queued", "invalid", "queued"]
    assert reply.body["events"][1] == {
        "id": None,
        "status": "invalid",
        "error": "validation_failed",
        "message": "The actor_id field is required.",
    }


INVALID: list[tuple[Any, str]] = [
    (event(actor_id=""), "The actor_id field is required."),
    (event(actor_id=None), "The actor_id field is required."),
    (event(actor_id=5), "The actor_id field must be a string, not a number."),
    (event(actor_id="x" * 256), "The actor_id field is longer than 255 characters."),
    (event(action=["a"]), "The action field must be a string, not a list."),
    (event(resource={}), "The resource field must be a string, not an object."),
    (event(idempotency_key=7), "The idempotency_key field must be a string, not a number."),
    (event(idempotency_key="k" * 256), "The idempotency_key field is longer than 255 characters."),
    (event(actor_name=5), "The actor_name field must be a string."),
    (event(metadata=[]), "The metadata field must be an object."),
    (event(metadata={str(n): n for n in range(51)}), "The metadata field must not have more than 50 items."),
    (event(metadata={"a": "x" * 65_529}), "The metadata field must not be larger than 64 KB."),
    (event(targets={}), "The targets field must be an array."),
    (event(targets=[{"type": "team"}, {"id": "t"}]), "The targets.1.type field is required."),
    (event(targets=[{"type": ""}]), "The targets.0.type field is required."),
    (event(targets=["team"]), "The targets.0 field must be an object."),
    (event(version="1"), "The version field must be an integer."),
    (event(version=1.5), "The version field must be an integer."),
    (event(occurred_at="yesterday"), "'yesterday' is not an RFC 3339 timestamp such as 2024-01-15T10:30:00Z."),
    ("x", "An event must be a JSON object, not a string."),
    (None, "An event must be a JSON object, not null."),
]


@pytest.mark.parametrize(("bad", "message"), INVALID)
def test_an_invalid_event_is_said_to_be_so(workspace: Workspace, bad: Any, message: str) -> None:
    reply = workspace.post(BATCH, {"events": [event(), bad, event()]})
    assert statuses(reply) == ["queued", "invalid", "queued"]
    assert reply.body["events"][1]["message"] == message
    assert workspace.post(SINGLE, bad) == Reply(422, {"error": "validation_failed", "message": message})


@pytest.mark.parametrize(
    "good",
    [
        event(metadata={str(n): n for n in range(50)}),
        event(metadata={"a": "x" * 65_528}),
        event(user_agent="x" * 100_000),
        event(version=1, targets=[], ip_address="192.0.2.1", not_documented=True),
        event(actor_name=None, resource=None, metadata=None, targets=None, version=None, occurred_at=None),
        event(idempotency_key=""),
        event(occurred_at="2026-03-15"),
        event(occurred_at="2026-03-15T14:32:18"),
    ],
)
def test_a_valid_event(workspace: Workspace, good: dict[str, Any]) -> None:
    assert statuses(workspace.post(BATCH, {"events": [good]})) == ["queued"]
    assert orjson.loads(workspace.rows[0].data or b"") == good


POISON = {
    b'"a\\u0000b"': True,
    b'"\\ud800"': False,
    b'{"\\ud800":1}': False,
    b"1e999": True,
    b"1e9999999999": False,
    b"9" * 5_000: True,
    b"0." + b"9" * 5_000: True,
    b'{"a":' * 200 + b"1" + b"}" * 200: False,
    b'{"a":' * 900 + b"9" * 30 + b"}" * 900: False,
    b'{"a":' * 2_000 + b"1" + b"}" * 2_000: False,
    b'{"a":1,"a":1}': False,
    b'"%s"' % (b"x" * 10_000): True,
}


@pytest.mark.parametrize("poison", POISON, ids=lambda poison: repr(poison[:20]))
def test_poison_touches_its_own_position_only(workspace: Workspace, poison: bytes) -> None:
    good = orjson.dumps(event())
    bad = b'{"actor_id":"user_1","action":"document.created","metadata":{"a":%s}}' % poison
    reply = workspace.post(BATCH, b'{"events":[%s,%s,%s]}' % (good, bad, good))
    assert statuses(reply) == ["queued", "queued" if POISON[poison] else "invalid", "queued"]


@pytest.mark.parametrize("poison", [b'"\\ud800"', b'"a\\u0000"', b"9" * 30, b"1e999", b"[]", b"5"])
@pytest.mark.parametrize("name", ["actor_id", "action", "resource", "idempotency_key"])
def test_poison_in_a_field(workspace: Workspace, name: str, poison: bytes) -> None:
    good = orjson.dumps(event())
    bad = b'{"actor_id":"u","action":"a","%s":%s}' % (name.encode(), poison)
    if name in ("actor_id", "action"):
        bad = b'{"actor_id":%s,"action":%s}' % ((poison, b'"a"') if name == "actor_id" else (b'"u"', poison))
    reply = workspace.post(BATCH, b'{"events":[%s,%s]}' % (bad, good))
    assert statuses(reply) == ["invalid", "queued"]
    assert name in reply.body["events"][0]["message"]


# Refusals


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        (b"", 400, "bad_request"),
        (b"{", 400, "bad_request"),
        (b'{"events":[NaN]}', 400, "bad_request"),
        (b"\xff", 400, "bad_request"),
        (b'{"\\ud800":1,"\\ud800":1,"events":[]}', 400, "bad_request"),
        (b"5", 422, "validation_failed"),
        (b"[]", 422, "validation_failed"),
        (b"{}", 422, "validation_failed"),
        (b'{"events":null}', 422, "validation_failed"),
        (b'{"events":{}}', 422, "validation_failed"),
        (b'{"events":"x"}', 422, "validation_failed"),
        (b'{"events":[]}', 422, "validation_failed"),
        (orjson.dumps({"events": [event()] * 101}), 422, "validation_failed"),
    ],
)
def test_a_bad_batch_is_refused(workspace: Workspace, body: bytes, code: int, error: str) -> None:
    reply = workspace.post(BATCH, body)
    assert (reply.status, reply.body["error"]) == (code, error)
    assert reply.body.keys() == {"error", "message"}
    assert reply.body["message"]
    assert workspace.rows == []


def test_a_hundred_events_are_taken(workspace: Workspace) -> None:
    assert statuses(workspace.post(BATCH, {"events": [event()] * 100})) == ["queued"] * 100


def test_a_malformed_single_event(workspace: Workspace) -> None:
    assert workspace.post(SINGLE, b"{").status == 400


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (Unauthenticated("m"), 401, "unauthenticated"),
        (PermissionDenied("m"), 403, "forbidden"),
        (NotFound("m", reason="NO_SUCH_PATH"), 404, "not_found"),
        (NotFound("m", reason="EVENT_NOT_FOUND"), 404, "not_found"),
        (BodyTooLarge("m"), 413, "payload_too_large"),
        (InvalidRequest("m", reason="INVALID_LIMIT", field="limit"), 400, "bad_request"),
        (Overloaded("m"), 429, "rate_limited"),
        (Unavailable("m"), 503, "unavailable"),
        (HeadgateError("m"), 500, "server_error"),
    ],
)
def test_an_error_is_said_in_the_vendor_s_words(error: HeadgateError, code: int, name: str) -> None:
    assert Immutable().refusal(status.http_of(error), error) == Reply(code, {"error": name, "message": "m"})


def test_routes_scopes_and_limits() -> None:
    assert {route: (type(endpoint), endpoint.scopes) for route, endpoint in ROUTES.items()} == {
        ("POST", BATCH): (Take, (Scope.EVENTS_WRITE,)),
        ("POST", SINGLE): (Take, (Scope.EVENTS_WRITE,)),
        ("GET", SINGLE): (Find, (Scope.EVENTS_READ,)),
        ("GET", ONE): (Get, (Scope.EVENTS_READ,)),
        ("GET", CHECK): (Verify, (Scope.LEDGER_READ,)),
    }
    assert (Immutable.name, Immutable.rate, Immutable.rate_headers) == ("immutable", None, False)
    assert not any(endpoint.request_key for endpoint in ROUTES.values() if isinstance(endpoint, Take))


# Quota


def test_a_batch_is_taken_up_to_the_quota(workspace: Workspace) -> None:
    reply = workspace.post(BATCH, {"events": [event(), {}, event(), event()]}, quota_left=2)
    assert len(workspace.rows) == 2
    assert statuses(reply) == ["queued", "invalid", "queued", "invalid"]
    assert [result.get("error") for result in reply.body["events"]] == [
        None,
        "validation_failed",
        None,
        "quota_exceeded",
    ]
    assert reply.body["events"][3]["message"] == QUOTA_EXCEEDED.message


@pytest.mark.parametrize(("path", "body"), [(BATCH, {"events": [{}, event(), event()]}), (SINGLE, event())])
def test_past_the_quota_nothing_is_taken(workspace: Workspace, path: str, body: Any) -> None:
    reply = workspace.post(path, body, quota_left=0)
    assert (reply.status, reply.body) == (429, {"error": "quota_exceeded", "message": QUOTA_EXCEEDED.message})
    assert reply.headers == (("retry-after", UNTIL_MARCH),)


def test_a_duplicate_past_the_quota_is_a_duplicate(workspace: Workspace) -> None:
    workspace.post(SINGLE, event(idempotency_key="k"))
    reply = workspace.post(BATCH, {"events": [event(idempotency_key="k"), event()]}, quota_left=0)
    assert statuses(reply) == ["duplicate", "invalid"]


def test_an_invalid_event_past_the_quota_is_invalid(workspace: Workspace) -> None:
    assert statuses(workspace.post(BATCH, {"events": [{}]}, quota_left=0)) == ["invalid"]
    assert workspace.post(SINGLE, {}, quota_left=0).status == 422
