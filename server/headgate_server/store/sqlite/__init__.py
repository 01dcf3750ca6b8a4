"""The embedded store: one SQLite file that one process serves."""
