"""`headgate workspaces`: limits and settings."""

from collections.abc import Sequence
from typing import Any

import click

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import run, show
from headgate_server.cli.values import PERIODS, quota_of, rate_of
from headgate_server.config import StoreConfig
from headgate_server.core.event_types import Unknown
from headgate_server.core.model import RateLimit, Usage, Workspace
from headgate_server.process.setting import build


@click.group()
def workspaces() -> None:
    """List workspaces, and set their limits and settings."""


@workspaces.command("list")
@options(StoreConfig)
def list_(**values: Any) -> None:
    """List workspaces: name, events stored this month (UTC), quota, own rate limits,
    and what is done with events of unknown types if they are not just accepted.
    """

    async def work() -> None:
        async with admin.opened(build(StoreConfig, values).location) as store:
            found = await admin.list_workspaces(store.directory, store.limits)
        show(*(_line(workspace, usage) for workspace, usage in found))

    run(work())


@workspaces.command("set")
@options(StoreConfig)
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
@click.option(
    "--unknown-types",
    type=click.Choice([each.value for each in Unknown]),
    help="What to do with events whose type is none of the workspace's event types; at first accept.",
)
def set_(name: str, quota: str | None, rates: Sequence[str], unknown_types: str | None, **values: Any) -> None:
    """Set limits and settings of the workspace NAME. They apply everywhere within 5 seconds."""

    async def work() -> None:
        async with admin.opened(build(StoreConfig, values).location) as store:
            await admin.set_limits(store.directory, store.limits, name, quota_of(quota), dict(map(rate_of, rates)))
            if unknown_types is not None:
                workspace = await admin.find_workspace(store.directory, name)
                await store.event_types.set_unknown(workspace.id, Unknown(unknown_types))

    if quota is None and not rates and unknown_types is None:
        raise click.UsageError("give --quota, --rate or --unknown-types")
    run(work())


def _line(workspace: Workspace, usage: Usage) -> str:
    month = f" in {usage.month // 100}-{usage.month % 100:02}"
    quota = "no quota" if usage.quota is None else f"quota {usage.quota} a month"
    rates = "".join(f"  {receiver}={_shown_rate(rate)}" for receiver, rate in sorted(workspace.rates.items()))
    unknown = "" if workspace.unknown_types == Unknown.ACCEPT else f"  unknown types: {workspace.unknown_types}"
    return f"{workspace.name}  {usage.events} events{month}  {quota}{rates}{unknown}"


def _shown_rate(rate: RateLimit | None) -> str:
    if rate is None:
        return "none"
    period = next(name for name, seconds in PERIODS.items() if seconds * 1_000_000 == rate.period)
    return f"{rate.requests}/{period}" + ("" if rate.burst == rate.requests else f":{rate.burst}")
