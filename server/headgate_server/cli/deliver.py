"""`headgate deliver`: the delivery alone."""

from typing import Any

import click

from headgate_server import app
from headgate_server.cli.options import options
from headgate_server.cli.running import run
from headgate_server.config import Settings
from headgate_server.process import logs
from headgate_server.process.setting import build

_OPTIONS = (
    "store",
    "data-dir",
    "webhook-allow",
    "nats-url",
    "nats-credentials",
    "nats-ca",
    "metrics-port",
    "log-level",
)


@click.command()
@options(Settings, only=_OPTIONS)
def deliver(**values: Any) -> None:
    """Deliver to destinations in a process of its own, beside servers that run with `--deliver off`.

    Several may run: one of them delivers, and another goes on within 12 seconds when it ends.
    """
    settings = build(Settings, values)
    logs.configure(settings.log_level)
    run(app.deliver(settings))
