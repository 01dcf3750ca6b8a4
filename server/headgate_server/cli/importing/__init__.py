"""`headgate import`: events from a file, each exactly once, also if the import is killed and started again."""
