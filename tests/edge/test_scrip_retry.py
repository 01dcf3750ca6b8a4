"""Scrip's retry of a failed event, through Envoy, with a receiver of webhooks that fails and is mended."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from headgate_server.core.model import Scope
from tests.support import database
from tests.support.edge import Edge
from tests.support.marks import on_sqlite
from tests.support.receivers import answers, beside
from tests.support.up import Up
from tests.support.waiting import until_true

EVENTS = "/compat/scrip/v1/events"
PROGRAM = "550e8400-e29b-41d4-a716-446655440000"


@pytest.fixture
def up(store_url: str, tmp_path: Path) -> Iterator[Up]:
    with Up("--store", store_url, "--webhook-allow", "127.0.0.0/8", folder=tmp_path) as up:
        yield up


@pytest.fixture
def edge(up: Up, store_url: str) -> Iterator[Edge]:
    with closing(Edge.of(up, store_url, "acme")) as edge:
        yield edge


def sent(edge: Edge, key: str) -> str:
    """Send an event, and return its id."""
    event = {
        "program_id": PROGRAM, "idempotency_key": key, "event_timestamp": "2024-01-15T10:30:00Z", "external_id": "u",
        "event_data": {},
    }  # fmt: skip
    response = edge.post(EVENTS, event)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def status(edge: Edge, event_id: str) -> str:
    """Return the status that the vendor's clients see."""
    return str(edge.http.get(f"{EVENTS}/{event_id}").json()["status"])


def retried(edge: Edge, event_id: str) -> httpx.Response:
    return edge.http.post(f"{EVENTS}/{event_id}/retry")


def refusal(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() == {"code", "message"}
    return response.status_code, body["code"]


def hooked(edge: Edge, port: int) -> str:
    """Make a destination for Scrip's events, and return its path."""
    wanted = {
        "name": "crm", "webhook": {"url": f"http://127.0.0.1:{port}/"}, "start": "beginning",
        "filter": {"receivers": ["scrip"]},
    }  # fmt: skip
    made = edge.post("/v1/destinations", wanted)
    assert made.status_code == 200, made.text
    return f"/v1/destinations/{made.json()['id']}"


def failures(edge: Edge, path: str) -> dict[int, Any]:
    return {one["sequence"]: one for one in edge.http.get(f"{path}/failures").json()["failures"]}


def test_a_failed_event_is_delivered_when_the_receiver_is_mended(edge: Edge) -> None:
    with beside(answers(500, b"a secret of the receiver")) as one:
        path = hooked(edge, one.port)
        event_id = sent(edge, "a")
        until_true(lambda: 1 in failures(edge, path))
        assert status(edge, event_id) == "PENDING"
        assert refusal(retried(edge, event_id)) == (409, "conflict")

        assert edge.http.post(f"{path}/failures/1:skip").status_code == 200
        assert status(edge, event_id) == "FAILED"
        before = len(one.requests)
        assert retried(edge, event_id).status_code == 200
        until_true(lambda: len(one.requests) > before)
        # It failed again, and has all attempts of the schedule before it.
        until_true(lambda: failures(edge, path)[1]["attempts"] == 1)
        assert status(edge, event_id) == "PENDING"

        assert edge.http.post(f"{path}/failures/1:skip").status_code == 200
        one.answer = answers(200)
        answer = retried(edge, event_id)
        assert (answer.status_code, answer.json()) == (200, {
            "event_id": event_id,
            "message": "Event queued for retry",
            "previous_error": "The event was not delivered to 1 destination.",
            "previous_status": "FAILED",
            "status": "PENDING",
        })  # fmt: skip
        assert answer.headers["x-ratelimit-limit"] == "30"
        until_true(lambda: not failures(edge, path))
        assert status(edge, event_id) == "COMPLETED"
        assert refusal(retried(edge, event_id)) == (409, "conflict")


@on_sqlite
async def test_an_event_that_the_service_gave_up_is_delivered_too(edge: Edge, store_url: str) -> None:
    with beside(answers(500)) as one:
        path = hooked(edge, one.port)
        event_id = sent(edge, "a")
        until_true(lambda: 1 in failures(edge, path))
        # The schedule lasts three days.
        await database.execute(store_url, "UPDATE failures SET state = 'failed', attempts = 10, next_attempt_at = NULL")
        assert status(edge, event_id) == "FAILED"
        one.answer = answers(200)
        assert retried(edge, event_id.upper()).status_code == 200
        until_true(lambda: not failures(edge, path))
        assert status(edge, event_id) == "COMPLETED"


@on_sqlite
def test_what_is_not_retried(edge: Edge, up: Up, store_url: str) -> None:
    with beside(answers(500)) as one:
        path = hooked(edge, one.port)
        event_id = sent(edge, "a")
        until_true(lambda: 1 in failures(edge, path))
        assert edge.http.post(f"{path}/failures/1:skip").status_code == 200
        native = edge.batch({"type": "ping"})["results"][0]["id"]
        for name in ("x", "batch", "%ff", str(uuid4()), native, "x" * 2_000):
            assert refusal(retried(edge, name)) == (404, "not_found"), name
        for method, end in (("GET", "/retry"), ("POST", "/retry/"), ("POST", "/again"), ("POST", "")):
            response = edge.http.request(method, f"{EVENTS}/{event_id}{end}")
            assert refusal(response) == (404, "not_found"), (method, end)
        with closing(Edge.of(up, store_url, "other")) as other:
            assert refusal(retried(other, event_id)) == (404, "not_found")
        with closing(Edge.of(up, store_url, "acme", [Scope.EVENTS_READ])) as reader:
            assert refusal(retried(reader, event_id)) == (403, "forbidden")
        assert httpx.post(f"http://{up.rest}{EVENTS}/{event_id}/retry").status_code == 401
        assert failures(edge, path)[1]["state"] == "skipped"
        with closing(Edge.of(up, store_url, "acme", [Scope.EVENTS_WRITE])) as writer:
            assert retried(writer, event_id).status_code == 200
