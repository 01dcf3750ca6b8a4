"""Fixtures: one `headgate up` per store and test worker, and a workspace of its own for each test."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from headgate_server.core.model import Scope
from tests.support import postgres
from tests.support.edge import Edge
from tests.support.up import Up
from tests.support.waiting import held

MakeEdge = Callable[..., Edge]


@pytest.fixture(scope="session")
def sqlite_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, str]]:
    """Run the service on SQLite; return it and its store's URL."""
    folder = tmp_path_factory.mktemp("edge")
    url = f"sqlite:///{folder}/headgate.db"
    with Up("--store", url, folder=folder) as up:
        yield up, url


@pytest.fixture(scope="session")
def postgres_up(postgres_server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, str]]:
    """Run the service on PostgreSQL; return it and its store's URL."""
    folder = tmp_path_factory.mktemp("edge-postgres")
    with held(postgres.fresh_database()) as url, Up("--store", url, folder=folder) as up:
        yield up, url


@pytest.fixture
def make_edge(request: pytest.FixtureRequest) -> Iterator[MakeEdge]:
    """Return a function that makes clients of a workspace, by default on SQLite."""
    made: list[Edge] = []

    def make(*scopes: Scope, workspace: str = "", store: str = "sqlite") -> Edge:
        up, url = request.getfixturevalue(f"{store}_up")
        made.append(Edge.of(up, url, workspace or f"w{uuid.uuid4().hex}", scopes or (Scope.ADMIN,)))
        return made[-1]

    yield make
    for edge in made:
        edge.close()
    for up in {edge.up for edge in made}:
        print(up.last_lines())


@pytest.fixture
def edge(make_edge: MakeEdge) -> Edge:
    """Return clients of an empty workspace, with a key that has every scope, on SQLite."""
    return make_edge()


@pytest.fixture(params=["sqlite", "postgres"])
def any_edge(request: pytest.FixtureRequest, make_edge: MakeEdge) -> Edge:
    """Return the same, on each store in turn."""
    return make_edge(store=request.param)
