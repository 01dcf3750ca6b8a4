"""Subscriptions: a thread reads the stream into a bounded inbox, from which a thread or an event loop takes."""

import asyncio
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Self

from google.protobuf.message import Message

from headgate.v1.event_service_pb2 import SubscribeResponse
from headgate_client.core.errors import Closed, Problem
from headgate_client.core.follow import SILENCE, SUBSCRIBE, Follow
from headgate_client.core.model import StoredEvent
from headgate_client.transport import Stream, Transport
from headgate_client.waking import Ending, wake

_INBOX = 100
"""Messages that are read ahead. A reader that is slower holds the stream back through HTTP/2's window."""
_LOOK_SECONDS = 1.0
"""How often a reader that waits for room looks whether somebody still takes."""

_Message = Message | Problem | None
"""None: the stream ended without an error."""


class _Inbox:
    """Messages of one stream, from the thread that reads it."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._messages: queue.Queue[_Message] = queue.Queue(_INBOX)
        self._arrived: Callable[[], None] | None = None
        self._closed = False
        self._process = os.getpid()
        threading.Thread(target=self._read, name="headgate-subscription", daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self._stream:
                self._put(message)
                if self._closed:
                    return
        except Exception as error:  # gRPC raises more than its own errors while a process ends
            self._put(Problem("UNKNOWN", f"{type(error).__name__}: {error}"))
        else:
            self._put(None)

    def _put(self, message: _Message) -> None:
        while not self._closed:
            try:
                self._messages.put(message, timeout=_LOOK_SECONDS)
                break
            except queue.Full:
                continue
        if (arrived := self._arrived) is not None:
            arrived()

    @property
    def is_foreign(self) -> bool:
        """Whether the thread that reads is in the process from which this one forked."""
        return self._process != os.getpid()

    def get(self, timeout: float) -> _Message:
        """Return the next message. Raises `queue.Empty` after so many seconds."""
        return self._messages.get(timeout=timeout)

    async def get_async(self, timeout: float) -> _Message:
        """Do the same in an event loop."""
        loop = asyncio.get_running_loop()
        while True:
            change: asyncio.Future[None] = loop.create_future()
            self._arrived = partial(wake, loop, change)
            try:
                return self._messages.get_nowait()
            except queue.Empty:
                done, _ = await asyncio.wait((change,), timeout=timeout)
                if not done:
                    raise
            finally:
                self._arrived = None

    def close(self) -> None:
        """End the stream. Who waits for a message gets None."""
        self._closed = True
        if self.is_foreign:
            return  # a thread of the parent may have held its locks
        self._stream.cancel()
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(None)
        if (arrived := self._arrived) is not None:
            arrived()


class _Reader:
    """What both kinds of subscription share."""

    def __init__(self, transport: Transport, follow: Follow):
        self._transport = transport
        self._follow = follow
        self._inbox: _Inbox | None = None
        self._forgotten: weakref.finalize[[], _Reader] | None = None
        self._closed = False

    @property
    def sequence(self) -> int | None:
        """Every matching event up to this sequence was returned. Save it to continue later. None: not known yet."""
        return self._follow.sequence

    @property
    def caught_up(self) -> bool:
        """Whether every event that was stored at the beginning was returned."""
        return self._follow.caught_up

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("The subscription is closed.")

    def _open(self) -> _Inbox:
        self._check_open()
        if self._inbox is None or self._inbox.is_foreign:
            stream = self._transport.stream(SUBSCRIBE, self._follow.request(), SubscribeResponse)
            self._inbox = inbox = _Inbox(stream)
            # A reader who leaves the loop and forgets the subscription ends the stream.
            self._forgotten = weakref.finalize(self, inbox.close)
            try:
                self._check_open()  # another thread may have closed it meanwhile
            except Closed:
                self._end_stream()
                raise
            return inbox
        return self._inbox

    def _take(self, message: _Message) -> StoredEvent | float | None:
        """Return an event; or None, to read on; or the seconds to wait before the stream is begun again."""
        if isinstance(message, SubscribeResponse):
            return self._follow.take(message)
        self._end_stream()
        return self._follow.ended(message if isinstance(message, Problem) else None)

    def _end_stream(self) -> None:
        (inbox, self._inbox), (forgotten, self._forgotten) = (self._inbox, None), (self._forgotten, None)
        if forgotten is not None:
            forgotten.detach()  # otherwise each stream would be kept as long as the subscription
        if inbox is not None:
            inbox.close()

    def _close(self) -> None:
        self._closed = True
        self._end_stream()


class Subscription(_Reader):
    """Events as they are stored, one after another, without an end. Iterate over it; end it with `close` or `with`."""

    def __init__(self, transport: Transport, follow: Follow):
        super().__init__(transport, follow)
        self._ended = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StoredEvent:
        while True:
            try:
                message = self._open().get(SILENCE)
            except queue.Empty:
                message = None
            except Closed:
                raise StopIteration from None
            if self._closed:
                raise StopIteration
            taken = self._take(message)
            if isinstance(taken, StoredEvent):
                return taken
            if taken is not None:
                self._ended.wait(taken)

    def close(self) -> None:
        """End the subscription, from any thread. A thread that iterates over it stops."""
        self._close()
        self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSubscription(_Reader):
    """The same with `async for`."""

    def __init__(self, transport: Transport, follow: Follow):
        super().__init__(transport, follow)
        self._ending = Ending()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredEvent:
        while True:
            try:
                message = await self._open().get_async(SILENCE)
            except queue.Empty:
                message = None
            except Closed:
                raise StopAsyncIteration from None
            if self._closed:
                raise StopAsyncIteration
            taken = self._take(message)
            if isinstance(taken, StoredEvent):
                return taken
            if taken is not None:
                await self._ending.pause(taken)

    async def close(self) -> None:
        """End the subscription. A task that iterates over it stops."""
        self._close()
        self._ending.come()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
