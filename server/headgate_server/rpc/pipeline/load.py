"""How much is in progress, over all methods."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

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
    bytes_in_progress: int = 128 * 1024 * 1024
    """Bodies of the calls in progress, which take some times as much memory while they are read; past it calls are
    refused.
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

    def bounded(self, handler: Handler) -> Handler:
        """Return a handler that counts its calls, and the requests that they stream, and refuses those past a bound."""

        async def admitted(call: Call) -> bytes:
            size = len(call.body)
            if self._calls >= self._most_calls or self._is_too_much(size):
                raise Overloaded("Too many calls are in progress; nothing of this one was done.")
            self._calls += 1
            held = _Held(size)
            self._bytes += size
            if call.messages is not None:
                call.messages = self._counted(call.messages, held)
            try:
                return await handler(call)
            finally:
                self._calls -= 1
                self._bytes -= held.size

        return admitted

    def _is_too_much(self, size: int) -> bool:
        return self._calls > 0 and self._bytes + size > self._most_bytes

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
        self._bytes += size - held.size
        held.size = size


@dataclass(slots=True)
class _Held:
    """The bytes that one call holds now."""

    size: int
