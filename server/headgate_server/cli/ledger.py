"""`headgate ledger`: proofs."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from headgate_server.access import admin
from headgate_server.access.admin import LedgerReport
from headgate_server.cli.options import options
from headgate_server.cli.running import run, show
from headgate_server.config import StoreConfig
from headgate_server.core import heads
from headgate_server.core.errors import HeadgateError, SetupError
from headgate_server.core.ledger import Break
from headgate_server.core.model import Head
from headgate_server.process.setting import build
from headgate_server.store import Measures
from headgate_server.store.opening import existing

_PAIR = re.compile(r"[0-9]+:[0-9A-Za-z]*")


@click.group()
def ledger() -> None:
    """Check ledgers."""


@ledger.command()
@options(StoreConfig)
@click.option("--workspace", help="Only the ledger of this workspace.")
@click.option(
    "--expected-head",
    metavar="FILE|SEQUENCE:HASH",
    help="A file of `headgate ledger heads` or of a backup: each ledger must have the head that the file names. With "
    "--workspace also one head.",
)
def verify(workspace: str | None, expected_head: str | None, **values: Any) -> None:
    """Recompute every hash from the stored rows. Exits with 0 if there is no break. Otherwise names each break and
    exits with 1.
    """

    async def work() -> bool:
        breaks = 0
        expected = _expected(workspace, expected_head)
        async with admin.opened(existing(build(StoreConfig, values).location)) as store:
            async for report in admin.verify_ledgers(store.proof, workspace, expected):
                show(*lines_of(report))
                breaks += len(report.breaks)
            if workspace is None:
                await _note(store.measures, breaks)
        return not breaks

    if not run(work()):
        sys.exit(1)


async def _note(measures: Measures, breaks: int) -> None:
    """Record the result, for the metrics. A store that cannot be written can be verified nevertheless."""
    try:
        await measures.note_verified(breaks)
    except HeadgateError as error:
        click.echo(f"headgate: the result is not recorded for the metrics: {error}", err=True)


@ledger.command("heads")
@options(StoreConfig)
@click.option("--workspace", help="Only the ledger of this workspace.")
def heads_(workspace: str | None, **values: Any) -> None:
    """Print the heads of all ledgers as JSON. Keep them where the database's writers cannot reach them; `ledger verify
    --expected-head` then shows every later change of the events before them.
    """

    async def work() -> None:
        async with admin.opened(existing(build(StoreConfig, values).location)) as store:
            found = await admin.heads(store.directory, store.ledgers, workspace)
        show(heads.to_text(found).rstrip())

    run(work())


def lines_of(report: LedgerReport) -> Sequence[str]:
    """Return the lines that show the result of a check."""
    state = f"{len(report.breaks)} breaks" if report.breaks else "sound"
    return (
        f"{report.workspace.name}: {report.events_checked} events, {state}",
        *(f"  {_shown_break(found)}" for found in report.breaks),
    )


def _expected(workspace: str | None, text: str | None) -> Mapping[str, Head]:
    """Return the expected heads by the workspaces' names. Raises `SetupError` if they cannot be read."""
    if text is None:
        return {}
    try:
        if _PAIR.fullmatch(text):
            if workspace is None:
                raise click.UsageError("a single head needs --workspace")
            return {workspace: heads.of_pair(text)}
        found = heads.of_text(Path(text).read_text())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SetupError(f"--expected-head {text[:200]!r} cannot be used: {why}") from None
    if workspace is not None and workspace not in found:
        raise SetupError(f"{text} has no head of the workspace {workspace!r}")
    return found


def _shown_break(found: Break) -> str:
    event = "" if found.event_id is None else f", event {UUID(bytes=found.event_id)}"
    return f"{found.type} at sequence {found.sequence}{event}: expected {found.expected}, found {found.actual}"
