"""What can be set, each with its reason. `cli/` fills these in from flags, `HEADGATE_*` and the defaults below."""

from dataclasses import dataclass, field
from pathlib import Path

from headgate_server.ingest.committer import CommitterConfig
from headgate_server.rpc.ingest_servicer import IngestConfig
from headgate_server.rpc.server import ServerConfig

DEFAULT_DATA_DIR = Path("data")
"""Beside where the service is started: what it keeps is found, and deleted, without asking."""


def sqlite_url(data_dir: Path) -> str:
    """Return the URL of the embedded store that lives in `data_dir`."""
    return f"sqlite:///{data_dir / 'headgate.db'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of one server process."""

    store_url: str
    server: ServerConfig = field(default_factory=ServerConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    committer: CommitterConfig = field(default_factory=CommitterConfig)
    metrics_port: int | None = None
    """Where Prometheus may scrape, on the server's own host; None: nowhere."""
    shutdown_grace: float = 20.0
    """Seconds that calls in progress get to end: under the 30 that orchestrators commonly wait before they kill."""
