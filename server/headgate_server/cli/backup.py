"""`headgate backup` and `headgate restore`: copies of an SQLite store."""

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from headgate_server.access import backup as backups
from headgate_server.access.backup import Description
from headgate_server.cli.ledger import lines_of
from headgate_server.cli.options import options
from headgate_server.cli.running import check_output, run, show
from headgate_server.config import StoreConfig
from headgate_server.process.setting import build

_FOLDER = click.Path(path_type=Path)


@click.command()
@options(StoreConfig)
@click.option("--out", "folder", type=_FOLDER, required=True, help="The folder of the backup: empty, or none yet.")
@click.option("--no-verify", is_flag=True, help="Copy only, also a store whose ledgers have breaks.")
def backup(folder: Path, no_verify: bool, **values: Any) -> None:
    """Copy an SQLite store into a folder, while it is served, and recompute every hash of the copy.

    The copy is the store's state at one moment. The folder also gets `heads.json`: keep it elsewhere too, and give it
    to `ledger verify --expected-head`. Exits with 1 if a ledger has breaks; there is no backup then. The backup has
    everything that the store has, such as the secrets of webhooks.
    """
    made = _result(backups.make(build(StoreConfig, values).location, folder, check=not no_verify))
    show(f"{folder}: {_line(made)}, {'sound' if made.verified else 'not verified'}")


@click.command()
@options(StoreConfig)
@click.option("--from", "folder", type=_FOLDER, required=True, help="The folder of the backup.")
@click.option("--no-verify", is_flag=True, help="Do not recompute the hashes; restore also ledgers with breaks.")
@click.option("--any-clock", is_flag=True, help="Restore also where the clock is behind the time of the backup.")
def restore(folder: Path, no_verify: bool, any_clock: bool, **values: Any) -> None:
    """Put a backup into the place of an SQLite store, and check it against the heads of the backup.

    There must be no store and no server. Exits with 1 if a ledger has breaks; nothing is restored then.
    """
    location = build(StoreConfig, values).location
    made = _result(backups.restore(folder, location, check=not no_verify, any_clock=any_clock))
    show(f"restored {_line(made)}, made {made.made_at}{', not verified' if no_verify else ', sound'}")


def _result(work: Coroutine[Any, Any, Description]) -> Description:
    async def checked() -> Description | backups.Unsound:
        check_output()
        try:
            return await work
        except backups.Unsound as error:
            return error

    result = run(checked())
    if isinstance(result, backups.Unsound):
        show(*(line for report in result.reports for line in lines_of(report)))
        sys.exit(1)
    return result


def _line(made: Description) -> str:
    return f"{made.workspaces} workspaces, {made.events} events, {made.bytes} bytes"
