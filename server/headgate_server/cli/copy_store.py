"""`headgate copy`: copies a store into another one."""

import sys
import time
from pathlib import Path

import click

from headgate_server.access import copying
from headgate_server.access.copying import Copied
from headgate_server.cli.ledger import lines_of
from headgate_server.cli.running import check_output, run, show

_PAUSE = 2.0
"""Seconds between two lines about the progress."""


@click.command()
@click.option("--from", "source", metavar="URL", required=True, envvar="HEADGATE_COPY_FROM", show_envvar=True)
@click.option("--to", "target", metavar="URL", required=True, envvar="HEADGATE_COPY_TO", show_envvar=True)
@click.option("--live", is_flag=True, help="The source is served meanwhile: copy its events up to now, and no more.")
@click.option("--quiet", is_flag=True, help="Print no progress.")
def copy(source: str, target: str, live: bool, quiet: bool) -> None:
    """Copy everything of one store into another, of either kind, and check that both are the same.

    The target must be empty, or have a copy that was begun: a copy that was interrupted goes on where it was. The
    servers of the source must have stopped; to stop them only for a moment, copy with --live first. Nothing else opens
    the target before the copy is whole. Exits with 1 if ledgers have breaks or more is to be copied.
    """

    async def work() -> Copied | copying.Unsound:
        check_output()
        try:
            return await copying.copy(_location(source), _location(target), live=live, report=_Progress(quiet))
        except copying.Unsound as error:
            return error

    result = run(work())
    if isinstance(result, copying.Unsound):
        show(*(line for report in result.reports for line in lines_of(report)))
        sys.exit(1)
    show(*_lines(result))


def _location(text: str) -> str | Path:
    """Return a URL, or the path of an SQLite file."""
    return text if "://" in text else Path(text)


def _lines(copied: Copied) -> list[str]:
    events = f"{copied.workspaces} workspaces, {copied.events} events ({copied.new} of them copied now)"
    if not copied.whole:
        return [f"{events}, not whole: stop the servers of the source and copy again without --live"]
    lines = [f"{events}, {copied.rows} other rows, heads equal, sound"]
    if copied.left_out:
        lines.append(f"{copied.left_out} rejections were left out: the target cannot store them")
    return lines


class _Progress:
    """Prints lines on standard error, not more often than a reader can follow."""

    def __init__(self, quiet: bool):
        self._next = float("inf") if quiet else time.monotonic() + _PAUSE

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE
            click.echo(f"headgate: {line}", err=True)
