"""Imports point down only: which module may know of which, as DESIGN.md draws the layers."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import headgate_bridge
import headgate_server

_SERVER = Path(headgate_server.__file__).parent
_BRIDGE = Path(headgate_bridge.__file__).parent

PURE = {
    *("model", "errors", "canonical", "jsonbody", "timestamps", "validate", "ledger", "differ", "settle"),
    *("clock",),
}
"""Values in, values out: no wire, no database, no event loop, no files. (`clock` is the one that reads a clock.)"""

IMPURE_LIBRARIES = {
    *("grpc", "google", "headgate", "sqlalchemy", "alembic", "asyncpg", "pysqlite3"),
    *("asyncio", "uvloop", "socket", "threading", "subprocess", "structlog", "logging", "click", "prometheus_client"),
}

USE_CASES = {"ingest", "committer", "auth", "verify"}

WIRING = {"app", "cli", "admin", "__main__"}
"""The only modules that open stores and put objects together."""


def modules(root: Path) -> dict[str, Path]:
    """Return the modules of a package by their dotted name within it."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, wherever in it: `from a import b` yields "a.b"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def libraries(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imports(path)}


def own(path: Path) -> set[str]:
    """Return the modules of the server that a module imports."""
    prefix = "headgate_server."
    names = (name.removeprefix(prefix) for name in imports(path) if name.startswith(prefix))
    return {_module(name) for name in names}


def _module(name: str) -> str:
    """Return the module of a dotted name, which may go on into it."""
    while name not in SERVER and "." in name:
        name = name.rpartition(".")[0]
    return name


SERVER = modules(_SERVER)


def named(prefix: str) -> list[str]:
    """Return the modules of a package."""
    return sorted(name for name in SERVER if name == prefix or name.startswith(prefix + "."))


def test_the_walk_sees_the_modules_and_what_they_import() -> None:
    assert {*PURE, *USE_CASES, *WIRING, "rpc.wire", "store", "store.sql"} <= SERVER.keys()
    assert "sqlalchemy" in libraries(SERVER["store.sql"])
    assert {"canonical", "ledger", "model", "timestamps"} <= own(SERVER["validate"])
    assert "store" in own(SERVER["committer"])


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_know_neither_wire_nor_database_nor_event_loop(name: str) -> None:
    assert not libraries(SERVER[name]) & IMPURE_LIBRARIES
    assert own(SERVER[name]) <= PURE


@pytest.mark.parametrize("name", sorted(USE_CASES))
def test_use_cases_know_the_stores_promise_but_no_wire_and_no_driver(name: str) -> None:
    assert not libraries(SERVER[name]) & {"grpc", "google", "headgate", "sqlalchemy", "alembic", "asyncpg", "pysqlite3"}
    assert not {module for module in own(SERVER[name]) if module.startswith(("rpc", "store."))}


@pytest.mark.parametrize("name", named("store"))
def test_the_store_knows_no_wire(name: str) -> None:
    assert not libraries(SERVER[name]) & {"grpc", "google", "headgate"}
    assert not own(SERVER[name]) & {*USE_CASES, *WIRING, *named("rpc"), *named("receivers")}


@pytest.mark.parametrize("name", named("rpc"))
def test_the_servicers_know_no_database(name: str) -> None:
    assert not libraries(SERVER[name]) & {"sqlalchemy", "alembic", "asyncpg", "pysqlite3"}
    assert not {module for module in own(SERVER[name]) if module.startswith("store.")}


def test_only_the_store_knows_the_database() -> None:
    knowing = {
        name for name, path in SERVER.items() if libraries(path) & {"sqlalchemy", "alembic", "asyncpg", "pysqlite3"}
    }
    assert knowing <= set(named("store"))


def test_only_the_rpc_layer_knows_the_wire() -> None:
    knowing = {name for name, path in SERVER.items() if libraries(path) & {"grpc", "google", "headgate"}}
    assert knowing <= set(named("rpc"))


@pytest.mark.parametrize("name", named("receivers"))
def test_receivers_turn_bytes_into_drafts_without_wire_or_database(name: str) -> None:
    assert not libraries(SERVER[name]) & {"grpc", "headgate", "sqlalchemy", "asyncio"}
    assert not {module for module in own(SERVER[name]) if module.startswith(("rpc", "store"))}


def test_stores_are_opened_where_objects_are_wired_and_nowhere_else() -> None:
    opening = {name for name, path in SERVER.items() if "headgate_server.store.open_store" in set(imports(path))}
    assert opening <= WIRING


def test_nothing_but_the_command_line_knows_what_wires() -> None:
    knowing = {name for name, path in SERVER.items() if own(path) & {"app", "cli", "admin"}}
    assert knowing <= WIRING


def test_only_the_command_line_knows_the_bridge() -> None:
    assert [name for name, path in SERVER.items() if "headgate_bridge" in libraries(path)] == ["cli"]


def test_the_bridge_does_not_know_the_server() -> None:
    assert not [name for name, path in modules(_BRIDGE).items() if "headgate_server" in libraries(path)]


def test_nothing_imports_in_a_circle() -> None:
    seen: dict[str, bool] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " imports ".join((*trail, name))
        if seen.get(name):
            return
        for other in own_at_import(SERVER[name]) - {name}:
            visit(other, (*trail, name))
        seen[name] = True

    for name in SERVER:
        visit(name, ())
    assert all(seen.values())


def own_at_import(path: Path) -> set[str]:
    """Return the modules of the server that a module imports when it is imported itself, not later in a function."""
    body = ast.parse(path.read_text()).body
    names = [
        f"{node.module}.{alias.name}"
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    ]
    return {_module(name.removeprefix("headgate_server.")) for name in names if name.startswith("headgate_server.")}
