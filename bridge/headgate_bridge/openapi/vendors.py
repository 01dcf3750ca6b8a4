"""The vendors' paths. Their contracts are YAML files; scopes, keys and limits come from the receivers themselves."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from headgate_bridge.openapi import answers, tables
from headgate_server.receivers import Endpoint, Find, Get, Receiver, Retry, Take
from headgate_server.receivers.registry import RECEIVERS

Json = dict[str, Any]

PREFIX = "/compat"

_FOLDER = Path(__file__).parent / "vendors"
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The event's id.",
    "schema": {"type": "string"},
    "example": "0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42",
}


class Placed(NamedTuple):
    """An operation, and where it is."""

    path: str
    verb: str
    value: Json


@cache
def contracts() -> dict[str, Json]:
    """Return the contract of each vendor. Raises `ValueError` if vendors and files differ."""
    found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.yaml"))}
    if found.keys() != RECEIVERS.keys():
        raise ValueError(f"openapi/vendors/ has {sorted(found)}, and the receivers are {sorted(RECEIVERS)}")
    return found


def tags() -> Iterator[Json]:
    """Yield a tag for each vendor."""
    for name, contract in contracts().items():
        title = contract["description"].partition("'")[0]
        yield {"name": name, "x-displayName": title, "description": contract["description"]}


def schemas() -> Json:
    """Return the schemas of all vendors."""
    return {name: schema for contract in contracts().values() for name, schema in contract["schemas"].items()}


def responses() -> Json:
    """Return the components of the answers to requests that fail."""
    return {
        _name(receiver, status): _refusal(receiver, contracts()[receiver.name], status)
        for receiver in RECEIVERS.values()
        for status in sorted(tables.STATUSES)
    }


def operations() -> Iterator[Placed]:
    """Yield the operations of all vendors. Raises `ValueError` if a receiver and its contract differ."""
    for name, contract in contracts().items():
        receiver = RECEIVERS[name]
        routes = receiver.routes()
        described = {tuple(place.split(" ")): each for place, each in contract["paths"].items()}
        if described.keys() != routes.keys():
            raise ValueError(f"{name}: the contract and the receiver differ in {described.keys() ^ routes.keys()}")
        for (verb, path), endpoint in routes.items():
            value = _operation(receiver, endpoint, contract, described[verb, path], path)
            yield Placed(f"{PREFIX}/{name}{path}", verb.lower(), value)


def _operation(receiver: Receiver, endpoint: Endpoint, contract: Json, described: Json, path: str) -> Json:
    name = f"{receiver.name}{described['id'][0].upper()}{described['id'][1:]}"
    takes_key = isinstance(endpoint, Take) and endpoint.request_key
    parameters: list[Json] = [_ID] if "{id}" in path else []
    parameters += [_parameter(*query) for query in described.get("query", {}).items()]
    parameters += [_request_key()] if takes_key else []
    body: Json | None = described.get("request")
    failing = answers.statuses(key=True, body=body is not None, named=_named(endpoint, described))
    operation: Json = {
        "operationId": name,
        "tags": [receiver.name],
        "summary": described["summary"],
        "description": f"{described['summary']}.",
        "parameters": parameters,
        "security": [{scheme: [scope]} for scope in endpoint.scopes for scheme in ("bearer", "apiKey")],
    }
    if body is not None:
        example = {"example": {"summary": described["summary"], "value": described["example"]}}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": body, "examples": example}},
        }
    success = {
        "description": described.get("answers", "The answer."),
        "headers": _headers(receiver, 200, takes_key=takes_key),
        "content": {"application/json": {"schema": described["answer"]}},
    }
    operation["responses"] = {str(described.get("status", 200)): success} | {
        str(status): {"$ref": f"#/components/responses/{_name(receiver, status)}"} for status in failing
    }
    return operation


def _named(endpoint: Endpoint, described: Json) -> set[int]:
    named = set(described.get("also", ()))
    if isinstance(endpoint, Get | Retry):
        named.add(404)
    if isinstance(endpoint, Find) or not isinstance(endpoint, Take):
        return named
    return named | ({422} if endpoint.request_key else set())


def _name(receiver: Receiver, status: int) -> str:
    return f"{receiver.name.capitalize()}{answers.names(status)}"


def _refusal(receiver: Receiver, contract: Json, status: int) -> Json:
    return {
        "description": f"{answers.names(status)}. The vendor's form; Envoy's own refusals have Headgate's.",
        "headers": _headers(receiver, status),
        "content": {"application/json": {"schema": {"anyOf": [contract["error"], answers.ERROR]}}},
    }


def _headers(receiver: Receiver, status: int, *, takes_key: bool = False) -> Json:
    headers = answers.headers(status)
    if receiver.rate_headers and (status < 400 or status == 429):
        headers |= {name: {"$ref": f"#/components/headers/{name}"} for name in answers.HEADERS if "Limit" in name}
    if takes_key:
        _, text = tables.ANSWER_HEADERS["Idempotency-Replayed"]
        headers["Idempotency-Replayed"] = {"description": text, "schema": {"type": "string"}}
    return headers


def _parameter(name: str, schema: Json) -> Json:
    schema = dict(schema)
    parameter = {"name": name, "in": "query", "required": False, "description": schema.pop("description")}
    return parameter | {"schema": schema}


def _request_key() -> Json:
    _, schema, description = tables.REQUEST_HEADERS["Idempotency-Key"]
    return {"name": "Idempotency-Key", "in": "header", "required": False, "description": description, "schema": schema}
