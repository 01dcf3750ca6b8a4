"""The filters of readers, as they are written."""

from typing import NamedTuple


class TypeFilter(NamedTuple):
    """Which types of events are wanted; both None: all."""

    type: str | None
    type_prefix: str | None


def type_filter(text: str) -> TypeFilter:
    """Return what a filter means: "document.*" is every type that begins with "document.", an empty one every type."""
    if text.endswith(".*"):
        return TypeFilter(None, text[:-1])
    return TypeFilter(text or None, None)
