"""Objects that are never freed: freeing them would wait for ever, or touch what another process uses."""

import ctypes


def keep(thing: object) -> None:
    """Keep an object beyond the end of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
