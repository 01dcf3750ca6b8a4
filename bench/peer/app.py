"""The service."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Annotated

from cachetools import TTLCache
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.peer.ingest import ingest
from bench.peer.models import ApiKey
from bench.peer.schemas import BatchIn, BatchOut

_POOL = 10
"""Connections a process keeps; more callers than that are answered in turn."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep an engine for as long as the service runs."""
    engine = create_async_engine(os.environ["PEER_DATABASE"], pool_size=_POOL, max_overflow=_POOL)
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    # As long as the product believes a key.
    app.state.tenants = TTLCache[bytes, int](10_000, 3.0)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def session_of(request: Request) -> AsyncIterator[AsyncSession]:
    """Yield a session for one request."""
    async with request.app.state.sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(session_of)]


async def tenant_of(request: Request, session: Session, x_api_key: Annotated[str, Header()]) -> int:
    """Return whom the key belongs to."""
    tenants: TTLCache[bytes, int] = request.app.state.tenants
    digest = sha256(x_api_key.encode()).digest()
    tenant_id = tenants.get(digest)
    if tenant_id is None:
        key = await session.get(ApiKey, digest)
        if key is None:
            raise HTTPException(401, "The API key is not valid.")
        tenant_id = tenants[digest] = key.tenant_id
    return tenant_id


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the service takes requests."""
    return {"status": "ok"}


@app.post("/events/batch")
async def post_batch(batch: BatchIn, session: Session, tenant_id: Annotated[int, Depends(tenant_of)]) -> BatchOut:
    """Store many events, each on its own."""
    results = await ingest(session, tenant_id, batch.events)
    success_count = sum(result.status in ("accepted", "duplicate") for result in results)
    return BatchOut(
        total=len(results), success_count=success_count, error_count=len(results) - success_count, results=results
    )
