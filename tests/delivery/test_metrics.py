"""Metrics of the delivery, and one log line without secrets for each failed attempt."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from headgate_server.background.wakeup import Wakeup
from headgate_server.core.destinations import EventFilter, Secrets
from headgate_server.core.errors import Unavailable
from headgate_server.delivery.engine import Engine, EngineConfig
from headgate_server.process.metrics import Metrics
from headgate_server.store import Deliveries, Store
from tests.delivery.test_engine import GONE, ControlledSender, delivers, fails, filled, reached, running
from tests.support.destinations import made
from tests.support.waiting import until


async def test_lag_set_aside_attempts_and_disabled(store: Store) -> None:
    workspace = (await store.directory.create_workspace("acme")).id
    good = (await made(store, workspace, "good", start=1)).destination.id
    await filled(store, workspace, 4)
    metrics, sender = Metrics(), ControlledSender(fails)
    async with _measured(store, sender, metrics):
        await _shows(metrics, f'headgate_destination_set_aside{{destination="{good}"}} 4.0')
        await _shows(metrics, f'headgate_destination_lag_events{{destination="{good}"}} 0.0')
        await _shows(metrics, f'headgate_destination_lag_seconds{{destination="{good}"}} 0.0')
        await _shows(metrics, 'headgate_delivery_attempts_total{kind="webhook",result="failed"} 4.0')
        sender.result_of = delivers
        await store.destinations.replay_set_aside(workspace, good)
        await _shows(metrics, 'headgate_delivery_events_total{kind="webhook",result="delivered"} 4.0')

        async def gone(sequence: int) -> object:
            return GONE

        sender.result_of = gone  # type: ignore[assignment]
        await filled(store, workspace, 1)
        await _shows(metrics, "headgate_destinations_disabled_total 1.0")
        paused = (await made(store, workspace, "paused", start=3, filter=EventFilter(("x",)))).destination.id
        await store.destinations.delete(workspace, paused)
    assert b"headgate_destination_lag_events{" not in generate_latest(metrics.registry)


async def test_a_failed_attempt_is_one_line_without_secrets(store: Store) -> None:
    workspace = (await store.directory.create_workspace("acme")).id
    secrets = Secrets(current="whsec_hunter2", headers=(("authorization", "hunter2"),))
    status = await made(store, workspace, secrets=secrets)
    await filled(store, workspace, 1)
    with capture_logs() as lines:
        async with running(store, ControlledSender(fails)):
            await reached(store, status, set_aside=1)
    (line,) = [line for line in lines if line["event"] == "delivery_failed"]
    assert (line["status"], line["answer"], line["attempt"], line["sequence"]) == (500, "no", 1, 1)
    assert "hunter2" not in str(lines)


async def test_the_lags_are_measured_again_after_any_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = (await store.directory.create_workspace("acme")).id
    only = (await made(store, workspace, "only", start=1)).destination.id
    errors = [ValueError("a bug"), Unavailable("The store is away.")]
    lags = Deliveries.lags

    async def failing(self: Deliveries) -> dict[str, tuple[int, int, int]]:
        if errors:
            raise errors.pop(0)
        return await lags(self)

    monkeypatch.setattr(Deliveries, "lags", failing)
    metrics = Metrics()
    with capture_logs() as lines:
        async with _measured(store, ControlledSender(delivers), metrics):
            await _shows(metrics, f'headgate_destination_lag_events{{destination="{only}"}} 0.0')
    logged = [line["error"] for line in lines if line["event"] == "delivery_not_measured"]
    assert logged == ["ValueError", "Unavailable"]


@asynccontextmanager
async def _measured(store: Store, sender: ControlledSender, metrics: Metrics) -> AsyncIterator[None]:
    lease = await store.leases.take("deliver", "one", 60.0)
    assert lease is not None
    config = EngineConfig(measure_every=0.05, stop_grace=0.2, change_grace=0.2)
    engine = Engine(store.deliveries, store.ledgers, store.matching, sender.sender_of, metrics, Wakeup(), config=config)
    task = asyncio.create_task(engine(lease))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _shows(metrics: Metrics, line: str) -> None:
    async def state() -> bool:
        return line in generate_latest(metrics.registry).decode().splitlines()

    await until(state)
