"""The OpenAPI document as tests use it: its operations, and answers compared with its schemas."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs

PATH = Path(__file__).parent.parent.parent / "generated" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(PATH.read_text())

VENDORS = tuple(tag["name"] for tag in DOCUMENT["tags"] if not tag["name"].endswith("Service"))

Json = dict[str, Any]


class Operation(NamedTuple):
    """One operation of the document."""

    id: str
    verb: str
    path: str
    value: Json

    @property
    def is_vendors(self) -> bool:
        """Whether it is an operation of a vendor's API."""
        return self.value["tags"][0] in VENDORS

    @property
    def success(self) -> int:
        """The status of an answer that is no error."""
        return min(map(int, self.value["responses"]))

    @property
    def scopes(self) -> set[str]:
        """The scopes of which a key needs one; none if no key is needed."""
        return {scope for ways in self.value["security"] for scopes in ways.values() for scope in scopes}

    def examples(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield the examples of its body: media type, name, and the bytes to send."""
        content = self.value.get("requestBody", {}).get("content", {})
        for media_type, described in content.items():
            for name, example in described.get("examples", {}).items():
                value = example["value"]
                body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
                yield media_type, name, body


OPERATIONS = [
    Operation(value["operationId"], verb, path, value)
    for path, verbs in DOCUMENT["paths"].items()
    for verb, value in verbs.items()
]
BY_ID = {operation.id: operation for operation in OPERATIONS}


def resolved(value: Json) -> Json:
    """Return what a value refers to, or the value itself."""
    while "$ref" in value:
        found: Any = DOCUMENT
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def check_answer(operation: Operation, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Fail unless the document has such an answer: status, media type, headers, and the body by its schema.

    In JSON of our own a member that no schema has is a fault too: the document itself allows it, so that clients accept
    new ones.
    """
    where = f"{operation.id} {status}"
    assert str(status) in operation.value["responses"], f"{where} is not documented: {body[:300]!r}"
    response = resolved(operation.value["responses"][str(status)])
    if "content" not in response:
        assert body == b"", where
        return
    media_type = headers.get("content-type", "").partition(";")[0]
    assert media_type in response["content"], f"{where} has the type {media_type!r}"
    if media_type == "application/json" or media_type.endswith("+json"):
        errors = [
            f"{where} at {'/'.join(map(str, error.instance_path))}: {error.message}"
            for error in _validator(operation.id, status, media_type).iter_errors(json.loads(body))
        ]
        assert errors == [], body[:1000]


@cache
def _validator(operation_id: str, status: int, media_type: str) -> Any:
    response = resolved(BY_ID[operation_id].value["responses"][str(status)])
    schema = response["content"][media_type]["schema"]
    if media_type == "application/json":
        return jsonschema_rs.validator_for(_closed(schema) | {"components": _closed(DOCUMENT["components"])})
    return jsonschema_rs.validator_for(schema | {"components": DOCUMENT["components"]})


_OPEN = {"ScripStored", "ImmutableStored", "RoboflowRemarks"}
"""Schemas of answers that also have the members that the client sent, or members of another schema."""


def _closed(value: Any, name: str = "") -> Any:
    """Return a schema that allows no members but those that it has."""
    if isinstance(value, list):
        return [_closed(each) for each in value]
    if not isinstance(value, dict):
        return value
    closed = {key: _closed(each, key) for key, each in value.items()}
    if isinstance(value.get("properties"), dict) and value.get("type") == "object" and name not in _OPEN:
        key = "unevaluatedProperties" if "allOf" in value else "additionalProperties"
        closed.setdefault(key, False)
    return closed
