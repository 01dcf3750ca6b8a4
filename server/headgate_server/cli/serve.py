"""`headgate serve`: the gRPC server alone."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from headgate_server.app import until_stopped
from headgate_server.cli import metrics
from headgate_server.cli.exposed import check_exposed
from headgate_server.cli.options import options
from headgate_server.cli.running import StoppedError, run, traced, unless
from headgate_server.cli.workers import counted, workers_of
from headgate_server.config import Settings
from headgate_server.process import logs, notify
from headgate_server.process.metrics import Metrics, line
from headgate_server.process.ports import shown
from headgate_server.process.setting import build
from headgate_server.process.signals import stop_signal


@click.command()
@options(Settings)
@click.option(
    "--ready-fd",
    type=int,
    hidden=True,
    help="Write the port of each worker to this file descriptor, a line each, once calls are taken.",
)
@click.option(
    "--metrics-fd",
    type=int,
    hidden=True,
    help="Answer with the metrics on this file descriptor, a connected socket.",
)
@click.option(
    "--bridge-socket",
    type=click.Path(path_type=Path),
    hidden=True,
    help="Also take calls in plain text on this Unix socket.",
)
def serve(ready_fd: int | None, metrics_fd: int | None, bridge_socket: Path | None, **values: Any) -> None:
    """Run the gRPC server alone, as one process or as several."""
    settings = counted(build(Settings, values), serves_alone=True)
    settings = replace(settings, server=replace(settings.server, bridge_socket=bridge_socket))
    logs.configure(settings.log_level, settings.log_format)
    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)  # its reader waits for the end, and workers would keep it open

    def ready(*ports: int) -> None:
        notify.ready(f"gRPC {shown(settings.server.host, ports[0])}")
        if ready_fd is not None:
            with os.fdopen(ready_fd, "wb") as pipe:
                pipe.writelines(b"%d\n" % port for port in ports)

    run(_serve(settings, ready, metrics_fd))


async def _serve(settings: Settings, ready: Callable[..., None], metrics_fd: int | None) -> None:
    settings.tls.files()  # contradictions are reported first
    check_exposed("gRPC", settings.server.host, settings.server.port, settings.tls)
    if settings.workers != 1:
        await _serve_workers(settings, ready)
        return
    own = Metrics(settings.metrics_workspaces)
    if metrics_fd is not None:
        line.answer(metrics_fd, own.read)
    async with metrics.served(settings, metrics.of_process(own)), traced() as tracing:
        await until_stopped.serve(settings, ready, own, tracing)


async def _serve_workers(settings: Settings, ready: Callable[..., None]) -> None:
    """Serve like `until_stopped.serve`, in several processes; `ready` gets all their ports."""
    stop = stop_signal()
    with workers_of(settings, settings.shutdown_grace) as (workers, ports):
        try:
            await unless(stop, workers.start())
            async with metrics.served(settings, metrics.of_service(workers)):
                ready(*ports)
                await unless(stop, workers.keep())
        except StoppedError:
            pass
        finally:
            notify.stopping()
            await workers.stop()
