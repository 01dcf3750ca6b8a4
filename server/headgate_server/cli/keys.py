"""`headgate keys`: API keys."""

from collections.abc import Sequence
from typing import Any

import click
import orjson

from headgate_server.access.keys import SCOPES
from headgate_server.cli.paging import pages
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.tables import table
from headgate_server.cli.target import operating, options_of_target
from headgate_server.cli.values import lifetime_of, overlap_of
from headgate_server.core import timestamps
from headgate_server.core.errors import SetupError
from headgate_server.process.clock import system_clock
from headgate_server.rpc.api import Api

_PAGE = 500
_LIMIT = "{} with the key, such as 100/second or 5000/minute:20000 (the number after the colon may come at once)"
_HEADING = ("ID", "KEY", "WORKSPACE", "SCOPES", "STATE", "LAST USED", "LIMITS", "NAME")


@click.group()
def keys() -> None:
    """Make, list, change, rotate and revoke API keys."""


@keys.command("create")
@options_of_target
@click.option("--workspace", required=True, help="Whose events the key is for; made if there is none of that name.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    required=True,
    help="What the key may do; several may be given.",
)
@click.option("--name", default="", help="A name for people, such as 'checkout, production'.")
@click.option(
    "--expires-in",
    "--expires",
    "expires_in",
    metavar="TIME",
    help="How long the key is valid, such as 12h or 90d. Without it: until revoked.",
)
@click.option("--calls", metavar="RATE", help=f"{_LIMIT.format('The most calls')}. Without it: no limit.")
@click.option("--events", metavar="RATE", help=f"{_LIMIT.format('The most events')}. Without it: no limit.")
def create(
    workspace: str,
    scopes: Sequence[str],
    name: str,
    expires_in: str | None,
    calls: str | None,
    events: str | None,
    **values: Any,
) -> None:
    """Make a key and print only the key on standard output. It is shown only once: only its hash is stored.

    A key of the workspace _headgate with the scope admin is an operator's: it manages all workspaces and keys.
    """

    async def work() -> None:
        key = {
            "workspace": workspace,
            "scopes": list(scopes),
            "name": name,
            "calls": calls or "",
            "events": events or "",
        }
        if (expires_at := _time_after(expires_in)) is not None:
            key["expires_at"] = expires_at
        check_output()
        async with operating(values, makes=True) as api:
            answer = await api.call("AdminService/CreateKey", {"key": key})
            await _show_secret(api, answer["key"])

    run(work())


@keys.command("rotate")
@options_of_target
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old key stays valid, such as 1h or 7d; 0: not at all.",
)
@click.option(
    "--expires-in",
    "--expires",
    "expires_in",
    metavar="TIME",
    help="How long the new key is valid. Without it: as long as the old one was, or until revoked.",
)
def rotate(key_id: str, overlap: str, expires_in: str | None, **values: Any) -> None:
    """Make a key in place of the one with this ID, and print only the new key on standard output.

    It has the same workspace, scopes, name and limits. Both are valid for the overlap; then the old one expires.
    """

    async def work() -> None:
        request: dict[str, Any] = {"id": key_id, "overlap_seconds": overlap_of(overlap)}
        if (expires_at := _time_after(expires_in)) is not None:
            request["expires_at"] = expires_at
        check_output()
        async with operating(values) as api:
            answer = await api.call("AdminService/RotateKey", request)
            await _show_secret(api, answer["key"])
            old = (await api.call("AdminService/GetKey", {"id": key_id}))["key"]
        click.echo(f"{key_id} is valid until {old['expires_at']}; its successor is {answer['key']['id']}", err=True)

    run(work())


@keys.command("set")
@options_of_target
@click.argument("key_id", metavar="ID")
@click.option("--name", help="Another name; '' is none.")
@click.option("--calls", metavar="RATE", help=f"{_LIMIT.format('The most calls')}; none is no limit.")
@click.option("--events", metavar="RATE", help=f"{_LIMIT.format('The most events')}; none is no limit.")
def set_(key_id: str, name: str | None, calls: str | None, events: str | None, **values: Any) -> None:
    """Change the name or the limits of the key with this ID. They apply everywhere within 5 seconds."""
    given = {"name": name, "calls": calls, "events": events}
    changed = {field: value for field, value in given.items() if value is not None}
    if not changed:
        raise click.UsageError("give --name, --calls or --events")

    async def work() -> None:
        request = {"id": key_id, "key": changed, "update_mask": ",".join(changed)}
        async with operating(values) as api:
            await api.call("AdminService/UpdateKey", request)

    run(work())


@keys.command("list")
@options_of_target
@click.option("--workspace", default="", help="Only the keys of this workspace.")
@click.option("--json", "json_", is_flag=True, help="Print a JSON object for each key, one a line.")
def list_(workspace: str, json_: bool, **values: Any) -> None:
    """List keys, the oldest first, as a table."""

    async def work() -> None:
        async with operating(values) as api:
            request = {"workspace": workspace, "page_size": _PAGE}
            found = [key async for page in pages(api, "AdminService/ListKeys", request) for key in page["keys"]]
        show(*(orjson.dumps(key).decode() for key in found) if json_ else table(_HEADING, list(map(_row, found))))

    run(work())


@keys.command("revoke")
@options_of_target
@click.argument("key_id", metavar="ID")
def revoke(key_id: str, **values: Any) -> None:
    """Revoke the key with this ID (`headgate keys list` shows it). It is refused everywhere within 5 seconds."""

    async def work() -> None:
        async with operating(values) as api:
            await api.call("AdminService/RevokeKey", {"id": key_id})

    run(work())
    click.echo(f"revoked {key_id}", err=True)


async def _show_secret(api: Api, key: dict[str, Any]) -> None:
    """Print a new key. If it cannot be shown, nobody can ever use it: revoke it."""
    try:
        show(key["secret"])
    except (SetupError, SystemExit):
        await api.call("AdminService/RevokeKey", {"id": key["id"]})
        raise


def _time_after(lifetime: str | None) -> str | None:
    microseconds = lifetime_of(lifetime)
    return None if microseconds is None else timestamps.format(system_clock() + microseconds)


def _row(key: dict[str, Any]) -> Sequence[str]:
    limits = [f"{key[what]} {what}" for what in ("calls", "events") if key[what]]
    used = key.get("last_used_at", "never")[:16].replace("T", " ")
    scopes = ",".join(key["scopes"])
    return key["id"], f"{key['prefix']}…", key["workspace"], scopes, _state(key), used, ", ".join(limits), key["name"]


def _state(key: dict[str, Any]) -> str:
    state, until = key["state"], key.get("expires_at")
    if state == "revoked":
        return f"revoked {key['revoked_at']}"
    if state == "expired":
        return f"expired {until}"
    said = "rotated, valid" if state == "rotated" else "valid"
    return said if until is None else f"{said} until {until}"
