"""Tables for a terminal: aligned columns under a heading, one line for each row."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table; none without rows. A cell never breaks a line, and an empty cell is a dash."""
    if not rows:
        return
    cells = [list(heading), *([printable(cell) or "-" for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def printable(text: str) -> str:
    """Return a text with spaces in place of the characters that would break a line or control a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)
