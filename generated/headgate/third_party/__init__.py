"""Other projects' messages."""
