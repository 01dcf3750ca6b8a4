"""Facts about the store as a whole, each a name and a text."""

from sqlalchemy import Connection, delete, inspect, select
from sqlalchemy.dialects import postgresql

from headgate_server.store.database import Database
from headgate_server.store.schema import properties


class Properties:
    """Keeps facts about the store. When a method returns, its change MUST be on disk."""

    def __init__(self, database: Database):
        self._database = database

    async def get(self, name: str) -> str | None:
        """Return the text of a fact, None if there is none."""
        return await self._database.read(lambda connection: get(connection, name))

    async def put(self, name: str, value: str | None) -> None:
        """Set a fact; None removes it."""
        await self._database.write(lambda connection: put(connection, name, value))


def get(connection: Connection, name: str) -> str | None:
    """Return the text of a fact; None if there is none, also in a store that is older than its facts."""
    if not inspect(connection).has_table(properties.name):
        return None
    return connection.execute(select(properties.c.value).where(properties.c.name == name)).scalar_one_or_none()


def put(connection: Connection, name: str, value: str | None) -> None:
    """Set a fact; None removes it."""
    if value is None:
        connection.execute(delete(properties).where(properties.c.name == name))
        return
    new = postgresql.insert(properties).values(name=name, value=value)
    connection.execute(new.on_conflict_do_update(index_elements=[properties.c.name], set_={"value": value}))
