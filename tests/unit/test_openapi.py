"""generated/openapi.json: valid, complete, true to its tables. tests/edge/test_openapi.py compares it with answers."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from openapi_spec_validator import validate

from headgate_bridge import generate
from headgate_bridge.descriptor import PACKAGE
from headgate_bridge.openapi import document, tables, vendors
from headgate_bridge.openapi.comments import read
from headgate_bridge.openapi.examples import Examples
from headgate_server.core.reasons import CATALOGUE, Reason
from headgate_server.receivers.registry import RECEIVERS
from tests.support.openapi import BY_ID, DOCUMENT, OPERATIONS, Operation, check_answer

_ROOT = Path(__file__).parent.parent.parent
_SEEDS = _ROOT / "tests" / "edge" / "seeds"


@pytest.fixture(scope="module")
def image() -> FileDescriptorSet:
    """Return our compiled protos, with their comments."""
    return FileDescriptorSet.FromString(generate.compile_image(comments=True))


def _made(image: FileDescriptorSet) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(document(image, "1"))
    return made


def test_it_is_valid_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_it_is_current(image: FileDescriptorSet) -> None:
    """`make generate` writes it again."""
    assert _made(image) | {"info": {}} == DOCUMENT | {"info": {}}


def test_it_has_every_route_of_the_bridge_and_no_other() -> None:
    envoy = FileDescriptorSet.FromString((_ROOT / "generated" / generate.DESCRIPTOR).read_bytes())
    listener = yaml.safe_load((_ROOT / "envoy.yaml").read_text())["static_resources"]["listeners"][0]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    (transcoder,) = (each["typed_config"] for each in filters if each["name"] == "transcoder")
    bound = set()
    for service in (service for file in envoy.file if file.package == PACKAGE for service in file.service):
        if f"{PACKAGE}.{service.name}" not in transcoder["services"]:
            continue
        for method in service.method:
            rule = method.options.Extensions[annotations_pb2.http]
            for each in (rule, *rule.additional_bindings) if method.options.HasExtension(annotations_pb2.http) else ():
                kind = each.WhichOneof("pattern")
                verb, path = kind, getattr(each, kind)
                bound.add((path.kind.lower(), path.path) if verb == "custom" else (verb, path))
    # The bridge sends every request of a vendor to this path.
    bound.remove(("post", vendors.PREFIX))
    described = {(each.verb, each.path) for each in OPERATIONS}
    assert {route for route in described if not route[1].startswith(vendors.PREFIX)} == bound
    assert {route for route in described if route[1].startswith(vendors.PREFIX)} == {
        (verb.lower(), f"{vendors.PREFIX}/{name}{path}")
        for name, receiver in RECEIVERS.items()
        for verb, path in receiver.routes()
    }


def test_a_page_in_a_browser_may_send_every_documented_header() -> None:
    """If its origin is allowed. A browser sends no other header to another origin."""
    listener = yaml.safe_load((_ROOT / "envoy.yaml").read_text())["static_resources"]["listeners"][0]
    (host,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    allowed = set(host["typed_per_filter_config"]["cors"]["allow_headers"].split(", "))
    documented = {
        parameter["name"].lower()
        for operation in OPERATIONS
        for parameter in operation.value["parameters"]
        if parameter["in"] == "header"
    }
    # Only a server sends it, to ask whether it may send events.
    assert documented - allowed == {"webhook-request-origin"}


def test_no_two_operations_have_one_id() -> None:
    assert len(BY_ID) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_an_operation_says_what_a_reader_needs(operation: Operation) -> None:
    assert operation.value["summary"]
    assert all(each.get("description") for each in operation.value["parameters"] if each["name"] != "id")
    assert "500" in operation.value["responses"]
    assert ("401" in operation.value["responses"]) == bool(operation.value["security"])
    if "requestBody" in operation.value:
        assert list(operation.examples())


def test_it_has_every_reason() -> None:
    assert DOCUMENT["components"]["schemas"]["Reason"]["enum"] == list(map(str, Reason))
    for reason, entry in CATALOGUE.items():
        for answer in entry.answers:
            assert any(f"`{reason}`: {entry.means}" in each["description"] for each in _with_status(answer.http)), (
                reason
            )


def _with_status(status: int) -> list[dict[str, Any]]:
    names = {
        each.value["responses"][str(status)]["$ref"] for each in OPERATIONS if str(status) in each.value["responses"]
    }
    return [DOCUMENT["components"]["responses"][name.rpartition("/")[2]] for name in names]


def test_every_status_of_a_reason_is_in_the_table() -> None:
    assert {answer.http for entry in CATALOGUE.values() for answer in entry.answers} == tables.STATUSES.keys()


def test_every_example_fits_its_schema() -> None:
    components = {"components": DOCUMENT["components"]}
    checked = 0
    for value in _schemas_in(DOCUMENT):
        shown = (
            [each["value"] for each in value.get("examples", {}).values()] if "schema" in value else value["examples"]
        )
        schema = value.get("schema", value)
        for example in shown + ([value["example"]] if "example" in value else []):
            jsonschema_rs.validator_for(schema | components, validate_formats=True).validate(example)
            checked += 1
    assert checked > 100


def _schemas_in(value: Any) -> Any:
    """Yield every value of the document that has a schema and examples, or is a schema with examples."""
    if isinstance(value, dict):
        if "schema" in value and ("example" in value or "examples" in value):
            yield {"examples": {}} | value
        elif isinstance(value.get("examples"), list):
            yield value
        for each in value.values():
            yield from _schemas_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _schemas_in(each)


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_vendors_example_is_the_one_of_its_page(name: str) -> None:
    ((_, _, sent),) = BY_ID[f"{name}SendBatch"].examples()
    assert json.loads(sent) == json.loads((_SEEDS / f"{name}.json").read_text())


def test_a_vendors_limits_and_headers_are_its_receivers() -> None:
    for operation in (each for each in OPERATIONS if each.is_vendors):
        receiver = RECEIVERS[operation.value["tags"][0]]
        place = operation.path.removeprefix(f"{vendors.PREFIX}/{receiver.name}")
        endpoint = receiver.routes()[operation.verb.upper(), place]
        assert operation.scopes == set(endpoint.scopes)
        headers = operation.value["responses"][str(operation.success)]["headers"]
        assert ("X-RateLimit-Limit" in headers) == receiver.rate_headers
        takes_key = getattr(endpoint, "request_key", False)
        assert ("Idempotency-Replayed" in headers) == takes_key
        assert any(each["name"] == "Idempotency-Key" for each in operation.value["parameters"]) == takes_key


def test_numbers_and_names_are_those_that_rest_prints() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    stored = schemas["StoredEvent"]["properties"]
    assert stored["sequence"]["type"] == "integer"
    assert "type" not in stored["data"]  # of a CloudEvent it is any JSON value
    assert stored["attributes"]["type"] == "object"
    assert "data_json" not in stored
    assert {"id", "sequence", "created_at"} - set(schemas["StoredEvent"]["required"]) == {"created_at"}
    assert "source" not in schemas["StoredEvent"]["required"]
    assert schemas["Event"]["required"] == ["type"]
    assert schemas["Event"]["properties"]["type"]["maxLength"] == 255
    (page_size,) = (each for each in BY_ID["listEvents"].value["parameters"] if each["name"] == "page_size")
    assert page_size["schema"] == {"type": "integer", "format": "int32", "minimum": 0}
    assert "secret" not in schemas["WebhookInput"]["properties"]
    assert "id" not in schemas["DestinationInput"]["properties"]
    assert "required" not in schemas["DestinationPatch"]
    assert not [name for name in _property_names(DOCUMENT["components"]["schemas"]) if re.search("[a-z][A-Z]", name)]


def _property_names(schemas: dict[str, Any]) -> set[str]:
    own = {name: schema for name, schema in schemas.items() if not name.lower().startswith(tuple(RECEIVERS))}
    return {name for schema in own.values() for name in schema.get("properties", {})}


def test_a_new_method_is_described_without_a_change_of_the_generator(image: FileDescriptorSet) -> None:
    changed = FileDescriptorSet()
    changed.CopyFrom(image)
    (file,) = (each for each in changed.file if each.name == "headgate/v1/workspace_service.proto")
    request = file.message_type.add(name="PutThingRequest")
    for number, name in enumerate(("name", "size"), 1):
        kind = FieldDescriptorProto.TYPE_STRING if name == "name" else FieldDescriptorProto.TYPE_INT64
        request.field.add(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    method = file.service[0].method.add(
        name="PutThing", input_type=f".{PACKAGE}.PutThingRequest", output_type=f".{PACKAGE}.GetUsageResponse"
    )
    rule = method.options.Extensions[annotations_pb2.http]
    rule.put, rule.body = "/v1/things/{name}", "*"
    rule.additional_bindings.add(get="/v1/things")
    made = _made(changed)
    validate(made)
    put = made["paths"]["/v1/things/{name}"]["put"]
    assert put["operationId"] == "putThing"
    assert [each["name"] for each in put["parameters"]] == ["name", "Headgate-Workspace"]
    assert made["components"]["schemas"]["PutThingRequest"]["properties"].keys() == {"size"}
    assert {"404", "413"} <= put["responses"].keys()
    listed = made["paths"]["/v1/things"]["get"]
    assert listed["operationId"] != put["operationId"]
    assert [each["name"] for each in listed["parameters"]] == ["name", "size", "Headgate-Workspace"]


def test_two_methods_of_one_name_are_refused(image: FileDescriptorSet) -> None:
    changed = FileDescriptorSet()
    changed.CopyFrom(image)
    services = {service.name: service for file in changed.file for service in file.service}
    method = services["LedgerService"].method.add()
    method.CopyFrom(services["WorkspaceService"].method[0])
    method.options.Extensions[annotations_pb2.http].get = "/v1/other"
    with pytest.raises(ValueError, match="getUsage"):
        document(changed, "1")


def test_an_example_of_no_operation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "examples.yaml"
    path.write_text("nobody: {some: {summary: s, request: {}}}")
    with pytest.raises(ValueError, match="nobody"):
        Examples(path).check()


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "application/json", b'{"used":1,"period_start":"2026-01-01T00:00:00Z","period_end":"x","more":1}'),
        (200, "application/json", b'{"used":"1"}'),
        (200, "application/json", b"{}"),
        (200, "text/plain", b'{"used":1}'),
        (400, "application/json", b'{"code":3,"message":"m","details":[]}'),
        (418, "application/json", b'{"used":1}'),
    ],
)
def test_the_comparison_of_answers_finds_what_is_not_described(status: int, content_type: str, body: bytes) -> None:
    with pytest.raises(AssertionError):
        check_answer(BY_ID["getUsage"], status, {"content-type": content_type}, body)
    check_answer(BY_ID["getUsage"], 200, {"content-type": "application/json"}, b'{"used":1}')


@pytest.mark.parametrize(
    ("text", "shown", "example"),
    [
        (' Required. The name.\n Example: "crm".\n', "The name.", "crm"),
        (" Optional. Counts\n it. Example: 7.\n", "Counts it.", 7),
        (' A sentence.\n Example: "The \\"a\\" field."\n', "A sentence.", 'The "a" field.'),
        (" One.\n\n Two\n goes on.\n", "One.\n\nTwo goes on.", None),
        (' One of\n   "a"   first,\n         and more;\n   "b"   second.\n End.\n',
         'One of\n- "a": first, and more;\n- "b": second.\n\nEnd.', None),
    ],
)  # fmt: skip
def test_a_comment_becomes_markdown(text: str, shown: str, example: Any) -> None:
    comment = read("x", text)
    assert (comment.text, comment.example) == (shown, example)
    assert comment.required == text.startswith(" Required.")


def test_an_example_that_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="x: the example is not JSON: crm"):
        read("x", " A name. Example: crm.\n")
