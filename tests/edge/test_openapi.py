"""The OpenAPI document and the running service: examples are sent, and every answer is one that it describes."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from headgate_bridge.openapi.tables import WORKSPACE
from headgate_server.core.audit import RESERVED
from headgate_server.core.model import Scope
from headgate_server.receivers.roboflow import Roboflow
from tests.edge.conftest import MakeEdge
from tests.support.edge import JSON, Edge
from tests.support.openapi import BY_ID, OPERATIONS, Operation, check_answer
from tests.support.things import edge_for, values_of_path

STREAM = BY_ID["subscribe"]
ENDING = [operation for operation in OPERATIONS if operation != STREAM]
EXAMPLES = [
    pytest.param(operation, {"content": body, "headers": {"content-type": media_type}}, id=f"{operation.id} {name}")
    for operation in ENDING
    for media_type, name, body in operation.examples()
] + [pytest.param(operation, {}, id=operation.id) for operation in ENDING if "requestBody" not in operation.value]
UNKNOWN = "0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42"


def _path(edge: Edge, operation: Operation) -> str:
    """Return the path of an operation, with the ids of things that exist."""
    return operation.path.format(**values_of_path(edge, operation))


def _unknown(operation: Operation) -> str:
    """Return the path of an operation, with ids of things that do not exist."""
    path = operation.path.replace("{sequence}", "1").replace("{id}", UNKNOWN)
    return path.replace("{event_type}", "unknown").replace("{workspace_name}", "unknown")


def _send(edge: Edge, operation: Operation, path: str, **more: Any) -> httpx.Response:
    """Send a request, and compare the answer with the document."""
    response = edge.http.request(operation.verb, path, **more)
    check_answer(operation, response.status_code, response.headers, response.content)
    assert response.headers["x-request-id"]
    return response


@pytest.mark.parametrize(("operation", "request_body"), EXAMPLES)
def test_every_example_works(make_edge: MakeEdge, operation: Operation, request_body: dict[str, Any]) -> None:
    edge = edge_for(make_edge, operation)
    if operation.id == "createManagedWorkspace":
        # Only one can have the name, and other tests send this example to the same service.
        named = json.loads(request_body["content"]) | {"name": f"w{uuid.uuid4().hex}"}
        request_body = request_body | {"content": json.dumps(named)}
    response = _send(edge, operation, _path(edge, operation), **request_body)
    assert response.status_code == operation.success, response.text
    documented = operation.value["responses"][str(operation.success)]["headers"]
    sometimes = {"X-Request-Id", "Idempotency-Replayed"}
    assert {name for name in documented if name not in response.headers} <= sometimes


def test_the_examples_of_answers_have_the_members_of_real_ones(edge: Edge) -> None:
    """Ids and times differ; everything else is equal."""
    for operation in (BY_ID["batchIngest"], BY_ID["ingest"]):
        content = operation.value["responses"]["200"]["content"]["application/json"]
        for name, shown in content["examples"].items():
            body = operation.value["requestBody"]["content"]["application/json"]["examples"][name]["value"]
            answer = _send(edge, operation, operation.path, json=body).json()
            assert _without_ids(answer) == _without_ids(shown["value"])


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        changing = {"id", "created_at", "event_hash", "sequence"}
        return {name: name if name in changing else _without_ids(each) for name, each in value.items()}
    return [_without_ids(each) for each in value] if isinstance(value, list) else value


def _examples_of_queries() -> Iterator[Any]:
    for operation in ENDING:
        for parameter in operation.value["parameters"]:
            if parameter["in"] == "query" and "example" in parameter:
                yield pytest.param(operation, parameter, id=f"{operation.id} {parameter['name']}")


@pytest.mark.parametrize(("operation", "parameter"), list(_examples_of_queries()))
def test_every_example_of_a_query_works(make_edge: MakeEdge, operation: Operation, parameter: dict[str, Any]) -> None:
    edge = edge_for(make_edge, operation)
    body = next((value for *_, value in operation.examples()), None)
    query = {parameter["name"]: parameter["example"]}
    of_a_head = parameter["name"] in {"expected_sequence", "expected_hash"}
    if of_a_head:
        query = {"expected_sequence": 7, "expected_hash": "0" * 64} | query
    more = {} if body is None else {"content": body, "headers": JSON}
    response = _send(edge, operation, _path(edge, operation), params=query, **more)
    assert response.status_code in {operation.success, 400 if of_a_head else 200}


@pytest.mark.parametrize("media_type", ["application/x-ndjson", "text/event-stream"])
def test_a_stream_has_the_documented_types(edge: Edge, media_type: str) -> None:
    edge.batch({"type": "t"})
    query = {"after_sequence": 0}
    with edge.http.stream("GET", STREAM.path, params=query, headers={"accept": media_type}) as response:
        check_answer(STREAM, response.status_code, response.headers, b"")
        assert response.headers["content-type"].partition(";")[0] == media_type
        first = next(line for line in response.iter_lines() if line)
    if media_type == "application/x-ndjson":
        described = {"content-type": "application/json"}
        event = httpx.Response(200, text=first).json()["event"]
        check_answer(BY_ID["getEvent"], 200, described, httpx.Response(200, json=event).content)


@pytest.mark.parametrize(
    ("operation", "media_type"),
    [
        pytest.param(operation, media_type, id=f"{operation.id} {media_type}")
        for operation in ENDING
        if operation.verb == "get"
        for media_type in operation.value["responses"]["200"]["content"]
    ],
)
def test_a_read_answers_in_each_documented_type(make_edge: MakeEdge, operation: Operation, media_type: str) -> None:
    edge = edge_for(make_edge, operation)
    response = _send(edge, operation, _path(edge, operation), headers={"accept": media_type})
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, media_type)


@pytest.mark.parametrize("operation", ENDING, ids=lambda operation: operation.id)
def test_refusals_are_documented(make_edge: MakeEdge, operation: Operation) -> None:
    edge = edge_for(make_edge, operation)
    path = _unknown(operation)
    seen = set()
    for more in (
        {"headers": {"x-api-key": "hg_wrong"}},
        {"params": {"nothing": "1"}},
        {"params": {"page_size": "many", "limit": "many", "from": "never", "view": "HALF"}},
        {"content": b"{", "headers": JSON},
        {"content": b"[]", "headers": JSON},
        {"content": b'{"name":5,"events":5,"event":5,"after_sequence":"x"}', "headers": JSON},
        {"content": b"{}", "headers": JSON | {"content-encoding": "zstd"}},
        {"content": b"{}", "headers": JSON | {"content-encoding": "gzip"}},
        {"content": b"{}", "headers": JSON | {"idempotency-key": ""}},
        {"headers": {WORKSPACE: "unknown"}},
    ):
        body = "requestBody" in operation.value
        if body or "content" not in more:
            seen.add(_send(edge, operation, path, **more).status_code)
    if operation.value["security"]:
        assert 401 in seen
    if "requestBody" in operation.value:
        assert {400, 415} <= seen or operation.value["tags"][0] == "DestinationService"


def test_an_operators_call_in_an_unknown_workspace_is_refused_as_documented(make_edge: MakeEdge) -> None:
    operator = make_edge(workspace=RESERVED)
    for operation in ENDING:
        if any(each["name"] == WORKSPACE for each in operation.value["parameters"]):
            more = {"json": {}} if "requestBody" in operation.value else {}
            response = _send(operator, operation, _unknown(operation), headers={WORKSPACE: "unknown"}, **more)
            assert response.status_code == 404
            assert response.json()["message"] == "there is no workspace 'unknown'"


def test_a_key_needs_the_documented_scope(make_edge: MakeEdge) -> None:
    keys = [*Scope, *Roboflow.scopes]
    edges = {str(scope): make_edge(scope) for scope in keys}
    for operation in ENDING:
        path = _unknown(operation)
        for scope, edge in edges.items():
            more = {"json": {}} if "requestBody" in operation.value else {}
            status = _send(edge, operation, path, **more).status_code
            allowed = not operation.scopes or scope in operation.scopes or scope == Scope.ADMIN
            # These need the scope in the reserved workspace.
            allowed = allowed and operation.value["tags"][0] != "AdminService"
            assert (status not in (401, 403)) == allowed, (operation.id, scope, status)
