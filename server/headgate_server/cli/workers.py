"""The workers of `headgate up` and `headgate serve`: their command lines and their environment."""

import contextlib
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from headgate_server.config import AUTO, Settings
from headgate_server.core.errors import SetupError
from headgate_server.process import machine
from headgate_server.process.ports import HIGHEST_PORT, reserved
from headgate_server.process.setting import handed_over
from headgate_server.process.tracing.variables import environment_of_workers
from headgate_server.process.workers import Workers

log = structlog.get_logger(__name__)

_OF_THE_PARENT = {"metrics-port", "metrics-host"}
"""Settings that the workers do not get: the parent reads their metrics, and has the one port for all."""

_MOST_USEFUL = {"sqlite": 2, "postgresql": 4}
"""The most workers that `auto` starts, by store. SQLite has one writer at a time, and a quarter to a third of an
event's work is writing. On PostgreSQL the workers share the processors with the database.
"""
_MEMORY_EACH = 1 << 30
"""Bytes of the machine's memory for each worker of `auto`: twice its bound, so that half is left for the others."""


def counted(settings: Settings, *, serves_alone: bool) -> Settings:
    """Return settings with a number of workers in place of `auto`.

    Without Envoy (`serves_alone`) it is one: callers know one port.
    """
    if settings.workers != AUTO:
        return settings
    return replace(settings, workers=1 if serves_alone else useful(settings))


def useful(settings: Settings) -> int:
    """Return how many workers this machine and the store can use."""
    most = _MOST_USEFUL["sqlite" if settings.store.is_sqlite else "postgresql"]
    return max(1, min(most, machine.processors(), machine.memory() // _MEMORY_EACH))


@contextlib.contextmanager
def workers_of(
    settings: Settings,
    grace: float,
    sockets: Path | None = None,
    *,
    at_leisure: bool = False,
    others: Collection[int] = (),
) -> Iterator[tuple[Workers, Sequence[int]]]:
    """Yield workers that are not started yet, and their ports, which are reserved until the block ends.

    `grace` is the time, in seconds, that they give their calls. With a folder of `sockets`, each worker has the Unix
    socket there that `socket_of` names. With `at_leisure`, which is for a number that nobody asked for, only the first
    is waited for, and if a later port is taken, or one of `others` that this service will take, another one is used.
    Raises `SetupError` if a port is taken, or there are not so many.
    """
    count, host, first = settings.workers, settings.server.host, settings.server.port
    assert count != AUTO  # noqa: S101 - `counted` has decided
    health = settings.server.health_port
    _check_ranges(first, health, count, at_leisure=at_leisure)
    others = {first, settings.metrics_port or 0, *others}
    with contextlib.ExitStack() as stack:

        def ports_of(port: int, purpose: str, avoid: Container[int]) -> Sequence[int]:
            return stack.enter_context(reserved(host, port, count, purpose, elsewhere=at_leisure, avoid=avoid))

        probed = () if health is None else ports_of(health, "probes", others)
        ports = ports_of(first, "gRPC", {*others, *probed})
        if health and (moved := [port for index, port in enumerate(probed) if port != health + index]):
            log.warning("health_ports_moved", ports=moved)
        yield (
            Workers(
                arguments(settings, ports, grace, sockets, probed),
                {**environment(settings), **environment_of_workers()},
                grace=grace,
                measured=settings.metrics_port is not None,
                at_leisure=at_leisure,
            ),
            ports,
        )


def _check_ranges(first: int, health: int | None, count: int, *, at_leisure: bool) -> None:
    """Raise `SetupError` if there are too few ports, or if one would be for calls and for probes."""
    fixed = 1 if at_leisure else count
    for flag, port in (("grpc-port", first), ("health-port", health or 0)):
        if port + fixed - 1 > HIGHEST_PORT:
            raise SetupError(f"--{flag} {port} leaves no ports for {count} workers")
    if first and health and abs(first - health) < fixed:
        raise SetupError(
            f"--health-port {health} is among the ports of --grpc-port {first}: each worker has one of both"
        )


def socket_of(sockets: Path, port: int) -> Path:
    """Return the Unix socket of the worker on a port."""
    return sockets / f"{port}.sock"


def arguments(
    settings: Settings, ports: Sequence[int], grace: float, sockets: Path | None = None, probed: Sequence[int] = ()
) -> Sequence[Sequence[str]]:
    """Return the command line of the worker on each port, after `headgate serve`: all settings except secrets, and then
    the worker's own. `probed` are their ports for probes, if they have some. If a flag is given twice, the last one
    counts.
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
            *(f"--health-port={probe}" for probe in probed[index : index + 1]),
            *(() if sockets is None else (f"--bridge-socket={socket_of(sockets, port)}",)),
        ]
        for index, port in enumerate(ports)
    ]


def environment(settings: Settings) -> Mapping[str, str]:
    """Return the settings that are passed in the environment."""
    return {setting.variable: text for setting, text in handed_over(settings) if setting.secret}
