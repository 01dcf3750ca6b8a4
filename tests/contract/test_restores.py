"""Backups are restored whole, and only where nothing is; a damaged backup is refused."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headgate_server.access import backup
from headgate_server.core import timestamps
from headgate_server.core.errors import SetupError
from headgate_server.process.clock import system_clock
from headgate_server.store.opening import open_store
from tests.support.backups import exists, filled, names, remove_store, run, statuses


def _rename(old: Path, new: Path) -> None:
    old.rename(new)


async def test_a_restore_that_was_killed_can_be_done_again(location: Path, folder: Path) -> None:
    await filled(location, "a")
    await backup.make(location, folder)
    remove_store(location)
    program = f"""
import asyncio, os, signal
from pathlib import Path
from headgate_server.access import backup
backup.files.close_up = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(backup.restore(Path({str(folder)!r}), Path({str(location)!r})))
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not exists(location)
    assert (await backup.restore(folder, location)).events == 1
    assert names(location.parent) == {"headgate.db", "headgate.db.lock"}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


_DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "one bit of the database": ("headgate.db", _flip),
    "a cut database": ("headgate.db", _cut),
    "an empty database": ("headgate.db", lambda path: os.truncate(path, 0)),
    "no database": ("headgate.db", Path.unlink),
    "cut heads": ("heads.json", _cut),
    "no heads": ("heads.json", Path.unlink),
    "heads that are no UTF-8": ("heads.json", lambda path: void(path.write_bytes(b"\xff"))),
    "a cut description": ("backup.json", _cut),
    "no description": ("backup.json", Path.unlink),
    "a description of another format": ("backup.json", lambda path: void(path.write_text('{"format": "x"}'))),
    "a description that says less": (
        "backup.json",
        lambda path: void(path.write_text('{"format": "headgate-backup/1"}')),
    ),
}


def void(_: object) -> None:
    """Return nothing."""


@pytest.mark.parametrize("damage", _DAMAGE)
async def test_a_damaged_backup_is_refused(location: Path, folder: Path, damage: str) -> None:
    await filled(location, "a", "b")
    await backup.make(location, folder)
    remove_store(location)
    name, harm = _DAMAGE[damage]
    harm(folder / name)
    with pytest.raises(SetupError, match=r"is damaged|is not a whole backup"):
        await backup.restore(folder, location)
    assert names(location.parent) <= {"headgate.db.lock"}


async def test_a_clock_that_is_behind_the_backup(location: Path, folder: Path) -> None:
    """Ids of new events would be older than those of events that were stored before."""
    await filled(location, "a")
    made = await backup.make(location, folder, clock=lambda: system_clock() + 600_000_000)
    remove_store(location)
    refused = await run("restore", "--from", str(folder), "--data-dir", str(location.parent))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert re.search(rf"clock is (599|600) s behind the time of the backup, {re.escape(made.made_at)}", refused.stderr)
    assert not exists(location)
    # Machines differ a little.
    at = timestamps.parse(made.made_at)[0]
    assert await backup.restore(folder, location, clock=lambda: at - 1_900_000) == made
    remove_store(location)
    allowed = await run("restore", "--any-clock", "--from", str(folder), "--data-dir", str(location.parent))
    assert allowed.exit_code == 0
    description = json.loads((folder / "backup.json").read_text())
    (folder / "backup.json").write_text(json.dumps(description | {"made_at": "yesterday"}))
    with pytest.raises(SetupError, match="is damaged"):
        await backup.restore(folder, location.with_name("other.db"))


async def test_heads_that_the_database_does_not_have(location: Path, folder: Path) -> None:
    """The database was exchanged for an older one, with a description that fits it."""
    await filled(location, "a")
    await backup.make(location, folder)
    await statuses(location, "b")
    newer = folder.with_name("newer")
    await backup.make(location, newer)
    (newer / "heads.json").replace(folder / "heads.json")
    remove_store(location)
    done = await run("restore", "--from", str(folder), "--data-dir", str(location.parent))
    assert done.exit_code == 1
    assert re.search(r"acme: 1 events, 1 breaks\n  head_mismatch at sequence 2", done.stdout)
    assert not exists(location)


async def test_restores_that_cannot_be(location: Path, folder: Path, tmp_path: Path) -> None:
    await filled(location, "a")
    await backup.make(location, folder)
    store = await open_store(location, serving=True)
    with pytest.raises(SetupError, match="serves the store"):
        await backup.restore(folder, location)
    # A server's file was removed, but the server still runs.
    _rename(location, location.with_name("away"))
    with pytest.raises(SetupError, match="serves the store"):
        await backup.restore(folder, location)
    _rename(location.with_name("away"), location)
    await store.close()
    with pytest.raises(SetupError, match="A restore replaces nothing"):
        await backup.restore(folder, location)
    # A log that is left over would be taken for the restored database's.
    _rename(location, location.with_name("headgate.db-wal"))
    with pytest.raises(SetupError, match=r"headgate\.db-wal"):
        await backup.restore(folder, location)
    with pytest.raises(SetupError, match="PostgreSQL has its own tools"):
        await backup.restore(folder, "postgresql://nobody@nowhere/db")
    with pytest.raises(SetupError, match="is not a whole backup"):
        await backup.restore(tmp_path / "nothing", tmp_path / "new.db")
    assert await statuses(tmp_path / "untouched.db", "a") == ["accepted"]
