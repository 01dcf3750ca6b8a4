"""Event types through Envoy and on the command line: the shapes, names of any characters, and the setting."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from headgate_server.core.model import Scope
from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge, failure, statuses
from tests.support.up import headgate

SCHEMA = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}}


def test_an_event_type_from_put_to_delete(any_edge: Edge) -> None:
    edge = any_edge
    path = "/v1/event-types/order.completed"
    made = edge.http.put(path, json={"schema": SCHEMA, "mode": "strict"})
    assert made.status_code == 200, made.text
    body = made.json()
    assert body == {
        "type": "order.completed",
        "schema": SCHEMA,
        "mode": "strict",
        "created_at": body["created_at"],
        "updated_at": body["created_at"],
    }
    assert edge.http.get(path).json() == body
    assert edge.http.get("/v1/event-types").json() == {"event_types": [body], "next_page_token": ""}
    assert edge.http.put(path, json=body).json() == body  # what was read can be sent back

    answer = edge.batch(
        {"type": "order.completed", "data": {"amount": 1}}, {"type": "order.completed", "data": {"amount": "1"}}
    )
    assert statuses(answer) == ["accepted", "rejected"]
    assert answer["results"][1]["error"] == {
        "reason": "SCHEMA_MISMATCH",
        "field": "data.amount",
        "message": 'The data does not match the schema of "order.completed": the value is not of type "number".',
        "retryable": False,
    }
    single = edge.post("/v1/events", {"type": "order.completed"})
    assert failure(single) == (400, 3, "SCHEMA_MISMATCH")

    assert edge.http.delete(path).json() == {}
    assert failure(edge.http.get(path)) == (404, 5, "NOT_FOUND")
    assert failure(edge.http.delete(path)) == (404, 5, "NOT_FOUND")
    for refused in ({"schema": {"$ref": "http://example.com/x"}}, {"schema": {"type": "objekt"}}):
        assert failure(edge.http.put(path, json=refused)) == (400, 3, "INVALID_SCHEMA")
    assert failure(edge.http.put(path + "?event_type=x", json={"schema": {}}))[0] == 400


NAMES = (
    *("a/b", "a b", "a:b", "order:replay", "100%", "a%2Fb", "Bestellung größer"),
    *("a?b#c", "a+b", "x" * 255, "{x}", "a;b=c"),
)


def test_names_with_characters_that_are_escaped_in_a_path(edge: Edge) -> None:
    for name in NAMES:
        path = f"/v1/event-types/{quote(name, safe='')}"
        made = edge.http.put(path, json={"schema": {}})
        assert (made.status_code, made.json().get("type")) == (200, name), made.text
        assert edge.http.get(path).json()["type"] == name
    listed = [each["type"] for each in edge.http.get("/v1/event-types?page_size=1000").json()["event_types"]]
    assert listed == sorted(NAMES)
    for name in NAMES:
        assert edge.http.delete(f"/v1/event-types/{quote(name, safe='')}").status_code == 200
    assert edge.http.get("/v1/event-types").json()["event_types"] == []
    # A path may not name nothing, and Envoy resolves dots.
    for path in ("/v1/event-types/", "/v1/event-types/%2E%2E", "/v1/event-types/a/b"):
        assert edge.http.put(path, json={"schema": {}}).status_code in (404, 405)
    assert failure(edge.http.put("/v1/event-types/%FF", json={"schema": {}}))[0] == 400


def test_the_setting_for_unknown_types(edge: Edge, make_edge: MakeEdge) -> None:
    assert edge.http.get("/v1/workspace").json()["unknown_event_types"] == "accept"
    changed = edge.http.patch("/v1/workspace", json={"unknown_event_types": "reject"})
    assert changed.json() == edge.http.get("/v1/workspace").json()
    assert changed.json().keys() == {"name", "unknown_event_types"}
    assert statuses(edge.batch({"type": "t"})) == ["rejected"]
    assert edge.http.patch("/v1/workspace", json={**changed.json(), "unknown_event_types": "warn"}).status_code == 200
    (result,) = edge.batch({"type": "t"})["results"]
    assert (result["status"], result["warnings"]) == ("accepted", ['The workspace has no event type "t".'])
    for bad, reason in (({}, "MISSING_FIELD"), ({"unknown_event_types": 5}, "WRONG_TYPE"), ({"x": 1}, "UNKNOWN_FIELD")):
        assert failure(edge.http.patch("/v1/workspace", json=bad))[2] == reason
    reader = make_edge(Scope.EVENTS_READ)
    assert failure(reader.http.patch("/v1/workspace", json={"unknown_event_types": "warn"}))[2] == "MISSING_SCOPE"


def _run(*arguments: str, code: int = 0) -> str:
    done = headgate(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_commands(tmp_path: Path) -> None:
    store = ("--data-dir", str(tmp_path))
    here = (*store, "--workspace", "acme")
    _run("keys", "create", *here, "--scope", "admin")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    put = ("event-types", "put", *here, "order.completed", "--schema", str(schema))
    assert _run(*put).split("  ")[:3] == ["order.completed", "strict", "81 bytes"]
    assert json.loads(_run("event-types", "get", *here, "order.completed")) == SCHEMA
    assert _run(*put, "--mode", "permissive") == _run("event-types", "list", *here)
    schema.write_text('{"type": "objekt"}')
    assert "not a schema" in _run(*put, code=2)
    schema.write_text("{")
    assert "The file is not JSON" in _run(*put, code=2)
    _run("event-types", "delete", *here, "order.completed")
    assert _run("event-types", "list", *here) == ""
    for command in ("get", "delete"):
        assert "no event type" in _run("event-types", command, *here, "order.completed", code=2)
    assert "nobody" in _run("event-types", "list", *store, "--workspace", "nobody", code=2)

    _run("workspaces", "set", *store, "acme", "--unknown-types", "warn")
    assert _run("workspaces", "list", *store).rstrip().endswith("unknown types: warn")
    assert "--unknown-types" in _run("workspaces", "set", *store, "acme", code=2)


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
def test_a_request_without_a_key(edge: Edge, method: str) -> None:
    response = edge.http.request(method, "/v1/event-types/t", json={"schema": {}}, headers={"x-api-key": ""})
    assert response.status_code in ((401,) if method == "PUT" else (401, 404, 405))
