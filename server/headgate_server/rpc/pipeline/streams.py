"""Streams that last until their caller ends them. They also end when their key is revoked or the server ends."""

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from headgate_server.core.errors import HeadgateError, Overloaded, Unavailable
from headgate_server.core.reasons import Reason
from headgate_server.core.types import WorkspaceId
from headgate_server.process.metrics import Metrics
from headgate_server.rpc.pipeline.call import Call, Handler
from headgate_server.rpc.pipeline.method import AnyMethod, BothWays

NAME = "streams"

_CHECK_SECONDS = 1.0
"""A key is cached for three seconds. So a revoked key ends a silent stream within five, including the look-up."""


class Streams:
    """All lasting streams of a server. A job checks their keys; `close` ends them. Used on one event loop only."""

    def __init__(self, metrics: Metrics, of_one: int, exchanges_of_one: int = 1, check_every: float = _CHECK_SECONDS):
        """`of_one` is the most streams of one workspace that only answer, `exchanges_of_one` of those that take
        requests as well. `check_every` is in seconds.
        """
        self._metrics = metrics
        self._most = {False: of_one, True: exchanges_of_one}
        self._workspaces: Counter[tuple[WorkspaceId, bool]] = Counter()
        self._check_every = check_every
        self._open: set[_Stream] = set()
        self._has_streams = asyncio.Event()
        self._closed = False

    def keep(self, method: AnyMethod, handler: Handler) -> Handler:
        """Return a handler that ends when this object ends its stream. Other methods keep theirs. An interceptor.

        A stream that takes requests is told to end, because it first answers what it has read.
        """
        if not method.lasting:
            return handler
        exchanges = isinstance(method.kind, BothWays)

        async def watched(call: Call) -> bytes:
            if self._closed:
                raise _closing()
            stream = _Stream(call, exchanges)
            if self._workspaces[stream.counted_as] >= self._most[exchanges]:
                raise Overloaded("The workspace has too many streams open; this one was not begun.")
            self._add(stream)
            if exchanges:
                call.ended = stream.ended
                try:
                    return await handler(call)
                finally:
                    self._remove(stream)
            work = asyncio.ensure_future(handler(call))
            try:
                await asyncio.wait((work, stream.ended), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    return work.result()
                raise stream.ended.result()
            finally:
                self._remove(stream)
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

        return watched

    async def __call__(self) -> None:
        """Check the keys of all open streams repeatedly, until cancelled."""
        while True:
            await self._has_streams.wait()
            await self.check()
            await asyncio.sleep(self._check_every)

    async def check(self) -> None:
        """End the streams whose key does not allow them any more. A key with many streams is looked up once."""
        by_key: dict[str, list[_Stream]] = defaultdict(list)
        for stream in self._open:
            by_key[stream.call.caller.key_id].append(stream)
        for streams in by_key.values():
            try:
                await streams[0].call.recheck()
            except Unavailable:
                # The store cannot be reached, so no key can be revoked either.
                continue
            except HeadgateError as error:
                for stream in streams:
                    stream.end(error)

    def close(self) -> None:
        """End all streams now and refuse further ones, because the server ends."""
        self._closed = True
        for stream in self._open:
            stream.end(_closing())

    def _add(self, stream: "_Stream") -> None:
        self._open.add(stream)
        self._workspaces[stream.counted_as] += 1
        self._has_streams.set()
        self._metrics.streams(len(self._open))

    def _remove(self, stream: "_Stream") -> None:
        self._open.discard(stream)
        self._workspaces[stream.counted_as] -= 1
        if not self._workspaces[stream.counted_as]:
            del self._workspaces[stream.counted_as]
        self._metrics.streams(len(self._open))
        if not self._open:
            self._has_streams.clear()


@dataclass(eq=False, slots=True)
class _Stream:
    """One open stream, and the error that ends it."""

    call: Call
    exchanges: bool
    ended: "asyncio.Future[HeadgateError]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def counted_as(self) -> tuple[WorkspaceId, bool]:
        return self.call.caller.workspace.id, self.exchanges

    def end(self, error: HeadgateError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)


def _closing() -> Unavailable:
    return Unavailable("The server is shutting down.", reason=Reason.SHUTTING_DOWN)
