"""Messages as REST's JSON, for each kind of field in the descriptors."""

import orjson
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.wrappers_pb2 import BytesValue, DoubleValue
from google.rpc import error_details_pb2
from grpc_health.v1.health_pb2 import HealthCheckResponse
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1.event_pb2 import StoredEvent
from headgate.v1.ledger_service_pb2 import GetHeadResponse, VerifyLedgerResponse
from headgate.v1.workspace_service_pb2 import GetUsageResponse
from headgate_server.core.model import Outcome
from headgate_server.rpc import wire
from headgate_server.rpc.pipeline import printer
from headgate_server.rpc.pipeline.printer import as_json, print_json
from tests.unit.test_wire import OUTCOMES


@given(st.lists(OUTCOMES, max_size=5))
def test_the_fast_way_of_a_batch_prints_what_the_printer_prints(outcomes: list[Outcome]) -> None:
    assert wire.batch_answer(outcomes).data == print_json(wire.batch_message(outcomes))


def test_what_holds_nothing_is_written_unless_it_means_that_there_is_none() -> None:
    assert as_json(GetHeadResponse()) == {"sequence": 0, "hash": ""}
    assert as_json(VerifyLedgerResponse()) == {
        "valid": False, "events_checked": 0, "breaks": [], "next_page_token": "",
    }  # fmt: skip
    assert as_json(GetUsageResponse()) == {"used": 0}
    assert as_json(GetUsageResponse(quota=0)) == {"used": 0, "quota": 0}
    assert "source" not in as_json(StoredEvent())


def test_a_64_bit_integer_is_a_number() -> None:
    assert print_json(GetUsageResponse(used=2**63 - 1)) == b'{"used":9223372036854775807}'


def test_bytes_are_base64_and_json_is_written_as_it_is() -> None:
    assert as_json(BytesValue(value=b"\xff\x00")) == {"value": "/wA="}
    written = print_json(StoredEvent(type="t", data_json=b'{"n":1.000000000000000000001}'))
    assert b'"data":{"n":1.000000000000000000001}' in written


def test_a_struct_is_written_as_it_is_stored() -> None:
    event = StoredEvent()
    event.data.update({"b": [1, 2.5, {"c": None}], "a": True, "é": "ü"})
    text = orjson.dumps(as_json(event)["data"])
    assert text == '{"a":true,"b":[1,2.5,{"c":null}],"é":"ü"}'.encode()


def test_an_enum_is_its_name() -> None:
    assert as_json(HealthCheckResponse(status=1)) == {"status": "SERVING"}


@pytest.mark.parametrize(
    "descriptor",
    [DoubleValue.DESCRIPTOR, error_details_pb2.RetryInfo.DESCRIPTOR],
    ids=lambda descriptor: descriptor.name,
)
def test_what_has_no_form_is_refused_before_anything_is_served(descriptor: Descriptor) -> None:
    with pytest.raises(TypeError, match=descriptor.full_name):
        printer.check(descriptor)
    printer.check(BytesValue.DESCRIPTOR)


def test_a_map_is_an_object() -> None:
    info = error_details_pb2.ErrorInfo(reason="R", metadata={"b": "2", "a": "1"})
    assert print_json(info) == b'{"reason":"R","domain":"","metadata":{"a":"1","b":"2"}}'


def test_the_field_that_rest_shows_alone() -> None:
    assert printer.unwrapped("headgate.v1.IngestService", "Ingest") == "result"
    assert printer.unwrapped("headgate.v1.EventService", "GetEvent") == "event"
    assert printer.unwrapped("headgate.v1.EventService", "ListEvents") == ""
    assert printer.unwrapped("nobody.v1.Service", "Nothing") == ""
