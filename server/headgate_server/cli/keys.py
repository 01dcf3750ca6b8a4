"""`headgate keys`: API keys."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.values import lifetime_of
from headgate_server.config import StoreConfig
from headgate_server.core import timestamps
from headgate_server.core.errors import SetupError
from headgate_server.core.model import ApiKey, Scope
from headgate_server.process.setting import build
from headgate_server.receivers.registry import VENDOR_SCOPES

_SCOPES = click.Choice([*(scope.value for scope in Scope), *VENDOR_SCOPES])


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("create")
@options(StoreConfig)
@click.option("--workspace", required=True, help="Whose events the key is for; made if there is none of that name.")
@click.option(
    "--scope", "scopes", type=_SCOPES, multiple=True, required=True, help="What the key may do; several may be given."
)
@click.option(
    "--expires-in", metavar="TIME", help="How long the key is valid, such as 12h or 90d. Without it: until revoked."
)
def create(workspace: str, scopes: Sequence[str], expires_in: str | None, **values: Any) -> None:
    """Make a key and print only the key on standard output. It is shown only once: only its hash is stored."""

    async def work() -> None:
        lifetime = lifetime_of(expires_in)
        check_output()
        async with admin.opened(build(StoreConfig, values).location) as store:
            key = await admin.create_key(store.directory, workspace, frozenset(scopes), lifetime)
            try:
                show(key)
            except (SetupError, SystemExit):
                # The key was not shown.
                await admin.withdraw_key(store.directory, key)
                raise

    run(work())


@keys.command("list")
@options(StoreConfig)
@click.option("--workspace", help="Only the keys of this workspace.")
def list_(workspace: str | None, **values: Any) -> None:
    """List keys: id, first characters, workspace, scopes, state."""

    async def work() -> None:
        async with admin.opened(build(StoreConfig, values).location) as store:
            found = await admin.list_keys(store.directory, workspace)
        now = timestamps.parse(datetime.now(UTC).isoformat())[0]
        show(*(_line(key, now) for key in found))

    run(work())


@keys.command("revoke")
@options(StoreConfig)
@click.argument("key_id", metavar="ID")
def revoke(key_id: str, **values: Any) -> None:
    """Revoke the key with this ID (`headgate keys list` shows it). It is refused everywhere within 5 seconds."""

    async def work() -> None:
        async with admin.opened(build(StoreConfig, values).location) as store:
            await admin.revoke_key(store.directory, key_id)

    run(work())
    click.echo(f"revoked {key_id}", err=True)


def _line(key: ApiKey, now: int) -> str:
    scopes = ",".join(sorted(key.scopes))
    return f"{key.id}  {key.prefix}…  {key.workspace.name}  {scopes}  {_state(key, now)}"


def _state(key: ApiKey, now: int) -> str:
    if key.revoked_at is not None:
        return f"revoked {timestamps.format(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    return f"{'expired' if key.expires_at <= now else 'valid until'} {timestamps.format(key.expires_at)}"
