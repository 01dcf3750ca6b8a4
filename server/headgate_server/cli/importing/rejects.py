"""The file of rejects: one JSON object for each record that is not stored."""

import base64
import contextlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from headgate_server.cli.importing.records import Record
from headgate_server.core.errors import SetupError


class Rejects:
    """Collects what is not stored. Without a path it is only counted."""

    def __init__(self, path: Path | None, size: int):
        """Continue a file that had `size` bytes. What was written after them is written again.

        Raises `SetupError` if the file cannot be written, or lacks some of these bytes.
        """
        self._file: BinaryIO | None = None
        self._path = path
        if path is None:
            return
        try:
            self._file = path.open("r+b" if size else "wb")
            self._file.seek(0, os.SEEK_END)
            if self._file.tell() < size:
                raise SetupError(f"{path} was changed since the import began; it had {size:,} bytes")
            self._file.seek(size)
            self._file.truncate()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> SetupError:
        return SetupError(f"cannot write {self._path}: {error.strerror or error}")

    @property
    def size(self) -> int:
        """The bytes that were written."""
        return 0 if self._file is None else self._file.tell()

    def add(self, record: Record, status: str, reason: str, field: str, message: str) -> None:
        """Add a record: its line, why it is not stored, and its text. Raises `SetupError` if that fails."""
        if self._file is None:
            return
        said: dict[str, Any] = {"line": record.line, "status": status, "reason": reason}
        said |= {"field": field, "message": message} | _text(record.text)
        try:
            self._file.write(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise self._cannot_write(error) from error

    def flush(self) -> None:
        """Write what was added to the disk. Raises `SetupError` if that fails."""
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Close the file. What `flush` has not written is lost; the import stopped there."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _text(text: bytes) -> dict[str, str]:
    try:
        return {"record": text.decode()}
    except UnicodeDecodeError:
        return {"record_base64": base64.b64encode(text).decode()}
