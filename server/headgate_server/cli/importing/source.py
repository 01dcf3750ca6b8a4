"""The file of an import: plain or gzip, in any encoding, read line by line, and continued where an import stopped."""

import codecs
import contextlib
import gzip
import hashlib
import io
import os
import stat
import zlib
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from headgate_server.cli.importing.stream import Stream
from headgate_server.core.errors import SetupError

MOST_BYTES = 8 * 1024 * 1024
"""The most bytes of one line: the server's default limit of a request. The rest of a longer line is skipped."""
STDIN = "-"
_STDIN_DESCRIPTOR = 0
_GZIP = b"\x1f\x8b"
_WIDE = ("utf-16", "utf-32")
"""Encodings in which a line feed is not one byte. They are read as text and become UTF-8."""
_PROBE = bytes(4)
"""A character in every encoding of text, also in those of four bytes a character."""


class Line(NamedTuple):
    """One line with its end; empty at the end of the file."""

    text: bytes
    cut: bool = False
    """Whether the line was longer than `MOST_BYTES`."""


class Source:
    """A file, or a stream: standard input, or a pipe that has a name. `offset` counts the bytes of its lines so far,
    after decompression.
    """

    def __init__(self, name: str, encoding: str):
        """Raises `SetupError` if the file cannot be read, or the encoding is not known."""
        self.name = "standard input" if name == STDIN else name
        found = _encoding(encoding)
        self._wide = found if found.startswith(_WIDE) else None
        self.encoding = found if self._wide is None else "utf-8"
        self.path, self._stream, self._raw = _opened(name)
        self.offset = 0

    @property
    def size(self) -> int | None:
        """The file's bytes, compressed if it is; None for a stream."""
        return None if self.path is None else os.fstat(self._raw.fileno()).st_size

    @property
    def position(self) -> int:
        """The bytes of the file that were read so far."""
        return 0 if self.path is None else self._raw.tell()

    @cached_property
    def _lines(self) -> io.BufferedReader | io.TextIOWrapper:
        """What the lines are read from. It is made by the first reading, since a stream may have no byte yet."""
        binary = self._raw
        if self._raw.peek(2)[:2] == _GZIP:
            binary = io.BufferedReader(gzip.GzipFile(fileobj=self._raw))
        return binary if self._wide is None else io.TextIOWrapper(binary, encoding=self._wide, newline="\n")

    def line(self) -> Line:
        """Return the next line. Raises `SetupError` if the file is damaged there."""
        first = self.offset == 0
        text = self._read(MOST_BYTES + 1)
        cut = len(text) > MOST_BYTES
        rest = text
        while cut and rest and not rest.endswith(b"\n"):
            rest = self._read(MOST_BYTES)
        if first and self.encoding == "utf-8" and text.startswith(codecs.BOM_UTF8):
            text = text[len(codecs.BOM_UTF8) :]
        return Line(text[:MOST_BYTES], cut)

    def skip(self, offset: int) -> None:
        """Go to the line that begins at this offset, which is not before the present one."""
        if offset > self.offset and self.path is not None and self._lines is self._raw:
            self._raw.seek(offset)
            self.offset = offset
        while self.offset < offset and self.line().text:
            pass

    def _read(self, most: int) -> bytes:
        try:
            text = self._lines.readline(most)
        except (OSError, EOFError, zlib.error) as error:
            raise SetupError(f"{self.name} is damaged after {self.offset:,} bytes: {error}") from error
        except UnicodeError as error:
            raise SetupError(f"{self.name} has another encoding after {self.offset:,} bytes: {error}") from error
        line = text.encode() if isinstance(text, str) else text
        self.offset += len(line)
        return line

    def digest(self) -> str:
        """Return the SHA-256 of the file, in hexadecimal digits. Not for a stream."""
        assert self.path is not None  # noqa: S101 - callers ask for the digest of a file only
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def stop(self) -> None:
        """End a reading that waits for a stream, in another thread: the stream ends there. A file has no such wait."""
        if self._stream is not None:
            self._stream.stop()

    def close(self) -> None:
        """Close the file. No other thread reads it."""
        with contextlib.suppress(OSError):
            self._raw.close()


def _encoding(name: str) -> str:
    """Return Python's name of an encoding. Raises `SetupError` if there is none, or if it is not one of text."""
    try:
        _PROBE.decode(name, "surrogateescape")
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise SetupError(f"{name!r} is not an encoding; examples are utf-8, latin-1, cp1252, utf-16") from None


def _opened(name: str) -> tuple[Path | None, Stream | None, io.BufferedReader]:
    """Return the path of a file, or the stream, and what reads it."""
    try:
        if name == STDIN:
            stream = Stream(_STDIN_DESCRIPTOR, closes=False)
        elif stat.S_ISREG((path := Path(name)).stat().st_mode) or path.is_dir():
            return path, None, path.open("rb")
        else:
            # A pipe without a writer would let the opening itself wait, where nothing can end it.
            stream = Stream(os.open(path, os.O_RDONLY | os.O_NONBLOCK), closes=True)
    except OSError as error:
        raise SetupError(f"cannot read {name}: {error.strerror}") from error
    return None, stream, io.BufferedReader(stream)
