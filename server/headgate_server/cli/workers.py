"""The workers of `headgate up` and `headgate serve`: their command lines and their environment."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headgate_server.config import Settings
from headgate_server.core.errors import SetupError
from headgate_server.process.ports import HIGHEST_PORT, reserved
from headgate_server.process.setting import handed_over
from headgate_server.process.workers import Workers

_OF_THE_PARENT = {"metrics-port", "metrics-host"}
"""Settings that the workers do not get: the parent reads their metrics, and has the one port for all."""


def check_workers(settings: Settings) -> None:
    """Raise `SetupError` if the store does not allow so many workers."""
    workers = settings.workers
    if workers == 1:
        return
    if settings.store.is_sqlite:
        raise SetupError(
            f"SQLite is served by one process: with --workers {workers} give --store postgresql://user@host/database"
        )
    for flag, port in (("grpc-port", settings.server.port), ("health-port", settings.server.health_port or 0)):
        if port + workers - 1 > HIGHEST_PORT:
            raise SetupError(f"--{flag} {port} leaves no ports for {workers} workers")


@contextlib.contextmanager
def workers_of(
    settings: Settings, grace: float, sockets: Path | None = None
) -> Iterator[tuple[Workers, Sequence[int]]]:
    """Yield workers that are not started yet, and their ports, which are reserved until the block ends.

    `grace` is the time, in seconds, that they give their calls. With a folder of `sockets`, each worker has the Unix
    socket there that `socket_of` names. Raises `SetupError` if a port is taken.
    """
    with reserved(settings.server.host, settings.server.port, settings.workers, "gRPC") as ports:
        yield (
            Workers(
                arguments(settings, ports, grace, sockets),
                environment(settings),
                grace=grace,
                measured=settings.metrics_port is not None,
            ),
            ports,
        )


def socket_of(sockets: Path, port: int) -> Path:
    """Return the Unix socket of the worker on a port."""
    return sockets / f"{port}.sock"


def arguments(
    settings: Settings, ports: Sequence[int], grace: float, sockets: Path | None = None
) -> Sequence[Sequence[str]]:
    """Return the command line of the worker on each port, after `headgate serve`: all settings except secrets, and then
    the worker's own. If a flag is given twice, the last one counts.
    """
    common = [
        f"--{setting.flag}" if setting.is_flag else f"--{setting.flag}={text}"
        for setting, text in handed_over(settings)
        if not setting.secret and setting.flag not in _OF_THE_PARENT
    ]
    return [
        [
            *common,
            f"--grpc-port={port}",
            "--workers=1",
            f"--shutdown-grace={grace}",
            *_health_argument(settings.server.health_port, index),
            *(() if sockets is None else (f"--bridge-socket={socket_of(sockets, port)}",)),
        ]
        for index, port in enumerate(ports)
    ]


def _health_argument(port: int | None, index: int) -> Sequence[str]:
    # 0 means any free port, for each worker.
    return () if port is None else (f"--health-port={port + index if port else 0}",)


def environment(settings: Settings) -> Mapping[str, str]:
    """Return the settings that are passed in the environment."""
    return {setting.variable: text for setting, text in handed_over(settings) if setting.secret}
