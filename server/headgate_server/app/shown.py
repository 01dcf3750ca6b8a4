"""Shows what a process is made of: versions, the core, the use of the connections."""

import platform
from collections.abc import Iterator

import structlog

from headgate_server.core import compiled
from headgate_server.process.causes import Causes
from headgate_server.process.metrics import Metrics, catalogue
from headgate_server.process.metrics.cells import Reading
from headgate_server.store import Store

log = structlog.get_logger(__name__)


def describe(metrics: Metrics, store: Store) -> None:
    """Show the versions, the core, and the use of the connections."""
    dialect = type(store.database).__name__.removesuffix("Database").lower()
    metrics.build(compiled.version(), platform.python_version(), dialect, "compiled" if compiled.in_use() else "python")

    def pools() -> Iterator[Reading]:
        for name, pool in store.database.pools().items():
            yield catalogue.POOL_IN_USE, (name,), pool.in_use
            yield catalogue.POOL_OPEN, (name,), pool.open
            yield catalogue.POOL_BOUND, (name,), pool.most
        yield catalogue.CORE_FAILURES, (), compiled.failures

    metrics.add_source(pools)


def watch_core() -> None:
    """Say if the compiled core that is installed cannot be used, and log its failures."""
    if compiled.found.refused:
        log.warning("core_refused", why=compiled.found.said)
    causes = Causes()
    compiled.on_failure = lambda error: causes.tell("core_failed", error)
