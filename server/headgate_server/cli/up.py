"""`headgate up` and `headgate bridge`: the commands that run Envoy."""

import contextlib
import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from headgate_bridge import BridgeConfig, Envoy, render
from headgate_server.access import admin
from headgate_server.cli import metrics
from headgate_server.cli.options import options
from headgate_server.cli.running import StoppedError, output_takes, run, unless
from headgate_server.cli.workers import check_workers, workers_of
from headgate_server.config import Settings
from headgate_server.process import logs
from headgate_server.process.child import RestartPolicy, keep
from headgate_server.process.metrics.endpoint import Make
from headgate_server.process.ports import HIGHEST_PORT, host_of, shown, url_of
from headgate_server.process.setting import build, setting
from headgate_server.process.signals import stop_signal
from headgate_server.process.workers import Workers
from headgate_server.rpc.pipeline.trust import PUBLIC
from headgate_server.rpc.server import ServerConfig

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_UPSTREAM = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})")

_Address = tuple[str, int]


def _address_of(text: str) -> _Address:
    match = _UPSTREAM.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= HIGHEST_PORT:
        raise ValueError(f"{text!r} is not an upstream: give HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    return match["address"] or match["host"], int(match["port"])


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """The gRPC servers behind `headgate bridge`."""

    host: str = setting(ServerConfig().host, "grpc-host", "Address of the gRPC server.", read=host_of)
    port: int = setting(ServerConfig().port, "grpc-port", "Port of the gRPC server.", least=1, most=HIGHEST_PORT)
    several: Sequence[_Address] = setting(
        (),
        "upstream",
        "A gRPC server, in place of the two above. Several may be given; calls are spread over them.",
        metavar="HOST:PORT",
        multiple=True,
        read=_address_of,
    )

    @property
    def addresses(self) -> Sequence[_Address]:
        """Host and port of each."""
        return self.several or ((self.host, self.port),)


@click.command()
@options(Settings)
@options(BridgeConfig)
def up(**values: Any) -> None:
    """Run the whole service: the gRPC server, and Envoy for REST.

    Prints the addresses and, the first time, an API key and a request to paste. Ctrl-C or SIGTERM lets requests in
    progress end.
    """
    settings = build(Settings, values)
    logs.configure(settings.log_level)
    run(_up(settings, values))


_OF_BRIDGE = ("body-limit", "bridge-token", "log-level", "metrics-port", "metrics-host")


@click.command()
@options(BridgeConfig)
@options(UpstreamConfig)
@options(Settings, only=_OF_BRIDGE)
def bridge(**values: Any) -> None:
    """Run only Envoy, in front of gRPC servers that run elsewhere."""
    settings = build(Settings, values)
    logs.configure(settings.log_level)
    run(_bridge(_bridge_config(values, settings, build(UpstreamConfig, values).addresses), settings))


async def _up(settings: Settings, values: dict[str, Any]) -> None:
    """Run all processes until a signal comes, or until one of them ends and cannot be replaced."""
    stop = stop_signal()
    check_workers(settings)
    settings = _with_secret(settings)
    render(_bridge_config(values, settings, ()))  # find a bad envoy.yaml before any process starts
    # One half for Envoy's requests and then one for the servers' own; together they are the configured grace.
    grace = settings.shutdown_grace / 2
    with workers_of(settings, grace) as (workers, ports):
        measured = contextlib.AsyncExitStack()
        envoy = Envoy(_bridge_config(values, settings, [(settings.server.host, port) for port in ports]))
        try:
            await unless(stop, workers.start())
            await unless(stop, envoy.start())
            await measured.enter_async_context(metrics.served(settings, _page(workers, envoy)))
            grpc = ", ".join((shown(settings.server.host, ports[0]), *(f":{port}" for port in ports[1:])))
            await _greet(settings, url_of(values["http_host"], envoy.port), grpc)
            await unless(stop, workers.keep(), keep(envoy, RestartPolicy()))
        except StoppedError:
            pass
        finally:
            # The servers end subscriptions, and Envoy passes that on before it ends.
            try:
                await envoy.drain(grace)
            finally:
                try:
                    await measured.aclose()
                    await workers.stop()
                finally:
                    await envoy.stop()
    click.echo("headgate: stopped", err=True)


def _page(workers: Workers | None, envoy: Envoy) -> Make:
    return metrics.of_service(workers, envoy=envoy.metrics, envoy_starts=lambda: envoy.starts)


async def _bridge(config: BridgeConfig, settings: Settings) -> None:
    stop = stop_signal()
    envoy = Envoy(config)
    try:
        await unless(stop, envoy.start())
        async with metrics.served(settings, _page(None, envoy)):
            click.echo(f"REST  {url_of(config.http_host, envoy.port)}")
            await unless(stop, keep(envoy, RestartPolicy()))
    except StoppedError:
        pass
    finally:
        await envoy.stop()


def _bridge_config(values: dict[str, Any], settings: Settings, upstreams: Sequence[_Address]) -> BridgeConfig:
    return build(
        BridgeConfig,
        values,
        # A server that listens on every address also listens on loopback, to which Envoy can connect.
        upstreams=tuple((_EVERY_ADDRESS.get(host, host), port) for host, port in upstreams),
        body_limit=settings.server.body_limit,
        marker=settings.server.bridge_token,
    )


def _with_secret(settings: Settings) -> Settings:
    """Return settings with a token of this start, unless one was given."""
    if settings.server.bridge_token != PUBLIC:
        return settings
    return replace(settings, server=replace(settings.server, bridge_token=secrets.token_urlsafe()))


async def _greet(settings: Settings, rest: str, grpc: str) -> None:
    """Print the service's addresses and, at the first start, how to send a first batch."""
    # A key is shown once, so it is made last, and only if it can be shown.
    shows = output_takes("\n")
    async with admin.opened(settings.store.location) as store:
        key = await admin.create_first_key(store.directory) if shows else None
        if not shows and not await store.directory.list_keys():
            click.echo(
                "headgate: no API key was made, since standard output cannot be written; "
                "`headgate keys create` makes one",
                err=True,
            )
    click.echo(f"  Headgate is up.   REST  {rest}   gRPC  {grpc}\n")
    if key is not None:
        click.echo(
            "  Your API key, shown this once:\n\n"
            f"    {key}\n\n"
            "  Send a first batch:\n\n"
            f"curl {shlex.quote(f'{rest}/v1/events/batch')} \\\n"
            f"  -H 'Authorization: Bearer {key}' \\\n"
            "  -H 'Content-Type: application/json' \\\n"
            '  -d \'{"events": [{"type": "order.completed", "source": "shop", "idempotency_key": "order-12345",\n'
            '                   "data": {"amount": 49.99}}, {"source": "shop"}]}\'\n'
        )
