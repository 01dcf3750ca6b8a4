"""Output without waiting: a bounded queue in memory, and a thread that writes it to a descriptor in batches.

A writer only appends to the queue. A reader that stopped reading, a closed pipe or a full disk delays and fails no
writer: if the queue is full or the descriptor refuses, entries are dropped and counted. The count is written as soon as
the descriptor accepts output again.
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
    """The bounds of the queue. Times in seconds."""

    entries: int = 16_384
    """The most waiting entries, about a second of calls: an entry that is not rendered yet takes about 1 KiB."""
    text_bytes: int = 8 * 1024 * 1024
    """The most waiting characters of tracebacks and printed text, beside those of ordinary entries."""
    longest_text: int = 16 * 1024
    """The most characters of one text; the rest is cut off. A traceback of 100 frames fits."""
    gather: float = 0.02
    """The time to gather a batch: one turn of the thread writes many lines, and no reader notices the delay."""
    retry: float = 0.25
    """The pause before a refusing descriptor is tried again. Meanwhile entries wait in the queue."""
    flush: float = 2.0
    """The time to write the rest of the queue at exit: short compared with a supervisor's grace."""


class Outlet:
    """The queue in front of one descriptor. Safe to use from any thread. Only `close` waits, and no method raises.

    `render` turns an entry into bytes with an end of line; `loss` makes the entry that reports a number of dropped
    entries.
    """

    def __init__(self, descriptor: int, render: Render, loss: Callable[[int], bytes], config: OutletConfig):
        self._descriptor = descriptor
        self._render = render
        self._loss = loss
        self._config = config
        # Reentrant: the garbage collector may run in the middle of `put`, and a finalizer may warn.
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
        """The number of entries dropped since the start."""
        return self._dropped

    def put(self, entry: Any, text: int = 0) -> None:
        """Append an entry with about `text` characters beyond an ordinary one; drop it if there is no room."""
        if len(self._entries) >= self._config.entries or (text and not self._reserve(text)):
            self._drop(1)
            return
        # One step of the interpreter, without the lock: an event loop that puts a line for each call would often wait
        # for the writer's thread. So as many entries as there are threads may be too many.
        self._entries.append((entry, text))
        if not self._filled.is_set():
            self._filled.set()

    def close(self) -> None:
        """Write the waiting entries, for at most `flush` seconds. Entries put afterwards may be lost."""
        self._closing.set()
        self._filled.set()
        self._thread.join(self._config.flush)

    def _reserve(self, text: int) -> bool:
        """Count so many characters. Return whether there is room for them."""
        with self._lock:
            has_room = self._text + text <= self._config.text_bytes
            self._text += text if has_room else 0
            return has_room

    def _drop(self, count: int) -> None:
        with self._lock:
            self._dropped += count
            self._unsaid += count

    def _write_all(self) -> None:
        while True:
            self._filled.wait()
            self._closing.wait(self._config.gather)
            if not self._entries:
                # It is woken again only after an empty turn: to wake a thread is the most expensive part of a line.
                self._filled.clear()
                if self._entries:
                    self._filled.set()
            while batch := self._take():
                # The thread continues after any error: without it nothing would be written again.
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
        """Write entries in chunks of whole lines; entries that the descriptor refuses are dropped."""
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
        """Write all bytes. Return False if the descriptor refuses them. Blocks while the reader does not read."""
        if self._torn:
            chunk = b"\n" + chunk
        rest = memoryview(chunk)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:
                # Another process that shares the descriptor made it non-blocking.
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
    """A text stream in front of an outlet: for `print`, tracebacks, warnings, and other code that needs a stream."""

    def __init__(self, outlet: Outlet, descriptor: int, *, watched: bool, longest: int):
        self._outlet = outlet
        self._descriptor = descriptor
        self._watched = watched
        self._longest = longest
        self._line = ""
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the bytes, for writers that ask."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """The handling of a lone surrogate."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._watched

    def fileno(self) -> int:
        """Return the descriptor behind it, which a child process may inherit."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Put every complete line; keep the rest until the line ends, or until `flush`."""
        with self._lock:
            lines, newline, rest = (self._line + text).rpartition("\n")
            self._line = rest
            if newline or len(rest) > self._longest:
                self._put(lines + newline if newline else "")
                if len(self._line) > self._longest:
                    self.flush()
        return len(text)

    def flush(self) -> None:
        """Put the rest of a line, without waiting."""
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
    """Return whether the process was started without this standard stream."""
    return descriptor in _missing


def restore_streams() -> None:
    """Open /dev/null for each standard stream that the process was started without.

    Otherwise the next opened file, such as a database, would get the stream's number, and printed text would go into
    it.
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
"""The most entries that are rendered at once."""

_WHOLE_LINES = 4_096
"""Bytes that a pipe takes as one (PIPE_BUF of Linux): workers that share one do not write into each other's lines."""

_FILE_CHUNK = 64 * 1024


def _chunk_of(descriptor: int) -> int:
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _FILE_CHUNK
    return _WHOLE_LINES
