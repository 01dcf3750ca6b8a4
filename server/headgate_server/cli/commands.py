"""The command line. It wires nothing by itself: `app.py` wires the server, and the bridge itself."""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import click
import uvloop

from headgate_bridge import BridgeConfig, Envoy, render
from headgate_server import app
from headgate_server.access import admin
from headgate_server.cli import options as given
from headgate_server.core import timestamps
from headgate_server.core.errors import HeadgateError, SetupError
from headgate_server.core.ledger import Break
from headgate_server.core.model import ApiKey, RateLimit, Scope, Usage, Workspace
from headgate_server.process import logs
from headgate_server.process.child import RestartPolicy, keep
from headgate_server.process.ports import reserved, shown, url_of
from headgate_server.process.workers import Workers
from headgate_server.receivers.registry import VENDOR_SCOPES

_Result = TypeVar("_Result")

_SCOPES = click.Choice([*Scope, *VENDOR_SCOPES])
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="headgate", prog_name="headgate")
def headgate() -> None:
    """Headgate takes events in, over gRPC and REST: each is durable, deduplicated for ever, and sealed into a
    ledger.

    \b
    headgate up              run the service, here and now
    headgate keys create     make an API key
    headgate ledger verify   check that no stored event was changed

    The service's settings can come from environment variables; `headgate COMMAND --help` names them.
    """


@headgate.command()
@given.store_options
@given.server_options
@given.bridge_options
@given.log_option
def up(**options: Any) -> None:
    """Run the whole service: the gRPC server, and Envoy for REST.

    Prints the addresses and, the first time, an API key and a request to paste. Ctrl-C or SIGTERM lets requests in
    progress end.
    """
    logs.configure(options["log_level"])
    _run(_up(options))


@headgate.command()
@given.store_options
@given.server_options
@given.log_option
@click.option(
    "--ready-fd",
    type=int,
    hidden=True,
    help="Write the port of each worker to this file descriptor, a line each, once calls are taken.",
)
def serve(ready_fd: int | None, **options: Any) -> None:
    """Run the gRPC server alone, as one process or as several."""
    logs.configure(options["log_level"])
    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)  # workers that held it too would keep its reader waiting for the end

    def ready(*ports: int) -> None:
        if ready_fd is not None:
            with os.fdopen(ready_fd, "wb") as pipe:
                pipe.writelines(b"%d\n" % port for port in ports)

    if options["workers"] == 1:
        _run(app.serve(given.settings_of(options), ready))
    else:
        _run(_serve_workers(options, ready))


@headgate.command()
@given.bridge_options
@given.upstream_options
@given.log_option
def bridge(**options: Any) -> None:
    """Run Envoy alone, before gRPC servers that run elsewhere."""
    logs.configure(options["log_level"])
    _run(_bridge(options))


@headgate.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("create")
@given.store_options
@click.option("--workspace", required=True, help="Whose events the key is for; made if there is none of that name.")
@click.option(
    "--scope", "scopes", type=_SCOPES, multiple=True, required=True, help="What the key may do; several may be given."
)
@click.option(
    "--expires-in", metavar="TIME", help="How long the key is valid, such as 12h or 90d. Without it: until revoked."
)
def keys_create(workspace: str, scopes: Sequence[str], expires_in: str | None, **options: Any) -> None:
    """Make a key and print it, alone, on standard output. It is shown this once: only its hash is stored."""

    async def create() -> str:
        async with admin.opened(given.store_url(options)) as store:
            return await admin.create_key(store, workspace, frozenset(scopes), given.lifetime_of(expires_in))

    click.echo(_run(create()))


@keys.command("list")
@given.store_options
@click.option("--workspace", help="Only the keys of this workspace.")
def keys_list(workspace: str | None, **options: Any) -> None:
    """List keys: id, first characters, workspace, scopes, state."""

    async def find() -> Sequence[ApiKey]:
        async with admin.opened(given.store_url(options)) as store:
            return await admin.list_keys(store, workspace)

    now = timestamps.parse(datetime.now(UTC).isoformat())[0]
    for key in _run(find()):
        scopes = ",".join(sorted(key.scopes))
        click.echo(f"{key.id}  {key.prefix}…  {key.workspace.name}  {scopes}  {_state(key, now)}")


@keys.command("revoke")
@given.store_options
@click.argument("key_id", metavar="ID")
def keys_revoke(key_id: str, **options: Any) -> None:
    """Revoke the key with this ID (`headgate keys list` shows it). It is refused everywhere within 5 seconds."""

    async def revoke() -> None:
        async with admin.opened(given.store_url(options)) as store:
            await admin.revoke_key(store, key_id)

    _run(revoke())
    click.echo(f"revoked {key_id}", err=True)


@headgate.group()
def workspaces() -> None:
    """List workspaces, and set their limits."""


@workspaces.command("list")
@given.store_options
def workspaces_list(**options: Any) -> None:
    """List workspaces: name, events stored this month (UTC), quota, own rate limits."""

    async def find() -> Sequence[tuple[Workspace, Usage]]:
        async with admin.opened(given.store_url(options)) as store:
            return await admin.list_workspaces(store)

    for workspace, usage in _run(find()):
        month = f" in {usage.month // 100}-{usage.month % 100:02}"
        quota = "no quota" if usage.quota is None else f"quota {usage.quota} a month"
        rates = "".join(f"  {receiver}={_shown_rate(rate)}" for receiver, rate in sorted(workspace.rates.items()))
        click.echo(f"{workspace.name}  {usage.events} events{month}  {quota}{rates}")


@workspaces.command("set")
@given.store_options
@click.argument("name")
@click.option("--quota", metavar="N", help="Events that the workspace may store a month, or 'none'.")
@click.option(
    "--rate",
    "rates",
    metavar="RECEIVER=N/PERIOD[:BURST]",
    multiple=True,
    help="Requests to a receiver, such as flokit=100/minute (second, minute, hour, day) or scrip=10/second:30; "
    "flokit=none is no limit, flokit=default the receiver's own again.",
)
def workspaces_set(name: str, quota: str | None, rates: Sequence[str], **options: Any) -> None:
    """Set limits of the workspace NAME. They hold everywhere within 5 seconds."""

    async def change() -> None:
        async with admin.opened(given.store_url(options)) as store:
            await admin.set_limits(store, name, given.quota_of(quota), dict(map(given.rate_of, rates)))

    if quota is None and not rates:
        raise click.UsageError("give --quota or --rate")
    _run(change())


@headgate.group()
def ledger() -> None:
    """Check ledgers."""


@ledger.command("verify")
@given.store_options
@click.option("--workspace", help="Only the ledger of this workspace.")
def ledger_verify(workspace: str | None, **options: Any) -> None:
    """Recompute every hash from what is stored. Exits with 0 if all is sound and with 1 if anything is not, naming
    each break.
    """

    async def check() -> bool:
        sound = True
        async with admin.opened(given.store_url(options)) as store:
            async for report in admin.verify_ledgers(store, workspace):
                state = f"{len(report.breaks)} breaks" if report.breaks else "sound"
                click.echo(f"{report.workspace.name}: {report.events_checked} events, {state}")
                for found in report.breaks:
                    click.echo(f"  {_shown_break(found)}")
                sound = sound and not report.breaks
        return sound

    if not _run(check()):
        sys.exit(1)


async def _up(options: dict[str, Any]) -> None:
    """Run all processes until a signal comes, or one of them ends that cannot be replaced."""
    stop = _stop_signal()
    given.check_workers(options)
    render(_bridge_config(options, ()))  # a bad envoy.yaml shows before anything is started
    grace = options["shutdown_grace"] / 2  # for Envoy's requests and then the servers' own: in all what was asked for
    with _workers({**options, "shutdown_grace": grace}) as (workers, ports):
        envoy = Envoy(_bridge_config(options, [(options["grpc_host"], port) for port in ports]))
        try:
            await _unless(stop, workers.start())
            await _unless(stop, envoy.start())
            # Last: a key is shown once, so it is made where nothing can come between.
            async with admin.opened(given.store_url(options)) as store:
                first_key = await admin.create_first_key(store)
            _greet(_shown_address(options["grpc_host"], *ports), _rest(options, envoy), first_key)
            await _unless(stop, workers.keep(), keep(envoy, RestartPolicy()))
        except _StoppedError:
            pass
        finally:
            try:
                await envoy.stop(grace)
            finally:
                await workers.stop()
    click.echo("headgate: stopped", err=True)


async def _serve_workers(options: dict[str, Any], ready: Callable[..., None]) -> None:
    """Do what `app.serve` does, in several processes; `ready` is told all their ports."""
    stop = _stop_signal()
    given.check_workers(options)
    with _workers(options) as (workers, ports):
        try:
            await _unless(stop, workers.start())
            ready(*ports)
            await _unless(stop, workers.keep())
        except _StoppedError:
            pass
        finally:
            await workers.stop()


async def _bridge(options: dict[str, Any]) -> None:
    stop = _stop_signal()
    envoy = Envoy(_bridge_config(options, given.upstreams_of(options)))
    try:
        await _unless(stop, envoy.start())
        click.echo(f"REST  {_rest(options, envoy)}")
        await _unless(stop, keep(envoy, RestartPolicy()))
    except _StoppedError:
        pass
    finally:
        await envoy.stop()


@contextlib.contextmanager
def _workers(options: dict[str, Any]) -> Iterator[tuple[Workers, Sequence[int]]]:
    """Return workers that are not started yet, and their ports, which are theirs until the block ends."""
    with reserved(options["grpc_host"], options["grpc_port"], options["workers"], "gRPC") as ports:
        arguments = given.worker_arguments(options, ports)
        # A store URL may hold a password, so it is no argument, which everybody on the machine can read.
        environment = {"HEADGATE_STORE": given.store_url(options)}
        yield Workers(arguments, environment, grace=options["shutdown_grace"]), ports


class _StoppedError(Exception):
    """A signal asks for the end."""


async def _unless(stop: asyncio.Event, *works: Coroutine[Any, Any, None]) -> None:
    """Return when one of the works ends, with its error if it had one; the others are cancelled, and have ended then.

    Raises `_StoppedError` if `stop` came first.
    """
    tasks = [asyncio.create_task(work) for work in works]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((stopped, *tasks), return_when=asyncio.FIRST_COMPLETED)
    ended = [task for task in tasks if task.done()]
    for task in (stopped, *tasks):
        task.cancel()
    await asyncio.gather(stopped, *tasks, return_exceptions=True)
    if stop.is_set():
        raise _StoppedError
    for task in ended:
        task.result()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _greet(grpc: str, rest: str, key: str | None) -> None:
    """Say where the service is and, the first time, how to send a first batch."""
    click.echo(f"\n  Headgate is up.   REST  {rest}   gRPC  {grpc}\n")
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
    sys.stdout.flush()


def _bridge_config(options: dict[str, Any], upstreams: Sequence[tuple[str, int]]) -> BridgeConfig:
    return BridgeConfig(
        http_host=options["http_host"],
        http_port=options["http_port"],
        # A server that listens on every address is on this machine's as well, to which one can connect.
        upstreams=tuple((_EVERY_ADDRESS.get(host, host), port) for host, port in upstreams),
        body_limit=options["body_limit"],
        config_file=options["envoy_config"],
    )


def _rest(options: dict[str, Any], envoy: Envoy) -> str:
    return url_of(options["http_host"], envoy.port)


def _shown_address(host: str, port: int, *others: int) -> str:
    return ", ".join((shown(host, port), *(f":{other}" for other in others)))


def _shown_break(found: Break) -> str:
    event = "" if found.event_id is None else f", event {UUID(bytes=found.event_id)}"
    return f"{found.type} at sequence {found.sequence}{event}: expected {found.expected}, found {found.actual}"


def _shown_rate(rate: RateLimit | None) -> str:
    if rate is None:
        return "none"
    period = next(name for name, seconds in given.PERIODS.items() if seconds * 1_000_000 == rate.period)
    return f"{rate.requests}/{period}" + ("" if rate.burst == rate.requests else f":{rate.burst}")


def _state(key: ApiKey, now: int) -> str:
    if key.revoked_at is not None:
        return f"revoked {timestamps.format(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    return f"{'expired' if key.expires_at <= now else 'valid until'} {timestamps.format(key.expires_at)}"


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end; what an operator has to mend is one line on standard error and exit code 1 or 2."""
    try:
        with contextlib.suppress(KeyboardInterrupt):
            return uvloop.run(work)
    except (SetupError, HeadgateError) as error:
        if str(error):
            click.echo(f"headgate: {error}", err=True)
        sys.exit(2)
    sys.exit(130)
