"""`headgate ledger`: proofs."""

import sys
from typing import Any
from uuid import UUID

import click

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import run, show
from headgate_server.config import StoreConfig
from headgate_server.core.ledger import Break
from headgate_server.process.setting import build


@click.group()
def ledger() -> None:
    """Check ledgers."""


@ledger.command()
@options(StoreConfig)
@click.option("--workspace", help="Only the ledger of this workspace.")
def verify(workspace: str | None, **values: Any) -> None:
    """Recompute every hash from the stored rows. Exits with 0 if there is no break. Otherwise names each break and
    exits with 1.
    """

    async def work() -> bool:
        sound = True
        async with admin.opened(build(StoreConfig, values).location) as store:
            async for report in admin.verify_ledgers(store.proof, workspace):
                state = f"{len(report.breaks)} breaks" if report.breaks else "sound"
                show(
                    f"{report.workspace.name}: {report.events_checked} events, {state}",
                    *(f"  {_shown_break(found)}" for found in report.breaks),
                )
                sound = sound and not report.breaks
        return sound

    if not run(work()):
        sys.exit(1)


def _shown_break(found: Break) -> str:
    event = "" if found.event_id is None else f", event {UUID(bytes=found.event_id)}"
    return f"{found.type} at sequence {found.sequence}{event}: expected {found.expected}, found {found.actual}"
