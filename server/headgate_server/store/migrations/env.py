"""Alembic runs this for each command. `migrate` provides the connection, its transaction and its lock."""

from alembic import context

from headgate_server.store import schema

connection = context.config.attributes["connection"]
# SQLite also changes its schema in transactions, but Alembic uses that only if it is set here.
context.configure(connection=connection, target_metadata=schema.metadata, transactional_ddl=True)
context.run_migrations()
