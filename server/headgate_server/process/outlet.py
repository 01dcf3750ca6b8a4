"""Output that nobody waits for: a bounded queue in memory, and a thread that writes it to a descriptor in batches.

Whoever writes only appends to the queue. A reader that stopped reading, a pipe that is gone and a disk that is full
delay and fail nobody: past the bound, and where the descriptor refuses, entries are dropped and counted. The count is
written as soon as the descriptor takes output again.
"""

import contextlib
import io
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

STDOUT, STDERR = 1, 2

Render = Callable[[Any], bytes]
"""Turns an entry into its bytes, in the writer's thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutletConfig:
    """How much may wait, and for how long. Times in seconds."""

    entries: int = 16_384
    """Entries that may wait, about a second of calls: an entry that is not rendered yet takes about 1 KiB."""
    text_bytes: int = 8 * 1024 * 1024
    """Characters of tracebacks and of printed text that may wait, beside what an ordinary entry has."""
    longest_text: int = 16 * 1024
    """Characters of one text; the rest of it is cut off. A traceback of 100 frames fits."""
    gather: float = 0.02
    """A batch is gathered for so long: one turn of the thread for many lines, and no reader notices the delay."""
    retry: float = 0.25
    """After a descriptor refused, until it is tried again. What comes meanwhile waits in the queue."""
    flush: float = 2.0
    """What is left of the queue at the exit gets so long: little beside the grace that a supervisor gives."""


class Outlet:
    """The queue in front of one descriptor. Safe to use from any thread; nothing here raises or waits, but `close`.

    `render` turns an entry into bytes with its end of line; `loss` gives what to write of a number of dropped entries.
    """

    def __init__(self, descriptor: int, render: Render, loss: Callable[[int], bytes], config: OutletConfig):
        self._descriptor = descriptor
        self._render = render
        self._loss = loss
        self._config = config
        # Reentrant: the garbage collector may run in the middle of `put`, and what it collects may warn.
        self._lock = threading.RLock()
        self._entries: deque[tuple[Any, int]] = deque()
        self._text = 0
        self._dropped = 0
        self._unsaid = 0
        self._torn = False
        self._closing = threading.Event()
        self._filled = threading.Event()
        self._chunk = _chunk_of(descriptor)
        self._thread = threading.Thread(target=self._write_all, name=f"headgate-output-{descriptor}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many entries were dropped since the start."""
        return self._dropped

    def put(self, entry: Any, text: int = 0) -> None:
        """Append an entry, which holds about `text` characters beside the usual; drop it if there is no room."""
        with self._lock:
            config = self._config
            if len(self._entries) >= config.entries or (text and self._text + text > config.text_bytes):
                self._drop(1)
                return
            self._entries.append((entry, text))
            self._text += text
        if not self._filled.is_set():
            self._filled.set()

    def close(self) -> None:
        """Write what waits, for at most `flush` seconds. What is put afterwards may be lost."""
        self._closing.set()
        self._filled.set()
        self._thread.join(self._config.flush)

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
            self._unsaid += count

    def _write_all(self) -> None:
        while True:
            self._filled.wait()
            self._closing.wait(self._config.gather)
            self._filled.clear()
            while batch := self._take():
                # Whatever goes wrong, the thread goes on: without it nothing would ever be written again.
                try:
                    self._write_batch(batch)
                except Exception:
                    self._drop(len(batch))
            if self._closing.is_set():
                return

    def _take(self) -> list[Any]:
        """Return entries for one batch; none if the queue is empty, or if it is closed and cannot be written."""
        with self._lock:
            batch: list[Any] = []
            while self._entries and len(batch) < _BATCH:
                entry, text = self._entries.popleft()
                self._text -= text
                batch.append(entry)
            return batch

    def _write_batch(self, batch: Sequence[Any]) -> None:
        """Write entries in chunks of whole lines; what the descriptor refuses is dropped."""
        lines = [self._rendered(entry) for entry in batch]
        if self._unsaid:
            with self._lock:
                unsaid, self._unsaid = self._unsaid, 0
            if not self._write(self._loss(unsaid)):
                with self._lock:
                    self._unsaid += unsaid
                self._refused(len(lines))
                return
        first = 0
        while first < len(lines):
            size, after = len(lines[first]), first + 1
            while after < len(lines) and size + len(lines[after]) <= self._chunk:
                size += len(lines[after])
                after += 1
            if not self._write(b"".join(lines[first:after])):
                self._refused(len(lines) - first)
                return
            first = after

    def _rendered(self, entry: Any) -> bytes:
        try:
            return self._render(entry)
        except Exception:
            self._drop(1)
            return b""

    def _refused(self, count: int) -> None:
        self._drop(count)
        self._closing.wait(self._config.retry)

    def _write(self, chunk: bytes) -> bool:
        """Write all of it; False if the descriptor refuses. Blocks for as long as the reader does."""
        if self._torn:
            chunk = b"\n" + chunk
        rest = memoryview(chunk)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:
                # Somebody who shares it made it non-blocking.
                with contextlib.suppress(OSError):
                    select.select((), (self._descriptor,), (), 1.0)
                continue
            except OSError:
                self._torn = self._torn or len(rest) < len(chunk)
                return False
            rest = rest[written:]
        self._torn = False
        return True


class OutletText(io.TextIOBase):
    """A text stream in front of an outlet: for `print`, tracebacks, warnings, and whatever else knows only streams."""

    def __init__(self, outlet: Outlet, descriptor: int, *, watched: bool, longest: int):
        self._outlet = outlet
        self._descriptor = descriptor
        self._watched = watched
        self._longest = longest
        self._line = ""
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What a writer may take the bytes to be."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What becomes of a lone surrogate."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def isatty(self) -> bool:
        """Return whether a person is watching."""
        return self._watched

    def fileno(self) -> int:
        """Return the descriptor behind it, which a child process may inherit."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Put every line that is whole now; keep the rest until its end comes, or `flush`."""
        with self._lock:
            lines, newline, rest = (self._line + text).rpartition("\n")
            self._line = rest
            if newline or len(rest) > self._longest:
                self._put(lines + newline if newline else "")
                if len(self._line) > self._longest:
                    self.flush()
        return len(text)

    def flush(self) -> None:
        """Put what is left of a line. Waits for nothing."""
        with self._lock:
            line, self._line = self._line, ""
            self._put(line)

    def _put(self, text: str) -> None:
        if len(text) > self._longest:
            text = text[: self._longest] + "…\n"
        if text:
            self._outlet.put(text, len(text))


_missing: set[int] = set()


def was_missing(descriptor: int) -> bool:
    """Return whether the process was started without this one of the standard streams."""
    return descriptor in _missing


def restore_streams() -> None:
    """Open /dev/null wherever the process was started without one of the standard streams.

    The next file that is opened would get its number, and what is printed would be written into it: a database.
    """
    for descriptor in (0, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            _missing.add(descriptor)
    if sys.stdout is None:
        sys.stdout = open(STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(STDERR, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


_BATCH = 1_000
"""Entries that are rendered at once."""

_WHOLE_LINES = 4_096
"""Bytes that a pipe takes as one (PIPE_BUF of Linux): workers that share one do not write into each other's lines."""

_FILE_CHUNK = 64 * 1024


def _chunk_of(descriptor: int) -> int:
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _FILE_CHUNK
    return _WHOLE_LINES
