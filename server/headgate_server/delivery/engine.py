"""The work of the delivering process: a delivery for each active destination, under one lease."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from headgate_server.background.supervisor import BackOff
from headgate_server.background.wakeup import Wakeup
from headgate_server.core.destinations import Watched
from headgate_server.core.errors import HeadgateError, LeaseLost
from headgate_server.core.model import Lease
from headgate_server.core.types import WorkspaceId
from headgate_server.delivery.channel import ChannelConfig
from headgate_server.delivery.journal import Journal
from headgate_server.delivery.pages import Pages
from headgate_server.delivery.runner import Runner, SenderOf, Tools
from headgate_server.process.causes import Causes
from headgate_server.process.metrics import Metrics
from headgate_server.store import Deliveries, Ledgers, Matching

log = structlog.get_logger(__name__)

NAME = "deliver"

_Key = tuple[WorkspaceId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How the delivering process works. Times in seconds."""

    shortest_look: float = 0.02
    longest_look: float = 0.25
    """Between two looks at the heads of the destinations' ledgers, growing while nothing comes. Commits of the same
    process wake it before.
    """
    look_share: float = 0.1
    """The most of its time that it spends with looking: with thousands of destinations a look takes longer."""
    spacing: float = 0.01
    """The least time between two looks while few events come: an event is seen so soon after its commit."""
    busy_events: int = 100
    busy_spacing: float = 0.1
    """The least time between two looks when so many events came since the last: a look then costs as much as storing
    some of them, and each finds enough for a page.
    """
    change_grace: float = 2.0
    """What a request under way is given to end when its destination was changed, paused or removed."""
    stop_grace: float = 3.0
    """The same when the process ends. The lease is not renewed meanwhile, and has 5 s left at least. Together with the
    second that recording takes it is less than the 5 s that a worker has beyond the grace of its calls.
    """
    measure_every: float = 5.0
    """Between two looks at how far each destination is behind, for the metrics."""
    channel: ChannelConfig = field(default_factory=ChannelConfig)


class Engine:
    """Delivers to all active destinations while it holds the lease. To be run by `Leased`."""

    def __init__(
        self,
        deliveries: Deliveries,
        ledgers: Ledgers,
        matching: Matching,
        sender_of: SenderOf,
        metrics: Metrics,
        wakeup: Wakeup,
        *,
        config: EngineConfig | None = None,
        back_off: BackOff | None = None,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._deliveries = deliveries
        self._ledgers = ledgers
        self._matching = matching
        self._sender_of = sender_of
        self._metrics = metrics
        self._wakeup = wakeup
        self._config = config or EngineConfig()
        self._back_off = back_off or BackOff()
        self._timer = timer
        self._causes = Causes()

    async def __call__(self, lease: Lease) -> None:
        """Deliver until cancelled. Raises what the store raises, and `LeaseLost` when another holder was found."""
        config = self._config
        tools = Tools(
            deliveries=self._deliveries,
            ledgers=self._ledgers,
            pages=Pages(self._matching),
            journal=Journal(self._deliveries, lease),
            sender_of=self._sender_of,
            metrics=self._metrics,
            config=config.channel,
        )
        crew = _Crew(tools, config, self._back_off, self._timer)
        measuring = asyncio.create_task(self._measure())
        pause = config.shortest_look
        try:
            while True:
                began = self._timer()
                watched = await self._deliveries.watch()
                moved = crew.take(watched)
                pause = config.shortest_look if moved else min(pause * 2, config.longest_look)
                took = self._timer() - began
                spacing = config.busy_spacing if moved >= config.busy_events else config.spacing
                await asyncio.sleep(max(spacing, took * (1 / config.look_share - 1)))
                if watched:
                    await self._wakeup.wait(pause)
                else:
                    await asyncio.sleep(config.longest_look)
        finally:
            measuring.cancel()
            await crew.end(config.stop_grace)
            self._metrics.destinations({})

    async def _measure(self) -> None:
        """Show how far each destination is behind, until cancelled."""
        while True:
            try:
                self._metrics.destinations(await self._deliveries.lags())
            except HeadgateError as error:
                self._causes.tell("delivery_not_measured", error)
            await asyncio.sleep(self._config.measure_every)


@dataclass(slots=True)
class _Rest:
    """After an error of one delivery: how long it is left alone, and until when."""

    pause: float
    until: float


class _Crew:
    """The deliveries that run."""

    def __init__(self, tools: Tools, config: EngineConfig, back_off: BackOff, timer: Callable[[], float]):
        self._tools = tools
        self._config = config
        self._back_off = back_off
        self._timer = timer
        self._runners: dict[_Key, Runner] = {}
        self._stopping: dict[_Key, asyncio.Task[None]] = {}
        self._rests: dict[_Key, _Rest] = {}

    def take(self, watched: Sequence[Watched]) -> int:
        """Start the delivery to new destinations, stop what was changed or removed, and tell the others of events.
        Return how many came to one ledger at the most. Raises `LeaseLost` if a delivery found that.
        """
        self._collect()
        by_key = {(one.workspace_id, one.destination_id): one for one in watched}
        moved = 0
        for key in [key for key in self._runners if key not in by_key]:
            self._stop(key)
        for key, one in by_key.items():
            runner = self._runners.get(key)
            if runner is not None and runner.revision < one.revision:
                self._stop(key)
            elif runner is not None:
                moved = max(moved, runner.tell(one.head))
            elif key not in self._stopping and not self._rests_now(key):
                self._runners[key] = Runner(self._tools, one)
                moved = max(moved, 1)
        self._rests = {key: rest for key, rest in self._rests.items() if key in by_key}
        self._tools.pages.forget({workspace_id for workspace_id, _ in by_key})
        return moved

    async def end(self, grace: float) -> None:
        """Stop every delivery, and return when all have ended."""
        for key in list(self._runners):
            self._stop(key, grace)
        await asyncio.gather(*self._stopping.values(), return_exceptions=True)

    def _collect(self) -> None:
        for key, runner in list(self._runners.items()):
            if not runner.ended:
                continue
            del self._runners[key]
            error = runner.error()
            if isinstance(error, LeaseLost):
                raise error
            if error is not None:
                self._rest(key, error)
            else:
                self._rests.pop(key, None)

    def _stop(self, key: _Key, grace: float | None = None) -> None:
        runner = self._runners.pop(key)
        stopping = asyncio.create_task(runner.stop(self._config.change_grace if grace is None else grace))
        self._stopping[key] = stopping
        stopping.add_done_callback(lambda _: self._stopping.pop(key, None))

    def _rests_now(self, key: _Key) -> bool:
        rest = self._rests.get(key)
        return rest is not None and rest.until > self._timer()

    def _rest(self, key: _Key, error: BaseException) -> None:
        """Leave a delivery alone for a while that raised: its store failed, or there is a bug."""
        earlier = self._rests.get(key)
        pause = self._back_off.after(earlier.pause if earlier else 0.0, 0.0)
        self._rests[key] = _Rest(pause, self._timer() + pause)
        log.warning("delivery_stopped", destination=key[1], error=type(error).__name__, again_in=pause, exc_info=error)
