"""The modules that one batch passes: only the rooms of docs/design/pipeline.md."""

import sys
import threading
from collections.abc import Awaitable
from types import FrameType
from typing import Any

from tests.support.calls import Caller, event
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite

MOST_ROOMS = 8

ROOMS = {
    "rpc.server": "server",
    "rpc.transport": "server",
    "rpc.pipeline": "pipeline",
    "rpc.status": "pipeline",
    "access": "access",
    "rpc.ingest_servicer": "servicer",
    "rpc.taking": "servicer",
    "rpc.decode": "decode",
    "ingest": "ingest",
    "store": "store",
    "rpc.wire": "wire",
}
"""Rooms by the modules in them."""
NO_ROOMS = ("core", "process", "app", "background", "delivery")
"""Modules of shared helpers, and modules that run beside the calls."""


async def _rooms(call: Awaitable[Any]) -> set[str]:
    """Return the rooms whose code runs until the call is answered."""
    modules: set[str] = set()

    def seen(frame: FrameType, event: str, argument: object) -> None:
        modules.add(frame.f_globals.get("__name__", ""))

    threading.setprofile_all_threads(seen) if sys.version_info >= (3, 12) else threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        await call
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    prefix = "headgate_server."
    return {_room(name.removeprefix(prefix)) for name in modules if name.startswith(prefix)} - {""}


def _room(module: str) -> str:
    if module.startswith(NO_ROOMS):
        return ""
    return next((room for start, room in ROOMS.items() if f"{module}.".startswith(f"{start}.")), module)


@on_sqlite
async def test_a_batch_passes_the_same_few_rooms_in_either_encoding(service: Service, caller: Caller) -> None:
    assert len(set(ROOMS.values())) <= MOST_ROOMS
    await caller.batch(event())  # the key is known from here on
    assert await _rooms(caller.batch(event("a"), event(type=""))) == set(ROOMS.values())
    assert await _rooms(caller.json({"events": [{"type": "t", "idempotency_key": "b"}, 5]})) == set(ROOMS.values())
