"""What Alembic runs for each command: `migrate` brings the connection, its transaction and its lock."""

from alembic import context

from headgate_server.store import schema

connection = context.config.attributes["connection"]
# SQLite too changes its schema in transactions; Alembic does not rely on it unless told.
context.configure(connection=connection, target_metadata=schema.metadata, transactional_ddl=True)
context.run_migrations()
