"""The compiled core and the Python code do the same."""
