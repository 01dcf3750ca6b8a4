"""Taking events in: the use case, and the group commit under it."""
