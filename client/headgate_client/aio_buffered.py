"""A buffer whose events a task of the event loop sends."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from google.protobuf.message import Message

from headgate_client import exits, fork
from headgate_client.core.errors import Closed, HeadgateError, NotSent, Problem, SpoolError
from headgate_client.core.events import Event, Prepared, decoded, prepare
from headgate_client.core.queue import Item, Settled, Stats, size_of
from headgate_client.disk import Disk, tell
from headgate_client.feed import UNREADABLE_SECONDS, Feed, Rows, Settings
from headgate_client.ticket import LoopTicket, Ticket
from headgate_client.transport import Transport

log = logging.getLogger("headgate_client")

_NOTHING = contextlib.nullcontext()


class _Write(NamedTuple):
    """An event that is about to be written to the spool, and who waits for it."""

    item: Item
    told: "asyncio.Future[HeadgateError | None]"


class AsyncBuffered:
    """Takes events one by one, and sends them in batches. For one event loop. Use as `async with`, or call `close`."""

    def __init__(self, transport: Transport, settings: Settings):
        self._transport = transport
        self._settings = settings
        self._feed = Feed(settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False
        self._stopped = False
        self._lock = threading.RLock()
        """Held while the queue changes: a fork by another thread must not copy it half-changed."""
        self._disk = None if settings.spool is None else Disk()
        self._writing: list[_Write] = []
        self._writes: list[_Write] = []
        """Events that are written together, after those of `_writing`."""
        fork.register_queue(self)
        exits.register(self)
        exits.prepare()

    async def __aenter__(self) -> Self:
        if len(self._feed.queue):
            self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. Raises `NotSent` if events are left, unless another error is on its way."""
        left = await self.close()
        if left and kind is None:
            raise NotSent(left)

    def emit(
        self,
        type: str,  # noqa: A002 - the field's name
        data: Mapping[str, Any] | bytes | None = None,
        *,
        source: str = "",
        subject: str = "",
        occurred_at: datetime | str | None = None,
        key: str | None = None,
    ) -> Ticket:
        """Take an event, and return its ticket. Does not wait for room: with `when_full="block"` use `emit_wait`. With
        a spool it waits for the disk, and the event loop with it: use `emit_wait` there too.

        Raises `InvalidEvent` if it cannot be sent, `QueueFull`, `Closed` or `SpoolError`. Then it is not taken.
        """
        event = prepare(Event(type=type, data=data, source=source, subject=subject, occurred_at=occurred_at, key=key))
        return self._take(event)

    async def emit_wait(
        self,
        type: str,  # noqa: A002 - the field's name
        data: Mapping[str, Any] | bytes | None = None,
        *,
        source: str = "",
        subject: str = "",
        occurred_at: datetime | str | None = None,
        key: str | None = None,
    ) -> Ticket:
        """Wait until there is room, take an event, and return its ticket. With a spool it returns when the event is on
        disk; the event loop goes on meanwhile, and events that are emitted at the same time share the wait. If the
        caller is cancelled in this wait, the event is sent.

        Raises `InvalidEvent`, `QueueFull`, `Closed` or `SpoolError` if the event is not taken.
        """
        event = prepare(Event(type=type, data=data, source=source, subject=subject, occurred_at=occurred_at, key=key))
        size = size_of(event.encoded)
        self._feed.queue.check_size(size)
        while not self._closed and not self._feed.queue.has_room(size):
            self._start()  # an earlier loop, or an earlier process, may have left the queue full
            await self._change(None)
        return self._take(event) if self._disk is None else await self._write(event, self._disk)

    async def _write(self, event: Prepared, disk: Disk) -> Ticket:
        """Write an event to the spool, with others of this moment, and take it."""
        ticket = LoopTicket(event.key)
        if self._closed:
            raise Closed("The buffer is closed.")
        with self._lock:
            item = self._feed.reserve(event, ticket, time.monotonic())
            write = _Write(item, asyncio.get_running_loop().create_future())
            self._writes.append(write)
        self._start()
        self._write_next(disk)
        if error := await write.told:
            raise error.with_traceback(None)  # others of this moment raise the same error
        return ticket

    def _write_next(self, disk: Disk) -> None:
        if self._writes and not self._writing and asyncio._get_running_loop() is not None:
            self._writing, self._writes = self._writes, []
            items = [write.item for write in self._writing]
            disk.begin(partial(self._feed.write, items), partial(self._written, disk))

    def _written(self, disk: Disk, error: SpoolError | None) -> None:
        """Take the events that are on disk now, and tell those who wait for it."""
        with self._lock:
            writes, self._writing = self._writing, []
            for item, _ in writes:
                if error is not None or self._stopped:
                    self._feed.queue.unreserve(item.size)
                else:
                    self._feed.place(item)
        for item, told in writes:
            if error is None and self._stopped:
                item.token.resolve(NotSent((), spooled=True))
            tell(told, error)
        self._notify()
        self._write_next(disk)

    def _take(self, event: Prepared) -> Ticket:
        asyncio.get_running_loop()  # raises RuntimeError outside one
        self._feed.queue.check_size(size_of(event.encoded))
        ticket = LoopTicket(event.key)
        exits.enter()
        try:
            if self._closed:
                raise Closed("The buffer is closed.")
            self._start()  # what is in the queue is sent also if this event has no room
            with self._lock, self._disk or _NOTHING:
                dropped = self._feed.put(event, ticket, time.monotonic())
                self._feed.remove(dropped)
            if self._feed.queue.has_news():
                self._notify()
        finally:
            exits.leave()
        self._feed.tell(dropped)
        return ticket

    async def flush(self, timeout: float | None = None) -> int:
        """Send everything that was emitted before now, and wait for the answers at most so many seconds. Return the
        number of events that have none yet.
        """
        last = self._feed.queue.hurry()
        self._start()
        self._notify()
        end = None if timeout is None else time.monotonic() + timeout
        while self._feed.queue.earliest() <= last and not self._stopped:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            await self._change(left)
        return self._feed.queue.missing(last)

    async def close(self, timeout: float | None = None) -> list[Event]:
        """Take no more events, send those that wait, and return the events that have no answer after so many seconds.

        A wait for a retry ends at once. Where there is a spool, the events that are left stay in it, and none is
        returned. `timeout` None: the buffer's `close_timeout`.
        """
        end = time.monotonic() + (self._settings.close_timeout if timeout is None else timeout)
        if not self._closed:
            self._closed = True
            self._feed.queue.close()
            self._notify()
        while self._is_busy() and not self._stopped and (left := end - time.monotonic()) > 0:
            if self._feed.queue.retry_in(time.monotonic()) > left:
                break
            # A program that ends cancels all tasks, the sender too: then another one sends what is left.
            self._start()
            await self._change(left)
        left_over = self._leave()
        if self._disk is not None:
            await self._disk.done(self._feed.release)
            self._disk.join()
        return left_over

    def _is_busy(self) -> bool:
        return bool(len(self._feed.queue) or self._writing or self._writes)

    def _leave(self) -> list[Event]:
        if self._stopped:
            return []
        self._stopped = True
        if self._sender is not None and not self._sender.done() and not self._loop_is_closed():
            self._sender.cancel()
        writes, self._writes = self._writes, []
        for _, told in writes:
            tell(told, Closed("The buffer was closed."))
        left = self._feed.leave()
        self._feed.tell(left)
        exits.unregister(self)
        return [decoded(item.encoded) for item, _ in left]

    def close_at_exit(self) -> None:
        """Close at the end of the process, and report the events that are left. The loop has ended, or never ends."""
        if self._loop is not None and self._loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self.close(), self._loop)
            left = len(closing.result(self._settings.close_timeout + 1))
        else:
            self._drain()
            left = len(self._leave())
            self._feed.release()
        if left:
            exits.report(left)

    def _drain(self) -> None:
        """Send what is left without an event loop."""
        end = time.monotonic() + self._settings.close_timeout
        self._closed = True
        if self._disk is not None:
            self._disk.join()
        self._feed.queue.interrupt()
        self._feed.queue.close()
        while len(self._feed.queue) and (left := end - time.monotonic()) > 0:
            step = self._feed.next(time.monotonic())
            if isinstance(step, list):
                try:
                    answer = self._transport.call(self._feed.call(step))
                except Closed:
                    break
                self._feed.remove(self._settled(step, answer))
            elif step is None or step > left:
                break
            else:
                time.sleep(step)

    @property
    def closed(self) -> bool:
        """Whether it takes no more events."""
        return self._closed

    @property
    def stats(self) -> Stats:
        """The counts until now."""
        return self._feed.queue.stats()

    @property
    def last_problem(self) -> Problem | None:
        """Why the last call failed. None: it did not."""
        return self._feed.queue.last_problem

    # The sender.

    def _start(self) -> None:
        """Start the task, in the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # An earlier loop has ended: what it had under way is sent again.
            self._loop, self._sender = loop, None
            self._waiting.clear()
            if self._disk is not None:
                self._disk.join()
            self._feed.queue.interrupt()
        if self._sender is None or self._sender.done():
            exits.prepare()
            self._sender = loop.create_task(self._run(), name="headgate-sender")

    async def _run(self) -> None:
        while not self._stopped and not (self._closed and not len(self._feed.queue)):
            step = await self._next()
            if not isinstance(step, list):
                await self._change(step)
                continue
            try:
                answer = await self._call(step)
            except BaseException:
                self._feed.queue.interrupt()
                raise
            if not self._stopped:
                settled = self._settled(step, answer)
                if self._disk is not None:
                    await self._disk.done(partial(self._feed.remove, settled))
                self._notify()

    async def _next(self) -> list[Item] | float | None:
        if self._disk is not None and self._feed.wants_more:
            try:
                await self._disk.done(partial(self._feed.read, self._feed.queue.absent), self._loaded)
            except SpoolError:
                log.exception("the spool cannot be read")
                return UNREADABLE_SECONDS
        with self._lock:
            return self._feed.queue.next(time.monotonic())

    def _loaded(self, rows: Rows) -> None:
        with self._lock:
            self._feed.loaded(rows, time.monotonic())

    async def _call(self, batch: list[Item]) -> Message | Problem:
        try:
            return await self._transport.call_async(self._feed.call(batch))
        except Exception as error:  # gRPC raises more than its own errors while a process ends
            return Problem("UNKNOWN", f"{type(error).__name__}: {error}")

    def _settled(self, batch: list[Item], answer: Message | Problem) -> list[Settled]:
        with self._lock:
            settled = self._feed.take(batch, answer, time.monotonic())
        self._feed.tell(settled)
        return settled

    async def _change(self, seconds: float | None) -> None:
        """Wait until something changes, at most so many seconds."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            await asyncio.wait((change,), timeout=seconds)
        finally:
            self._waiting.discard(change)

    def _notify(self) -> None:
        if self._loop_is_closed():
            return
        for change in self._waiting:
            if not change.done():
                change.set_result(None)

    def _loop_is_closed(self) -> bool:
        return self._loop is None or self._loop.is_closed()

    # Forks. The three are called by `fork.py`.

    def before_fork(self) -> None:
        """Hold the queue still."""
        self._lock.acquire()
        if self._disk is not None:
            self._disk.lock.acquire()
        self._feed.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._disk is not None:
            self._disk.lock.release()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the events and the sender are the parent's."""
        self._lock = threading.RLock()
        self._loop = self._sender = None
        self._waiting = set()
        self._disk = None if self._disk is None else Disk()
        for item, _ in [*self._writing, *self._writes]:
            item.token.forget()
        self._writing, self._writes = [], []
        self._feed.after_fork_in_child()
        if not self._closed:
            exits.register(self)
