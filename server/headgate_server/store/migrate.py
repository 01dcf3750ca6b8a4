"""Brings a database's schema up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from headgate_server.core.errors import SetupError


def upgrade(connection: Connection) -> None:
    """Run the migrations that the database lacks, within the caller's transaction, which the caller commits.

    The transaction must hold a lock that keeps other processes from migrating the same database: each dialect has its
    own. Raises `errors.SetupError` for a database of a newer program.
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
            f"The store's schema is of revision {', '.join(sorted(unknown))}, which this version of headgate does not "
            "know: it was opened by a newer one. Upgrade headgate."
        )
    if present != set(scripts.get_heads()):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
