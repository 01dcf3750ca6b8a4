"""One module a revision, never edited after it was released."""
