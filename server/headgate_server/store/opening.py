"""Opens the store that a URL or a path names."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headgate_server.core.errors import SetupError
from headgate_server.store import Store
from headgate_server.store.transfer import COPYING

if TYPE_CHECKING:
    from headgate_server.store.postgres.database import PostgresDatabase

_FORMS = "use sqlite:///path, or postgresql://user:password@host:port/database"


async def open_store(
    location: str | Path, *, serving: bool = False, as_is: bool = False, filling: bool = False
) -> Store:
    """Open the store of a URL, or the SQLite file at a path, and update its schema. A missing file is created.

    A path may contain any character. A URL is `sqlite:///path` (relative), `sqlite:////path` (absolute) or
    `postgresql://user:password@host:port/database` with libpq's parameters (`postgres/target.py`). `serving` is for the
    server: it marks an SQLite store, so that no other process replaces the file meanwhile. With `as_is`
    nothing is created and the schema stays as it is. `filling` is for the command that copies into the store: nothing
    else opens a store before that has ended.

    Raises `errors.SetupError` if the URL names no store, the database cannot be reached, the schema is newer than this
    program, the store is half a copy, or the database does not write to disk what it acknowledges. The message never
    contains a password.
    """
    if isinstance(location, Path):
        store = await _open_file(location, serving, as_is)
    else:
        store = await _open_url(location, serving, as_is)
    try:
        if not filling and await store.properties.get(COPYING) is not None:
            raise SetupError("The store is half a copy of another one: run `headgate copy` again, to its end.")
    except BaseException:
        await store.close()
        raise
    return store


def file_of(location: str | Path) -> Path | None:
    """Return the file of an SQLite store; None of a store in another database. Raises `errors.SetupError`."""
    if isinstance(location, Path):
        return location
    return _sqlite_file(location) if location.partition("://")[0] == "sqlite" else None


def existing(location: str | Path) -> str | Path:
    """Return the location of a store. Raises `errors.SetupError` if it is a file that does not exist: a command that
    only looks would make an empty store, and find nothing wrong with it.
    """
    if (file := file_of(location)) is not None:
        from headgate_server.store.sqlite.target import check_file

        check_file(file)
    return location


@contextlib.contextmanager
def alone(location: str | Path) -> Iterator[None]:
    """Keep servers from beginning to serve an SQLite store that is there, for a block. A store in another database has
    no such lock. Raises `errors.SetupError` if a process serves it.
    """
    file = file_of(location)
    if file is None:
        yield
        return
    from headgate_server.store.sqlite.target import check_file, take_alone

    check_file(file)
    lock = take_alone(file)
    try:
        yield
    finally:
        os.close(lock)


async def _open_url(url: str, serving: bool, as_is: bool) -> Store:
    scheme, separator, _ = url.partition("://")
    if not separator:
        # The message does not quote the URL: it may contain a password.
        raise SetupError(f"The store URL names no store: {_FORMS}.")
    if scheme == "sqlite":
        return await _open_file(_sqlite_file(url), serving, as_is)
    if scheme in ("postgresql", "postgres"):
        return await _open_postgres(url, as_is)
    raise SetupError(f"The store URL has the unknown scheme {scheme!r}: {_FORMS}.")


def _sqlite_file(url: str) -> Path:
    """Return the file of an SQLite store's URL. Raises `errors.SetupError` if it names none."""
    rest = url.partition("://")[2]
    # An empty host follows sqlite://, so one more slash begins a relative path, and two begin an absolute one.
    path = rest.removeprefix("/")
    if not rest.startswith("/") or path in ("", "/", ":memory:"):
        raise SetupError("The store URL names no file: use sqlite:///relative/path or sqlite:////absolute/path.")
    if "?" in path:
        raise SetupError(
            "An SQLite store's URL has no parameters. If the path contains a question mark, use --data-dir."
        )
    return Path(path)


async def _open_file(path: Path, serving: bool, as_is: bool) -> Store:
    try:
        from headgate_server.store.sqlite.database import SqliteDatabase
    except ImportError as error:
        raise _extra_missing(error) from error
    return Store(await SqliteDatabase.open(path, serving=serving, as_is=as_is))


async def _open_postgres(url: str, as_is: bool) -> Store:
    try:
        from headgate_server.store.postgres.database import PostgresDatabase
    except ImportError as error:
        raise _extra_missing(error) from error
    return Store(await PostgresDatabase.open(url, as_is=as_is, distributed=_citus))


def _citus() -> "type[PostgresDatabase]":
    """Return the class for distributed tables, which most processes do not need."""
    from headgate_server.store.citus.database import CitusDatabase

    return CitusDatabase


def _extra_missing(error: ImportError) -> SetupError:
    return SetupError(f"The store's driver is not installed ({error.name or error}): install headgate[server].")
