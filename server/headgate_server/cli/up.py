"""`headgate up` and `headgate bridge`: the commands that run Envoy."""

import contextlib
import re
import secrets
import shlex
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from headgate_bridge import BridgeConfig, Envoy, render
from headgate_bridge.config import encrypts
from headgate_bridge.folder import PrivateFolder
from headgate_server.access import admin
from headgate_server.cli import metrics
from headgate_server.cli.exposed import check_exposed, is_loopback
from headgate_server.cli.options import options
from headgate_server.cli.running import StoppedError, output_takes, run, unless
from headgate_server.cli.workers import counted, socket_of, workers_of
from headgate_server.config import AUTO, Settings
from headgate_server.core import compiled
from headgate_server.core.errors import SetupError
from headgate_server.process import logs, notify
from headgate_server.process.child import RestartPolicy, keep
from headgate_server.process.clock import system_clock
from headgate_server.process.metrics.endpoint import Make
from headgate_server.process.ports import HIGHEST_PORT, host_of, shown, url_of
from headgate_server.process.renewal import Renewal
from headgate_server.process.setting import build, path_of, setting
from headgate_server.process.signals import stop_signal
from headgate_server.process.tls import TlsConfig, TlsFiles
from headgate_server.process.workers import Workers
from headgate_server.rpc.pipeline.trust import PUBLIC
from headgate_server.rpc.server import ServerConfig

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_UPSTREAM = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})")

_Address = tuple[str, int]
_Upstream = _Address | Path
"""A server's address, or its Unix socket."""


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

    ca: Path | None = setting(
        None,
        "upstream-ca",
        "Call the servers over TLS. Their certificates must name the host, and be from one of these authorities.",
        metavar="FILE",
        read=path_of,
    )
    cert: Path | None = setting(
        None,
        "upstream-cert",
        "The certificate to show to servers that run with --tls-client-ca, in PEM.",
        metavar="FILE",
        read=path_of,
    )
    key: Path | None = setting(None, "upstream-key", "Its private key, in PEM.", metavar="FILE", read=path_of)
    plaintext: bool = setting(
        False,
        "upstream-plaintext",
        "Call servers on other machines without TLS. Only on a trusted network.",
    )

    @property
    def addresses(self) -> Sequence[_Address]:
        """Host and port of each."""
        return self.several or ((self.host, self.port),)

    def files(self) -> TlsFiles | None:
        """Return the files, None without TLS. Raises `SetupError` if the settings contradict each other, or show keys
        and events to a network.
        """
        if (self.cert is None) != (self.key is None):
            raise SetupError("--upstream-cert and --upstream-key are given together")
        if self.ca is not None:
            if self.plaintext:
                raise SetupError("--upstream-plaintext and --upstream-ca contradict each other: give one of them")
            return TlsFiles(self.cert, self.key, self.ca)
        if self.cert is not None:
            raise SetupError("--upstream-cert needs --upstream-ca: it is shown only over TLS")
        for host, port in self.addresses:
            if not self.plaintext and not is_loopback(_EVERY_ADDRESS.get(host, host)):
                raise SetupError(
                    f"calls to {shown(host, port)} would show keys and events to everybody on the network: give "
                    "--upstream-ca, or --upstream-plaintext if the network is trusted"
                )
        return None


@click.command()
@options(Settings)
@options(BridgeConfig)
def up(**values: Any) -> None:
    """Run the whole service: the gRPC server, and Envoy for REST.

    Prints the addresses and, the first time, an API key and a request to paste. Ctrl-C or SIGTERM lets requests in
    progress end.
    """
    settings = build(Settings, values)
    logs.configure(settings.log_level, settings.log_format)
    run(_up(settings, values))


_OF_BRIDGE = ("body-limit", "bridge-token", "log-level", "log-format", "metrics-port", "metrics-host")


@click.command()
@options(BridgeConfig)
@options(TlsConfig)
@options(UpstreamConfig)
@options(Settings, only=_OF_BRIDGE)
def bridge(**values: Any) -> None:
    """Run only Envoy, in front of gRPC servers that run elsewhere."""
    settings = build(Settings, values)
    logs.configure(settings.log_level, settings.log_format)
    run(_bridge(settings, values, build(UpstreamConfig, values)))


async def _up(settings: Settings, values: dict[str, Any]) -> None:
    """Run all processes until a signal comes, or until one of them ends and cannot be replaced."""
    stop = stop_signal()
    at_leisure = settings.workers == AUTO
    settings = _with_secret(counted(settings, serves_alone=False))
    # What is wrong with the settings, envoy.yaml or the certificates is found before any process starts.
    renewal = _renewal(settings.tls.files())
    config = _bridge_config(values, settings, ())
    render(config)
    _check_rest(config, settings.tls)
    # One half for Envoy's requests and then one for the servers' own; together they are the configured grace.
    grace = settings.shutdown_grace / 2
    with contextlib.ExitStack() as stack:
        # The servers' ports have TLS then, and may ask for a client's certificate, which Envoy has none of.
        sockets = _private_folder(stack) if renewal is not None else None
        workers, ports = stack.enter_context(
            workers_of(settings, grace, sockets, at_leisure=at_leisure, others=(config.http_port,))
        )
        measured = contextlib.AsyncExitStack()
        envoy = Envoy(
            _bridge_config(
                values,
                settings,
                [(settings.server.host, port) if sockets is None else socket_of(sockets, port) for port in ports],
                renewal,
            )
        )
        if renewal is not None:
            renewal.tell(envoy.renew)
        try:
            await unless(stop, workers.start())
            await unless(stop, envoy.start())
            await measured.enter_async_context(metrics.served(settings, _page(workers, envoy, rest=renewal)))
            grpc = ", ".join((shown(settings.server.host, ports[0]), *(f":{port}" for port in ports[1:])))
            rest = url_of(values["http_host"], envoy.port, _scheme(renewal))
            await _greet(settings, rest, grpc)
            notify.ready(f"REST {rest}, gRPC {grpc}")
            await unless(stop, workers.keep(), keep(envoy, RestartPolicy()), *_following(renewal))
        except StoppedError:
            pass
        finally:
            notify.stopping()
            await _end(envoy, workers, measured, grace)
    click.echo("headgate: stopped", err=True)


async def _end(envoy: Envoy, workers: Workers, measured: contextlib.AsyncExitStack, grace: float) -> None:
    """End all processes, whatever fails meanwhile. The servers end subscriptions, and Envoy passes that on before it
    ends.
    """
    try:
        await envoy.drain(grace)
    finally:
        try:
            await measured.aclose()
            await workers.stop()
        finally:
            await envoy.stop()


def _page(workers: Workers | None, envoy: Envoy, **certificates: Renewal | None) -> Make:
    used = {shown: renewal for shown, renewal in certificates.items() if renewal is not None}
    return metrics.of_service(workers, envoy=envoy.metrics, envoy_starts=lambda: envoy.starts, certificates=used)


async def _bridge(settings: Settings, values: dict[str, Any], servers: UpstreamConfig) -> None:
    stop = stop_signal()
    renewal, upstream_renewal = _renewal(settings.tls.files()), _renewal(servers.files())
    config = _bridge_config(values, settings, servers.addresses, renewal, upstream_renewal)
    render(config)
    _check_rest(config, settings.tls)
    envoy = Envoy(config)
    if renewal is not None:
        renewal.tell(envoy.renew)
    if upstream_renewal is not None:
        upstream_renewal.tell(envoy.renew_upstream)
    try:
        await unless(stop, envoy.start())
        async with metrics.served(settings, _page(None, envoy, rest=renewal, upstream=upstream_renewal)):
            rest = url_of(config.http_host, envoy.port, _scheme(renewal))
            click.echo(f"REST  {rest}")
            notify.ready(f"REST {rest}")
            await unless(stop, keep(envoy, RestartPolicy()), *_following(renewal), *_following(upstream_renewal))
    except StoppedError:
        pass
    finally:
        notify.stopping()
        await envoy.stop()


def _bridge_config(
    values: dict[str, Any],
    settings: Settings,
    upstreams: Sequence[_Upstream],
    renewal: Renewal | None = None,
    upstream_renewal: Renewal | None = None,
) -> BridgeConfig:
    return build(
        BridgeConfig,
        values,
        upstreams=tuple(each if isinstance(each, Path) else _reachable(*each) for each in upstreams),
        body_limit=settings.server.body_limit,
        marker=settings.server.bridge_token,
        tls=renewal and renewal.material,
        upstream_tls=upstream_renewal and upstream_renewal.material,
    )


def _reachable(host: str, port: int) -> _Address:
    """Return an address to which Envoy can connect: a server that listens on every address listens on loopback too."""
    return _EVERY_ADDRESS.get(host, host), port


def _check_rest(config: BridgeConfig, tls: TlsConfig) -> None:
    """Raise `SetupError` if REST would show keys to a network, or is asked for what only TLS can do."""
    if encrypts(config):
        return  # an envoy.yaml of the operator's, with TLS of its own
    check_exposed("REST", config.http_host, config.http_port, tls)
    if config.hsts and tls.cert is None:
        raise SetupError("--hsts needs --tls-cert and --tls-key: browsers heed it only over TLS")


def _renewal(files: TlsFiles | None) -> Renewal | None:
    return Renewal(files, system_clock) if files is not None else None


def _following(renewal: Renewal | None) -> Sequence[Coroutine[Any, Any, None]]:
    return () if renewal is None else (renewal.run(),)


def _scheme(renewal: Renewal | None) -> str:
    return "http" if renewal is None else "https"


def _private_folder(stack: contextlib.ExitStack) -> Path:
    """Return a folder that only this user can enter, until the stack is closed."""
    try:
        folder = PrivateFolder()
    except OSError as error:
        raise SetupError(f"there is no place for the servers' sockets: {error.strerror}") from error
    stack.callback(folder.remove)
    return folder.path


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
    click.echo(f"  Headgate is up.   REST  {rest}   gRPC  {grpc}   workers  {settings.workers}")
    click.echo(f"  Core: {compiled.found.said}\n")
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
