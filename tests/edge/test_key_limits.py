"""A key's own limit holds at every door, and each door says so in its own way."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import grpc
import httpx
import pytest

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, IngestRequest, StreamIngestRequest
from headgate_server.access import admin, keys
from headgate_server.core.model import KeyLimits, RateLimit, Scope
from tests.support.edge import JSON, Edge, failure
from tests.support.up import Up
from tests.support.vendors import VENDORS

HOUR = 3_600
ONE = RateLimit(1, HOUR * 1_000_000, 1)
LIMITS = {"calls": KeyLimits(calls=ONE), "events": KeyLimits(events=ONE)}
LINES, CLOUD, CLOUDS = (
    {"content-type": f"application/{kind}"} for kind in ("x-ndjson", "cloudevents+json", "cloudevents-batch+json")
)
CLOUD_EVENT = b'{"specversion": "1.0", "id": "%s", "source": "/s", "type": "t"}'


def _cloud() -> bytes:
    return CLOUD_EVENT % uuid.uuid4().hex.encode()


REST: dict[str, Callable[[Edge], httpx.Response]] = {
    "single": lambda edge: edge.post("/v1/events", {"type": "t"}),
    "batch": lambda edge: edge.post("/v1/events/batch", {"events": [{"type": "t"}]}),
    "lines": lambda edge: edge.http.post("/v1/events/batch", content=b'{"type": "t"}\n', headers=LINES),
    "CloudEvent": lambda edge: edge.http.post("/v1/cloudevents", content=_cloud(), headers=CLOUD),
    "CloudEvents": lambda edge: edge.http.post("/v1/cloudevents", content=b"[" + _cloud() + b"]", headers=CLOUDS),
    "binary CloudEvent": lambda edge: edge.http.post(
        "/v1/cloudevents",
        content=b"{}",
        headers=JSON | {"ce-specversion": "1.0", "ce-id": uuid.uuid4().hex, "ce-source": "/s", "ce-type": "t"},
    ),
}


def _stream(edge: Edge) -> None:
    """Send an event in a stream. A stream that goes on says a refusal in its answer: raise nothing then."""
    request = StreamIngestRequest(id="1", events=[Event(type="t")])
    (answer,) = edge.ingest.StreamIngest(iter([request]), metadata=edge.metadata, timeout=30)
    if answer.HasField("error"):
        assert 0 < answer.error.retry_after <= HOUR
        raise _Told(answer.error.reason)


class _Told(Exception):
    """A refusal in an answer."""


GRPC: dict[str, Callable[[Edge], object]] = {
    "Ingest": lambda edge: edge.ingest.Ingest(IngestRequest(event=Event(type="t")), metadata=edge.metadata),
    "BatchIngest": lambda edge: edge.ingest.BatchIngest(
        BatchIngestRequest(events=[Event(type="t")]), metadata=edge.metadata
    ),
    "StreamIngest": _stream,
}


@contextmanager
def _limited(service: tuple[Up, str], limit: str, doors: list[str]) -> Iterator[dict[str, Edge]]:
    """Yield clients with a key of its own for each door. All keys are of one workspace. Then check that each door has
    stored one event, and nothing of what it refused.
    """
    up, url = service
    workspace = f"w{uuid.uuid4().hex}"

    async def made() -> dict[str, str]:
        async with admin.opened(url) as store:
            new = keys.NewKey(workspace=workspace, scopes={Scope.ADMIN}, limits=LIMITS[limit])
            return {door: (await keys.create(store.directory, new))[0] for door in doors}

    with ExitStack() as stack:
        made_keys = asyncio.run(made())
        yield {door: stack.enter_context(closing(Edge(up, url, key))) for door, key in made_keys.items()}
        free = stack.enter_context(closing(Edge.of(up, url, workspace)))
        assert free.stored() == len(doors)


@pytest.mark.parametrize("limit", LIMITS)
def test_over_http(sqlite_up: tuple[Up, str], limit: str) -> None:
    """429 with Retry-After; a vendor's endpoint answers in the vendor's form."""
    with _limited(sqlite_up, limit, [*REST, *VENDORS]) as edges:
        for door, edge in edges.items():
            vendor = VENDORS.get(door)
            if vendor is None:
                answers = [REST[door](edge) for _ in range(2)]
                assert answers[0].status_code == 200, (door, answers[0].text)
                assert failure(answers[1]) == (429, 8, "RATE_LIMITED"), door
                told = answers[1].json()["message"]
            else:
                answers = [edge.post(vendor.batch, {"events": [vendor.event(n)]}) for n in range(2)]
                assert answers[0].status_code == vendor.success, (door, answers[0].text)
                status, code, told, _ = vendor.refusal(answers[1])
                assert (status, code) == (429, vendor.codes.get(429, "")), door
            assert told == f"More than 1 {limit} with this key per hour.", door
            assert 0 < int(answers[1].headers["retry-after"]) <= HOUR, door


@pytest.mark.parametrize("limit", LIMITS)
def test_over_grpc(sqlite_up: tuple[Up, str], limit: str) -> None:
    """RESOURCE_EXHAUSTED with a time; in a stream that goes on, an answer with the same."""
    with _limited(sqlite_up, limit, list(GRPC)) as edges:
        for door, edge in edges.items():
            GRPC[door](edge)
            with pytest.raises((grpc.RpcError, _Told)) as refused:
                GRPC[door](edge)
            if (door, limit) == ("StreamIngest", "events"):
                assert str(refused.value) == "RATE_LIMITED"
                continue
            assert isinstance(refused.value, grpc.RpcError)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, door
            metadata = dict(refused.value.trailing_metadata() or ())
            assert 0 < int(metadata["retry-after"]) <= HOUR, door
