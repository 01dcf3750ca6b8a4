"""Finds the store that a URL names."""

from pathlib import Path

from headgate_server.errors import SetupError
from headgate_server.store import Store

_FORMS = "use sqlite:///path, or postgresql://user:password@host:port/database"


async def open_store(url: str, *, serving: bool = False) -> Store:
    """Open the store that `url` names; `store.open_store` says how and what is raised."""
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
        from headgate_server.store.sqlite import SqliteStore
    except ImportError as error:
        raise _extra_missing(error) from error
    return await SqliteStore.open(Path(path), serving=serving)


async def _open_postgres(url: str) -> Store:
    try:
        from headgate_server.store.postgres import PostgresStore
    except ImportError as error:
        raise _extra_missing(error) from error
    return await PostgresStore.open(url)


def _extra_missing(error: ImportError) -> SetupError:
    return SetupError(f"The store's driver is not installed ({error.name or error}): install headgate[server].")
