"""Brings a database's schema up to date, and says what that would do.

A migration is a module of `migrations/versions/`. Beside what Alembic reads, it may have two constants:

- `runs_older` is false if a program that knows only the revision before cannot work with the new schema. Without it a
  migration only adds: tables, and columns that are nullable or have a default. A test holds it to that.
- `locks` says which large table is locked, and for how long. Without it no table is locked for longer than a moment.
"""

from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from headgate_server.core.errors import SetupError
from headgate_server.store import properties
from headgate_server.store.database import Database

_RUNS_SINCE = "runs_since"
"""The property that names the oldest revision whose programs work with the schema."""


class Step(NamedTuple):
    """One migration."""

    revision: str
    summary: str
    locks: str
    """Which large table it locks, and for how long; empty: none."""
    runs_older: bool
    """Whether a program that knows only the revision before works with the new schema."""


class Migrations:
    """Says which migrations a database has, and which it lacks. It MUST NOT change anything."""

    def __init__(self, database: Database):
        self._database = database

    async def revision(self) -> str:
        """Return the revision of the schema; empty if the database has no schema yet."""
        return await self._database.read(lambda connection: ",".join(sorted(_present(connection))))

    async def missing(self) -> list[Step]:
        """Return the migrations that the database lacks, in their order. Raises `SetupError` if a newer program has
        migrated it and this one does not work with its schema.
        """
        return await self._database.read(_missing)


def steps() -> list[Step]:
    """Return all migrations, in their order."""
    return [_step(script) for script in _in_order(_scripts(_config()))]


def upgrade(connection: Connection) -> None:
    """Run the missing migrations in the caller's transaction, which the caller commits.

    The transaction must hold a lock that keeps other processes from migrating the same database. Each dialect has its
    own lock. If a newer program has migrated the database, nothing is done: in a rolling upgrade the servers of the
    last release also start on the new schema. Raises `errors.SetupError` if the newer schema does not allow that.
    """
    config = _config()
    scripts = _scripts(config)
    if not _missing(connection, scripts):
        return
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    properties.put(connection, _RUNS_SINCE, runs_since([_step(script) for script in _in_order(scripts)]))


def runs_since(every: list[Step]) -> str:
    """Return the oldest revision whose programs work with the schema after all these migrations."""
    return next((step.revision for step in reversed(every) if not step.runs_older), every[0].revision)


def _missing(connection: Connection, scripts: ScriptDirectory | None = None) -> list[Step]:
    every = [_step(script) for script in _in_order(scripts or _scripts(_config()))]
    known = [step.revision for step in every]
    present = _present(connection)
    unknown = present - set(known)
    if not unknown:
        return every[1 + max((known.index(one) for one in present), default=-1) :]
    since = properties.get(connection, _RUNS_SINCE)
    if since not in known:
        raise SetupError(
            f"The store's schema has revision {', '.join(sorted(unknown))}, which this version of headgate does not "
            "know: a newer version has opened the store. Upgrade headgate."
        )
    return []


def _config() -> Config:
    config = Config()
    # Alembic reads "%" in an option as the start of an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)


def _in_order(scripts: ScriptDirectory) -> list[Script]:
    return [*scripts.walk_revisions()][::-1]


def _present(connection: Connection) -> set[str]:
    return set(MigrationContext.configure(connection).get_current_heads())


def _step(script: Script) -> Step:
    return Step(
        script.revision,
        (script.doc or "").strip(),
        getattr(script.module, "locks", ""),
        getattr(script.module, "runs_older", True),
    )
