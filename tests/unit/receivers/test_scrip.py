"""Scrip's contract: from requests to drafts, and from outcomes to answers."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from headgate_server.core import canonical, ledger, settle
from headgate_server.core.errors import (
    BodyTooLarge,
    HeadgateError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
)
from headgate_server.core.model import Draft, Mismatch, Outcome, Problem, RateLimit, Scope, Status
from headgate_server.receivers import Intake, Reply, Take
from headgate_server.receivers.scrip import Scrip
from tests.support import poison
from tests.unit.receivers.answering import refused
from tests.unit.receivers.scrip_requests import BATCH, EXAMPLE, ID, LINK, MOMENT, PROGRAM, ROUTES, SINGLE, request, take

ACCEPTED = Outcome(Status.ACCEPTED, LINK)


def take_one(event: Any) -> Intake:
    assert isinstance(SINGLE, Take)
    return SINGLE.read(request(orjson.dumps(event), "/v1/events"))


def draft(**changes: Any) -> Draft:
    [slot] = take(EXAMPLE | changes).slots
    assert isinstance(slot, Draft), slot
    return slot


def answer(intake: Intake, outcomes: Sequence[Outcome], endpoint: Any = BATCH) -> Reply:
    """Return the reply with its body as a client reads it."""
    try:
        reply: Reply = endpoint.reply(request(), intake, outcomes)
    except QuotaExceeded as error:
        reply = refused(Scrip(), error)
    return reply._replace(body=orjson.loads(orjson.dumps(reply.body)))


def error_of(event: Any) -> str:
    """Return the batch's answer for one bad event. Checks that the single endpoint answers the same."""
    intake = take(event)
    assert isinstance(intake.slots[0], Problem), intake.slots[0]
    rejected = [Outcome(Status.REJECTED, problem=intake.slots[0])]
    [result] = answer(intake, rejected).body["results"]
    single = answer(take_one(event), rejected, SINGLE)
    assert (single.status, single.body) == (400, {"code": "bad_request", "message": result["error"]})
    assert (result["index"], result["status"], result["event"]) == (0, "error", None)
    error: str = result["error"]
    return error


def test_the_example_becomes_a_draft_that_holds_it_whole() -> None:
    sealed = draft()
    assert (sealed.receiver, sealed.type, sealed.source, sealed.subject) == ("scrip", "event", PROGRAM, "user_abc123")
    assert sealed.occurred_at == MOMENT
    assert sealed.data == canonical.encode(EXAMPLE)
    assert (sealed.scope, sealed.key) == (PROGRAM, "order-12345-completed")
    assert sealed.identity == ledger.identity("scrip", PROGRAM, "order-12345-completed")
    assert sealed.on_mismatch is Mismatch.CONFLICT


def test_the_example_gets_the_documented_answer() -> None:
    reply = answer(take(EXAMPLE), [ACCEPTED])
    assert reply.status == 200
    assert reply.body == {
        "total": 1,
        "success_count": 1,
        "error_count": 0,
        "results": [
            {
                "index": 0,
                "status": "accepted",
                "event": {
                    "id": str(ID),
                    "idempotency_key": "order-12345-completed",
                    "program_id": PROGRAM,
                    "participant_id": PROGRAM,
                    "external_id": "user_abc123",
                    "event_timestamp": "2024-01-15T10:30:00Z",
                    "status": "PENDING",
                },
            }
        ],
    }


def test_the_single_endpoint_answers_with_the_event() -> None:
    reply = answer(take_one(EXAMPLE), [ACCEPTED], SINGLE)
    assert reply.status == 200
    assert reply.body == answer(take(EXAMPLE), [ACCEPTED]).body["results"][0]["event"]


def test_an_id_that_was_not_sent_is_null_in_the_answer() -> None:
    sent = {name: value for name, value in EXAMPLE.items() if name != "participant_id"}
    event = answer(take(sent), [ACCEPTED]).body["results"][0]["event"]
    assert (event["participant_id"], event["external_id"]) == (None, "user_abc123")


@pytest.mark.parametrize(
    ("changes", "type_"),
    [
        ({"event_data": {"type": "purchase"}}, "purchase"),
        ({"event_data": {"type": "", "amount": 99.5}}, "event"),
        ({"event_data": {"type": 5}}, "event"),
        ({"event_data": {"type": "t" * 256}}, "event"),
    ],
)
def test_the_type_is_what_the_payload_says_it_is(changes: dict[str, Any], type_: str) -> None:
    assert draft(**changes).type == type_


def test_the_subject_is_the_external_id_or_else_the_participant() -> None:
    assert draft(external_id=None).subject == PROGRAM
    assert draft(participant_id=None).subject == "user_abc123"
    assert draft(participant_id="", external_id="u").subject == "u"


def test_letters_of_either_case_name_the_same_program() -> None:
    assert draft(program_id=PROGRAM.upper()).identity == draft().identity
    assert draft(program_id=PROGRAM.upper()).source == PROGRAM


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        *(
            ({name: None}, f"invalid {name}")
            for name in ("program_id", "idempotency_key", "event_timestamp", "event_data")
        ),
        ({"program_id": "not-a-uuid"}, "invalid program_id"),
        ({"program_id": 5}, "invalid program_id"),
        ({"program_id": PROGRAM + "\n"}, "invalid program_id"),
        ({"idempotency_key": ""}, "invalid idempotency_key"),
        ({"idempotency_key": "k" * 256}, "invalid idempotency_key"),
        ({"event_timestamp": "2024-01-15"}, "invalid event_timestamp"),
        ({"event_timestamp": 1705314600}, "invalid event_timestamp"),
        ({"event_data": []}, "invalid event_data"),
        ({"external_id": {}}, "invalid external_id"),
        ({"participant_id": "user_abc123"}, "invalid participant_id"),
        ({"recipient_id": "user_xyz789"}, "invalid recipient_id"),
        ({"recipient_external_id": 7}, "invalid recipient_external_id"),
        ({"external_id": None, "participant_id": None}, "external_id or participant_id is required"),
    ],
)
def test_a_field_that_is_not_as_documented_spoils_its_event(changes: dict[str, Any], error: str) -> None:
    assert error_of(EXAMPLE | changes) == error


@pytest.mark.parametrize("event", [5, None, "text", [], True])
def test_an_event_is_an_object(event: Any) -> None:
    assert error_of(event).startswith("An event must be a JSON object")


def test_the_first_and_the_last_key_length_are_taken() -> None:
    assert draft(idempotency_key="k").key == "k"
    assert draft(idempotency_key="k" * 255).key == "k" * 255


def test_results_stand_in_input_order_and_conflicts_are_errors() -> None:
    intake = take(EXAMPLE, EXAMPLE | {"program_id": "x"}, EXAMPLE, EXAMPLE)
    problem = intake.slots[1]
    assert isinstance(problem, Problem)
    outcomes = [
        ACCEPTED,
        Outcome(Status.REJECTED, problem=problem),
        Outcome(Status.DUPLICATE, LINK),
        Outcome(Status.CONFLICT, LINK, settle.CONFLICT),
    ]
    body = answer(intake, outcomes).body
    assert (body["total"], body["success_count"], body["error_count"]) == (4, 2, 2)
    assert [result["index"] for result in body["results"]] == [0, 1, 2, 3]
    assert [result["status"] for result in body["results"]] == ["accepted", "error", "accepted", "error"]
    assert [result.get("error") for result in body["results"]] == [
        None,
        "invalid program_id",
        None,
        "idempotency_conflict",
    ]
    assert body["results"][2]["event"] == body["results"][0]["event"]


def test_a_single_conflict_is_409() -> None:
    reply = answer(take_one(EXAMPLE), [Outcome(Status.CONFLICT, LINK, settle.CONFLICT)], SINGLE)
    assert reply.status == 409
    assert reply.body == {"code": "idempotency_conflict", "message": settle.CONFLICT.message}


def test_past_the_quota_an_event_of_a_batch_is_an_error_and_a_single_one_is_429() -> None:
    beyond = Outcome(Status.REJECTED, problem=settle.QUOTA_EXCEEDED)
    body = answer(take(EXAMPLE, EXAMPLE), [ACCEPTED, beyond]).body
    assert [result.get("error") for result in body["results"]] == [None, "quota_exceeded"]
    single = answer(take_one(EXAMPLE), [beyond], SINGLE)
    assert (single.status, single.body["code"]) == (429, "quota_exceeded")
    # From 10:30 on 15 January to 1 February.
    assert single.headers == (("retry-after", str(16 * 86_400 + 13 * 3_600 + 1_800)),)


@pytest.mark.parametrize("count", [1, 100])
def test_a_batch_has_1_to_100_events(count: int) -> None:
    assert len(take(*[EXAMPLE] * count).slots) == count


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"events": []}', "EMPTY_BATCH"),
        (orjson.dumps({"events": [EXAMPLE] * 101}), "TOO_MANY_EVENTS"),
        (b"{}", "MISSING_FIELD"),
        (b'{"events": {}}', "WRONG_TYPE"),
        (b'{"events": 5}', "WRONG_TYPE"),
        (b'{"events": null}', "MISSING_FIELD"),
        (b"[]", "NOT_AN_OBJECT"),
        (b'{"events": [', "MALFORMED_JSON"),
        (b'{"events": [NaN]}', "MALFORMED_JSON"),
        (b"\xff", "MALFORMED_JSON"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(body: bytes, reason: str) -> None:
    assert isinstance(BATCH, Take)
    with pytest.raises(InvalidRequest) as refused:
        BATCH.read(request(body))
    assert refused.value.reason == reason
    reply = Scrip().refusal(400, refused.value)
    assert (reply.status, reply.body["code"]) == (400, "bad_request")


def test_a_single_body_that_is_no_json_is_refused() -> None:
    assert isinstance(SINGLE, Take)
    with pytest.raises(InvalidRequest):
        SINGLE.read(request(b"{", "/v1/events"))


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, (text, _) in poison.JSON.items()])
def test_a_poison_value_touches_only_its_own_position(text: bytes) -> None:
    good = orjson.dumps(EXAMPLE)
    holding = orjson.dumps(EXAMPLE | {"event_data": "?"}).replace(b'"?"', b'{"value":' + text + b"}")
    assert isinstance(BATCH, Take)
    intake = BATCH.read(request(poison.json_batch(good, holding, text, good)))
    assert [type(slot) for slot in intake.slots[::3]] == [Draft, Draft]
    assert isinstance(intake.slots[2], Problem)
    outcomes = [
        ACCEPTED if isinstance(slot, Draft) else Outcome(Status.REJECTED, problem=slot) for slot in intake.slots
    ]
    assert [result["index"] for result in answer(intake, outcomes).body["results"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["program_id", "idempotency_key", "event_timestamp", "external_id", "participant_id"])
@pytest.mark.parametrize("value", [b'"\\ud800"', b'"a\\u0000b"', b"1e999", b"123456789012345678901234567890"])
def test_a_poison_value_in_a_field_that_answers_give_back(name: str, value: bytes) -> None:
    bad = orjson.dumps(EXAMPLE | {name: "?"}).replace(b'"?"', value)
    assert isinstance(BATCH, Take)
    intake = BATCH.read(request(b'{"events":[' + bad + b"]}"))
    [slot] = intake.slots
    assert isinstance(slot, Problem)
    assert answer(intake, [Outcome(Status.REJECTED, problem=slot)]).body["error_count"] == 1


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, InvalidRequest("m"), "bad_request"),
        (401, Unauthenticated("m"), "unauthorized"),
        (403, PermissionDenied("m"), "forbidden"),
        (404, NotFound("m", reason="NO_SUCH_PATH"), "not_found"),
        (413, BodyTooLarge("m"), "payload_too_large"),
        (429, HeadgateError("m"), "too_many_requests"),
        (500, HeadgateError("m"), "internal_error"),
        (503, HeadgateError("m"), "service_unavailable"),
    ],
)
def test_errors_have_the_vendors_body(status: int, error: HeadgateError, code: str) -> None:
    assert Scrip().refusal(status, error) == Reply(status, {"code": code, "message": "m"})


def test_the_documented_rate_scopes_and_routes() -> None:
    assert Scrip.rate == RateLimit(requests=10, period=1_000_000, burst=30)
    assert Scrip.rate_headers
    assert {route: endpoint.scopes for route, endpoint in ROUTES.items()} == {
        ("POST", "/v1/events/batch"): (Scope.EVENTS_WRITE,),
        ("POST", "/v1/events"): (Scope.EVENTS_WRITE,),
        ("GET", "/v1/events"): (Scope.EVENTS_READ,),
        ("GET", "/v1/events/{id}"): (Scope.EVENTS_READ,),
        ("POST", "/v1/events/{id}/retry"): (Scope.EVENTS_WRITE,),
    }
    assert not any(endpoint.request_key for endpoint in ROUTES.values() if isinstance(endpoint, Take))
