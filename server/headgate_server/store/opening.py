"""Opens the store that a URL or a path names."""

from pathlib import Path

from headgate_server.core.errors import SetupError
from headgate_server.store import Store

_FORMS = "use sqlite:///path, or postgresql://user:password@host:port/database"


async def open_store(location: str | Path, *, serving: bool = False) -> Store:
    """Open the store of a URL, or the SQLite file at a path, and update its schema. A missing file is created.

    A path may contain any character. A URL is `sqlite:///path` (relative), `sqlite:////path` (absolute) or
    `postgresql://user:password@host:port/database` with libpq's parameters (`postgres/target.py`). `serving` is for the
    server: only one process at a time serves an SQLite store, but commands may open it at the same time. Raises
    `errors.SetupError` if the URL names no store, the database cannot be reached, the schema is newer than this
    program, or the database does not write to disk what it acknowledges. The message never contains a password.
    """
    if isinstance(location, Path):
        return await _open_file(location, serving)
    return await _open_url(location, serving)


async def _open_url(url: str, serving: bool) -> Store:
    scheme, separator, rest = url.partition("://")
    if not separator:
        # The message does not quote the URL: it may contain a password.
        raise SetupError(f"The store URL names no store: {_FORMS}.")
    if scheme == "sqlite":
        return await _open_sqlite(rest, serving)
    if scheme in ("postgresql", "postgres"):
        return await _open_postgres(url)
    raise SetupError(f"The store URL has the unknown scheme {scheme!r}: {_FORMS}.")


async def _open_sqlite(rest: str, serving: bool) -> Store:
    # An empty host follows sqlite://, so one more slash begins a relative path, and two begin an absolute one.
    path = rest.removeprefix("/")
    if not rest.startswith("/") or path in ("", "/", ":memory:"):
        raise SetupError("The store URL names no file: use sqlite:///relative/path or sqlite:////absolute/path.")
    if "?" in path:
        raise SetupError(
            "An SQLite store's URL has no parameters. If the path contains a question mark, use --data-dir."
        )
    return await _open_file(Path(path), serving)


async def _open_file(path: Path, serving: bool) -> Store:
    try:
        from headgate_server.store.sqlite.database import SqliteDatabase
    except ImportError as error:
        raise _extra_missing(error) from error
    return Store(await SqliteDatabase.open(path, serving=serving))


async def _open_postgres(url: str) -> Store:
    try:
        from headgate_server.store.postgres.database import PostgresDatabase
    except ImportError as error:
        raise _extra_missing(error) from error
    return Store(await PostgresDatabase.open(url))


def _extra_missing(error: ImportError) -> SetupError:
    return SetupError(f"The store's driver is not installed ({error.name or error}): install headgate[server].")
