"""The settings of `headgate serve`. A field made by `setting` is an option (`process/setting.py`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headgate_server.background.subscription import SubscriptionConfig
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.ingest.committer import CommitterConfig
from headgate_server.ingest.rejections import RejectionConfig
from headgate_server.process import logs
from headgate_server.process.ports import HIGHEST_PORT, host_of
from headgate_server.process.setting import path_of, setting
from headgate_server.process.tls import TlsConfig
from headgate_server.rpc.docs_servicer import DocsConfig
from headgate_server.rpc.ingest_servicer import IngestConfig
from headgate_server.rpc.server import ServerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where the events are stored."""

    url: str | None = setting(
        None,
        "store",
        "sqlite:///path or postgresql://user@host/database. Without it: SQLite in --data-dir.",
        metavar="URL",
        secret=True,
    )
    data_dir: Path = setting(Path("data"), "data-dir", "The folder of the embedded store.", read=path_of)
    """The default is below the folder where the service is started, so its data is easy to find and to delete."""

    @property
    def location(self) -> str | Path:
        """The URL of a store, or the file of the embedded one. A path may contain characters that a URL cannot."""
        return self.url or self.data_dir / "headgate.db"

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is SQLite."""
        return not self.url or self.url.partition("://")[0] == "sqlite"


AUTO: Literal["auto"] = "auto"
_MOST_WORKERS = 64


def _workers_of(text: str) -> int | Literal["auto"]:
    """Return a number of workers, or `AUTO`. Raises `ValueError`."""
    if text == AUTO:
        return AUTO
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= _MOST_WORKERS):
        raise ValueError(f"{text!r} is not a number of workers: give a whole number up to {_MOST_WORKERS}, or 'auto'")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one server process, and the number of processes."""

    store: StoreConfig = field(default_factory=StoreConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    workers: int | Literal["auto"] = setting(
        AUTO,
        "workers",
        "Server processes. A process that ends is replaced. auto: as many as this machine and the store can use; with "
        "`headgate serve` one.",
        metavar="N|auto",
        read=_workers_of,
    )
    """How many are useful depends on the machine, which an operator should not have to know (`cli/workers.py`). Each
    worker has its own memory and connections to the database. More than 64 workers are no faster on any database.
    """
    subscriptions: SubscriptionConfig = field(default_factory=SubscriptionConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    committer: CommitterConfig = field(default_factory=CommitterConfig)
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    rejections: RejectionConfig = field(default_factory=RejectionConfig)
    docs: DocsConfig = field(default_factory=DocsConfig)
    metrics_port: int | None = setting(
        None,
        "metrics-port",
        "The port of GET /metrics, for Prometheus: of all workers and Envoy together. 0 takes any free one. Without it "
        "there are no metrics.",
        least=0,
        most=HIGHEST_PORT,
    )
    """No port by default: who needs no metrics has no further port to protect."""
    metrics_host: str = setting(
        "127.0.0.1", "metrics-host", "The address of the port for metrics. It needs no key.", read=host_of
    )
    """Loopback: metrics contain no events and no keys, but say how busy a service is."""
    metrics_workspaces: int = setting(
        0,
        "metrics-workspaces",
        "Count the events of so many workspaces each; the others are counted together as _other. 0: no metric names a "
        "workspace.",
        least=0,
        most=10_000,
    )
    """None by default: names of workspaces may be customers' names, and each is a time series for ever."""
    shutdown_grace: float = setting(
        20.0, "shutdown-grace", "Seconds for calls in progress to end at shutdown.", least=0, most=3600
    )
    """Orchestrators usually kill a process 30 seconds after they asked it to end; this is less."""
    log_level: str = setting(
        "info", "log-level", "The lowest level that is logged to standard error.", choices=logs.LEVELS
    )
    """The default level logs one line for each start, stop and call."""
    log_format: str | None = setting(
        None,
        "log-format",
        "json: one object a line. console: for people. Without it: console if standard error is a terminal, otherwise "
        "json.",
        choices=logs.FORMATS,
    )
    """Decided by where the log goes: a program reads a file or a pipe, a person a terminal."""
