"""Imports point down only. The folders are the floors: their order is read from the code, never from a list."""

import ast
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import headgate_bridge
import headgate_server

_SERVER = Path(headgate_server.__file__).parent
_BRIDGE = Path(headgate_bridge.__file__).parent

MOST_FLOORS = 14
"""The most names at the root: a reader can remember this many."""

DATABASE = {"sqlalchemy", "alembic", "asyncpg", "pysqlite3"}
WIRE = {"grpc", "grpc_health", "grpc_reflection", "google", "headgate"}
EVENT_LOOP = {"asyncio", "uvloop", "socket", "threading", "subprocess", "concurrent"}
OUTPUT = {"structlog", "logging", "click", "prometheus_client", "time"}


def modules(root: Path) -> dict[str, Path]:
    """Return the modules of a package by their dotted name within it; the package itself is the empty name."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path) -> Sequence[str]:
    """Return the dotted names that a module imports anywhere, also in functions: `from a import b` is "a.b"."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return found


def libraries(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    return {name.partition(".")[0] for name in imports(path)}


SERVER = modules(_SERVER)


def own(path: Path) -> set[str]:
    """Return the modules of the server that a module imports."""
    prefix = "headgate_server."
    return {_module(name.removeprefix(prefix)) for name in imports(path) if name.startswith(prefix)}


def _module(name: str) -> str:
    """Return the module of a dotted name, which may also name something in the module."""
    while name not in SERVER and "." in name:
        name = name.rpartition(".")[0]
    return name if name in SERVER else ""


def floor(module: str) -> str:
    """Return the name at the root that a module belongs to."""
    return module.partition(".")[0]


FLOORS = sorted({floor(name) for name in SERVER} - {"", "__main__"})


def on(name: str) -> list[str]:
    """Return the modules of a floor."""
    return sorted(module for module in SERVER if floor(module) == name)


def order(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the names of a graph, each after all names that it points to. Fails on a circle."""
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


def reaching(libraries_of: set[str]) -> set[str]:
    """Return the floors that import one of these libraries."""
    return {floor(name) for name, path in SERVER.items() if libraries(path) & libraries_of}


def test_the_walk_sees_the_modules_and_what_they_import() -> None:
    assert {"core.model", "store", "rpc.wire", "ingest.committer", "app"} <= SERVER.keys()
    assert "sqlalchemy" in set().union(*(libraries(SERVER[name]) for name in on("store")))
    assert {"core.canonical", "core.ledger", "core.model"} <= own(SERVER["core.validate"])


def test_the_root_can_be_taken_in_at_a_glance() -> None:
    assert len(FLOORS) <= MOST_FLOORS


def test_every_folder_says_what_lives_in_it() -> None:
    for name in FLOORS:
        assert ast.get_docstring(ast.parse(SERVER[name].read_text())), name


def test_floors_import_floors_below_them_only() -> None:
    graph = {name: set().union(*(map(floor, own(SERVER[one])) for one in on(name))) - {name, ""} for name in FLOORS}
    lowest, *_ = found = order(graph)
    assert lowest == "core"
    assert found.index("core") < found.index("store") < found.index("rpc") < found.index("app") < found.index("cli")


def test_modules_import_in_no_circle() -> None:
    order({name: own(path) - {name, ""} for name, path in SERVER.items()})


@pytest.mark.parametrize("name", on("core"))
def test_the_core_takes_values_and_returns_values(name: str) -> None:
    assert not libraries(SERVER[name]) & (DATABASE | WIRE | EVENT_LOOP | OUTPUT)


@pytest.mark.parametrize("name", on("receivers"))
def test_receivers_turn_bytes_into_drafts_and_know_nothing_but_the_core(name: str) -> None:
    assert not libraries(SERVER[name]) & (DATABASE | WIRE | EVENT_LOOP | OUTPUT)
    assert {floor(one) for one in own(SERVER[name])} <= {"core", "receivers"}


def test_only_the_store_knows_the_database() -> None:
    assert reaching(DATABASE) == {"store"}


def test_no_topic_asks_which_dialect_it_is() -> None:
    """A dialect's own SQL is in its folder, or is compiled for it. Migrations are excepted, because they never
    change.
    """
    topics = [
        name for name in on("store") if not name.startswith(("store.sqlite", "store.postgres", "store.migrations"))
    ]
    assert "store.proof" in topics
    assert [name for name in topics if "dialect.name" in SERVER[name].read_text()] == []


def test_only_the_rpc_floor_knows_the_wire() -> None:
    assert reaching(WIRE) == {"rpc"}


def test_stores_are_opened_where_objects_are_wired_and_nowhere_else() -> None:
    opening = {name for name, path in SERVER.items() if "headgate_server.store.opening.open_store" in imports(path)}
    assert opening == {"app.server", "app.delivery", "access.admin"}


def test_topics_are_taken_and_not_the_whole_store() -> None:
    """Beside the code that opens stores or connects the parts, only the copy of a whole store takes it."""
    taking = {name for name, path in SERVER.items() if "headgate_server.store.Store" in imports(path)}
    assert {name for name in taking if floor(name) != "app"} == {"access.admin", "access.copying", "store.opening"}


def test_only_the_commands_that_run_envoy_know_the_bridge() -> None:
    knowing = {name for name, path in SERVER.items() if "headgate_bridge" in libraries(path)}
    assert knowing == {"cli.up"}


# Server and bridge share the code that starts and ends child processes, reserves ports, declares options and names
# certificates, and the operator's error.
SHARED = {"core.errors", "process.launcher", "process.ports", "process.setting", "process.tls"}


# What the OpenAPI document is made from, beside the protos: tables that import no generated code.
DESCRIBED = {"core.reasons", "receivers", "receivers.registry", "rpc.pipeline.leftout"}


def test_of_the_server_the_bridge_knows_only_how_processes_are_run() -> None:
    for name, path in modules(_BRIDGE).items():
        assert own(path) <= (DESCRIBED if floor(name) == "openapi" else SHARED), path


def test_a_running_bridge_does_not_import_the_generator() -> None:
    for name, path in modules(_BRIDGE).items():
        if floor(name) not in ("openapi", "generate"):
            assert not {each for each in imports(path) if each.startswith("headgate_bridge.openapi")}, path


def test_the_generator_needs_no_generated_code() -> None:
    """Otherwise a proto that the code already uses could not be generated."""
    reached, waiting = set(), list(DESCRIBED)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += own(SERVER[name]) - reached
    assert [name for name in sorted(reached) if libraries(SERVER[name]) & WIRE] == []


def test_what_the_bridge_shares_needs_no_library() -> None:
    reached, waiting = set(), list(SHARED)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += own(SERVER[name]) - reached
    assert (
        not {lib for name in reached for lib in libraries(SERVER[name])}
        - set(sys.stdlib_module_names)
        - {"headgate_server"}
    )
