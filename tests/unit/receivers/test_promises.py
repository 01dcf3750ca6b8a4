"""The promises of `receivers/__init__.py`, for every receiver in the registry."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest

from headgate_server import receivers
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.receivers import Find, Get, HttpRequest, Receiver, Retry, Take, Verify, registry, schema
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc import status

FOLDER = Path(receivers.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))
SCHEMAS = sorted((FOLDER / "schemas").glob("*/*.json"))

ALLOWED = frozenset(
    {"abc", "collections", "dataclasses", "functools", "importlib", "itertools", "json", "operator", "re", "typing"}
    | {"uuid", "orjson", "jsonschema_rs", "headgate_server", "base64", "binascii", "urllib"}
)
"""The modules that a receiver may import: no transport, no database, no clock, and no I/O except reading its
schemas.
"""
IMPURE = frozenset({"clock", "store", "rpc", "app", "admin", "committer", "ingest", "compat", "limits"})
"""Modules of ours that hold a clock, a store or a transport."""

every_receiver = pytest.mark.parametrize("receiver", RECEIVERS.values(), ids=lambda receiver: receiver.name)
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
every_schema = pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: f"{path.parent.name}-{path.stem}")


def imported(module: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, also within functions."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@every_module
def test_a_receiver_is_short(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 250


@every_module
def test_a_receiver_is_pure(module: Path) -> None:
    names = [name.split(".") for name in imported(module)]
    assert {name[0] for name in names} <= ALLOWED
    assert not {name[1] for name in names if name[0] == "headgate_server"} & IMPURE


def test_what_is_served() -> None:
    assert sorted(RECEIVERS) == ["flokit", "immutable", "roboflow", "scrip", "vibefollow"]
    assert all(name == receiver.name for name, receiver in RECEIVERS.items())
    # If a name occurred twice, it would hide a receiver.
    assert len(RECEIVERS) == len(registry._ALL)


@every_receiver
def test_every_route_is_an_endpoint(receiver: Receiver) -> None:
    routes = receiver.routes()
    assert any(isinstance(endpoint, Take) for endpoint in routes.values())
    for (method, path), endpoint in routes.items():
        assert method in ("GET", "POST")
        assert path.startswith("/")
        # A path is found only if its id is the last segment or the one before it.
        before, _, after = path.partition("/{id}")
        assert "{" not in before + after
        assert after.count("/") <= 1
        assert isinstance(endpoint, Take | Find | Get | Verify | Retry)
        assert isinstance(endpoint, Get) is path.endswith("/{id}")
        assert isinstance(endpoint, Retry) is (method == "POST" and "/{id}/" in path)
        assert endpoint.scopes


@every_receiver
def test_every_body_that_is_no_batch_is_refused_in_the_vendors_words(receiver: Receiver) -> None:
    bodies = (b"", b"{", b"5", b"[]", b"{}", b'{"events":5}', b'{"events":null}', b'{"events":[]}', b"\xff")
    takes = [
        (path, endpoint)
        for (_, path), endpoint in receiver.routes().items()
        if isinstance(endpoint, Take) and "batch" in path
    ]
    assert takes
    for path, endpoint in takes:
        for body in bodies:
            with pytest.raises(InvalidRequest) as refused:
                endpoint.read(HttpRequest("POST", path, {}, body, 0))
            code = status.http_of(refused.value)
            reply = receiver.refusal(code, refused.value)
            assert reply.status in (400, 422)
            assert json.dumps(reply.body)


@every_receiver
def test_a_refusal_is_an_object_with_the_status_it_says(receiver: Receiver) -> None:
    reply = receiver.refusal(404, NotFound("There is no such path.", reason="NO_SUCH_PATH"))
    assert reply.status == 404
    assert "There is no such path." in json.dumps(reply.body)


@every_schema
def test_a_schema_is_one(path: Path) -> None:
    written = json.loads(path.read_bytes())
    assert written["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert jsonschema_rs.meta.is_valid(written)
    assert path.stem in schema.validators(path.parent.name)


def test_every_schema_belongs_to_a_receiver() -> None:
    assert {path.parent.name for path in SCHEMAS} <= set(RECEIVERS)


@every_receiver
def test_a_name_fits_a_path(receiver: Receiver) -> None:
    assert receiver.name.isascii()
    assert receiver.name.isalnum()
    assert receiver.name.islower()
