"""The options that commands share, and what is read from their values."""

import re
from collections.abc import Callable
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeVar

import click

from headgate_server import logs
from headgate_server.config import DEFAULT_DATA_DIR, Settings, sqlite_url
from headgate_server.errors import SetupError
from headgate_server.model import RateLimit
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


def _option(name: str, *, variable: str | None = None, **settings: Any) -> Callable[[_Command], _Command]:
    """Return a click option that `HEADGATE_<NAME>` sets too, and whose help says its default."""
    variable = variable or "HEADGATE_" + name.lstrip("-").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, show_default=True, **settings)


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_PORT = click.IntRange(0, 65535)
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
    _option("--grpc-port", type=_PORT, default=50051, help="Port of the gRPC server; 0 takes any free one."),
    _option("--body-limit", type=click.IntRange(1024, 1 << 30), default=8 << 20, help="Bytes of one request."),
    _option("--batch-limit", type=click.IntRange(1, _LARGEST_BATCH), default=1_000, help="Events of one batch."),
    _option("--metrics-port", type=_PORT, default=None, help="Serve Prometheus metrics there. Without it: nowhere."),
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
    _option("--grpc-port", type=click.IntRange(1, 65535), default=50051, help="Port of the gRPC server."),
    _option("--body-limit", type=click.IntRange(1024, 1 << 30), default=8 << 20, help="Bytes of one request."),
)
log_option = _option(
    "--log-level", type=click.Choice(logs.LEVELS), default="info", help="What is logged to standard error."
)


def settings_of(options: dict[str, Any]) -> Settings:
    return Settings(
        store_url=store_url(options),
        server=ServerConfig(host=options["grpc_host"], port=options["grpc_port"], body_limit=options["body_limit"]),
        ingest=IngestConfig(max_events=options["batch_limit"]),
        metrics_port=options["metrics_port"],
        shutdown_grace=options["shutdown_grace"],
    )


def store_url(options: dict[str, Any]) -> str:
    return options["store"] or sqlite_url(options["data_dir"])


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
