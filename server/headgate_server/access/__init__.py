"""Who may do what and how much: keys, scopes, limits, workspaces."""
