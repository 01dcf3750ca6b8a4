"""`headgate migrate`: updates a store's schema."""

from typing import Any

import click

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import run, show
from headgate_server.config import StoreConfig
from headgate_server.core.errors import SetupError
from headgate_server.process.setting import build
from headgate_server.store.migrate import Step


@click.command()
@options(StoreConfig)
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option(
    "--citus", is_flag=True, help="Then distribute the tables over the nodes of a Citus. Stop the servers first."
)
def migrate(dry_run: bool, citus: bool, **values: Any) -> None:
    """Update the store's schema, as every server does at its start, and print each step first.

    Servers of the release before may keep running, unless a step says otherwise.
    """

    async def work() -> None:
        location = build(StoreConfig, values).location
        if citus and not admin.is_postgres(location):
            raise SetupError("--citus is for a store in PostgreSQL: --store postgresql://…")
        missing = await admin.missing_migrations(location)
        show(*map(_line, missing))
        if missing and not dry_run:
            async with admin.opened(location):
                pass
        changed = bool(missing)
        if citus:
            changed |= await admin.distribute(location, show, dry_run=dry_run)
        show("nothing to do" if not changed else "nothing was changed" if dry_run else "the schema is up to date")

    run(work())


def _line(step: Step) -> str:
    locks = f"  LOCKS {step.locks}" if step.locks else ""
    stop = "" if step.runs_older else "  servers of older releases cannot start any more"
    return f"{step.revision}  {step.summary}{locks}{stop}"
