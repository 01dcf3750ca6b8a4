"""The embedded store: one SQLite file, served by processes of one machine that take turns to write."""
