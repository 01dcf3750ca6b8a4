"""Backups of SQLite stores: whole or not there, made while others write, and restored only where nothing is."""

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headgate_server.access import backup
from headgate_server.core import heads
from headgate_server.core.errors import SetupError
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.support import database
from tests.support.backups import exists, filled, names, remove_store, run, statuses
from tests.support.drafts import append, draft
from tests.support.waiting import until

MADE = {"backup.json", "headgate.db", "heads.json"}


def _modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


async def _is_beyond(store: Store, workspace: int, sequence: int) -> bool:
    return (await store.ledgers.head(workspace)).sequence > sequence


async def _writing(store: Store, workspace: int, done: asyncio.Event) -> list[str]:
    """Append until `done`; return the keys that were acknowledged, in order."""
    acknowledged: list[str] = []
    for number in itertools.count():
        if done.is_set():
            return acknowledged
        keys = [f"{number}-{each}" for each in range(20)]
        outcomes = await append(store, workspace, *map(draft, keys))
        assert {outcome.status for outcome in outcomes} == {"accepted"}
        acknowledged += keys
    raise AssertionError


async def test_a_backup_has_one_moment_of_a_store_that_is_written(location: Path, folder: Path) -> None:
    """All that was acknowledged before it began, and a whole number of transactions of what came meanwhile."""
    store = await open_store(location, serving=True)
    workspace = (await store.directory.create_workspace("acme")).id
    before = [f"before-{number}" + "-" * 1000 for number in range(3000)]
    await append(store, workspace, *map(draft, before))
    done = asyncio.Event()
    writing = asyncio.create_task(_writing(store, workspace, done))
    await until(lambda: _is_beyond(store, workspace, 3000))
    begun = (await store.ledgers.head(workspace)).sequence
    made = await backup.make(location, folder)
    done.set()
    keys = await writing
    assert names(folder) == MADE
    assert begun <= made.events <= 3000 + len(keys)
    assert (made.events - 3000) % 20 == 0
    assert heads.of_text((folder / "heads.json").read_text())["acme"].sequence == made.events
    # The store goes on as before.
    assert (await store.ledgers.head(workspace)).sequence == 3000 + len(keys)
    await store.close()

    remove_store(location)
    assert await backup.restore(folder, location) == made
    assert set(await statuses(location, *before, *keys[: made.events - 3000])) == {"duplicate"}
    assert await statuses(location, "later") == ["accepted"]


async def test_what_a_backup_and_a_store_restored_from_it_say(location: Path, folder: Path) -> None:
    await filled(location, "a", "b")
    said = await run("backup", "--store", f"sqlite:///{location}", "--out", str(folder))
    assert re.fullmatch(rf"{folder}: 1 workspaces, 2 events, [0-9]+ bytes, sound\n", said.stdout)
    described = json.loads((folder / "backup.json").read_text())
    assert described["format"] == "headgate-backup/1"
    assert (described["workspaces"], described["events"], described["verified"]) == (1, 2, True)
    assert _modes(folder, *(folder / name for name in MADE)) == [0o700, 0o600, 0o600, 0o600]

    remove_store(location)
    said = await run("restore", "--from", str(folder), "--data-dir", str(location.parent))
    assert re.fullmatch(r"restored 1 workspaces, 2 events, [0-9]+ bytes, made \S+Z, sound\n", said.stdout)
    assert names(location.parent) == {"headgate.db", "headgate.db.lock"}
    assert _modes(location) == [0o600]


@pytest.mark.parametrize("moment", ["checked", "two files moved"])
async def test_a_backup_that_was_killed_is_none_and_can_be_made_again(
    location: Path, folder: Path, moment: str
) -> None:
    await filled(location, "a")
    program = f"""
import asyncio, itertools, os, signal
from pathlib import Path
from headgate_server.access import backup
moved, kill = itertools.count(), lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if {moment!r} == "checked":
    backup.heads.to_text = kill
else:
    replace = Path.replace
    Path.replace = lambda *both: kill() if next(moved) == 2 else replace(*both)
asyncio.run(backup.make(Path({str(location)!r}), Path({str(folder)!r})))
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert "headgate.db" not in names(folder)
    with pytest.raises(SetupError, match="is not a whole backup"):
        await backup.restore(folder, location.with_name("other.db"))
    assert (await backup.make(location, folder)).events == 1
    assert names(folder) == MADE


async def test_two_backups_into_one_folder(location: Path, folder: Path) -> None:
    await filled(location, "a")
    results = await asyncio.gather(backup.make(location, folder), backup.make(location, folder), return_exceptions=True)
    assert [isinstance(result, SetupError) for result in results].count(True) == 1
    assert names(folder) == MADE


async def test_a_backup_that_ends_while_another_one_begins(
    location: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has looked at the folder before, and takes the lock afterwards."""
    await filled(location, "a")
    original = backup._check_empty

    def looked(place: Path) -> None:
        original(place)
        monkeypatch.setattr(backup, "_check_empty", original)
        other = threading.Thread(target=lambda: asyncio.run(backup.make(location, place)))
        other.start()
        other.join()

    monkeypatch.setattr(backup, "_check_empty", looked)
    with pytest.raises(SetupError, match=r"is not empty: it has headgate\.db"):
        await backup.make(location, folder)
    assert names(folder) == MADE
    await backup.restore(folder, location.with_name("restored.db"))


async def test_a_link_in_the_place_of_the_work_is_not_followed(location: Path, folder: Path, tmp_path: Path) -> None:
    await filled(location, "a")
    others = tmp_path / "others"
    for made in (folder, others):
        await asyncio.to_thread(made.mkdir)
    await asyncio.to_thread((others / "precious").touch)
    await asyncio.to_thread((folder / ".partial").symlink_to, others)
    with pytest.raises(SetupError, match="cannot be written"):
        await backup.make(location, folder)
    assert names(others) == {"precious"}


async def test_new_folders_are_on_the_disk(location: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    original = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    await filled(location, "a")
    assert tmp_path in synced
    deep = tmp_path / "backups" / "tonight"
    synced.clear()
    await backup.make(location, deep)
    assert {tmp_path, deep.parent, deep, deep / ".partial" / "headgate.db"} <= set(synced)
    synced.clear()
    restored = tmp_path / "new" / "data" / "headgate.db"
    await backup.restore(deep, restored)
    assert {tmp_path, restored.parent.parent, restored.parent} <= set(synced)


async def test_a_cancelled_backup_leaves_nothing(location: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(location, "a")
    begun, loop, copy = asyncio.Event(), asyncio.get_running_loop(), backup.files.copy

    def slow(source: Path, target: Path, stop: threading.Event) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert stop.wait(20)
        copy(source, target, stop)

    monkeypatch.setattr(backup.files, "copy", slow)
    making = asyncio.create_task(backup.make(location, folder))
    await begun.wait()
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert names(folder) == set()


async def test_a_store_with_a_break_is_backed_up_only_if_one_says_so(location: Path, folder: Path) -> None:
    await filled(location, "a", "b")
    url = f"sqlite:///{location}"
    await database.execute(url, "UPDATE events SET type = 'other' WHERE sequence = 1")
    done = await run("backup", "--store", url, "--out", str(folder))
    assert done.exit_code == 1
    assert "content_mismatch at sequence 1" in done.stdout
    assert names(folder) == set()

    assert (await run("backup", "--store", url, "--out", str(folder), "--no-verify")).stdout.endswith("not verified\n")
    remove_store(location)
    assert (await run("restore", "--from", str(folder), "--store", url)).exit_code == 1
    assert not exists(location)
    assert (await run("restore", "--from", str(folder), "--store", url, "--no-verify")).exit_code == 0
    assert await statuses(location, "a") == ["duplicate"]


async def test_a_store_with_a_damaged_index(location: Path, folder: Path) -> None:
    """No hash shows it, and keys would be accepted twice."""
    await filled(location, "a", "b")
    url = f"sqlite:///{location}"
    ((page,),) = await database.execute(url, "SELECT rootpage FROM sqlite_schema WHERE name = 'events_dedupe_key'")
    ((dedupe,),) = await database.execute(url, "SELECT dedupe FROM events WHERE sequence = 1")
    ((size,),) = await database.execute(url, "PRAGMA page_size")
    _overwrite(location, range((page - 1) * size, page * size), dedupe)
    with pytest.raises(SetupError, match=r"is damaged: .*events_dedupe_key"):
        await backup.make(location, folder)
    assert names(folder) == set()


def _overwrite(path: Path, where: range, old: bytes) -> None:
    """Change one bit of these bytes in a part of a file."""
    content = bytearray(path.read_bytes())
    place = content.index(old, where.start, where.stop)
    content[place] ^= 1
    path.write_bytes(content)


async def test_a_store_of_an_older_schema_keeps_it(location: Path, folder: Path) -> None:
    """A backup is made before an upgrade, also with the new program, and the old program can still read it."""
    await filled(location, "a")
    url = f"sqlite:///{location}"
    for change in database.BACK_TO_0009:
        await database.execute(url, change)
    assert (await backup.make(location, folder)).schema == "0009"
    revision = "SELECT version_num FROM alembic_version"
    assert await database.execute(url, revision) == [("0009",)]
    assert await database.execute(f"sqlite:///{folder}/headgate.db", revision) == [("0009",)]
    remove_store(location)
    await backup.restore(folder, location)
    assert await statuses(location, "a") == ["duplicate"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
async def test_a_full_disk(location: Path, tmp_path: Path) -> None:
    await filled(location, *(f"{n}" * 100 for n in range(2000)))
    small = tmp_path / "small"
    small.mkdir()
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small))
    if await mount.wait():
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(SetupError, match="disk is full"):
            await backup.make(location, small / "backup")
        assert names(small / "backup") == set()
        await backup.make(location, tmp_path / "backup")
        with pytest.raises(SetupError, match="No space left on device"):
            await backup.restore(tmp_path / "backup", small / "headgate.db")
        assert names(small) == {"backup", "headgate.db.lock"}
    finally:
        await (await asyncio.create_subprocess_exec("umount", "-l", str(small))).wait()


async def test_backups_that_cannot_be(location: Path, folder: Path, tmp_path: Path) -> None:
    await filled(location, "a")
    (tmp_path / "file").touch()
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.jpg").touch()
    store, out = f"sqlite:///{location}", str(folder)
    for arguments, said in (
        (("--store", store, "--out", str(other)), "is not empty: it has photo.jpg"),
        (("--store", store, "--out", str(tmp_path / "file")), "is not a folder"),
        (("--store", store, "--out", "/proc/backup"), "cannot be written"),
        (("--store", "sqlite:////nowhere/headgate.db", "--out", out), "There is no store /nowhere/headgate.db"),
        (("--store", "postgresql://nobody@nowhere/db", "--out", out), "docs/operations.md, Backup"),
        (("--store", f"sqlite:///{tmp_path}/file", "--out", out), "is no store of events"),
        (("--store", store), "--out"),
    ):
        done = await run("backup", *arguments)
        assert (done.exit_code, done.stdout) == (2, ""), arguments
        assert re.search(said, done.stderr), done.stderr


async def test_a_relative_path_is_never_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    location, folder, target = Path("file:a?mode=ro/headgate.db"), Path("file:b"), Path("file:c.db")
    await filled(location, "a")
    made = await backup.make(location, folder)
    assert await backup.restore(folder, target) == made
    assert names(tmp_path) == {"file:a?mode=ro", "file:b", "file:c.db", "file:c.db.lock"}
