"""The options that commands share, and what is read from their values."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

import click

from headgate_server.config import DEFAULT_DATA_DIR, Settings, sqlite_url
from headgate_server.core.errors import SetupError
from headgate_server.core.model import RateLimit
from headgate_server.ingest.committer import CommitterConfig
from headgate_server.process import logs
from headgate_server.rpc.ingest_servicer import IngestConfig
from headgate_server.rpc.server import ServerConfig

_Command = TypeVar("_Command", bound=Callable[..., Any])

_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(
    r"(?P<receiver>[a-z]+)="
    r"(?:none|(?P<default>default)|(?P<count>[1-9][0-9]{0,8})/(?P<period>second|minute|hour|day)(?::(?P<burst>[1-9][0-9]{0,8}))?)"
)
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""Seconds of the periods that a rate can be given in."""

_LARGEST_BATCH = 100_000
_MOST_WORKERS = 64
"""Each has connections of its own to the database, and no database gains by more."""
_PAST_IT = "Past it calls are refused at once: RESOURCE_EXHAUSTED (429) with RetryInfo."


def _option(name: str, *names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Return a click option that `HEADGATE_<NAME>` sets too, and whose help says its default."""
    variable = "HEADGATE_" + name.lstrip("-").replace("-", "_").upper()
    return click.option(name, *names, envvar=variable, show_envvar=True, show_default=True, **settings)


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_HIGHEST_PORT = 65535
_PORT = click.IntRange(0, _HIGHEST_PORT)
_UPSTREAM = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})")
_PASSED_ON = (
    *("grpc_host", "body_limit", "batch_limit", "concurrent_calls", "waiting_events", "waiting_bytes"),
    *("shutdown_grace", "log_level"),
)
"""The options of `headgate serve` that all its workers share."""
store_options = _options(
    _option(
        "--store",
        metavar="URL",
        help="sqlite:///path or postgresql://user@host/database. Without it: SQLite in --data-dir.",
    ),
    _option(
        "--data-dir", type=click.Path(path_type=Path), default=DEFAULT_DATA_DIR, help="Where the embedded store lives."
    ),
)
server_options = _options(
    _option(
        "--grpc-host",
        default="127.0.0.1",
        help="Address of the gRPC server. There is no TLS: keep it on a trusted network.",
    ),
    _option(
        "--grpc-port",
        type=_PORT,
        default=50051,
        help="Port of the gRPC server, each further worker has the next; 0 takes any free ones.",
    ),
    _option(
        "--workers",
        type=click.IntRange(1, _MOST_WORKERS),
        default=1,
        help="Server processes, on PostgreSQL only. One that dies is replaced.",
    ),
    _option("--body-limit", type=click.IntRange(1024, 1 << 30), default=8 << 20, help="Bytes of one request."),
    _option("--batch-limit", type=click.IntRange(1, _LARGEST_BATCH), default=1_000, help="Events of one batch."),
    _option(
        "--concurrent-calls",
        type=click.IntRange(1, 1_000_000),
        default=ServerConfig().concurrent_calls,
        help=f"Calls in progress, per worker. {_PAST_IT}",
    ),
    _option(
        "--waiting-events",
        type=click.IntRange(1, 1 << 30),
        default=CommitterConfig().waiting_events,
        help=f"Events that may wait to be stored, per worker; of one workspace half as many. {_PAST_IT}",
    ),
    _option(
        "--waiting-bytes",
        type=click.IntRange(1, 1 << 40),
        default=CommitterConfig().waiting_bytes,
        help=f"Bytes of content that may wait to be stored, per worker; of one workspace half as many. {_PAST_IT}",
    ),
    _option(
        "--metrics-port",
        type=_PORT,
        default=None,
        help="Serve Prometheus metrics there; each further worker on the next port. Without it: nowhere.",
    ),
    _option("--shutdown-grace", type=click.FloatRange(0, 3600), default=20.0, help="Seconds that calls get to end."),
)
bridge_options = _options(
    _option("--http-host", default="127.0.0.1", help="Address of REST (and of gRPC, passed through)."),
    _option(
        "--http-port",
        type=_PORT,
        default=8080,
        help="Port of REST (and of gRPC, passed through); 0 takes any free one.",
    ),
    _option(
        "--envoy-config",
        type=click.Path(path_type=Path),
        default=None,
        help="Another envoy.yaml than the one that comes along.",
    ),
)
upstream_options = _options(
    _option("--grpc-host", default="127.0.0.1", help="Address of the gRPC server."),
    _option("--grpc-port", type=click.IntRange(1, _HIGHEST_PORT), default=50051, help="Port of the gRPC server."),
    _option(
        "--upstream",
        "upstreams",
        metavar="HOST:PORT",
        multiple=True,
        help="A gRPC server, in place of the two above. Several may be given; calls are spread over them.",
    ),
    _option("--body-limit", type=click.IntRange(1024, 1 << 30), default=8 << 20, help="Bytes of one request."),
)
log_option = _option(
    "--log-level", type=click.Choice(logs.LEVELS), default="info", help="What is logged to standard error."
)


def settings_of(options: dict[str, Any]) -> Settings:
    return Settings(
        store_url=store_url(options),
        server=ServerConfig(
            host=options["grpc_host"],
            port=options["grpc_port"],
            body_limit=options["body_limit"],
            concurrent_calls=options["concurrent_calls"],
        ),
        ingest=IngestConfig(max_events=options["batch_limit"]),
        committer=CommitterConfig(waiting_events=options["waiting_events"], waiting_bytes=options["waiting_bytes"]),
        metrics_port=options["metrics_port"],
        shutdown_grace=options["shutdown_grace"],
    )


def store_url(options: dict[str, Any]) -> str:
    return options["store"] or sqlite_url(options["data_dir"])


def check_workers(options: dict[str, Any]) -> None:
    """Raise `SetupError` where there cannot be as many workers as were asked for."""
    workers = options["workers"]
    if workers == 1:
        return
    if store_url(options).partition("://")[0] == "sqlite":
        raise SetupError(
            f"SQLite is served by one process: with --workers {workers} give --store postgresql://user@host/database"
        )
    for name in ("grpc_port", "metrics_port"):
        if (options[name] or 0) + workers - 1 > _HIGHEST_PORT:
            raise SetupError(f"--{name.replace('_', '-')} {options[name]} leaves no ports for {workers} workers")


def worker_arguments(options: dict[str, Any], ports: Sequence[int]) -> Sequence[Sequence[str]]:
    """Return the command line of the worker on each port, after `headgate serve` and without the store."""
    common = [f"--{name.replace('_', '-')}={options[name]}" for name in _PASSED_ON]
    return [
        # One each, whatever the environment says.
        [*common, f"--grpc-port={port}", "--workers=1", *_metrics_argument(options["metrics_port"], index)]
        for index, port in enumerate(ports)
    ]


def _metrics_argument(port: int | None, index: int) -> Sequence[str]:
    # 0 is any free port, for each of them.
    return () if port is None else (f"--metrics-port={port + index if port else 0}",)


def upstreams_of(options: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """Return hosts and ports of the gRPC servers that `headgate bridge` stands before. Raises `SetupError`."""
    if not options["upstreams"]:
        return ((options["grpc_host"], options["grpc_port"]),)
    return tuple(map(_upstream_of, options["upstreams"]))


def _upstream_of(text: str) -> tuple[str, int]:
    match = _UPSTREAM.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= _HIGHEST_PORT:
        raise SetupError(f"{text!r} is no upstream: give HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    return match["address"] or match["host"], int(match["port"])


def lifetime_of(text: str | None) -> int | None:
    """Return how long a key lives, in microseconds. Raises `SetupError` for what is no duration."""
    if text is None:
        return None
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise SetupError(f"{text!r} is no length of time: give a number and s, m, h or d, such as 90d")
    return int(match[1]) * _UNITS[match[2]] * 1_000_000


def quota_of(text: str | None) -> int | EllipsisType | None:
    """Return the quota that was given; ... for none given, None for 'none'. Raises `SetupError`."""
    if text is None:
        return ...
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise SetupError(f"{text!r} is no quota: give a whole number, or 'none'")
    return int(text)


def rate_of(text: str) -> tuple[str, RateLimit | EllipsisType | None]:
    """Return receiver and limit of RECEIVER=N/PERIOD[:BURST]; without a burst N may come at once. None is no limit,
    ... the receiver's own. Raises `SetupError`.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise SetupError(
            f"{text!r} is no rate: give RECEIVER=N/PERIOD, such as flokit=100/minute or scrip=10/second:30, "
            "RECEIVER=none or RECEIVER=default"
        )
    if match["count"] is None:
        return match["receiver"], ... if match["default"] else None
    count = int(match["count"])
    return match["receiver"], RateLimit(count, PERIODS[match["period"]] * 1_000_000, int(match["burst"] or count))
