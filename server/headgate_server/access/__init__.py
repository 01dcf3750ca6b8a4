"""Access: keys, scopes, limits and workspaces."""
