"""The service: `PEER_DATABASE=postgresql+asyncpg://... PEER_KEY=... python -m bench.peer WORKERS`.

Makes the table, prints the port, and serves on it with so many uvicorn workers until it is sent SIGTERM or its standard
input is closed.
"""

import asyncio
import os
import secrets
import signal
import sys
import threading
from collections.abc import AsyncIterator
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from uvicorn.supervisors import Multiprocess

from bench.peer.ingest import ingest
from bench.peer.models import Base, BatchIn, BatchOut

# A process keeps ten connections; more callers than that are answered in turn.
engine = create_async_engine(os.environ["PEER_DATABASE"], pool_size=10, max_overflow=10)
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def session_of() -> AsyncIterator[AsyncSession]:
    """Yield a session for one request."""
    async with sessions() as session:
        yield session


async def tenant_of(x_api_key: Annotated[str, Header()]) -> int:
    """Return the key's owner. There is only one key; a real service would cache the look-up."""
    if not secrets.compare_digest(x_api_key.encode(), os.environ["PEER_KEY"].encode()):
        raise HTTPException(401, "The API key is not valid.")
    return 1


Session = Annotated[AsyncSession, Depends(session_of)]
Tenant = Annotated[int, Depends(tenant_of)]


@app.post("/events/batch")
async def post_batch(batch: BatchIn, session: Session, tenant_id: Tenant) -> BatchOut:
    """Store many events, each on its own."""
    results = await ingest(session, tenant_id, batch.events)
    stored = sum(result.status in ("accepted", "duplicate") for result in results)
    return BatchOut(total=len(results), success_count=stored, error_count=len(results) - stored, results=results)


async def _make_table() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


def _end_with_input() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    asyncio.run(_make_table())
    # What `uvicorn --workers N --no-access-log` does, on a free port that is made known.
    workers, name = int(sys.argv[1]), "bench.peer.__main__:app"
    config = uvicorn.Config(name, host="127.0.0.1", port=0, workers=workers, access_log=False, log_level="warning")
    listener = config.bind_socket()
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_end_with_input, daemon=True).start()
    Multiprocess(config, sockets=[listener]).run()
