"""VibeFollow's contract: from requests to drafts, and from outcomes to answers."""

from typing import Any

import orjson
import pytest

from headgate_server.core.errors import (
    BodyTooLarge,
    HeadgateError,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    RequestKeyReused,
    Unauthenticated,
    Unavailable,
)
from headgate_server.core.model import Scope
from headgate_server.core.settle import QUOTA_EXCEEDED
from headgate_server.receivers import Reply, Take
from headgate_server.receivers.vibefollow import MOST_BODY, VibeFollow
from headgate_server.rpc import status
from tests.unit.receivers.workspace import UNTIL_MARCH, Workspace

BATCH, SINGLE = "/api/v1/events/batch", "/api/v1/events"
ACCEPTED = Reply(202, {"data": {"accepted": True}})

# The example request of the vendor's page.
EXAMPLE = [
    {"external_user_id": "usr_42", "name": "user_signed_up", "properties": {"plan": "trial"}},
    {"external_user_id": "usr_42", "name": "trial_started", "properties": {"trialDays": 14}},
]


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(VibeFollow())


def event(**members: Any) -> dict[str, Any]:
    return {"external_user_id": "usr_1", "name": "user_signed_up"} | members


def refused(field: str, message: str) -> Reply:
    return Reply(422, {"errors": [{"code": "validation_failed", "message": message, "field": field}]})


# Ingestion


def test_the_example_of_the_page(workspace: Workspace) -> None:
    assert workspace.post(BATCH, {"events": EXAMPLE}) == ACCEPTED
    assert [orjson.loads(row.data or b"") for row in workspace.rows] == EXAMPLE
    assert [(row.receiver, row.type, row.source, row.subject) for row in workspace.rows] == [
        ("vibefollow", "user_signed_up", "", "usr_42"),
        ("vibefollow", "trial_started", "", "usr_42"),
    ]
    assert {(row.occurred_at, row.scope, row.key) for row in workspace.rows} == {(None, None, None)}


def test_a_single_event(workspace: Workspace) -> None:
    assert workspace.post(SINGLE, EXAMPLE[0]) == ACCEPTED
    assert workspace.post(SINGLE, EXAMPLE[0]) == ACCEPTED
    assert len(workspace.rows) == 2
    assert workspace.post(SINGLE, {"name": "n"}) == refused("external_user_id", "required")


def test_one_invalid_event_refuses_the_whole_batch(workspace: Workspace) -> None:
    reply = workspace.post(BATCH, {"events": [event(), event(), event(), {"name": "n"}, event()]})
    assert reply == refused("events[3].external_user_id", "required")
    assert workspace.rows == []


def test_every_offender_is_named_the_first_one_first(workspace: Workspace) -> None:
    reply = workspace.post(BATCH, {"events": [event(), event(name=""), {}, 5]})
    fields = [error["field"] for error in reply.body["errors"]]
    assert fields == ["events[1].name", "events[2].external_user_id", "events[3]"]


INVALID: list[tuple[Any, str, str]] = [
    ({}, "external_user_id", "required"),
    (event(external_user_id=None), "external_user_id", "required"),
    (event(external_user_id=""), "external_user_id", "required"),
    (event(external_user_id=42), "external_user_id", "The external_user_id field must be a string, not a number."),
    (
        event(external_user_id="x" * 256),
        "external_user_id",
        "The external_user_id field is longer than 255 characters.",
    ),
    (event(name=""), "name", "required"),
    (event(name=True), "name", "The name field must be a string, not a boolean."),
    (event(properties=[]), "properties", "The properties field must be an object, not a list."),
    (event(properties={str(n): n for n in range(101)}), "properties", "The properties field has over 100 keys."),
    (event(properties={"a": "x" * 1_048_569}), "properties", "The properties field is larger than 1 MB."),
    ("x", "", "An event must be a JSON object, not a string."),
    (None, "", "An event must be a JSON object, not null."),
]


@pytest.mark.parametrize(("bad", "field", "message"), INVALID)
def test_an_invalid_event_is_said_to_be_so(workspace: Workspace, bad: Any, field: str, message: str) -> None:
    in_batch = "events[1]." + field if field else "events[1]"
    assert workspace.post(BATCH, {"events": [event(), bad]}) == refused(in_batch, message)
    alone = workspace.post(SINGLE, bad)
    assert (alone.status, alone.body["errors"][0]["message"]) == (422, message)
    assert alone.body["errors"][0].get("field", "") == field
    assert workspace.rows == []


@pytest.mark.parametrize(
    "good",
    [
        event(),
        event(properties={}),
        event(properties=None),
        event(properties={str(n): n for n in range(100)}),
        event(properties={"a": "x" * 1_048_568}),
        event(not_documented="x" * 1_500_000, properties={"a": 1}),
    ],
)
def test_a_valid_event(workspace: Workspace, good: dict[str, Any]) -> None:
    assert workspace.post(BATCH, {"events": [good]}) == ACCEPTED
    assert orjson.loads(workspace.rows[0].data or b"") == good


@pytest.mark.parametrize(
    ("poison", "field"),
    [
        (b'{"external_user_id":"u","name":"\\ud800"}', "events[1].name"),
        (b'{"external_user_id":"u\\u0000","name":"n"}', "events[1].external_user_id"),
        (b'{"external_user_id":%s,"name":"n"}' % (b"9" * 30), "events[1].external_user_id"),
        (b'{"external_user_id":"u","name":"n","properties":1e999}', "events[1].properties"),
        (b'{"external_user_id":"u","name":"n","properties":{"a":"\\ud800"}}', "events[1]"),
        (b'{"external_user_id":"u","name":"n","properties":{"\\udc00":1}}', "events[1]"),
        (b'{"external_user_id":"u","name":"n","properties":{"a":1e9999999999}}', "events[1]"),
        (b'{"external_user_id":"u","name":"n","name":"n"}', "events[1]"),
        (b'{"external_user_id":"u","name":"n","\\ud800":1,"\\ud800":1}', "events[1]"),
        (b'{"external_user_id":"u","name":"n","properties":' + b'{"a":' * 200 + b"1" + b"}" * 201, "events[1]"),
        (b'{"external_user_id":"u","name":"n","properties":' + b'{"a":' * 2_000 + b"1" + b"}" * 2_001, "events[1]"),
    ],
)
def test_poison_is_named_by_its_position(workspace: Workspace, poison: bytes, field: str) -> None:
    good = orjson.dumps(event())
    reply = workspace.post(BATCH, b'{"events":[%s,%s,%s]}' % (good, poison, good))
    assert reply.status == 422
    assert [(error["code"], error["field"]) for error in reply.body["errors"]] == [("validation_failed", field)]
    assert workspace.rows == []


def test_strange_values_are_kept_exactly(workspace: Workspace) -> None:
    body = b'{"events":[{"external_user_id":"u","name":"n","properties":{"a":1e999,"b":"\\u0000","c":%s}}]}' % (
        b"9" * 5_000
    )
    assert workspace.post(BATCH, body) == ACCEPTED
    assert b"9" * 4_999 in (workspace.rows[0].data or b"")  # the first digit comes before the point


# Refusals


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        (b"", 400, {"code": "bad_request"}),
        (b"{", 400, {"code": "bad_request"}),
        (b'{"events":[NaN]}', 400, {"code": "bad_request"}),
        (b'{"\\ud800":1,"\\ud800":1,"events":[]}', 400, {"code": "bad_request"}),
        (b"[]", 422, {"code": "validation_failed"}),
        (b"{}", 422, {"code": "validation_failed", "message": "required", "field": "events"}),
        (b'{"events":null}', 422, {"code": "validation_failed", "message": "required", "field": "events"}),
        (b'{"events":{}}', 422, {"code": "validation_failed", "field": "events"}),
        (b'{"events":[]}', 422, {"code": "validation_failed", "field": "events"}),
        (orjson.dumps({"events": [event()] * 501}), 422, {"code": "validation_failed", "field": "events"}),
        (b'{"events":[]}' + b" " * MOST_BODY, 413, {"code": "payload_too_large"}),
    ],
)
def test_a_bad_batch_is_refused(workspace: Workspace, body: bytes, code: int, error: dict[str, str]) -> None:
    reply = workspace.post(BATCH, body)
    [said] = reply.body["errors"]
    assert reply.status == code
    assert said | error == said
    assert said["message"]
    assert said.keys() == error.keys() | {"message"}
    assert workspace.rows == []


def test_the_limits_themselves_are_taken(workspace: Workspace) -> None:
    assert workspace.post(BATCH, {"events": [event()] * 500}) == ACCEPTED
    body = orjson.dumps({"events": [event()]})
    assert workspace.post(BATCH, body + b" " * (MOST_BODY - len(body))) == ACCEPTED
    assert workspace.post(SINGLE, orjson.dumps(event()).ljust(MOST_BODY + 1)).status == 413


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (Unauthenticated("m"), 401, "auth_required"),
        (PermissionDenied("m"), 403, "forbidden"),
        (NotFound("m", reason="NO_SUCH_PATH"), 404, "not_found"),
        (BodyTooLarge("m"), 413, "payload_too_large"),
        (RequestKeyReused("m"), 422, "idempotency_key_reuse"),
        (InvalidRequest("m", reason="INVALID_IDEMPOTENCY_KEY"), 400, "bad_request"),
        (Overloaded("m"), 429, "rate_limited"),
        (Unavailable("m"), 503, "unavailable"),
        (HeadgateError("m"), 500, "server_error"),
    ],
)
def test_an_error_is_said_in_the_vendor_s_words(error: HeadgateError, code: int, name: str) -> None:
    answer = Reply(code, {"errors": [{"code": name, "message": "m"}]})
    assert VibeFollow().refusal(status.http_of(error), error) == answer


def test_routes_scopes_and_limits() -> None:
    routes = VibeFollow().routes()
    assert routes.keys() == {("POST", BATCH), ("POST", SINGLE)}
    for endpoint in routes.values():
        assert isinstance(endpoint, Take)
        assert endpoint.request_key
        assert endpoint.scopes == (Scope.EVENTS_WRITE,)
    assert (VibeFollow.name, VibeFollow.rate, VibeFollow.rate_headers) == ("vibefollow", None, False)


# Quota


@pytest.mark.parametrize(("path", "body", "left"), [(BATCH, {"events": [event(), event()]}, 1), (SINGLE, event(), 0)])
def test_past_the_quota_nothing_is_taken(workspace: Workspace, path: str, body: Any, left: int) -> None:
    reply = workspace.post(path, body, quota_left=left)
    assert workspace.rows == []
    assert (reply.status, reply.body) == (
        429,
        {"errors": [{"code": "quota_exceeded", "message": QUOTA_EXCEEDED.message}]},
    )
    assert reply.headers == (("retry-after", UNTIL_MARCH),)


def test_an_invalid_event_is_said_before_the_quota(workspace: Workspace) -> None:
    reply = workspace.post(BATCH, {"events": [event(), event(name="")]}, quota_left=0)
    assert reply == refused("events[1].name", "required")
