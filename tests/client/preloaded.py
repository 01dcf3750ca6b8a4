"""Applications for `gunicorn --preload`: client and buffer are made, and are busy, before gunicorn forks.

`wsgi` uses the thread client, `asgi` the asyncio client.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from headgate_client import AsyncClient, Client

PRELOADED = 250
"""Events that the parent process emits."""

if os.environ.get("KIND") == "AsyncClient":
    async_buffer = AsyncClient().buffered(max_age=3600.0)
else:
    buffer = Client().buffered(max_age=3600.0)
    for number in range(PRELOADED):
        buffer.emit("t", {"n": number}, source="parent")


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Emit an event, and answer before it is sent."""
    buffer.emit("t", {"n": int(environ["PATH_INFO"][1:])}, source="worker")
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Do the same in an event loop. Uvicorn's worker ends without `atexit`: its lifespan closes."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await async_buffer.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    async_buffer.emit("t", {"n": int(scope["path"][1:])}, source="worker")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
