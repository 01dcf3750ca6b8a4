"""How much is in progress, over all methods."""

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from headgate_server.core.errors import Overloaded
from headgate_server.process.setting import PAST_IT, setting
from headgate_server.rpc.pipeline.call import Call, Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """How much may be in progress at once."""

    concurrent_calls: int = setting(
        2_000, "concurrent-calls", f"Calls in progress, per worker. {PAST_IT}", least=1, most=1_000_000
    )
    """Calls in progress; further ones are refused at once. Streams of health and reflection do not count: whoever
    holds them needs no key, and must not shut out those who have one.
    """
    bytes_in_progress: int = 64 * 1024 * 1024
    """Bodies of the calls in progress, inflated; past it calls are refused. A body is there up to three times while it
    is read: as it came, as a field of its message, and as what is decoded.
    """


class Load:
    """Lets calls in up to two bounds: so many at once, and so many bytes of what they brought.

    Calls and bytes that are past a bound are refused at once; what is alone is never too large.
    """

    def __init__(self, config: LoadConfig):
        self._most_calls = config.concurrent_calls
        self._most_bytes = config.bytes_in_progress
        self._calls = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def bounded(self, handler: Handler) -> Handler:
        """Return a handler that counts its calls, and the requests that they stream, and refuses those past a bound."""

        async def admitted(call: Call) -> bytes:
            size = len(call.body)
            if self._calls >= self._most_calls or self._is_too_much(size):
                raise Overloaded("Too many calls are in progress; nothing of this one was done.")
            self._calls += 1
            held = _Held(0)
            self._hold(held, size)
            call.hold = partial(self._inflated, held, size)
            if call.messages is not None:
                call.messages = self._counted(call.messages, held)
            try:
                return await handler(call)
            finally:
                self._calls -= 1
                held.over = True
                self._hold(held, 0)

        return admitted

    def _is_too_much(self, size: int) -> bool:
        return self._calls > 0 and self._bytes + size > self._most_bytes

    def _inflated(self, held: "_Held", came: int, size: int) -> None:
        """Count a body that came as `came` bytes, and has become `size` bytes more. Raises `Overloaded`."""
        if held.over:
            raise Overloaded("The call was given up.")
        if self._calls > 1 and self._bytes + came + size - held.size > self._most_bytes:
            raise Overloaded("Too much is in progress; nothing of this call was done.")
        self._hold(held, came + size)

    async def _counted(self, messages: AsyncIterator[bytes], held: "_Held") -> AsyncIterator[bytes]:
        """Yield a stream's requests; each counts until the handler asks for the next."""
        async for message in messages:
            size = len(message)
            if self._bytes > 0 and self._is_too_much(size):
                raise Overloaded("Too many requests are in progress; nothing was done with this one.")
            self._hold(held, size)
            yield message
            self._hold(held, 0)

    def _hold(self, held: "_Held", size: int) -> None:
        with self._lock:  # bodies are inflated on threads
            size = 0 if held.over else size
            self._bytes += size - held.size
            held.size = size


@dataclass(slots=True)
class _Held:
    """The bytes that one call holds now."""

    size: int
    over: bool = False
    """Whether the call has ended; the thread that inflates its body may not have."""
