"""What an acknowledgement rests on: the server's `fsync`, and the level at which a transaction commits."""

from sqlalchemy import Connection, text

from headgate_server.store.database import not_durable

LEVELS = ("on", "local", "remote_write", "remote_apply")
"""Of synchronous_commit, all at which a commit is on this server's disk when it returns."""

# Of the settings of this role and this database the most particular counts for sessions that begin now; those of the
# pool are older. Without any it is what the server is set to.
_SETTINGS = """
SELECT current_setting('fsync'), coalesce((
    SELECT split_part(setting, '=', 2)
    FROM pg_db_role_setting, unnest(setconfig) AS setting
    WHERE setting LIKE 'synchronous_commit=%'
      AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
      AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
    ORDER BY setrole <> 0 DESC, setdatabase <> 0 DESC
    LIMIT 1
), (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'))
"""


def commit_level(connection: Connection) -> str:
    """Return the level that the database is set to, one of `LEVELS`.

    Raises `errors.Unavailable` if it would lose in a power cut what it acknowledges. The service's own transactions set
    their level, so they would not be lost by synchronous_commit=off; but a start would refuse such a database, so an
    operator has to hear of it now.
    """
    fsync, level = connection.execute(text(_SETTINGS)).one()
    if fsync != "on":
        raise not_durable("The store's database runs with fsync=off")
    if level not in LEVELS:
        raise not_durable(f"The store's database is set to synchronous_commit={level}")
    return str(level)
