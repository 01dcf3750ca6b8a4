"""FloKit's events API: the page's example, then CONTRACTS row by row."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import ledger
from headgate_server.core.errors import (
    BodyTooLarge,
    HeadgateError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestKeyReused,
    Unauthenticated,
    Unavailable,
)
from headgate_server.core.model import Link, Outcome, RateLimit, Scope, Status
from headgate_server.receivers import Reply, Take
from headgate_server.receivers.flokit import FloKit, event_id

from .answering import NOW, OVER_QUOTA, POISON, Served, batch_of, drafts, events_like

BATCH, SINGLE = "/v1/batch/events", "/v1/events"
VIEWED = {
    "event": "paywall_viewed",
    "user_id": "usr_abc123",
    "timestamp": "2024-03-15T14:20:00Z",
    "properties": {"paywall_id": "pw_annual_v3", "context": "onboarding_step_3"},
}
TRIED = {
    "event": "trial_started",
    "user_id": "usr_abc123",
    "timestamp": "2024-03-15T14:22:00Z",
    "properties": {"plan_id": "plan_annual_usd", "trial_length_days": 7, "paywall_id": "pw_annual_v3"},
}
SUBSCRIBED = {
    "event": "subscription_started",
    "user_id": "usr_abc123",
    "timestamp": "2024-03-22T14:22:00Z",
    "properties": {
        "plan_id": "plan_annual_usd",
        "revenue": 49.99,
        "currency": "USD",
        "transaction_id": "txn_3OZ9kL2eZvKYlo2C0FL1nGdU",
        "trial_converted": True,
        "store": "apple",
    },
}
CUSTOM = {"event": "level_up", "anonymous_id": "anon_1", "timestamp": "2024-03-15T14:20:00Z"}
ID = re.compile(r"evt_[0-9a-hjkmnp-tv-z]{26}")


@pytest.fixture
def flokit() -> Served:
    return Served(FloKit())


def changed(event: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
    """Return the event with some members changed; a member that is None is left out."""
    return {name: value for name, value in (event | changes).items() if value is not None}


def test_the_example_of_the_page_gets_the_answer_of_the_page(flokit: Served) -> None:
    status, body, headers = flokit.post(BATCH, {"events": [VIEWED, TRIED, SUBSCRIBED]})
    event_ids = body.pop("event_ids")
    assert (status, body, headers) == (200, {"status": "ok", "accepted": 3, "rejected": 0, "errors": []}, ())
    assert all(map(ID.fullmatch, event_ids))
    assert event_ids == sorted(set(event_ids))


def test_the_pages_second_answer_one_event_without_its_currency(flokit: Served) -> None:
    broken = changed(SUBSCRIBED, properties={"plan_id": "plan_annual_usd"})
    status, body, _ = flokit.post(BATCH, {"events": [VIEWED, TRIED, broken]})
    assert status == 200
    assert list(body) == ["status", "accepted", "rejected", "event_ids", "errors"]
    assert (body["accepted"], body["rejected"], len(body["event_ids"])) == (2, 1, 2)
    assert body["errors"] == [
        {"index": 2, "event": "subscription_started", "reason": "Missing required field: currency"}
    ]


def test_an_event_is_stored_under_the_vendors_names_and_keeps_its_object_whole(flokit: Served) -> None:
    event = VIEWED | {"anonymous_id": "anon_1", "later": [1]}
    [draft] = drafts(flokit.read(BATCH, {"events": [event]}))
    assert (draft.receiver, draft.type, draft.source, draft.subject) == ("flokit", "paywall_viewed", "", "usr_abc123")
    assert (draft.scope, draft.key, draft.dedupe) == (None, None, None)
    assert draft.occurred_at == 1_710_512_400_000_000
    assert json.loads(draft.data or b"") == event
    assert drafts(flokit.read(BATCH, {"events": [CUSTOM]}))[0].subject == "anon_1"


def test_events_have_no_identity(flokit: Served) -> None:
    body = flokit.post(BATCH, {"events": [VIEWED, VIEWED]}).body
    assert len(set(body["event_ids"])) == 2


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (changed(VIEWED, event=None), "Missing required field: event"),
        (changed(VIEWED, event=""), "Missing required field: event"),
        (changed(VIEWED, timestamp=None), "Missing required field: timestamp"),
        (changed(VIEWED, user_id=None), "Missing required field: user_id or anonymous_id"),
        (changed(VIEWED, user_id=""), "Missing required field: user_id or anonymous_id"),
        (changed(VIEWED, properties=None), "Missing required field: paywall_id"),
        (changed(VIEWED, properties={"paywall_id": ""}), "Missing required field: paywall_id"),
        (changed(VIEWED, properties={"paywall_id": None}), "Missing required field: paywall_id"),
        (changed(VIEWED, properties={"paywall_id": 3}), "The paywall_id field must be a string."),
        (changed(VIEWED, event="install_attributed"), "Missing required field: campaign_id"),
        (
            changed(VIEWED, event="install_attributed", properties={"campaign_id": "c"}),
            "Missing required field: channel",
        ),
        (changed(VIEWED, event=5), "The event field must be a string, not a number."),
        (changed(VIEWED, event="e" * 256), "The event field is longer than 255 characters."),
        (changed(VIEWED, user_id=5), "The user_id field must be a string, not a number."),
        (changed(VIEWED, timestamp="soon"), "'soon' is not an RFC 3339 timestamp such as 2024-01-15T10:30:00Z."),
        (changed(VIEWED, properties=[]), "The properties field must be an object, not a list."),
        (5, "An event must be a JSON object, not a number."),
    ],
)
def test_an_invalid_event_is_rejected_and_the_others_proceed(flokit: Served, event: Any, reason: str) -> None:
    body = flokit.post(BATCH, {"events": [event, CUSTOM]}).body
    assert (body["accepted"], body["rejected"]) == (1, 1)
    name = event.get("event") if isinstance(event, dict) else None
    shown = name if isinstance(name, str) and len(name) < 256 else None
    assert body["errors"] == [{"index": 0, "event": shown, "reason": reason}]
    status, body, _ = flokit.post(SINGLE, event)
    assert (status, body) == (400, {"error": "validation_error", "message": reason})


def test_a_batch_of_which_nothing_is_accepted_is_answered_alike(flokit: Served) -> None:
    status, body, _ = flokit.post(BATCH, {"events": [5, {}]})
    assert (status, body["accepted"], body["rejected"], body["event_ids"]) == (200, 0, 2, [])
    assert [error["index"] for error in body["errors"]] == [0, 1]


@pytest.mark.parametrize("name", ["level_up", "../paywall_viewed", "paywall_viewed.json", "x\u2028y"])
def test_other_names_are_custom_events(flokit: Served, name: str) -> None:
    assert flokit.post(SINGLE, CUSTOM | {"event": name}).status == 200


def test_a_single_event(flokit: Served) -> None:
    status, body, _ = flokit.post(SINGLE, VIEWED)
    assert (status, list(body), body["status"]) == (200, ["status", "event_id"], "ok")
    assert ID.fullmatch(body["event_id"])


@pytest.mark.parametrize("sent", ["2024-03-15T14:20:00", "2024-03-15T16:20:00+02:00", "2024-03-15T14:20:00.000"])
def test_a_time_without_an_offset_is_utc(flokit: Served, sent: str) -> None:
    [draft] = drafts(flokit.read(BATCH, {"events": [VIEWED | {"timestamp": sent}]}))
    assert draft.occurred_at == 1_710_512_400_000_000


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_touches_its_own_position_alone(flokit: Served, poison: bytes) -> None:
    good = json.dumps(VIEWED).encode()
    odd = good[:-1] + b', "x": ' + poison + b"}" if poison.startswith(b"{") else poison
    body = flokit.post(BATCH, batch_of(good, odd, good)).body
    assert (body["accepted"], [error["index"] for error in body["errors"]]) == (2, [1])


def test_poison_in_what_an_answer_repeats(flokit: Served) -> None:
    odd = rb'{"event": "\ud800", "user_id": "u", "timestamp": "2024-03-15T14:20:00Z"}'
    in_rules = json.dumps(VIEWED).encode().replace(b"pw_annual_v3", rb"\udfff")
    body = flokit.post(BATCH, batch_of(odd, in_rules)).body
    assert [(error["index"], error["event"]) for error in body["errors"]] == [(0, None), (1, "paywall_viewed")]


def test_numbers_that_no_double_holds_are_kept(flokit: Served) -> None:
    body = json.dumps(SUBSCRIBED).encode().replace(b"49.99", b"49.990000000000000000000000001")
    assert flokit.post(SINGLE, body).status == 200
    assert b"49.990000000000000000000000001" in (flokit.rows[0].data or b"")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The body is not JSON"),
        (b"[]", 'The body must be a JSON object with a list "events".'),
        (b"{}", "Missing required field: events"),
        (b'{"events": {}}', 'The "events" field must be a list.'),
        (b'{"events": []}', "A batch needs at least one event."),
        (json.dumps({"events": [5] * 1_001}).encode(), "Batch size exceeds maximum of 1000 events"),
    ],
)
def test_a_request_that_is_none(flokit: Served, body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        flokit.read(BATCH, body)
    reply = FloKit().refusal(400, refused.value)
    assert reply.status == 400
    assert reply.body["error"] == "validation_error"
    assert reply.body["message"].startswith(message)


def test_a_thousand_events_are_taken(flokit: Served) -> None:
    assert flokit.post(BATCH, {"events": [VIEWED] * 1_000}).body["accepted"] == 1_000


@pytest.mark.parametrize(
    ("status", "error", "body"),
    [
        (401, Unauthenticated("No."), {"error": "unauthorized", "message": "Invalid or missing API key"}),
        (403, PermissionDenied("No."), {"error": "forbidden", "message": "This operation requires a read-write key"}),
        (404, NotFound("Nothing.", reason="NO_SUCH_PATH"), {"error": "not_found", "message": "Nothing."}),
        (413, BodyTooLarge("Large."), {"error": "payload_too_large", "message": "Large."}),
        (422, RequestKeyReused("Used."), {"error": "idempotency_key_reuse", "message": "Used."}),
        (429, HeadgateError("Slow."), {"error": "rate_limit_exceeded", "message": "Slow."}),
        (500, HeadgateError("Broken."), {"error": "internal_error", "message": "Broken."}),
        (503, Unavailable("Down."), {"error": "service_unavailable", "message": "Down."}),
    ],
)
def test_errors_are_a_code_and_a_message(status: int, error: HeadgateError, body: Any) -> None:
    assert FloKit().refusal(status, error) == Reply(status, body)


def test_what_the_flow_needs_to_know() -> None:
    assert FloKit().rate == RateLimit(requests=100, period=60_000_000, burst=100)
    assert not FloKit().rate_headers
    for path in (BATCH, SINGLE):
        endpoint = FloKit().routes()["POST", path]
        assert isinstance(endpoint, Take)
        assert endpoint.request_key
        assert endpoint.scopes == (Scope.EVENTS_WRITE,)


def test_ids_sort_by_time() -> None:
    edges = [0, 1, NOW, NOW + 1, NOW + 1_000, 2**47 * 1_000]
    links = [
        Link(ledger.event_id(at, random), 1, at, b"", b"", b"") for at in edges for random in (bytes(8), b"\xff" * 8)
    ]
    ids = [event_id(link) for link in links]
    assert ids == sorted(set(ids))
    assert all(map(ID.fullmatch, ids))
    assert event_id(Link(b"\xff" * 16, 1, 0, b"", b"", b"")) == "evt_7" + "z" * 25


def test_the_quota_rejects_what_lies_beyond_it(flokit: Served) -> None:
    intake = flokit.read(BATCH, {"events": [VIEWED, TRIED]})
    accepted = Outcome(Status.ACCEPTED, Link(ledger.event_id(NOW, bytes(8)), 1, NOW, b"", b"", b""))
    body = flokit.answer(BATCH, intake, [accepted, OVER_QUOTA]).body
    sentence = "The monthly quota of 5 events is used up."
    assert body["errors"] == [{"index": 1, "event": "trial_started", "reason": sentence}]
    status, body, headers = flokit.answer(SINGLE, flokit.read(SINGLE, VIEWED), [OVER_QUOTA])
    assert (status, body) == (429, {"error": "quota_exceeded", "message": sentence})
    assert dict(headers)["retry-after"] == str(16 * 86_400 + 13 * 3_600 + 30 * 60)


@given(st.lists(events_like(VIEWED), min_size=1, max_size=8))
def test_the_answer_agrees_with_the_ledger_whatever_is_sent(events: list[Any]) -> None:
    flokit = Served(FloKit())
    body = flokit.post(BATCH, {"events": events}).body
    links = [Link(row.id, row.sequence, row.created_at, b"", b"", b"") for row in flokit.rows]
    assert body["event_ids"] == [event_id(link) for link in links]
    rejected = [error["index"] for error in body["errors"]]
    assert (body["accepted"], body["rejected"]) == (len(links), len(rejected))
    kept = [event for index, event in enumerate(events) if index not in rejected]
    assert [json.loads(row.data or b"") for row in flokit.rows] == kept
