"""Fixtures for all tests: stores on real parts. Helpers are in `tests/support`."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.support import citus, database, leftovers, memoryfolder, postgres

pytest_plugins = ["tests.support.limits", "tests.support.patience"]

# Every run has the same examples, so that a failure comes from the change and not from chance;
# `--hypothesis-profile explore` searches for new ones. Slow or filtered examples are not faults of the code. No
# database, because tests write only to their own folders.
_CALM = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
settings.register_profile("explore", _CALM)
settings.register_profile("fixed", _CALM, derandomize=True)
settings.load_profile("fixed")

# By default a traceback for a console shows the values of all variables. That takes seconds of the event loop that a
# test shares with its server, which then loses its database's patience.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_configure(config: pytest.Config) -> None:
    """Choose, once a run, its folder for temporary files and the one of its PostgreSQL. Workers of xdist find both in
    their environment.
    """
    if not hasattr(config, "workerinput"):
        leftovers.prepare_run()
        memoryfolder.prepare_run()
        postgres.prepare_run()


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """End and name the processes that are left of the run. The workers of xdist have ended."""
    yield
    if not hasattr(session.config, "workerinput") and (left := leftovers.finish_run()):
        print("\nprocesses that the tests left behind:", *left, sep="\n    ", file=sys.stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's PostgreSQL, also when workers crashed, and remove the run's files."""
    if not hasattr(config, "workerinput"):
        postgres.finish_run()
        memoryfolder.finish_run()


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for `--numprocesses auto`: tests wait for processes a part of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def postgres_server() -> None:
    """Make sure that the run's PostgreSQL runs."""
    postgres.ensure_started()


@pytest.fixture
async def postgres_url(postgres_server: None) -> AsyncIterator[str]:
    """Return the URL of a fresh, migrated PostgreSQL database."""
    async with postgres.fresh_database() as url:
        yield url


@pytest.fixture
async def oldest_postgres_url() -> AsyncIterator[str]:
    """Return the URL of a fresh, migrated database of the oldest PostgreSQL that is supported."""
    if postgres.system_programs() is None:
        pytest.skip("there is no older PostgreSQL on this machine: apt-get install postgresql")
    await asyncio.to_thread(postgres.ensure_started, postgres.OLDEST)
    async with postgres.fresh_database(server=postgres.OLDEST) as url:
        yield url


@pytest.fixture(scope="session")
def distributed_template(postgres_server: None) -> str:
    """Return the name of a database whose tables seem to be distributed. It goes with its server."""
    return asyncio.run(citus.make_template())


@pytest.fixture
async def distributed_url(distributed_template: str) -> AsyncIterator[str]:
    """Return the URL of a fresh PostgreSQL database whose tables seem to be distributed."""
    async with postgres.fresh_database(distributed_template) as url:
        yield url


@pytest.fixture
async def citus_url() -> AsyncIterator[str]:
    """Return the URL of an empty database on a real Citus. Skipped where none is named."""
    async with citus.emptied() as url:
        yield url


@pytest.fixture
def absent_sqlite_url(tmp_path: Path) -> str:
    """Return the URL of an SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path}/headgate.db"


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of an empty, migrated SQLite database, from which others are copied."""
    path = tmp_path_factory.mktemp("migrated") / "headgate.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


async def _migrate(url: str) -> None:
    await (await open_store(url)).close()


@pytest.fixture
def sqlite_url(absent_sqlite_url: str, migrated_sqlite: Path) -> str:
    """Return the URL of a fresh, migrated SQLite database."""
    shutil.copy(migrated_sqlite, database.sqlite_path(absent_sqlite_url))
    return absent_sqlite_url


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh store, of each dialect in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """Return a fresh store, of each dialect in turn."""
    opened = await open_store(store_url)
    yield opened
    await opened.close()
