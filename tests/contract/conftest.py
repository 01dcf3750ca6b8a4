"""Fixtures of the contract's tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headgate_server.store import Store
from tests.support import beside, database, distributed, postgres, tampering

_BESIDE = "shared_sqlite"
_DISTRIBUTED = "distributed"
_ALSO_DISTRIBUTED = {"test_append", "test_requests"}
"""The modules that also run where the tables seem to be distributed: those about the append's own statements."""

_CITUS = "citus"
_NOT_ON_CITUS = {
    "test_bench_limit",
    "test_failures",
    "test_migrations",
    "test_misshapen_cells",
    "test_a_commit_that_failed_shows_at_once_and_one_that_succeeded_costs_no_probe",
    "test_an_event_of_another_workspace",
    "test_an_identity_of_two_events_is_found",
    "test_every_column_of_the_head",
}
"""The modules and tests that do not run on a real Citus: they are about statements that only an ordinary PostgreSQL
gets, undo migrations, put triggers on distributed tables, which cannot have any, take the guard of identities away, or
move a row to another workspace, which Citus refuses.
"""

_WITH_A_SECOND_PROCESS = {
    "test_append",
    "test_beside",
    "test_concurrency",
    "test_limits",
    "test_requests",
}
"""The modules that also run while a second process writes to the same SQLite file: those about what is decided under a
lock, and about processes.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests with a second process, but for those modules."""
    kept, left_out = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        shared = isinstance(item, pytest.Function) and _BESIDE in item.name
        unfit = shared and item.path.parent == Path(__file__).parent and item.path.stem not in _WITH_A_SECOND_PROCESS
        if isinstance(item, pytest.Function) and item.path.parent == Path(__file__).parent:
            unfit |= f"[{_DISTRIBUTED}" in item.name and item.path.stem not in _ALSO_DISTRIBUTED
            unfit |= f"[{_CITUS}" in item.name and not _NOT_ON_CITUS.isdisjoint({item.path.stem, item.originalname})
        (left_out if unfit else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(params=["sqlite", "postgres", "oldest_postgres", _BESIDE, _DISTRIBUTED, _CITUS])
def store_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh store, of each dialect, of the oldest server, and of a Citus in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(autouse=True)
def statements_name_their_workspace() -> Iterator[None]:
    """Check that Citus can send each statement to one node, on every database."""
    with distributed.watched() as found:
        yield
    assert not found, found


@pytest.fixture(scope="session")
def second_process() -> Iterator[beside.Beside]:
    """Return the process that writes to the same file."""
    with beside.running() as process:
        yield process


@pytest.fixture
def shared_sqlite_url(sqlite_url: str, second_process: beside.Beside) -> Iterator[str]:
    """Return the URL of a fresh SQLite store to which a second process writes all the time."""
    with second_process.writing(Path(database.sqlite_path(sqlite_url))):
        yield sqlite_url


@pytest.fixture
async def workspace(store: Store) -> int:
    """Return the id of a workspace whose ledger is empty."""
    return (await store.directory.create_workspace("acme")).id


@pytest.fixture
async def tampered(store: Store, store_url: str, workspace: int) -> AsyncIterator[tampering.Tampered]:
    """Return a workspace with six events, and what changes its tables."""
    async with tampering.opened(store, store_url, workspace) as opened:
        yield opened


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """Return the path of a store that is not there yet."""
    return tmp_path / "data" / "headgate.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the path of a backup that is not there yet."""
    return tmp_path / "backup"


@pytest.fixture
async def postgres_target() -> AsyncIterator[str]:
    """Return the URL of an empty database."""
    await asyncio.to_thread(postgres.ensure_started)
    async with postgres.fresh_database("template1") as url:
        yield url


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return the URLs of a store, and of another one that does not exist yet."""
    if request.param == "sqlite to postgres":
        return f"sqlite:///{tmp_path}/old.db", request.getfixturevalue("postgres_target")
    return request.getfixturevalue("postgres_url"), f"sqlite:///{tmp_path}/new.db"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Return the same of two SQLite files."""
    return f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/new.db"
