"""Brings a database's schema up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from headgate_server.core.errors import SetupError


def upgrade(connection: Connection) -> None:
    """Run the missing migrations in the caller's transaction, which the caller commits.

    The transaction must hold a lock that keeps other processes from migrating the same database. Each dialect has its
    own lock. Raises `errors.SetupError` if a newer program has migrated the database.
    """
    config = Config()
    # Alembic reads "%" in an option as the start of an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if unknown := present - known:
        raise SetupError(
            f"The store's schema has revision {', '.join(sorted(unknown))}, which this version of headgate does not "
            "know: a newer version has opened the store. Upgrade headgate."
        )
    if present != set(scripts.get_heads()):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
