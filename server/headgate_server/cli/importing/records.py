"""The records of a file: lines of JSON, or rows of CSV. A record that cannot be read is a `Problem` in its place."""

import csv
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from headgate_server.cli.importing.source import MOST_BYTES, Line, Source
from headgate_server.core import jsonlines
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Problem
from headgate_server.core.reasons import Reason


class Place(NamedTuple):
    """Where an import continues: the number of lines before it, and their bytes."""

    lines: int = 0
    offset: int = 0


class Record(NamedTuple):
    """One record. `value` is what it says, or the problem that made it unreadable."""

    line: int
    """The number of its first line, from 1."""
    text: bytes
    """As it is in the file, at most `MOST_BYTES`."""
    value: Any
    after: Place


def json_lines(source: Source, start: Place) -> Iterator[Record]:
    """Yield the values of a file with one JSON value on each line. Lines of white space alone have none."""
    source.skip(start.offset)
    number = start.lines
    while (line := source.line()).text:
        number += 1
        text = line.text.strip(b" \t\r\n")
        if text or line.cut:
            yield Record(number, text, _json(source, line, text), Place(number, source.offset))


def _json(source: Source, line: Line, text: bytes) -> Any:
    if line.cut:
        return _too_long()
    if source.encoding not in ("utf-8", "ascii"):
        try:
            text = text.decode(source.encoding).encode()
        except UnicodeError:
            return _not_text(source)
    return jsonlines.read_line(text, jsonlines.Line(1, 0, len(text)))


class Rows:
    """The rows of a CSV file (RFC 4180) whose first row has the columns' names."""

    def __init__(self, source: Source, delimiter: str):
        """Raises `SetupError` if the first row has no names."""
        self._source = source
        self._delimiter = delimiter
        self._lines = 0
        self._taken: list[Line] = []
        # The limit of one cell. Python's own is 128 KiB.
        csv.field_size_limit(MOST_BYTES)
        self.columns: Sequence[str] = self._header()
        self._header_end = Place(self._lines, source.offset)

    def _header(self) -> Sequence[str]:
        names = next(self._cells(), [])
        if isinstance(names, Problem):
            raise SetupError(f"the first row of {self._source.name} has no names of columns: {names.message}")
        for name in names:
            if not name or names.count(name) > 1:
                said = f"the column {name!r} twice" if name else "a column without a name"
                raise SetupError(f"the first row of {self._source.name} has {said}")
        return names

    def read(self, start: Place) -> Iterator[Record]:
        """Yield the rows from a place on. Empty lines are none."""
        place = max(start, self._header_end)
        self._source.skip(place.offset)
        self._lines = place.lines
        for cells in self._cells():
            text = b"".join(taken.text for taken in self._taken)[:MOST_BYTES]
            after = Place(self._lines, self._source.offset)
            yield Record(self._lines - len(self._taken) + 1, text.rstrip(b"\r\n"), self._value(cells), after)

    def _value(self, cells: "Sequence[str] | Problem") -> "dict[str, str] | Problem":
        if isinstance(cells, Problem):
            return cells
        if len(cells) != len(self.columns):
            said = f"The row has {len(cells)} cells, and there are {len(self.columns)} columns."
            return Problem(Reason.MALFORMED_EVENT, "", said)
        return dict(zip(self.columns, cells, strict=True))

    def _cells(self) -> Iterator["list[str] | Problem"]:
        """Yield the cells of each row. After each, `_taken` has its lines."""
        reader = csv.reader(self._texts(), delimiter=self._delimiter, strict=True)
        while True:
            self._taken = []
            try:
                cells: list[str] | Problem = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                cells = Problem(Reason.MALFORMED_EVENT, "", f"The row is not CSV: {error}.")
            if any(line.cut for line in self._taken):
                cells = _too_long()
            elif not isinstance(cells, Problem) and not _is_text(cells):
                cells = _not_text(self._source)
            if cells:
                yield cells

    def _texts(self) -> Iterator[str]:
        while (line := self._source.line()).text:
            self._lines += 1
            self._taken.append(line)
            yield _text(line, self._source.encoding)


def _text(line: Line, encoding: str) -> str:
    """Return a line as text that has a lone surrogate if it is not text in the encoding."""
    try:
        return line.text.decode(encoding, "surrogateescape")
    except UnicodeError:
        # Surrogates stand for bytes from 128 on only, and some encodings have faults in others.
        return "\udc80\n"


def _is_text(cells: Sequence[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_long() -> Problem:
    return Problem(Reason.TOO_LONG, "", f"The line is longer than {MOST_BYTES:,} bytes.")


def _not_text(source: Source) -> Problem:
    return Problem(Reason.INVALID_UNICODE, "", f"The record is not text in the encoding {source.encoding}.")
