"""Finds the store that a URL names."""

from pathlib import Path

from headgate_server.core.errors import SetupError
from headgate_server.store import Store

_FORMS = "use sqlite:///path, or postgresql://user:password@host:port/database"


async def open_store(url: str, *, serving: bool = False) -> Store:
    """Open the store that `url` names, made if there is none, and bring its schema up to date.

    `sqlite:///path` (relative), `sqlite:////path` (absolute) or `postgresql://user:password@host:port/database`, whose
    parameters are those of libpq (`postgres/target.py`). `serving` is for the server: only one process at a time serves
    an SQLite store, while commands may open it beside. Raises `errors.SetupError` for a URL that names no store, a
    database that cannot be reached, a schema newer than this program, or a database that does not write to disk what
    it acknowledges. Its message never holds a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        # Not quoted: it may be anything, even a password.
        raise SetupError(f"The store URL names no store: {_FORMS}.")
    if scheme == "sqlite":
        return await _open_sqlite(rest, serving)
    if scheme in ("postgresql", "postgres"):
        return await _open_postgres(url)
    raise SetupError(f"There is no store of the kind {scheme!r}: {_FORMS}.")


async def _open_sqlite(rest: str, serving: bool) -> Store:
    # sqlite:// is followed by an empty host: one more slash begins a relative path, two an absolute one.
    path = rest.removeprefix("/")
    if not rest.startswith("/") or path in ("", "/", ":memory:") or "?" in path:
        raise SetupError("The store URL names no file: use sqlite:///relative/path or sqlite:////absolute/path.")
    try:
        from headgate_server.store.sqlite.database import SqliteStore
    except ImportError as error:
        raise _extra_missing(error) from error
    return await SqliteStore.open(Path(path), serving=serving)


async def _open_postgres(url: str) -> Store:
    try:
        from headgate_server.store.postgres.database import PostgresStore
    except ImportError as error:
        raise _extra_missing(error) from error
    return await PostgresStore.open(url)


def _extra_missing(error: ImportError) -> SetupError:
    return SetupError(f"The store's driver is not installed ({error.name or error}): install headgate[server].")
