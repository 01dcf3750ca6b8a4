"""A process of the service: `PEER_DATABASE=postgresql+asyncpg://... PEER_KEY=... python -m bench.peer`.

Makes the table, serves with uvicorn, and prints the port, until it is sent SIGTERM or its input is closed. Each
process has a port of its own: uvicorn's workers share one, and then one worker may get nearly all connections.
"""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

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


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Make the table, begin to serve, and print the port. From then on, end when the standard input is closed."""
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
        asyncio.get_running_loop().add_reader(sys.stdin, setattr, self, "should_exit", True)


if __name__ == "__main__":
    # What `uvicorn --no-access-log` does, on a free port.
    _Server(uvicorn.Config(app, host="127.0.0.1", port=0, access_log=False, log_level="warning")).run()
