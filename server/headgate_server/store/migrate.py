"""Brings a database's schema up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from headgate_server.core.errors import SetupError

# Any constant will do, as long as it never changes: processes that migrate one database wait for each other on it.
_LOCK = 0x68656164_67617465


def upgrade(connection: Connection) -> None:
    """Run the migrations that the database lacks, within the caller's transaction, which the caller commits.

    SQLite's transaction must be one that writes (BEGIN IMMEDIATE); on PostgreSQL processes that start at once queue up
    here. Raises `errors.SetupError` for a database of a newer program.
    """
    if connection.dialect.name == "postgresql":
        # Statements must see what another process committed while this one waited, whatever the database's default.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    config = Config()
    # Alembic reads "%" in an option as the start of an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if unknown := present - known:
        raise SetupError(
            f"The store's schema is of revision {', '.join(sorted(unknown))}, which this version of headgate does not "
            "know: it was opened by a newer one. Upgrade headgate."
        )
    if present != set(scripts.get_heads()):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
