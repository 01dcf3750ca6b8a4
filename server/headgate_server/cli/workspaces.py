"""`headgate workspaces`: limits and settings."""

from collections.abc import Sequence
from typing import Any

import click
import orjson

from headgate_server.cli.paging import pages
from headgate_server.cli.running import run, show
from headgate_server.cli.target import operating, options_of_target
from headgate_server.cli.values import quota_of, rate_of
from headgate_server.core.event_types import Unknown

_PAGE = 500


@click.group()
def workspaces() -> None:
    """Create and list workspaces, and set their limits and settings."""


@workspaces.command("create")
@options_of_target
@click.argument("name")
def create(name: str, **values: Any) -> None:
    """Create the workspace NAME. `headgate keys create` does so too, with its first key."""

    async def work() -> None:
        async with operating(values, makes=True) as api:
            await api.call("AdminService/CreateManagedWorkspace", {"workspace": {"name": name}})

    run(work())


@workspaces.command("list")
@options_of_target
@click.option("--json", "json_", is_flag=True, help="Print a JSON object for each workspace, one a line.")
def list_(json_: bool, **values: Any) -> None:
    """List workspaces: name, events stored this month (UTC), quota, own rate limits,
    and what is done with events of unknown types if they are not just accepted.
    """

    async def work() -> None:
        async with operating(values) as api:
            answers = pages(api, "AdminService/ListManagedWorkspaces", {"page_size": _PAGE})
            found = [one async for page in answers for one in page["workspaces"]]
        show(*((orjson.dumps(one).decode() if json_ else _line(one)) for one in found))

    run(work())


@workspaces.command("set")
@options_of_target
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
        change: dict[str, Any] = {}
        if quota is not None:
            change["quota"] = quota_of(quota)
        if rates:
            change["rates"] = dict(map(rate_of, rates))
        if unknown_types is not None:
            change["unknown_event_types"] = unknown_types
        request = {"workspace_name": name, "workspace": change, "update_mask": ",".join(map(_camel, change))}
        async with operating(values) as api:
            await api.call("AdminService/UpdateManagedWorkspace", request)

    if quota is None and not rates and unknown_types is None:
        raise click.UsageError("give --quota, --rate or --unknown-types")
    run(work())


def _camel(name: str) -> str:
    """Return a name as ProtoJSON writes it in a mask."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _line(one: dict[str, Any]) -> str:
    month = f" in {one['period_start'][:7]}"
    quota = "no quota" if "quota" not in one else f"quota {one['quota']} a month"
    rates = "".join(f"  {receiver}={rate}" for receiver, rate in sorted(one["rates"].items()))
    kind = one["unknown_event_types"]
    unknown = "" if kind == Unknown.ACCEPT else f"  unknown types: {kind}"
    return f"{one['name']}  {one['used']} events{month}  {quota}{rates}{unknown}"
