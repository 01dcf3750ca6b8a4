"""`headgate deliver`: runs only the delivery."""

from typing import Any

import click

from headgate_server.app import until_stopped
from headgate_server.cli import metrics
from headgate_server.cli.options import options
from headgate_server.cli.running import run, traced
from headgate_server.config import Settings
from headgate_server.process import logs
from headgate_server.process.metrics import Metrics
from headgate_server.process.setting import build

_OPTIONS = (
    "store",
    "data-dir",
    "webhook-allow",
    "nats-url",
    "nats-credentials",
    "nats-ca",
    "metrics-port",
    "metrics-host",
    "log-level",
    "log-format",
)


@click.command()
@options(Settings, only=_OPTIONS)
def deliver(**values: Any) -> None:
    """Deliver to destinations in a process of its own. The servers run with `--deliver off`.

    Several may run. One of them delivers. If it ends, another continues, at the latest after 12 seconds.
    """
    settings = build(Settings, values)
    logs.configure(settings.log_level, settings.log_format)
    run(_deliver(settings))


async def _deliver(settings: Settings) -> None:
    own = Metrics()
    async with metrics.served(settings, metrics.of_process(own)), traced() as tracing:
        await until_stopped.deliver(settings, own, tracing)
