"""How long stores wait in tests that are not about it.

The service gives up a database that does not answer within some seconds, and a call whose turn does not come; callers
try again. On a machine that does many other things at once a connection or a commit can take that long, and a test
that is about something else would fail with `Unavailable` or `Overloaded`. So the tests' stores and queues wait for a
minute, but for tests with the mark `bounds`.
"""

from collections.abc import Iterator
from types import ModuleType

import pytest

from headgate_server.background import key_use, rejections
from headgate_server.ingest.committer import CommitterConfig
from headgate_server.store.postgres import connection as postgres_connection
from headgate_server.store.postgres import database as postgres_database
from headgate_server.store.sqlite import connection as sqlite_connection
from headgate_server.store.sqlite import database as sqlite_database

_SECONDS = 60.0
"""As long as the tests wait for anything else (waiting.py)."""

_BOUNDS: tuple[tuple[ModuleType, str], ...] = (
    (postgres_connection, "POOL_TIMEOUT"),
    (postgres_database, "DEADLINE"),
    (postgres_database, "COMMIT_DEADLINE"),
    (postgres_database, "RESOLVE_DEADLINE"),
    (sqlite_connection, "BUSY_TIMEOUT"),
    (sqlite_database, "BUSY_TIMEOUT"),
    (rejections, "_CLOSE_SECONDS"),
    (key_use, "_CLOSE_SECONDS"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Add the mark."""
    config.addinivalue_line("markers", "bounds: how long a store waits is a part of the test, and as in the service")


@pytest.fixture(autouse=True)
def patient_stores(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the stores of this process wait for long, unless the test is about how long they wait."""
    if request.node.get_closest_marker("bounds"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for module, name in _BOUNDS:
            patch.setattr(module, name, _SECONDS)
        # The default of a field, for tests that do not set it.
        patch.setitem(CommitterConfig.__init__.__kwdefaults__, "waiting_seconds", _SECONDS)
        yield
