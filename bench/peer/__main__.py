"""Runs the peer: `PEER_DATABASE=postgresql+asyncpg://... PEER_KEY=... python -m bench.peer WORKERS`.

Makes the tables and the key, prints the port, and serves on it with so many uvicorn workers until it is sent SIGTERM or
its standard input is closed.
"""

import asyncio
import os
import signal
import sys
import threading
from hashlib import sha256

import uvicorn
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from uvicorn.supervisors import Multiprocess

from bench.peer.models import ApiKey, Base

TENANT = 1


async def _set_up() -> None:
    engine = create_async_engine(os.environ["PEER_DATABASE"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        digest = sha256(os.environ["PEER_KEY"].encode()).digest()
        await session.merge(ApiKey(digest=digest, tenant_id=TENANT))
        await session.commit()
    await engine.dispose()


def _end_with_input() -> None:
    """Ask this process to end when whoever started it is gone, however that went."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run it."""
    workers = int(sys.argv[1])
    asyncio.run(_set_up())
    # What `uvicorn bench.peer.app:app --workers N --no-access-log` does, on a free port that is made known.
    config = uvicorn.Config(
        "bench.peer.app:app", host="127.0.0.1", port=0, workers=workers, access_log=False, log_level="warning"
    )
    listener = config.bind_socket()
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_end_with_input, daemon=True).start()
    Multiprocess(config, sockets=[listener]).run()


if __name__ == "__main__":
    main()
