"""gRPC on the port of REST: a stub's request reaches the server unchanged."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.event_service_pb2 import GetEventRequest, ListEventsRequest
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse, IngestRequest
from headgate.v1.ledger_service_pb2 import GetHeadRequest, VerifyLedgerRequest
from tests.support import poison
from tests.support.edge import Edge


def _refused(call: Callable[[], Any]) -> tuple[grpc.Call, status_pb2.Status]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert isinstance(error, grpc.Call)
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return error, status_pb2.Status.FromString(details)


def test_reflection_describes_every_service_that_it_lists(edge: Edge) -> None:
    """Of a server process, which has imported only what it needs itself."""
    stub = reflection_pb2_grpc.ServerReflectionStub(edge.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (listed,) = stub.ServerReflectionInfo(asked, timeout=10)
    names = [service.name for service in listed.list_services_response.service]
    assert {"headgate.v1.CompatService", "headgate.v1.IngestService", "grpc.health.v1.Health"} <= set(names)
    answers = stub.ServerReflectionInfo(
        (reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names), timeout=10
    )
    for name, answer in zip(names, answers, strict=True):
        assert answer.file_descriptor_response.file_descriptor_proto, name


def test_every_service(edge: Edge) -> None:
    key = edge.metadata
    batch = edge.ingest.BatchIngest(BatchIngestRequest(events=[Event(type="t")]), metadata=key)
    single = edge.ingest.Ingest(IngestRequest(event=Event(type="t")), metadata=key)
    assert [batch.results[0].sequence, single.result.sequence] == [1, 2]
    assert len(edge.events.ListEvents(ListEventsRequest(), metadata=key).events) == 2
    assert edge.events.GetEvent(GetEventRequest(id=single.result.id), metadata=key).event.sequence == 2
    assert edge.ledger.GetHead(GetHeadRequest(), metadata=key).sequence == 2
    assert edge.ledger.VerifyLedger(VerifyLedgerRequest(), metadata=key).valid


def test_poison(edge: Edge) -> None:
    bad = [value for value, _ in poison.PROTO_REJECTED.values()]
    events = [one if isinstance(one, bytes) else one.SerializeToString() for one in (*bad, Event(type="after"))]
    call = edge.channel.unary_unary(
        "/headgate.v1.IngestService/BatchIngest", response_deserializer=BatchIngestResponse.FromString
    )
    answer = call(RawBatchIngestRequest(events=events).SerializeToString(), metadata=edge.metadata)
    assert [result.status for result in answer.results] == ["rejected"] * len(bad) + ["accepted"]


def test_a_refusal_keeps_its_details(edge: Edge) -> None:
    error, status = _refused(lambda: edge.ingest.Ingest(IngestRequest(event=Event(source="s")), metadata=edge.metadata))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(request)
    assert (info.reason, request.field_violations[0].field) == ("MISSING_FIELD", "type")


def test_the_status_of_http_is_not_meant_for_it(edge: Edge) -> None:
    """The rule that makes a REST call 422 does not change a gRPC call."""
    metadata = (*edge.metadata, ("idempotency-key", "r"))
    edge.ingest.BatchIngest(BatchIngestRequest(events=[Event(type="t")]), metadata=metadata)
    error, _ = _refused(
        lambda: edge.ingest.BatchIngest(BatchIngestRequest(events=[Event(type="u")]), metadata=metadata)
    )
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "x-headgate-http-status" not in dict(error.trailing_metadata() or ())


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param((("x-envoy-original-path", "/v1/events/batch"),), id="the original path"),
        pytest.param((("x-headgate-http-status", "201"),), id="a status"),
        pytest.param((("x-headgate-content-encoding", "gzip"),), id="a coding"),
    ],
)
def test_what_only_envoy_may_say(edge: Edge, metadata: tuple[tuple[str, str], ...]) -> None:
    request = BatchIngestRequest(events=[Event(type="t")])
    answer = edge.ingest.BatchIngest(request, metadata=(*edge.metadata, *metadata))
    assert answer.results[0].status == "accepted"


def test_metadata_of_an_answer(edge: Edge) -> None:
    metadata = (*edge.metadata, ("idempotency-key", "r"), ("x-request-id", "mine"))
    request = BatchIngestRequest(events=[Event(type="t")])
    edge.ingest.BatchIngest(request, metadata=metadata)
    _, call = edge.ingest.BatchIngest.with_call(request, metadata=metadata)
    said = dict((*call.initial_metadata(), *call.trailing_metadata()))
    assert (said["idempotency-replayed"], said["x-request-id"]) == ("true", "mine")


def test_health(edge: Edge) -> None:
    health = health_pb2_grpc.HealthStub(edge.channel)
    for service in ("", "headgate.v1.IngestService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_what_needs_no_key_cannot_be_held_open(edge: Edge) -> None:
    """A stream without end is only for clients of the server's own port."""
    with pytest.raises(grpc.RpcError) as refused:
        next(health_pb2_grpc.HealthStub(edge.channel).Watch(health_pb2.HealthCheckRequest()))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_reflection(edge: Edge) -> None:
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="headgate.v1.IngestService.BatchIngest"),
    ]
    stream = reflection_pb2_grpc.ServerReflectionStub(edge.channel).ServerReflectionInfo(iter(requests))
    services, file = list(stream)
    names = {service.name for service in services.list_services_response.service}
    assert {"headgate.v1.IngestService", "headgate.v1.EventService", "headgate.v1.LedgerService"} < names
    assert file.file_descriptor_response.file_descriptor_proto


def test_no_such_method(edge: Edge) -> None:
    for path in ("/headgate.v1.IngestService/Nothing", "/nobody.v1.Service/Nothing"):
        error, _ = _refused(lambda path=path: edge.channel.unary_unary(path)(b"", metadata=edge.metadata))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_no_key(edge: Edge) -> None:
    error, _ = _refused(lambda: edge.events.ListEvents(ListEventsRequest()))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_message_over_the_limit(edge: Edge) -> None:
    large = BatchIngestRequest(events=[Event(type="x" * 8_400_000)])
    error, status = _refused(lambda: edge.ingest.BatchIngest(large, metadata=edge.metadata))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "BODY_TOO_LARGE"
