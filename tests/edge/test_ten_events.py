"""Ten events, one of them invalid: nine accepted, one rejected, order kept; over REST and gRPC, the same results."""

from typing import Any

from google.protobuf import json_format

from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse
from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge, statuses

INVALID = 6


def _event(number: int) -> dict[str, Any]:
    """Return a vendor's example of an event as a native event."""
    event = {
        "type": "order.completed",
        "source": "550e8400-e29b-41d4-a716-446655440000",
        "subject": "user_abc123",
        "occurred_at": "2024-01-15T10:30:00Z",
        "idempotency_key": f"order-{12345 + number}-completed",
        "data": {
            "participant_id": "550e8400-e29b-41d4-a716-446655440000",
            "recipient_external_id": "user_xyz789",
            "recipient_id": "550e8400-e29b-41d4-a716-446655440001",
            "event_data": {},
        },
    }
    if number == INVALID:
        del event["type"]
    return event


TEN = [_event(number) for number in range(10)]


def _comparable(answer: BatchIngestResponse) -> BatchIngestResponse:
    """Return the answer without what differs from one ledger to another."""
    for result in answer.results:
        for name in ("id", "created_at", "event_hash"):
            result.ClearField(name)
    return answer


def test_over_rest(any_edge: Edge) -> None:
    answer = any_edge.batch(*TEN)
    assert {name: answer[name] for name in ("total", "success_count", "error_count")} == {
        "total": 10,
        "success_count": 9,
        "error_count": 1,
    }
    assert [result["index"] for result in answer["results"]] == list(range(10))
    assert statuses(answer) == ["accepted"] * INVALID + ["rejected"] + ["accepted"] * (9 - INVALID)
    assert answer["results"][INVALID]["error"] == {
        "reason": "MISSING_FIELD",
        "field": "type",
        "message": "The type field is required.",
        "retryable": False,
    }
    listed = any_edge.http.get("/v1/events").json()
    assert listed["next_page_token"] == ""
    assert [one["idempotency_key"] for one in listed["events"]] == [
        one["idempotency_key"] for number, one in enumerate(TEN) if number != INVALID
    ]
    seen = listed["events"][0]
    assert {name: seen[name] for name in ("type", "source", "subject", "data")} == {
        name: TEN[0][name] for name in ("type", "source", "subject", "data")
    }
    assert seen["occurred_at"] == "2024-01-15T10:30:00Z"
    assert any_edge.http.get(f"/v1/events/{seen['id']}").json() == seen


def test_the_same_over_grpc(any_edge: Edge, make_edge: MakeEdge) -> None:
    store = "sqlite" if any_edge.url.startswith("sqlite") else "postgres"
    other = make_edge(store=store)
    request = json_format.ParseDict({"events": TEN}, BatchIngestRequest())
    by_grpc = any_edge.ingest.BatchIngest(request, metadata=any_edge.metadata)
    by_rest = json_format.ParseDict(other.batch(*TEN), BatchIngestResponse())
    assert _comparable(by_grpc) == _comparable(by_rest)
    assert (by_grpc.total, by_grpc.success_count, by_grpc.error_count) == (10, 9, 1)
    # An event stored through one is known to the other.
    assert statuses(any_edge.batch(*TEN)) == ["duplicate"] * INVALID + ["rejected"] + ["duplicate"] * (9 - INVALID)


def test_the_first_counts_and_index_are_printed(edge: Edge) -> None:
    assert edge.batch({}) == {
        "total": 1,
        "success_count": 0,
        "error_count": 1,
        "results": [
            {
                "index": 0,
                "status": "rejected",
                "error": {
                    "reason": "MISSING_FIELD",
                    "field": "type",
                    "message": "The type field is required.",
                    "retryable": False,
                },
            }
        ],
    }
