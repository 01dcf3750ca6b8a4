"""The operator's use cases of backups: make one of an SQLite store, and restore one.

A backup is a folder with the database, the heads of its ledgers (`core/heads.py`), and `backup.json`, which says what
the database must be. All three are written into a folder within it and moved out at the end, the database last. So a
folder without `headgate.db` is no backup, and one with it is whole.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from headgate_server.access import admin
from headgate_server.access.admin import LedgerReport
from headgate_server.core import heads, timestamps
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Head
from headgate_server.process.clock import Clock, system_clock
from headgate_server.store import Proof
from headgate_server.store.opening import file_of
from headgate_server.store.sqlite import backup as files
from headgate_server.store.sqlite import turns
from headgate_server.store.sqlite.target import check_file, make_folder, sync, take_alone

DATABASE = "headgate.db"
HEADS = "heads.json"
DESCRIPTION = "backup.json"

_WORK = ".partial"
"""The folder in which a backup is made, within the backup's own."""

_FORMAT = "headgate-backup/1"
_CHUNK = 1024 * 1024
_CLOCKS_DIFFER = 2_000_000
"""Microseconds by which two machines with NTP may differ."""

_Result = TypeVar("_Result")


class Unsound(Exception):
    """Ledgers have breaks: no backup was made, or nothing was restored."""

    def __init__(self, reports: Sequence[LedgerReport]):
        super().__init__("the ledgers have breaks")
        self.reports = reports


@dataclass(frozen=True, kw_only=True)
class Description:
    """What `backup.json` says."""

    made_at: str
    headgate: str
    """The version of the program that made it."""
    schema: str
    """The revision of the database's schema."""
    workspaces: int
    events: int
    verified: bool
    """Whether the hashes of all ledgers were recomputed."""
    bytes: int
    sha256: str


async def make(location: str | Path, folder: Path, *, check: bool = True, clock: Clock = system_clock) -> Description:
    """Make a backup of an SQLite store in a folder that is empty or missing, while servers may write to the store.

    With `check`, every hash of the copy is recomputed. Raises `Unsound` if a ledger has breaks, and `SetupError`;
    nothing that looks like a backup is left then.
    """
    source = _file(location)
    check_file(source)
    with _making(folder) as work:
        copied = work / DATABASE
        _touch(copied)
        await _thread(lambda stop: files.copy(source, copied, stop))
        if check and (found := await _thread(lambda stop: files.faults(copied, stop))):
            raise SetupError(f"The store {source} is damaged: {found[0]}.")
        schema, ends = await _looked(source, copied, check)
        files.close_up(copied)
        (work / HEADS).write_text(heads.to_text(ends))
        description = Description(
            made_at=timestamps.format(clock()),
            headgate=metadata.version("headgate"),
            schema=schema,
            workspaces=len(ends),
            events=sum(head.sequence for head in ends.values()),
            verified=check,
            bytes=copied.stat().st_size,
            sha256=await _thread(lambda stop: _digest(copied, None, stop)),
        )
        (work / DESCRIPTION).write_text(json.dumps({"format": _FORMAT} | asdict(description), indent=2) + "\n")
    return description


async def restore(
    folder: Path, location: str | Path, *, check: bool = True, any_clock: bool = False, clock: Clock = system_clock
) -> Description:
    """Put a backup into the place of an SQLite store, where there is none.

    Without `any_clock` it is refused where the clock is behind the time of the backup. With `check`, every hash is
    recomputed, and each ledger must have the head that the backup names. Raises `Unsound` if it does not, and
    `SetupError`; nothing is left then. The restored store has this program's schema.
    """
    description, expected = _described(folder)
    if not any_clock:
        _check_clock(description.made_at, clock())
    target = _file(location)
    with _free(target) as made:
        digest = await _thread(lambda stop: _digest(folder / DATABASE, made, stop))
        if (made.stat().st_size, digest) != (description.bytes, description.sha256):
            raise SetupError(f"The backup {folder} is damaged: {DATABASE} is not what {DESCRIPTION} says.")
        async with admin.opened(made) as store:
            if check:
                await _verified(store.proof, expected)
        files.close_up(made)
        sync(made)
        try:
            os.link(made, target)
        except FileExistsError:
            raise SetupError(f"There is a store {target} now.") from None
    sync(target.parent)
    return description


def _check_clock(made_at: str, now: int) -> None:
    """Raise `SetupError` if the clock is behind the time of a backup. Ids of events begin with the time, and receivers
    may sort by them: those of new events would be older than those of lost events that they got.
    """
    behind = timestamps.parse(made_at)[0] - now
    if behind > _CLOCKS_DIFFER:
        raise SetupError(
            f"This machine's clock is {behind / 1_000_000:.0f} s behind the time of the backup, {made_at}: set it "
            "right, since ids of new events begin with the time. If the backup's clock was ahead, give --any-clock."
        )


async def _looked(source: Path, copied: Path, check: bool) -> tuple[str, Mapping[str, Head]]:
    """Return the schema's revision and the heads of a copy, and check it. The copy keeps its schema."""
    async with admin.opened(copied, as_is=True) as store:
        schema = await store.migrations.revision()
        if not schema:
            raise SetupError(f"{source} is no store of events: it has none of its tables.")
        missing = bool(await store.migrations.missing())
    looked = copied
    if missing:
        # An older program must be able to read the backup, so only a copy of it is migrated.
        looked = copied.with_name("migrated.db")
        await _thread(lambda stop: files.copy(copied, looked, stop))
    async with admin.opened(looked) as store:
        ends = await admin.heads(store.directory, store.ledgers)
        if check:
            await _verified(store.proof, ends)
    if missing:
        _remove(looked)
    return schema, ends


async def _verified(proof: Proof, expected: Mapping[str, Head]) -> None:
    reports = [report async for report in admin.verify_ledgers(proof, None, expected)]
    if broken := [report for report in reports if report.breaks]:
        raise Unsound(broken)


def _file(location: str | Path) -> Path:
    file = file_of(location)
    if file is None:
        raise SetupError(
            "PostgreSQL has its own tools for backups: docs/operations.md, Backup, says how to use them for a store."
        )
    return file


def _described(folder: Path) -> tuple[Description, Mapping[str, Head]]:
    if not (folder / DATABASE).is_file():
        raise SetupError(f"{folder} is not a whole backup: it has no {DATABASE}.")
    try:
        value = json.loads((folder / DESCRIPTION).read_text())
        if not isinstance(value, dict) or value.pop("format", None) != _FORMAT:
            raise ValueError(f'it is not of the format "{_FORMAT}"')
        description = Description(**value)
        timestamps.parse(description.made_at)
        return description, heads.of_text((folder / HEADS).read_text())
    except FileNotFoundError as error:
        raise SetupError(f"{folder} is not a whole backup: it has no {Path(error.filename).name}.") from None
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise SetupError(f"The backup {folder} is damaged: {DESCRIPTION} or {HEADS} cannot be read: {error}.") from None


@contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """Yield a folder to make a backup in. After the block its three files are in `folder`. If the block raises, nothing
    of it is left.
    """
    try:
        make_folder(folder)
        work = folder / _WORK
        _check_empty(folder)
        work.mkdir(mode=0o700, exist_ok=True)
        # A link could lead to a folder of other files.
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileExistsError:
        raise SetupError(f"{folder} is not a folder.") from None
    except OSError as error:
        raise SetupError(f"The folder {folder} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SetupError(f"Another backup is being made in {folder}.") from None
        if not _is_at(work, lock):
            raise SetupError(f"Another backup is being made in {folder}.")
        try:
            # One that ended a moment ago has left a backup.
            _check_empty(folder)
            _empty(work)
            yield work
            for name in (HEADS, DESCRIPTION, DATABASE):
                (work / name).chmod(0o600)
                sync(work / name)
            for name in (HEADS, DESCRIPTION, DATABASE):
                (work / name).replace(folder / name)
            sync(folder)
        except OSError as error:
            raise SetupError(f"The backup cannot be written: {error.strerror}.") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open folder is still the one at this path: a backup that ends removes its own."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _check_empty(folder: Path) -> None:
    """Raise `SetupError` if a folder has anything but what a killed backup left. The database is moved last, so without
    it there is no backup.
    """
    if foreign := sorted({path.name for path in folder.iterdir()} - {_WORK, HEADS, DESCRIPTION}):
        raise SetupError(f"The folder {folder} is not empty: it has {foreign[0]}.")


@contextmanager
def _free(target: Path) -> Iterator[Path]:
    """Yield a file beside a store's place to make the store in. Raises `SetupError` if there is a store, or a process
    serves one. After the block the file is gone.
    """
    try:
        make_folder(target.parent)
    except OSError as error:
        raise SetupError(f"The store's folder {target.parent} cannot be made: {error.strerror}.") from error
    lock = take_alone(target)
    made = target.with_name(f"{target.name}{_WORK}")
    try:
        for path in (target, *(target.with_name(target.name + end) for end in files.SIDECARS)):
            if os.path.lexists(path):
                raise SetupError(
                    f"There is already {path}. A restore replaces nothing: move what is there away, with the files "
                    "-wal and -shm beside it."
                )
        _remove(made)
        _touch(made)
        try:
            yield made
        except OSError as error:
            raise SetupError(f"The store {target} cannot be written: {error.strerror}.") from error
        finally:
            _remove(made)
    finally:
        os.close(lock)


def _digest(source: Path, target: Path | None, stop: threading.Event) -> str:
    """Return the SHA-256 of a file, and copy it. Blocks."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, (target or Path(os.devnull)).open("wb") as writing:
        while chunk := reading.read(_CHUNK):
            if stop.is_set():
                raise files.Stopped
            digest.update(chunk)
            writing.write(chunk)
    return digest.hexdigest()


async def _thread(work: Callable[[threading.Event], _Result]) -> _Result:
    """Run work that blocks. If this task is cancelled, the work ends first."""
    stop = threading.Event()
    running = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        with suppress(files.Stopped):
            await running
        raise


def _touch(path: Path) -> None:
    """Make an empty file that only its owner can read."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _remove(path: Path) -> None:
    """Remove a database that only this process has used, and what is kept beside it."""
    for end in ("", *files.SIDECARS, *turns.FILES):
        path.with_name(path.name + end).unlink(missing_ok=True)
