"""Checks that acknowledged events are on disk: the server's `fsync`, and the level at which a transaction commits."""

from sqlalchemy import Connection, text

from headgate_server.core.errors import SetupError
from headgate_server.store.database import not_durable

OLDEST_SERVER = 15
"""The oldest version that the tests run on. Most distributions and hosting providers have it or a newer one."""

LEVELS = ("on", "local", "remote_write", "remote_apply")
"""The levels of synchronous_commit at which a commit is on this server's disk when it returns."""

# A session that begins now gets the most specific setting of this role and this database, or else the server's setting.
# The sessions of the pool began earlier, so their own value is not used here.
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
    """Return the database's setting of synchronous_commit, one of `LEVELS`.

    Raises `errors.Unavailable` if the database would lose acknowledged events in a power cut. The service's own
    transactions set their level, so synchronous_commit=off would not lose them. But the next start would refuse such a
    database, so the operator must learn of it now.
    """
    fsync, level = connection.execute(text(_SETTINGS)).one()
    if fsync != "on":
        raise not_durable("The store's database runs with fsync=off")
    if level not in LEVELS:
        raise not_durable(f"The store's database is set to synchronous_commit={level}")
    return str(level)


def check_settings(connection: Connection) -> str:
    """Return the level of synchronous_commit. Raises `SetupError` if the server is too old, stores no Unicode, or
    acknowledges events before they are on disk.
    """
    names = ("server_version_num", "server_encoding", "fsync", "synchronous_commit")
    settings = connection.execute(text(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")).one()
    version, encoding, fsync, synchronous_commit = settings
    if int(version) < OLDEST_SERVER * 10_000:
        raise SetupError(
            f"The store's database is PostgreSQL {int(version) // 10_000}; headgate needs {OLDEST_SERVER} or newer."
        )
    if encoding != "UTF8":
        raise SetupError(f"The store's database has the encoding {encoding}; headgate needs UTF8.")
    if fsync != "on":
        raise SetupError("The store's database runs with fsync=off: it would lose acknowledged events. Set fsync=on.")
    if synchronous_commit == "off":
        raise SetupError(
            "The store's database runs with synchronous_commit=off: it would lose acknowledged events. "
            "Set synchronous_commit=on."
        )
    return str(synchronous_commit)
