"""A program that emits events and ends in one of many ways. The tests run it, and compare what it says with the store.

    python -m tests.client.exiting KIND WAY        (HEADGATE_URL, HEADGATE_KEY and perhaps SPOOL are set)

It writes a line for each event that was emitted (`emitted SOURCE N`), when `emit` has returned, and for each that is
reported as not stored (`reported SOURCE N`). After SIGUSR1 it says where it stands, and ends.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from headgate_client import AsyncClient, Client, Failure, Retry
from tests.support.stacks import show_on_signal

EVENTS = 250
"""More than two batches, and a part of one that waits."""
CHILDREN = 4


def say(*words: object) -> None:
    """Write a line at once: the process may end at any moment."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def reported(failure: Failure) -> None:
    """Say which event is not stored."""
    data = failure.event.data
    assert isinstance(data, dict)
    say("reported", failure.event.source, data["n"])


def settings() -> dict[str, Any]:
    """Return how the buffer works: an event waits for an hour, unless a batch is full."""
    return {
        "max_age": 3600.0,
        "max_items": 100_000,
        "spool": os.environ.get("SPOOL"),
        "spool_fsync": False,
        "on_failure": reported,
        "close_timeout": float(os.environ.get("CLOSE_TIMEOUT", "20")),
    }


def emit(buffer: Any, source: str, number: int) -> None:
    """Emit one event, and say so."""
    buffer.emit("t", {"n": number}, source=source)
    say("emitted", source, number)


def emit_all(buffer: Any, source: str = "parent") -> None:
    """Emit some events."""
    for number in range(EVENTS):
        emit(buffer, source, number)


def end(way: str) -> None:
    """End the process, if that is what the way asks for."""
    if way == "exception":
        raise RuntimeError("as asked for")
    if way == "sys.exit":
        sys.exit(3)
    if way in ("os._exit", "flush"):
        os._exit(4)
    if way == "SIGTERM":
        wait_for_a_signal()


def wait_for_a_signal() -> None:
    """Wait in the main thread until a signal arrives.

    A wait for a lock and `signal.pause` miss a signal that arrives just before them; a byte in a pipe stays there.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    say("ready")
    os.read(reader, 1)


RETRY = Retry(first=0.05, most=0.2)


def with_threads(way: str) -> None:
    """Emit with the thread client."""
    client = Client(retry=RETRY)
    buffer = client.buffered(**settings())
    if way == "multiprocessing":
        in_process(child_with_threads, buffer)
    elif way == "fork":
        forking(buffer, lambda: time.sleep(0.002), child_with_threads)
    elif way == "busy":
        number = 0
        while True:
            buffer.emit("t", {"n": number}, source="parent")
            number += 1
            if number == EVENTS:
                say("ready")
            say("taken", buffer.stats.emitted)
    else:
        emit_all(buffer)
        if way == "flush":
            assert buffer.flush(20) == 0
    end(way)


def child_with_threads(buffer: Any, source: str) -> None:
    """In a child: use the parent's buffer."""
    emit_all(buffer, source)


async def with_loop(way: str) -> None:
    """Emit with the asyncio client."""
    client = AsyncClient(retry=RETRY)
    buffer = client.buffered(**settings())
    await buffer.__aenter__()
    if way == "multiprocessing":
        in_process(loop_in_child, buffer)
    elif way == "fork":
        for child in range(CHILDREN):
            for number in range(EVENTS):
                emit(buffer, "parent", child * EVENTS + number)
            await asyncio.sleep(0.005)
            fork(lambda source: asyncio.run(child_with_loop(buffer, source)), f"child-{child}")
    elif way == "busy":
        number = 0
        while True:
            buffer.emit("t", {"n": number}, source="parent")
            number += 1
            if number == EVENTS:
                say("ready")
            say("taken", buffer.stats.emitted)
            await asyncio.sleep(0)
    elif way == "waiting":
        await asyncio.gather(*(emit_waiting(buffer, f"parent-{task}") for task in range(5)))
    else:
        emit_all(buffer)
        if way == "flush":
            assert await buffer.flush(20) == 0
    if way == "SIGTERM":
        say("ready")
        await asyncio.sleep(3600)
    end(way)


async def emit_waiting(buffer: Any, source: str) -> None:
    """Emit some events, each when the last one is on disk."""
    for number in range(EVENTS):
        await buffer.emit_wait("t", {"n": number}, source=source)
        say("emitted", source, number)


async def child_with_loop(buffer: Any, source: str) -> None:
    """In a child: use the parent's buffer, in a loop of the child's own."""
    emit_all(buffer, source)
    await asyncio.sleep(0.01)


def forking(buffer: Any, pause: Callable[[], None], child: Callable[[Any, str], None]) -> None:
    """Fork several times while the sender is busy."""
    for number in range(CHILDREN):
        for event in range(EVENTS):
            emit(buffer, "parent", number * EVENTS + event)
        pause()
        fork(lambda source: child(buffer, source), f"child-{number}")


def loop_in_child(buffer: Any, source: str) -> None:
    """Do the same in a child that has no loop yet."""
    asyncio.run(child_with_loop(buffer, source))


def in_process(child: Callable[[Any, str], None], buffer: Any) -> None:
    """Run something in a child of `multiprocessing`, which ends without `atexit`."""
    process = multiprocessing.get_context("fork").Process(target=child, args=(buffer, "child"))
    process.start()
    process.join()
    assert process.exitcode == 0


def fork(child: Callable[[str], None], source: str) -> None:
    """Run something in a child, which then ends as a program does, and wait for it."""
    pid = os.fork()
    if not pid:
        child(source)
        sys.exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f"the child failed: {os.waitstatus_to_exitcode(status)}"


def hang(kind: str) -> None:
    """Wait for ever, in a child, too."""
    os.fork()
    if kind == "Client":
        wait_for_nobody()
    else:
        asyncio.run(wait_for_nobody_in_a_loop())


def wait_for_nobody() -> None:
    """Hang."""
    say("ready")
    threading.Event().wait()


async def wait_for_nobody_in_a_loop() -> None:
    """Do the same in an event loop."""
    say("ready")
    await asyncio.Event().wait()


def main() -> None:
    kind, way = sys.argv[1:]
    show_on_signal()
    if way == "hang":
        hang(kind)
    if kind == "Client":
        with_threads(way)
    else:
        asyncio.run(with_loop(way))


if __name__ == "__main__":
    main()
