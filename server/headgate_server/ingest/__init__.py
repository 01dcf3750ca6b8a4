"""Ingest: the use case of storing events, and the group commit below it."""
