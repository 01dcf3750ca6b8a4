"""Stores of which backups are made, and the commands that do it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result

from headgate_server.cli.commands import headgate
from headgate_server.store.opening import open_store
from tests.support.drafts import append, draft


async def filled(location: Path, *keys: str) -> None:
    """Store an event for each key."""
    store = await open_store(location)
    try:
        workspace = await store.directory.create_workspace("acme")
        await append(store, workspace.id, *map(draft, keys))
    finally:
        await store.close()


async def statuses(location: str | Path, *keys: str) -> Sequence[str]:
    """Store an event for each key, and return their statuses."""
    store = await open_store(location)
    try:
        workspace = await store.directory.create_workspace("acme")
        return [outcome.status for outcome in await append(store, workspace.id, *map(draft, keys))]
    finally:
        await store.close()


def names(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {path.name for path in folder.iterdir()}


def remove_store(location: Path) -> None:
    """Remove a store, and all files beside it."""
    for path in location.parent.iterdir():
        path.unlink()


async def run(*arguments: str) -> Result:
    """Run a command to its end."""
    # A command has an event loop of its own.
    done = await asyncio.to_thread(CliRunner().invoke, headgate, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def exists(path: Path) -> bool:
    """Whether there is a file."""
    return path.exists()
