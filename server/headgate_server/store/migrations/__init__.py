"""The schema's history. `migrate.upgrade` runs it; nothing else does."""
