"""The queue in front of a descriptor: it never waits, never raises, and reports lost entries."""

import os
import re
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate_server.process.outlet import Outlet, OutletConfig, OutletText
from tests.support.waiting import until_true

QUICK = OutletConfig(gather=0.001, retry=0.001, flush=0.2)


def outlet(descriptor: int, config: OutletConfig = QUICK) -> Outlet:
    """Return an outlet for texts; a text "bad" cannot be rendered."""

    def render(entry: str) -> bytes:
        if entry == "bad":
            raise ValueError(entry)
        return f"{entry}\n".encode()

    return Outlet(descriptor, render, lambda count: b"lost %d\n" % count, config)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe, and close ends that are left open."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_all_is_written_in_order_by_any_number_of_threads(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        out = outlet(file.fileno())

        def write(name: str) -> None:
            for number in range(1_000):
                out.put(f"{name} {number}")

        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        out.close()
    lines = (tmp_path / "log").read_text().splitlines()
    for name in "abc":
        assert [line for line in lines if line[0] == name] == [f"{name} {number}" for number in range(1_000)]
    assert out.dropped == 0


def test_a_reader_that_stops_delays_no_writer_and_gets_the_number_of_lost_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    out = outlet(writer, OutletConfig(entries=100, gather=0.001, flush=0.2))
    started = time.monotonic()
    for number in range(20_000):
        out.put(f"{number:0100}")
    assert time.monotonic() - started < 5
    assert out.dropped > 10_000
    read = b""

    def all_said() -> bool:
        nonlocal read
        out.put("again")
        read += os.read(reader, 65536)
        lost = sum(map(int, re.findall(rb"^lost (\d+)$", read, re.MULTILINE)))
        return lost == out.dropped

    until_true(all_said)
    assert all(re.fullmatch(rb"\d{100}|again|lost \d+", line) for line in read.splitlines()[:-1])
    out.close()


def test_the_exit_waits_for_a_bounded_time(pipe: tuple[int, int]) -> None:
    out = outlet(pipe[1])
    for _ in range(10_000):
        out.put("x" * 100)
    started = time.monotonic()
    out.close()
    assert time.monotonic() - started < 5


def test_a_reader_that_is_gone(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    out = outlet(pipe[1])
    for _ in range(10):
        out.put("x")
    until_true(lambda: out.dropped == 10)
    out.close()


def test_a_full_disk_and_then_room_again(tmp_path: Path) -> None:
    """Lost lines are counted, and the count is written first as soon as the descriptor accepts output."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    out = outlet(descriptor)
    out.put("a")
    out.put("b")
    until_true(lambda: out.dropped == 2)
    with (tmp_path / "log").open("wb") as file:
        os.dup2(file.fileno(), descriptor)
    out.put("c")
    out.close()
    os.close(descriptor)
    assert (tmp_path / "log").read_text() == "lost 2\nc\n"


def test_a_descriptor_that_another_process_made_non_blocking(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    out = outlet(writer)
    for number in range(3_000):
        out.put(f"{number:0100}")
    read = b""
    while read.count(b"\n") < 3_000:
        read += os.read(reader, 65536)
    assert [int(line) for line in read.splitlines()] == list(range(3_000))
    out.close()


def test_an_entry_that_cannot_be_rendered_costs_no_other(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        out = outlet(file.fileno())
        for entry in ("a", "bad", "b"):
            out.put(entry)
        until_true(lambda: out.dropped == 1)
        out.close()
    assert (tmp_path / "log").read_text().splitlines() == ["lost 1", "a", "b"]


def test_a_line_does_not_wait_for_the_writers_thread(tmp_path: Path) -> None:
    """The thread that writes may hold its lock, and wait for the interpreter, at any time."""
    with (tmp_path / "log").open("wb") as file:
        out = outlet(file.fileno())
        putting = threading.Thread(target=out.put, args=("line",), daemon=True)
        with out._lock:
            putting.start()
            putting.join(30)
            assert not putting.is_alive()
        out.close()
    assert (tmp_path / "log").read_text() == "line\n"


def test_while_lines_come_the_writers_thread_is_not_woken_for_each(tmp_path: Path) -> None:
    class Counted(threading.Event):
        sets = 0

        def set(self) -> None:
            self.sets += 1
            super().set()

    counted = Counted()
    with (tmp_path / "log").open("wb") as file:
        out = outlet(file.fileno(), OutletConfig(gather=0.2))
        first, out._filled = out._filled, counted
        first.set()  # the thread waits for the first one only once
        for number in range(4):
            out.put(str(number))
            until_true(lambda number=number: (tmp_path / "log").read_text().endswith(f"{number}\n"))  # type: ignore[misc]
        assert counted.sets <= 2
        until_true(lambda: not counted.is_set())
        out.put("after a pause")
        until_true(lambda: (tmp_path / "log").read_text().endswith("after a pause\n"))
        out.close()


def test_texts_are_bounded_by_their_size(pipe: tuple[int, int]) -> None:
    out = outlet(pipe[1], OutletConfig(text_bytes=10_000, gather=60, flush=0.2))
    for _ in range(20):
        out.put("x" * 1_000, 1_000)
    assert out.dropped == 10
    out.put("a small one still fits")
    assert out.dropped == 10
    out.close()


def test_a_stream_puts_whole_lines(tmp_path: Path) -> None:
    """Two threads that print do not mix their lines; a surrogate and an endless line do no harm."""
    with (tmp_path / "log").open("wb") as file:
        out = Outlet(file.fileno(), lambda text: text.encode(errors="backslashreplace"), lambda _: b"", QUICK)
        stream = OutletText(out, file.fileno(), watched=False, longest=1_000)
        print("a", "b", file=stream)
        stream.write("one\ntwo")
        stream.write(" and a half\n\udc80\n")
        stream.write("y" * 5_000)
        stream.write("\nrest")
        stream.flush()
        out.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[:4] == ["a b", "one", "two and a half", "\\udc80"]
    assert lines[-1] == "rest"
    assert all(len(line) <= 1_001 for line in lines)


def test_what_the_collector_finds_in_the_middle_of_a_put_may_be_logged(pipe: tuple[int, int]) -> None:
    """A finalizer that warns runs in the thread that holds the queue's lock."""
    out = outlet(pipe[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with out._lock:
            out.put("from a finalizer")
    out.close()
    assert os.read(pipe[0], 100) == b"from a finalizer\n"
