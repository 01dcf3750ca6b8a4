"""The file of an import: plain or gzip, in any encoding, read line by line, and continued where an import stopped."""

import codecs
import contextlib
import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from headgate_server.core.errors import SetupError

MOST_BYTES = 8 * 1024 * 1024
"""The most bytes of one line: the server's default limit of a request. The rest of a longer line is skipped."""
STDIN = "-"
_STDIN_DESCRIPTOR = 0
_GZIP = b"\x1f\x8b"
_WIDE = ("utf-16", "utf-32")
"""Encodings in which a line feed is not one byte. They are read as text and become UTF-8."""


class Line(NamedTuple):
    """One line with its end; empty at the end of the file."""

    text: bytes
    cut: bool = False
    """Whether the line was longer than `MOST_BYTES`."""


class Source:
    """A file, or standard input. `offset` counts the bytes of its lines so far, after decompression."""

    def __init__(self, name: str, encoding: str):
        """Raises `SetupError` if the file cannot be read, or the encoding is not known."""
        self.name = "standard input" if name == STDIN else name
        self.path = None if name == STDIN else Path(name)
        try:
            self.encoding = codecs.lookup(encoding).name
        except LookupError:
            raise SetupError(f"{encoding!r} is not an encoding; examples are utf-8, latin-1, cp1252, utf-16") from None
        self._raw = _opened(self.path, self.name)
        self._binary = self._decompressed()
        self._lines = self._in_utf8()
        self.offset = 0

    @property
    def size(self) -> int | None:
        """The file's bytes, compressed if it is; None for standard input."""
        return None if self.path is None else os.fstat(self._raw.fileno()).st_size

    @property
    def position(self) -> int:
        """The bytes of the file that were read so far."""
        return 0 if self.path is None else self._raw.tell()

    def _decompressed(self) -> io.BufferedReader:
        if self._raw.peek(2)[:2] == _GZIP:
            return io.BufferedReader(gzip.GzipFile(fileobj=self._raw))
        return self._raw

    def _in_utf8(self) -> io.BufferedReader | io.TextIOWrapper:
        if not self.encoding.startswith(_WIDE):
            return self._binary
        wide, self.encoding = self.encoding, "utf-8"
        return io.TextIOWrapper(self._binary, encoding=wide, newline="\n")

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
        if self._lines is self._raw and self.path is not None:
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
        """Return the SHA-256 of the file, in hexadecimal digits. Not for standard input."""
        assert self.path is not None  # noqa: S101 - callers ask for the digest of a file only
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._raw.close()


def _opened(path: Path | None, name: str) -> io.BufferedReader:
    if path is None:
        return io.BufferedReader(io.FileIO(_STDIN_DESCRIPTOR, closefd=False))
    try:
        return path.open("rb")
    except OSError as error:
        raise SetupError(f"cannot read {name}: {error.strerror}") from error
