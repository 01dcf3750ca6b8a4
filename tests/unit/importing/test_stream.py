"""Streams: what they read, and that another thread can end a reading."""

import os
import threading
from collections.abc import Iterator

import pytest

from headgate_server.cli.importing.stream import Stream

Pipe = tuple[Stream, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a stream, and the descriptor that writes to it."""
    reading, writing = os.pipe()
    stream = Stream(reading, closes=True)
    yield stream, writing
    stream.close()
    os.close(writing)


def test_it_reads_what_is_written(pipe: Pipe) -> None:
    stream, writing = pipe
    os.write(writing, b"ab")
    assert stream.read(1) == b"a"
    assert stream.read(9) == b"b"


def test_another_thread_ends_a_reading_that_waits(pipe: Pipe) -> None:
    stream, _ = pipe
    read: list[bytes | None] = []
    thread = threading.Thread(target=lambda: read.append(stream.read(1)), daemon=True)
    thread.start()
    stream.stop()
    thread.join(60)
    assert read == [b""]
    assert stream.read(1) == b"", "also every later reading ends"


def test_nothing_yet_is_not_the_end(pipe: Pipe) -> None:
    """A descriptor may be left by another program so that its readings do not wait."""
    stream, writing = pipe
    os.set_blocking(stream.fileno(), False)
    read: list[bytes | None] = []
    thread = threading.Thread(target=lambda: read.append(stream.read(1)), daemon=True)
    thread.start()
    os.write(writing, b"a")
    thread.join(60)
    assert read == [b"a"]


def test_one_that_another_owns_stays_open() -> None:
    reading, writing = os.pipe()
    for closes in (False, True):
        os.fstat(reading)
        Stream(reading, closes=closes).close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reading)
    os.close(writing)


def test_two_closings_close_once() -> None:
    """The number may be another file's by then."""
    reading, writing = os.pipe()
    stream = Stream(reading, closes=True)
    stream.close()
    again = os.dup(writing)
    stream.close()
    os.fstat(again)
    os.close(again)
    os.close(writing)
