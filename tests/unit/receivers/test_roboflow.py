"""Roboflow's vision events: the page's example, then CONTRACTS row by row."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core.errors import (
    BodyTooLarge,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from headgate_server.core.model import Outcome, Problem, Scope, Status
from headgate_server.receivers import Reply, Take
from headgate_server.receivers.roboflow import Roboflow

from .answering import NOW, OVER_QUOTA, POISON, Served, batch_of, drafts, events_like

BATCH, SINGLE, QUERY = "/vision-events/batch", "/vision-events", "/vision-events/query"
PASSED = {
    "eventId": "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "eventType": "quality_check",
    "useCaseId": "a1b3c8e1",
    "timestamp": "2024-01-15T10:30:00Z",
    "eventData": {"result": "pass"},
}
FAILED = {
    "eventId": "9c4d6a2e-81f3-4b7a-bc9e-3f1a2d4e5c6b",
    "eventType": "quality_check",
    "useCaseId": "a1b3c8e1",
    "timestamp": "2024-01-15T10:31:00Z",
    "eventData": {"result": "fail"},
}


@pytest.fixture
def roboflow() -> Served:
    return Served(Roboflow())


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in PASSED.items() if key != name}


def test_the_example_of_the_page_gets_the_answer_of_the_page(roboflow: Served) -> None:
    answer = roboflow.post(BATCH, {"events": [PASSED, FAILED]})
    assert answer == (201, {"created": 2, "eventIds": [PASSED["eventId"], FAILED["eventId"]]}, ())


def test_an_event_is_stored_under_the_vendors_names_and_keeps_its_object_whole(roboflow: Served) -> None:
    event = PASSED | {"deviceId": "camera-7", "later": {"n": 1}}
    [draft] = drafts(roboflow.read(BATCH, {"events": [event]}))
    assert (draft.receiver, draft.type, draft.source, draft.subject) == (
        "roboflow",
        "quality_check",
        "a1b3c8e1",
        "camera-7",
    )
    assert (draft.scope, draft.key, draft.occurred_at) == ("", PASSED["eventId"], NOW)
    assert json.loads(draft.data or b"") == event


def test_a_single_event(roboflow: Served) -> None:
    assert roboflow.post(SINGLE, PASSED) == (201, {"eventId": PASSED["eventId"], "created": True}, ())
    status, body, _ = roboflow.post(SINGLE, without("eventId"))
    assert (status, body) == (400, {"error": "The eventId field is required."})
    status, body, _ = roboflow.post(SINGLE, PASSED | {"eventData": {"result": "perhaps"}})
    assert body["warnings"] == ["eventData.result should be one of pass, fail."]


def test_the_same_event_again_is_the_same_event(roboflow: Served) -> None:
    first, again = roboflow.post(SINGLE, PASSED), roboflow.post(SINGLE, PASSED)
    assert first == again
    assert len(roboflow.rows) == 1


def test_another_event_of_the_same_id_replaces_and_reads_give_the_newest(roboflow: Served) -> None:
    for result in ("pass", "fail"):
        roboflow.post(BATCH, {"events": [PASSED | {"eventData": {"result": result}}]})
    assert len(roboflow.rows) == 2
    [event] = roboflow.found(QUERY, {"useCaseId": "a1b3c8e1"}).body["events"]
    assert event["eventData"] == {"result": "fail"}


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (without("eventId"), "The eventId field is required."),
        (without("eventType"), "The eventType field is required."),
        (without("useCaseId"), "The useCaseId field is required."),
        (without("timestamp"), "The timestamp field is required."),
        (without("eventData"), "The eventData field is required."),
        (PASSED | {"eventId": 5}, "The eventId field must be a string, not a number."),
        (PASSED | {"eventData": []}, "The eventData field must be an object, not a list."),
        (PASSED | {"useCaseId": "u" * 257}, "The useCaseId field is longer than 256 characters."),
        (PASSED | {"timestamp": 1}, "The timestamp field must be an RFC 3339 string, not a number."),
        (PASSED | {"timestamp": "soon"}, "'soon' is not an RFC 3339 timestamp such as 2024-01-15T10:30:00Z."),
    ],
)
def test_an_event_that_cannot_be_stored_is_left_out_and_said(roboflow: Served, event: Any, sentence: str) -> None:
    answer = roboflow.post(BATCH, {"events": [event, FAILED]})
    assert answer == (201, {"created": 1, "eventIds": [FAILED["eventId"]], "warnings": {"0": [sentence]}}, ())
    assert roboflow.post(BATCH, {"events": [event, {}]}) == (400, {"error": sentence}, ())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"eventType": "sighting"}, "eventType should be one of quality_check, inventory_count, safety_alert, custom, "
         "operator_feedback."),
        ({"eventType": "event"}, "eventType should be one of quality_check, inventory_count, safety_alert, custom, "
         "operator_feedback."),
        ({"eventData": {"externalId": 5}}, "eventData.externalId should be a string."),
        ({"eventType": "inventory_count", "eventData": {"itemCount": "5"}}, "eventData.itemCount should be a number."),
        ({"eventType": "safety_alert", "eventData": {"severity": "huge"}}, "eventData.severity should be one of low, "
         "medium, high."),
        ({"eventType": "safety_alert", "eventData": {"description": "x" * 10_001}}, "eventData.description is longer "
         "than 10000 characters."),
        ({"eventType": "custom", "eventData": {"value": "x" * 10_001}}, "eventData.value is longer than 10000 "
         "characters."),
        ({"eventType": "operator_feedback", "eventData": {"feedback": "so so"}}, "eventData.feedback should be one of "
         "correct, incorrect, inconclusive."),
        ({"deviceId": 7}, "deviceId should be a string."),
        ({"deviceId": "d" * 257}, "deviceId is longer than 256 characters."),
        ({"images": {}}, "images should be an array."),
        ({"images": [{}, 1]}, "images should hold objects only."),
        ({"customMetadata": {str(n): n for n in range(101)}}, "customMetadata has more than 100 keys."),
        ({"timestamp": "2024-01-16T10:30:00.000001Z"}, "timestamp is later than tomorrow."),
        ({"timestamp": "2024-01-15T10:30:00.1234567Z"}, "timestamp is finer than a microsecond and was truncated."),
    ],
)  # fmt: skip
def test_what_is_odd_is_a_warning_and_the_event_is_kept(roboflow: Served, changes: Any, sentence: str) -> None:
    answer = roboflow.post(BATCH, {"events": [FAILED, PASSED | changes]})
    assert answer.status == 201
    assert answer.body["created"] == 2
    assert answer.body["warnings"] == {"1": [sentence]}


@pytest.mark.parametrize("metadata", [{"a": None}, {"a": []}, {"a": "x" * 1_001}, {"": 1}, {"a.b": 1}, {"k" * 101: 1}])
def test_metadata_that_is_not_as_documented_is_one_warning(roboflow: Served, metadata: Any) -> None:
    body = roboflow.post(SINGLE, PASSED | {"customMetadata": metadata}).body
    assert [sentence.split(" should")[0] for sentence in body["warnings"]] == ["customMetadata"]


@pytest.mark.parametrize(
    "changes",
    [
        {"customMetadata": {"line 1_-": "A", "temperature": 72.5, "night": True, "huge": 10**30}},
        {"images": [{"sourceId": "s"}], "streamId": "s", "workflowId": "w", "comment": "c", "displayImagePosition": 1},
        {"images": None, "deviceId": None, "customMetadata": None},
        {"eventType": "custom", "eventData": {"value": None}},
        {"timestamp": "2024-01-15T10:30:00+02:00"},
        {"timestamp": "2024-01-15T10:30:00.5"},
        {"timestamp": "2024-01-15"},
        {"timestamp": "1999-12-31T23:59:59Z"},
    ],
)
def test_what_is_documented_is_no_warning(roboflow: Served, changes: Any) -> None:
    assert "warnings" not in roboflow.post(SINGLE, PASSED | changes).body


@pytest.mark.parametrize(
    ("sent", "meant"),
    [("2024-01-15T10:30:00", "2024-01-15T10:30:00Z"), ("2024-01-15", "2024-01-15T00:00:00Z")],
)
def test_a_time_without_an_offset_is_utc(roboflow: Served, sent: str, meant: str) -> None:
    first, second = drafts(
        roboflow.read(BATCH, {"events": [PASSED | {"timestamp": sent}, PASSED | {"timestamp": meant}]})
    )
    assert first.occurred_at == second.occurred_at


def test_names_of_old_are_accepted_and_said(roboflow: Served) -> None:
    old = {
        "eventId": "e1",
        "event_schema": "quality_check",
        "solution": "a1b3c8e1",
        "timestamp": PASSED["timestamp"],
        "event_data": {"result": "pass"},
        "custom_metadata": {"line": "A1"},
    }
    answer = roboflow.post(BATCH, {"events": [old, PASSED, old | {"eventId": "e2", "useCaseId": "newer"}]})
    assert answer.body == {
        "created": 3,
        "eventIds": ["e1", PASSED["eventId"], "e2"],
        "deprecations": [
            "solution is deprecated; use useCaseId.",
            "event_schema is deprecated; use eventType.",
            "event_data is deprecated; use eventData.",
            "custom_metadata is deprecated; use customMetadata.",
        ],
    }
    assert [row.source for row in roboflow.rows] == ["a1b3c8e1", "a1b3c8e1", "newer"]


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_touches_its_own_position_alone(roboflow: Served, poison: bytes) -> None:
    good = json.dumps(PASSED).encode()
    odd = good[:-1] + b', "x": ' + poison + b"}" if poison.startswith(b"{") else poison
    answer = roboflow.post(BATCH, batch_of(odd, json.dumps(FAILED).encode()))
    assert (answer.body["created"], list(answer.body["warnings"])) == (1, ["0"])


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1e-400", b"18446744073709551617", b"9" * 400])
def test_a_number_that_no_double_holds_is_a_number(roboflow: Served, number: bytes) -> None:
    event = json.dumps(
        PASSED | {"eventType": "inventory_count", "eventData": {"itemCount": 0}, "customMetadata": {"n": 0}}
    )
    status, body, _ = roboflow.post(SINGLE, event.encode().replace(b": 0}", b": " + number + b"}"))
    assert (status, body) == (201, {"eventId": PASSED["eventId"], "created": True})


def test_numbers_that_no_double_holds_are_given_back_as_they_were_sent(roboflow: Served) -> None:
    body = json.dumps(PASSED).encode()[:-1] + b', "customMetadata": {"n": 12345678901234567890}}'
    assert "warnings" not in roboflow.post(SINGLE, body).body
    [event] = roboflow.found(QUERY, {"useCaseId": "a1b3c8e1"}).body["events"]
    assert event == PASSED | {"customMetadata": {"n": 12345678901234567890}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The body is not JSON"),
        (b"[]", 'The body must be a JSON object with a list "events".'),
        (b"{}", 'The "events" field is required.'),
        (b'{"events": {}}', 'The "events" field must be a list.'),
        (b'{"events": []}', "A batch needs at least one event."),
        (json.dumps({"events": [PASSED] * 101}).encode(), "Batch size exceeds maximum of 100 events"),
    ],
)
def test_a_request_that_is_none(roboflow: Served, body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        roboflow.read(BATCH, body)
    reply = Roboflow().refusal(400, refused.value)
    assert reply.status == 400
    assert list(reply.body) == ["error"]
    assert reply.body["error"].startswith(message)


def test_one_over_the_limit_is_refused_in_the_words_of_the_page(roboflow: Served) -> None:
    assert roboflow.post(BATCH, {"events": [PASSED] * 100}).status == 201
    with pytest.raises(InvalidRequest) as refused:
        roboflow.read(BATCH, {"events": [PASSED] * 101})
    body = {"error": "Batch size exceeds maximum of 100 events"}
    assert Roboflow().refusal(400, refused.value) == Reply(400, body)


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (401, Unauthenticated("An API key is required."), "An API key is required."),
        (403, PermissionDenied('lacks "events:write"'), "Insufficient permissions for this resource."),
        (404, NotFound("roboflow has no GET /x here.", reason="NO_SUCH_PATH"), "roboflow has no GET /x here."),
        (413, BodyTooLarge("Too large."), "Too large."),
        (503, Unavailable("The store cannot be reached."), "The store cannot be reached."),
        (400, InvalidRequest("x" * 5_000), "x" * 999 + "…"),
    ],
)
def test_errors_are_one_text(status: int, error: Any, text: str) -> None:
    assert Roboflow().refusal(status, error) == Reply(status, {"error": text})


def test_any_one_of_the_vendors_scopes_or_ours_is_enough() -> None:
    for path in (BATCH, SINGLE):
        endpoint = Roboflow().routes()["POST", path]
        assert isinstance(endpoint, Take)
        assert set(endpoint.scopes) == {"events:write", "vision-events:write", "device:update"}
        assert not endpoint.request_key
    assert Roboflow().routes()["POST", QUERY].scopes == (Scope.EVENTS_READ,)


def test_the_quota_leaves_events_out_and_past_it_the_whole_request(roboflow: Served) -> None:
    intake = roboflow.read(BATCH, {"events": [PASSED, FAILED]})
    answer = roboflow.answer(BATCH, intake, [Outcome(Status.ACCEPTED), OVER_QUOTA])
    sentence = "The monthly quota of 5 events is used up."
    assert answer.body == {"created": 1, "eventIds": [PASSED["eventId"]], "warnings": {"1": [sentence]}}
    bad = Outcome(OVER_QUOTA.status, problem=Problem("MISSING_FIELD", "eventId", "The eventId field is required."))
    answer = roboflow.answer(BATCH, intake, [bad, OVER_QUOTA])
    assert (answer.status, answer.body) == (429, {"error": sentence})
    assert dict(answer.headers)["retry-after"] == str(16 * 86_400 + 13 * 3_600 + 30 * 60)


def test_a_query_asks_for_one_use_case_newest_first_and_only_what_holds_now(roboflow: Served) -> None:
    search = roboflow.search(QUERY, {"useCaseId": "a1b3c8e1"})
    assert (search.source, search.limit, search.newest_first, search.current_only) == ("a1b3c8e1", 50, True, True)
    assert search.match is None
    search = roboflow.search(QUERY, {"useCaseId": "u", "limit": 7, "cursor": "00ff", "eventTypes": ["custom"]})
    assert (search.limit, search.cursor, search.type, search.match) == (7, "00ff", "custom", None)


def test_a_query_with_types_and_a_time_range_whose_ends_count(roboflow: Served) -> None:
    alert = PASSED | {"eventId": "e3", "eventType": "safety_alert", "eventData": {}}
    roboflow.post(BATCH, {"events": [PASSED, FAILED, alert, alert | {"eventId": "e4", "useCaseId": "other"}]})

    def ids(**filters: Any) -> list[str]:
        answer = roboflow.found(QUERY, {"useCaseId": "a1b3c8e1"} | filters)
        return [event["eventId"] for event in answer.body["events"]]

    assert ids() == ["e3", FAILED["eventId"], PASSED["eventId"]]
    assert ids(eventType="safety_alert") == ["e3"]
    assert ids(eventTypes=["quality_check", "safety_alert"]) == ids()
    assert ids(startTime="2024-01-15T10:30:00.000001Z") == [FAILED["eventId"]]
    assert ids(startTime=PASSED["timestamp"], endTime=PASSED["timestamp"]) == ["e3", PASSED["eventId"]]
    assert ids(endTime="2024-01-15") == []


def test_a_page_says_whether_there_is_more(roboflow: Served) -> None:
    roboflow.post(SINGLE, PASSED)
    answer = roboflow.found(QUERY, {"useCaseId": "a1b3c8e1"})
    assert answer == (200, {"events": [PASSED], "nextCursor": None, "hasMore": False}, ())
    answer = roboflow.found(QUERY, {"useCaseId": "a1b3c8e1"}, cursor="0a")
    assert (answer.body["nextCursor"], answer.body["hasMore"]) == ("0a", True)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"[]", ""),
        (b"5", ""),
        (b'{"a": 1, "a": 2}', ""),
        ({}, "useCaseId"),
        ({"useCaseId": 5}, "useCaseId"),
        ({"useCaseId": "u", "limit": 0}, "limit"),
        ({"useCaseId": "u", "limit": 1_001}, "limit"),
        ({"useCaseId": "u", "limit": True}, "limit"),
        ({"useCaseId": "u", "startTime": "yesterday"}, "startTime"),
        ({"useCaseId": "u", "endTime": 5}, "endTime"),
        ({"useCaseId": "u", "eventTypes": "custom"}, "eventTypes"),
        ({"useCaseId": "u", "eventTypes": [5]}, "eventTypes"),
        ({"useCaseId": "u", "eventTypes": ["t"] * 21}, "eventTypes"),
        ({"useCaseId": "u", "cursor": []}, "cursor"),
        ({"useCaseId": "u", "deviceId": {"operator": "eq", "value": "d"}}, ""),
    ],
)
def test_a_query_that_cannot_be_answered_as_asked_is_refused(roboflow: Served, query: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        roboflow.search(QUERY, query)
    assert refused.value.field == field


@given(st.lists(events_like(PASSED), min_size=1, max_size=8))
def test_the_answer_agrees_with_the_ledger_whatever_is_sent(events: list[Any]) -> None:
    roboflow = Served(Roboflow())
    status, body, _ = roboflow.post(BATCH, {"events": events})
    newest = {row.key: json.loads(row.data or b"") for row in roboflow.rows}
    if status == 400:
        assert newest == {}
        return
    assert body["created"] == len(body["eventIds"])
    assert set(body["eventIds"]) == set(newest)
    assert {row.key for row in roboflow.rows if row.dedupe is not None} == set(newest)
    assert all(event in events for event in newest.values())
