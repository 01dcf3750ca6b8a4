"""The vendors as their clients see them: addresses, valid events, the forms of errors and answers."""

import json
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import httpx

Json = dict[str, Any]

PROGRAM = "550e8400-e29b-41d4-a716-446655440000"
_TIME = "2024-01-15T10:30:00Z"


class Refusal(NamedTuple):
    """The content of a refusal, in any vendor's form."""

    status: int
    code: str
    """The vendor's code; empty if its errors have none."""
    message: str
    field: str = ""


class Vendor(NamedTuple):
    """One vendor's contract, as far as tests of all of them need it."""

    name: str
    batch: str
    """Path of the batch endpoint, with our prefix."""
    event: Callable[[int], Json]
    """Makes the n-th valid event; no two have the same identity."""
    text: str
    """A required member that is a text."""
    payload: str
    """The member that holds any object."""
    most: int
    """Events of one batch."""
    success: int
    """Status of a batch that was accepted."""
    codes: dict[int, str]
    """The code of an error by its status."""
    in_body: int
    """Status for a body that is JSON of a wrong form."""
    shape: Callable[[Json], tuple[str, str, str]]
    """Reads code, message and field from an error's body, and fails if it has another form."""
    stored: Callable[[Json, int], Collection[int]]
    """Reads from a batch's answer which of its positions were stored."""

    def refusal(self, response: httpx.Response) -> Refusal:
        """Read a refusal. It must have the vendor's form and an id, and no header that only server and bridge use."""
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-request-id"]
        assert not any(name.startswith(("x-headgate-", "grpc-")) for name in response.headers)
        code, message, field = self.shape(response.json())
        assert message
        return Refusal(response.status_code, code, message, field)

    def events(self, count: int) -> list[Json]:
        """Make so many valid events."""
        return [self.event(n) for n in range(count)]

    def taken(self, response: httpx.Response, total: int) -> Collection[int]:
        """Return which positions of a batch were stored, also if the request was refused."""
        if response.status_code == self.success:
            return self.stored(response.json(), total)
        self.refusal(response)
        return ()


def with_payload(vendor: Vendor, event: Json, payload: bytes) -> bytes:
    """Return the JSON text of an event whose payload is this text."""
    return json.dumps(event | {vendor.payload: "%"}).encode().replace(b'"%"', payload)


def _error_text(body: Json) -> tuple[str, str, str]:
    assert list(body) == ["error"]
    return "", body["error"], ""


def _error_message(body: Json) -> tuple[str, str, str]:
    assert list(body) == ["error", "message"]
    return body["error"], body["message"], ""


def _errors_list(body: Json) -> tuple[str, str, str]:
    assert list(body) == ["errors"]
    assert all(list(error) in (["code", "message"], ["code", "message", "field"]) for error in body["errors"])
    first = body["errors"][0]
    return first["code"], first["message"], first.get("field", "")


def _code_message(body: Json) -> tuple[str, str, str]:
    assert list(body) == ["code", "message"]
    return body["code"], body["message"], ""


def _roboflow_stored(body: Json, total: int) -> Collection[int]:
    assert body["created"] == len(body["eventIds"])
    return [n for n in range(total) if _vision_event(n)["eventId"] in body["eventIds"]]


def _immutable_stored(body: Json, total: int) -> Collection[int]:
    assert list(body) == ["events"]
    assert len(body["events"]) == total
    return [n for n, event in enumerate(body["events"]) if event["id"] is not None]


def _flokit_stored(body: Json, total: int) -> Collection[int]:
    assert list(body) == ["status", "accepted", "rejected", "event_ids", "errors"]
    errors = {error["index"] for error in body["errors"]}
    assert (len(body["event_ids"]), len(errors)) == (body["accepted"], body["rejected"])
    return [n for n in range(total) if n not in errors]


def _vibefollow_stored(body: Json, total: int) -> Collection[int]:
    assert body == {"data": {"accepted": True}}
    return range(total)


def _scrip_stored(body: Json, total: int) -> Collection[int]:
    assert list(body) == ["total", "success_count", "error_count", "results"]
    assert [result["index"] for result in body["results"]] == list(range(total))
    return [result["index"] for result in body["results"] if result["status"] == "accepted"]


def _vision_event(n: int) -> Json:
    return {
        "eventId": f"vision-{n}", "eventType": "custom", "useCaseId": "line-1", "timestamp": _TIME,
        "eventData": {"value": str(n)},
    }  # fmt: skip


VENDORS = {
    vendor.name: vendor
    for vendor in (
        Vendor(
            name="roboflow",
            batch="/compat/roboflow/vision-events/batch",
            event=_vision_event,
            text="eventId",
            payload="eventData",
            most=100,
            success=201,
            codes={},
            in_body=400,
            shape=_error_text,
            stored=_roboflow_stored,
        ),
        Vendor(
            name="immutable",
            batch="/compat/immutable/api/v1/events/batch",
            event=lambda n: {"actor_id": f"user_{n}", "action": "document.created", "metadata": {"n": n}},
            text="actor_id",
            payload="metadata",
            most=100,
            success=202,
            codes={400: "bad_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found"}
            | {413: "payload_too_large", 422: "validation_failed", 429: "rate_limited"},
            in_body=422,
            shape=_error_message,
            stored=_immutable_stored,
        ),
        Vendor(
            name="flokit",
            batch="/compat/flokit/v1/batch/events",
            event=lambda n: {"event": "signed_up", "user_id": f"usr_{n}", "timestamp": _TIME, "properties": {"n": n}},
            text="event",
            payload="properties",
            most=1_000,
            success=200,
            codes={400: "validation_error", 401: "unauthorized", 403: "forbidden", 404: "not_found"}
            | {413: "payload_too_large", 422: "idempotency_key_reuse", 429: "rate_limit_exceeded"},
            in_body=400,
            shape=_error_message,
            stored=_flokit_stored,
        ),
        Vendor(
            name="vibefollow",
            batch="/compat/vibefollow/api/v1/events/batch",
            event=lambda n: {"external_user_id": f"usr_{n}", "name": "signed_up", "properties": {"n": n}},
            text="external_user_id",
            payload="properties",
            most=500,
            success=202,
            codes={400: "bad_request", 401: "auth_required", 403: "forbidden", 404: "not_found"}
            | {413: "payload_too_large", 422: "validation_failed", 429: "rate_limited"},
            in_body=422,
            shape=_errors_list,
            stored=_vibefollow_stored,
        ),
        Vendor(
            name="scrip",
            batch="/compat/scrip/v1/events/batch",
            event=lambda n: {
                "program_id": PROGRAM,
                "idempotency_key": f"order-{n}",
                "event_timestamp": _TIME,
                "external_id": "user_1",
                "event_data": {"n": n},
            },
            text="idempotency_key",
            payload="event_data",
            most=100,
            success=200,
            codes={400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found"}
            | {409: "idempotency_conflict", 413: "payload_too_large", 429: "too_many_requests"},
            in_body=400,
            shape=_code_message,
            stored=_scrip_stored,
        ),
    )
}
"""By name."""
