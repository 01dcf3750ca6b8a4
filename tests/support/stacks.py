"""Says where a process stands. Imports nothing but the standard library, so that programs without pytest can do it."""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from io import StringIO
from types import FrameType


def show_on_signal() -> None:
    """From now on say where this process and its forks stand, on standard error, and abort, when SIGUSR1 arrives. After
    SIGABRT, too, but without the tasks: also where Python cannot run a handler.
    """
    faulthandler.enable()
    signal.signal(signal.SIGUSR1, _show)


def _show(number: int, frame: FrameType | None) -> None:
    for line in stacks(frame).splitlines(keepends=True):
        os.write(2, line.encode())  # a line at a time, since its forks may say something, too
    faulthandler.disable()
    os.abort()


def stacks(interrupted: FrameType | None) -> str:
    """Return the stacks of all threads, and of the tasks of their event loops, as text. `interrupted` is the frame of
    the main thread.
    """
    said = StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        shown = interrupted if ident == threading.main_thread().ident else frame
        print(f"\n== thread {names.get(ident, ident)}", file=said)
        said.writelines(_below_pytest(traceback.extract_stack(shown)).format())
        for loop in _loops(shown):
            for task in asyncio.all_tasks(loop):
                print(f"\n-- task {task.get_name()}", file=said)
                task.print_stack(file=said)
    return said.getvalue()


def _below_pytest(stack: traceback.StackSummary) -> traceback.StackSummary:
    """Return the frames that pytest has called, without its own."""
    own = [index for index, frame in enumerate(stack) if "/_pytest/" in frame.filename or "/pluggy/" in frame.filename]
    return traceback.StackSummary.from_list(stack[own[-1] + 1 :] if own else stack)


def _loops(frame: FrameType | None) -> Iterator[asyncio.AbstractEventLoop]:
    """Yield the event loops that run in a stack."""
    while frame is not None:
        found = frame.f_locals.get("self")
        if frame.f_code.co_name == "run_forever" and isinstance(found, asyncio.AbstractEventLoop):
            yield found
        frame = frame.f_back
