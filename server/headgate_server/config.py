"""The settings of `headgate serve`. A field made by `setting` is an option (`process/setting.py`)."""

from dataclasses import dataclass, field
from pathlib import Path

from headgate_server.ingest.committer import CommitterConfig
from headgate_server.process import logs
from headgate_server.process.ports import HIGHEST_PORT
from headgate_server.process.setting import path_of, setting
from headgate_server.rpc.ingest_servicer import IngestConfig
from headgate_server.rpc.server import ServerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where the events are."""

    url: str | None = setting(
        None,
        "store",
        "sqlite:///path or postgresql://user@host/database. Without it: SQLite in --data-dir.",
        metavar="URL",
        secret=True,
    )
    data_dir: Path = setting(Path("data"), "data-dir", "Where the embedded store lives.", read=path_of)
    """In the folder where the service is started: its data is easy to find and to delete."""

    @property
    def location(self) -> str | Path:
        """The URL of a store, or the file of the embedded one: a path may hold what a URL cannot."""
        return self.url or self.data_dir / "headgate.db"

    @property
    def is_sqlite(self) -> bool:
        """Whether only one process can serve it."""
        return not self.url or self.url.partition("://")[0] == "sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of one server process, and how many of them there are."""

    store: StoreConfig = field(default_factory=StoreConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    workers: int = setting(
        1, "workers", "Server processes, on PostgreSQL only. One that dies is replaced.", least=1, most=64
    )
    """One is enough for most services. Each worker has connections of its own to the database, and no database gains
    from more than 64 workers.
    """
    ingest: IngestConfig = field(default_factory=IngestConfig)
    committer: CommitterConfig = field(default_factory=CommitterConfig)
    metrics_port: int | None = setting(
        None,
        "metrics-port",
        "Serve Prometheus metrics there; each further worker on the next port. Without it: nowhere.",
        least=0,
        most=HIGHEST_PORT,
    )
    """The port for Prometheus, on the server's own host; None: no port."""
    shutdown_grace: float = setting(20.0, "shutdown-grace", "Seconds that calls get to end.", least=0, most=3600)
    """Seconds for calls in progress to end: less than the 30 that orchestrators usually wait before they kill."""
    log_level: str = setting("info", "log-level", "What is logged to standard error.", choices=logs.LEVELS)
    """At this level: one line for each start, stop and call."""
