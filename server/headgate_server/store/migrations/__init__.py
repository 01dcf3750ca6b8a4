"""The schema's migrations. Only `migrate.upgrade` runs them."""
