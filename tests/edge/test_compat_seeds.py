"""Each vendor's documented requests, as its page shows them, get the documented answers: status, body, keys in order.

`seeds/` holds the bodies, copied from the vendors' pages. Only the base URL and the key are ours. Ids are compared by
form.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import pytest

from headgate_server.core import timestamps
from headgate_server.core.model import Scope
from headgate_server.receivers.roboflow import Roboflow
from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge
from tests.support.vendors import PROGRAM, VENDORS

SEEDS = Path(__file__).parent / "seeds"

_IDS = {"<uuid>": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<evt>": r"evt_[0-9a-hjkmnp-tv-z]{20,}"}


class Example(NamedTuple):
    """One vendor's page: the key's header, other headers, and the answer."""

    key: str
    status: int
    answer: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - a named tuple is never changed


BEARER = "Authorization: Bearer {key}"

_QUEUED = {"id": "<uuid>", "status": "queued"}
EXAMPLES = {
    "roboflow": Example(
        BEARER,
        201,
        {"created": 2, "eventIds": ["f47ac10b-58cc-4372-a567-0e02b2c3d479", "9c4d6a2e-81f3-4b7a-bc9e-3f1a2d4e5c6b"]},
    ),
    "immutable": Example(BEARER, 202, {"events": [_QUEUED, _QUEUED, _QUEUED]}),
    "flokit": Example(
        BEARER,
        200,
        {"status": "ok", "accepted": 3, "rejected": 0, "event_ids": ["<evt>", "<evt>", "<evt>"], "errors": []},
    ),
    "vibefollow": Example(
        BEARER, 202, {"data": {"accepted": True}}, {"Idempotency-Key": "7b6c7e9e-2c2d-4a8d-9d3a-4f3d2c1b0a99"}
    ),
    "scrip": Example(
        "X-API-Key: {key}",
        200,
        {
            "total": 1,
            "success_count": 1,
            "error_count": 0,
            "results": [
                {
                    "index": 0,
                    "status": "accepted",
                    "event": {
                        "id": "<uuid>",
                        "idempotency_key": "order-12345-completed",
                        "program_id": PROGRAM,
                        "participant_id": PROGRAM,
                        "external_id": "user_abc123",
                        "event_timestamp": "2024-01-15T10:30:00Z",
                        "status": "PENDING",
                    },
                }
            ],
        },
    ),
}


def _assert_answer(response: httpx.Response, status: int, answer: Any) -> None:
    """Compare an answer's text with the documented one, in which an id matches any id of its form."""
    pattern = re.escape(orjson.dumps(answer).decode())
    for placeholder, form in _IDS.items():
        pattern = pattern.replace(placeholder, form)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    assert re.fullmatch(pattern, response.text), response.text
    ids = [found for form in _IDS.values() for found in re.findall(f'"(?:id|event_ids)":\\[?"({form})"', response.text)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_pages_example(any_edge: Edge, name: str) -> None:
    example, body = EXAMPLES[name], (SEEDS / f"{name}.json").read_bytes()
    header, _, value = example.key.format(key=any_edge.key).partition(": ")
    headers = {header: value, "Content-Type": "application/json"} | example.headers
    response = httpx.post(f"http://{any_edge.up.rest}{VENDORS[name].batch}", content=body, headers=headers)
    _assert_answer(response, example.status, example.answer)

    sent = orjson.loads(body)["events"]
    listed = any_edge.http.get("/v1/events").json()["events"]
    assert [event["data"] for event in listed] == sent  # whole, in order
    assert {event["receiver"] for event in listed} == {name}


def test_roboflows_errors(make_edge: MakeEdge) -> None:
    vendor = VENDORS["roboflow"]
    edge, reader = make_edge(Scope.EVENTS_WRITE), make_edge(Scope.EVENTS_READ)
    over = edge.post(vendor.batch, {"events": vendor.events(101)})
    _assert_answer(over, 400, {"error": "Batch size exceeds maximum of 100 events"})
    refused = reader.post(vendor.batch, (SEEDS / "roboflow.json").read_bytes())
    _assert_answer(refused, 403, {"error": "Insufficient permissions for this resource."})


@pytest.mark.parametrize("scope", Roboflow.scopes)
def test_roboflows_scopes(make_edge: MakeEdge, scope: str) -> None:
    """The vendor's scopes allow only the vendor's endpoints."""
    edge = make_edge(scope)
    example = EXAMPLES["roboflow"]
    response = edge.post(VENDORS["roboflow"].batch, (SEEDS / "roboflow.json").read_bytes())
    _assert_answer(response, example.status, example.answer)
    assert edge.post(VENDORS["scrip"].batch, (SEEDS / "scrip.json").read_bytes()).status_code == 403
    assert edge.post("/v1/events", {"type": "t"}).status_code == 403


def test_roboflows_warnings_and_deprecations(edge: Edge) -> None:
    """Warnings are listed under the position of their event; so is an event that cannot be stored."""
    good, odd, old = VENDORS["roboflow"].events(3)
    odd |= {"eventType": "quality_check", "eventData": {"result": "perhaps"}}
    old["solution"] = old.pop("useCaseId")
    response = edge.post(VENDORS["roboflow"].batch, {"events": [good, odd, {"eventId": "x"}, old]})
    body = response.json()
    assert response.status_code == 201
    assert list(body) == ["created", "eventIds", "warnings", "deprecations"]
    assert (body["created"], body["eventIds"]) == (3, ["vision-0", "vision-1", "vision-2"])
    assert list(body["warnings"]) == ["1", "2"]
    assert all(isinstance(sentence, str) for said in body["warnings"].values() for sentence in said)
    assert [sentence for sentence in body["deprecations"] if "solution" in sentence]


def test_immutables_duplicate_and_its_microseconds(any_edge: Edge) -> None:
    vendor = VENDORS["immutable"]
    first, second = vendor.events(2)
    events = [first, second | {"idempotency_key": "k"}, second | {"idempotency_key": "k"}]
    response = any_edge.post(vendor.batch, {"events": events})
    _assert_duplicates(response)
    again = any_edge.post(vendor.batch, {"events": events[1:]})
    assert again.json()["events"] == [{"id": response.json()["events"][1]["id"], "status": "duplicate"}] * 2

    listed = any_edge.http.get("/compat/immutable/api/v1/events").json()
    assert listed["pagination"] == {"has_more": False, "next_cursor": None}
    later, earlier = listed["data"]  # the newest first
    before, after = (timestamps.parse(event["created_at"])[0] for event in (earlier, later))
    assert after - before == 1
    assert later["integrity"]["previous_event_hash"] == earlier["integrity"]["event_hash"]
    checked = any_edge.http.get("/compat/immutable/api/v1/verify").json()
    assert checked == {"data": {"valid": True, "events_checked": 2, "breaks": []}}


def _assert_duplicates(response: httpx.Response) -> None:
    first, second, third = response.json()["events"]
    assert [each["status"] for each in (first, second, third)] == ["queued", "queued", "duplicate"]
    assert first["id"] != second["id"] == third["id"]


def test_flokits_rejected_event(edge: Edge) -> None:
    """The page's second answer: an event without a currency."""
    events = orjson.loads((SEEDS / "flokit.json").read_bytes())["events"]
    del events[2]["properties"]["currency"]
    documented = {
        "status": "ok",
        "accepted": 2,
        "rejected": 1,
        "event_ids": ["<evt>", "<evt>"],
        "errors": [{"index": 2, "event": "subscription_started", "reason": "Missing required field: currency"}],
    }
    _assert_answer(edge.post(VENDORS["flokit"].batch, {"events": events}), 200, documented)


def test_vibefollows_rejected_batch(any_edge: Edge) -> None:
    vendor = VENDORS["vibefollow"]
    events = vendor.events(5)
    del events[3]["external_user_id"]
    error = {"code": "validation_failed", "message": "required", "field": "events[3].external_user_id"}
    _assert_answer(any_edge.post(vendor.batch, {"events": events}), 422, {"errors": [error]})
    assert any_edge.stored() == 0


def test_scrips_ten_events(edge: Edge) -> None:
    """The page's counts: ten events, one of an invalid program."""
    vendor = VENDORS["scrip"]
    events = vendor.events(10)
    events[4]["program_id"] = "none"
    body = edge.post(vendor.batch, {"events": events}).json()
    assert (body["total"], body["success_count"], body["error_count"]) == (10, 9, 1)
    assert (body["results"][4]["status"], body["results"][4]["error"]) == ("error", "invalid program_id")
    assert [result["index"] for result in body["results"]] == list(range(10))


def test_scrips_conflicts(any_edge: Edge) -> None:
    """A resend gets the original event as its answer; other content under its key is a conflict."""
    vendor = VENDORS["scrip"]
    event = vendor.event(0)
    other = event | {"event_data": {"n": 1}}
    first, again, conflict = (any_edge.post("/compat/scrip/v1/events", one) for one in (event, event, other))
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    assert vendor.refusal(conflict)[:2] == (409, "idempotency_conflict")
    results = any_edge.post(vendor.batch, {"events": [event, other]}).json()["results"]
    assert results[0] == {"index": 0, "status": "accepted", "event": first.json()}
    assert (results[1]["status"], results[1]["error"]) == ("error", "idempotency_conflict")
    assert any_edge.stored() == 1
    shown = any_edge.http.get(f"/compat/scrip/v1/events/{first.json()['id']}")
    assert (shown.status_code, shown.json()["status"]) == (200, "COMPLETED")


def test_a_vendors_reads_show_its_own_events_alone(edge: Edge) -> None:
    for vendor in VENDORS.values():
        assert edge.post(vendor.batch, {"events": vendor.events(2)}).status_code == vendor.success
    native = edge.batch({"type": "t"})["results"][0]["id"]
    scrip = edge.http.get("/compat/scrip/v1/events").json()["data"]
    immutable = edge.http.get("/compat/immutable/api/v1/events").json()["data"]
    roboflow = edge.post("/compat/roboflow/vision-events/query", {"useCaseId": "line-1"}).json()["events"]
    assert [event["idempotency_key"] for event in scrip] == ["order-1", "order-0"]
    assert [event["actor"]["id"] for event in immutable] == ["user_1", "user_0"]
    assert [event["eventId"] for event in roboflow] == ["vision-1", "vision-0"]
    for path, foreign in [("scrip/v1", native), ("scrip/v1", immutable[0]["id"]), ("immutable/api/v1", native)]:
        assert edge.http.get(f"/compat/{path}/events/{foreign}").status_code == 404
