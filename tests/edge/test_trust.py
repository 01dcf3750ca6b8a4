"""What is the bridge's alone to say, and what may be said only once."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse, IngestRequest
from headgate.v1.ingest_service_pb2_grpc import IngestServiceStub
from tests.support.edge import JSON, Edge, failure, statuses
from tests.support.service import ServerProcess, make_key
from tests.support.up import HEADGATE
from tests.support.vendors import VENDORS

BATCH = "/v1/events/batch"
CLAIMS = (
    ("x-envoy-original-path", BATCH),
    ("x-headgate-content-encoding", "gzip"),
    ("x-headgate-path", "/compat/scrip/v1/events"),
    ("x-headgate-method", "GET"),
)
BODY = HttpBody(content_type="application/json", data=b'{"events":[{"type":"smuggled"}]}')

Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(params=["the bridge", "the server"])
def channel(edge: Edge, request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    """Return a channel to each of the two ports in turn."""
    with grpc.insecure_channel(edge.up.rest if request.param == "the bridge" else edge.up.grpc) as channel:
        yield channel


def _refusal(channel: grpc.Channel, method: str, request: Message, metadata: Metadata) -> grpc.Call:
    call = channel.unary_unary(f"/headgate.v1.{method}", request_serializer=type(request).SerializeToString)
    with pytest.raises(grpc.RpcError) as refused:
        call(request, metadata=metadata, timeout=30)
    assert isinstance(refused.value, grpc.Call)
    return refused.value


def test_a_grpc_client_cannot_pass_for_the_bridge(edge: Edge, channel: grpc.Channel) -> None:
    """It gets the message that it knows, whatever it claims."""
    request = BatchIngestRequest(events=[Event(type="t")])
    answer = IngestServiceStub(channel).BatchIngest(request, metadata=(*edge.metadata, *CLAIMS))
    assert [result.status for result in answer.results] == ["accepted"]


def test_a_grpc_client_cannot_bring_json(edge: Edge, channel: grpc.Channel) -> None:
    """Field 15 is unknown in the public messages, and an unknown field does nothing."""
    for metadata in (edge.metadata, (*edge.metadata, *CLAIMS)):
        refused = _refusal(channel, "IngestService/BatchIngest", RawBatchIngestRequest(json=BODY), metadata)
        assert (refused.code(), "at least one event" in refused.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        refused = _refusal(channel, "IngestService/Ingest", RawIngestRequest(json=BODY), metadata)
        assert (refused.code(), "event field is required" in refused.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            True,
        )
        both = RawBatchIngestRequest(json=BODY, events=[Event(type="t").SerializeToString()])
        send = channel.unary_unary(
            "/headgate.v1.IngestService/BatchIngest", response_deserializer=BatchIngestResponse.FromString
        )
        assert send(both.SerializeToString(), metadata=metadata).total == 1
    assert {event["type"] for event in edge.http.get("/v1/events").json()["events"]} == {"t"}


def test_a_vendors_request_comes_over_http(edge: Edge, channel: grpc.Channel) -> None:
    refused = _refusal(channel, "CompatService/Receive", HttpBody(data=b"{}"), (*edge.metadata, *CLAIMS))
    assert refused.code() is grpc.StatusCode.NOT_FOUND


def test_a_guessed_token_is_refused(edge: Edge) -> None:
    for token in ("1", "", "x" * 43):
        with grpc.insecure_channel(edge.up.grpc) as channel:
            metadata = (*edge.metadata, *CLAIMS, ("x-headgate-bridge", token))
            refused = _refusal(channel, "IngestService/Ingest", IngestRequest(event=Event(type="t")), metadata)
            assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "HEADGATE_BRIDGE_TOKEN" in refused.details()
    response = edge.post(BATCH, {"events": [{"type": "t"}]}, x_headgate_bridge="x")
    assert statuses(response.json()) == ["accepted"]


async def test_bridge_and_server_on_two_machines(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With one token they are one service; with two tokens the error says what to set."""
    monkeypatch.setenv("HEADGATE_BRIDGE_TOKEN", "one")
    key = await make_key(sqlite_url)
    async with ServerProcess(sqlite_url) as server:
        for token, wanted in (("one", 200), ("another", 403)):
            monkeypatch.setenv("HEADGATE_BRIDGE_TOKEN", token)
            command = [*HEADGATE, "bridge", "--http-port", "0", "--upstream", f"127.0.0.1:{server.port}"]
            bridge = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=tmp_path)
            try:
                assert bridge.stdout is not None
                address = (await bridge.stdout.readline()).split()[-1].decode()
                async with httpx.AsyncClient(base_url=address, headers={"x-api-key": key}) as http:
                    response = await http.get("/v1/events")
            finally:
                bridge.terminate()
                await bridge.wait()
            assert response.status_code == wanted
            if wanted == 403:
                assert failure(response) == (403, 7, "UNKNOWN_BRIDGE")
                assert "HEADGATE_BRIDGE_TOKEN" in response.json()["message"]


@pytest.mark.parametrize("values", [("a", "b"), ("a", "a"), ("a", "")])
def test_two_idempotency_keys(edge: Edge, channel: grpc.Channel, values: tuple[str, str]) -> None:
    """The server cannot know which one is meant. It does not matter for methods that ignore the header."""
    twice = tuple(("idempotency-key", value) for value in values)
    refused = _refusal(channel, "IngestService/Ingest", IngestRequest(event=Event(type="t")), (*edge.metadata, *twice))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "idempotency-key was sent more than once" in refused.details()
    for path, body in (("/v1/events", b'{"type":"t"}'), (BATCH, b'{"events":[{"type":"t"}]}')):
        response = edge.http.post(path, content=body, headers=[*JSON.items(), *twice])
        assert failure(response) == (400, 3, "REPEATED_HEADER")
    for vendor in (VENDORS["flokit"], VENDORS["vibefollow"]):
        body = json.dumps({"events": vendor.events(1)}).encode()
        response = edge.http.post(vendor.batch, content=body, headers=[*JSON.items(), *twice])
        assert vendor.refusal(response)[0] == 400
    assert edge.stored() == 0


@pytest.mark.parametrize("name", ["x-api-key", "authorization"])
def test_two_keys(edge: Edge, channel: grpc.Channel, name: str) -> None:
    prefix = "Bearer " if name == "authorization" else ""
    twice = [(name, prefix + edge.key), (name, prefix + "hg_" + "x" * 43)]
    for order in (twice, twice[::-1]):
        refused = _refusal(channel, "LedgerService/GetHead", IngestRequest(), tuple(order))
        assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
        response = httpx.get(f"http://{edge.up.rest}/v1/events", headers=order)
        assert failure(response) == (400, 3, "REPEATED_HEADER")


@pytest.mark.parametrize("name", ["x-api-key", "authorization"])
def test_the_same_key_twice_is_one(edge: Edge, channel: grpc.Channel, name: str) -> None:
    prefix = "Bearer " if name == "authorization" else ""
    twice = [(name, prefix + edge.key)] * 2
    assert channel.unary_unary("/headgate.v1.LedgerService/GetHead")(b"", metadata=tuple(twice), timeout=30)
    assert httpx.get(f"http://{edge.up.rest}/v1/events", headers=twice).status_code == 200


@pytest.mark.parametrize(
    "method",
    ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"],
)
def test_a_malformed_request_to_a_standard_service(channel: grpc.Channel, method: str) -> None:
    kind = channel.unary_unary if "Health" in method else channel.stream_stream
    with pytest.raises(grpc.RpcError) as refused:
        list(kind(method)(iter([b"\xff"]), timeout=30)) if "Reflection" in method else kind(method)(b"\xff", timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Exception" not in refused.value.details()


def test_a_malformed_request_to_watch(edge: Edge) -> None:
    with closing(grpc.insecure_channel(edge.up.grpc)) as channel, pytest.raises(grpc.RpcError) as refused:
        list(channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff", timeout=30))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
