"""The job that delivers: a delivery for each active destination, under one lease."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import structlog

from headgate_server.background.supervisor import BackOff
from headgate_server.background.wakeup import Wakeup
from headgate_server.core.destinations import Watched
from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import Lease
from headgate_server.core.types import WorkspaceId
from headgate_server.delivery.channel import ChannelConfig
from headgate_server.delivery.journal import Journal
from headgate_server.delivery.notifier import Notifier
from headgate_server.delivery.pages import Pages
from headgate_server.delivery.runner import Runner, SenderOf, Tools
from headgate_server.process.causes import Causes, told
from headgate_server.process.metrics import Metrics
from headgate_server.store import Deliveries, Ledgers, Matching

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing

log = structlog.get_logger(__name__)

NAME = "deliver"

_Key = tuple[WorkspaceId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The settings of the delivering process. Times are in seconds."""

    shortest_look: float = 0.02
    longest_look: float = 0.25
    """The time between two looks at the heads of the destinations' ledgers. It grows while no events come. Commits of
    the same process wake the job earlier.
    """
    look_share: float = 0.1
    """The largest share of time for looks. With thousands of destinations a look takes longer."""
    spacing: float = 0.01
    """The shortest time between two looks while few events come, so that an event is seen soon after its commit."""
    busy_events: int = 100
    busy_spacing: float = 0.1
    """The shortest time between two looks if at least `busy_events` came since the last one. A look then costs as much
    as storing some of them, and finds enough events for a page.
    """
    idle_spacing: float = 0.25
    """The same time if no delivery had a matching event of the last looks. It is the longest time that a commit of
    another process takes to be seen, too.
    """
    change_grace: float = 2.0
    """The time for a request in progress to end after its destination was changed, paused or removed."""
    stop_grace: float = 3.0
    """The same time at the end of the process. The lease is not renewed then, and has at least 5 s left. This time and
    the second for recording are less than the 5 s that a worker has after the grace of its calls.
    """
    measure_every: float = 5.0
    """The time between two measurements of the lags for the metrics."""
    channel: ChannelConfig = field(default_factory=ChannelConfig)


class Engine:
    """Delivers to all active destinations while it holds the lease. `Leased` runs it."""

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
        tracing: "Tracing | None" = None,
        back_off: BackOff | None = None,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._deliveries = deliveries
        self._ledgers = ledgers
        self._matching = matching
        self._sender_of = sender_of
        self._metrics = metrics
        self._wakeup = wakeup
        self._tracing = tracing
        self._config = config or EngineConfig()
        self._back_off = back_off or BackOff()
        self._timer = timer
        self._causes = Causes()

    async def __call__(self, lease: Lease) -> None:
        """Deliver until cancelled. Raises the store's errors, and `LeaseLost` if another process holds the lease."""
        config = self._config
        tools = Tools(
            deliveries=self._deliveries,
            ledgers=self._ledgers,
            pages=Pages(self._matching),
            journal=Journal(self._deliveries, lease),
            sender_of=self._sender_of,
            metrics=self._metrics,
            config=config.channel,
            tracing=self._tracing,
        )
        crew = _Crew(tools, config, self._back_off, self._timer)
        measuring = asyncio.create_task(self._measure())
        pause = config.shortest_look
        try:
            while True:
                began = self._timer()
                watched = await self._deliveries.watch()
                look = crew.take(watched)
                pause = config.shortest_look if look.new_events else min(pause * 2, config.longest_look)
                seconds = self._timer() - began
                await asyncio.sleep(max(self._spacing(look), seconds * (1 / config.look_share - 1)))
                if watched:
                    await self._wakeup.wait(pause)
                else:
                    await asyncio.sleep(config.longest_look)
        finally:
            measuring.cancel()
            await crew.end(config.stop_grace)
            self._metrics.destinations({})

    def _spacing(self, look: "_Look") -> float:
        config = self._config
        if look.new_events < config.busy_events:
            return config.spacing
        return config.busy_spacing if look.woken else config.idle_spacing

    async def _measure(self) -> None:
        """Set the metrics of the lags repeatedly, until cancelled. After any error it goes on: otherwise the metrics
        would show the last lags for ever, and the delivery itself does not need them.
        """
        while True:
            try:
                self._metrics.destinations(await self._deliveries.lags())
            except Exception as error:
                self._causes.tell("delivery_not_measured", error)
            await asyncio.sleep(self._config.measure_every)


class _Look(NamedTuple):
    """The result of a look at all destinations."""

    new_events: int
    """The largest number of new events of one ledger."""
    woken: bool
    """Whether a delivery was started, or woken for an event, since the look before."""


@dataclass(slots=True)
class _Pause:
    """The pause of a delivery after an error."""

    pause: float
    until: float


class _Crew:
    """The running deliveries."""

    def __init__(self, tools: Tools, config: EngineConfig, back_off: BackOff, timer: Callable[[], float]):
        self._tools = tools
        self._config = config
        self._back_off = back_off
        self._timer = timer
        self._runners: dict[_Key, Runner] = {}
        self._stopping: dict[_Key, asyncio.Task[None]] = {}
        self._pauses: dict[_Key, _Pause] = {}
        self._notifiers: dict[WorkspaceId, Notifier] = {}
        self._woken = False

    def take(self, watched: Sequence[Watched]) -> _Look:
        """Start deliveries to new destinations, stop those of changed or removed ones, and tell the others about new
        events. Raises `LeaseLost` if a delivery ended with it.
        """
        self._collect()
        by_key = {(one.workspace_id, one.destination_id): one for one in watched}
        new_events = 0
        grown: dict[WorkspaceId, list[Runner]] = defaultdict(list)
        for key in [key for key in self._runners if key not in by_key]:
            self._stop(key)
        for key, one in by_key.items():
            runner = self._runners.get(key)
            if runner is not None and runner.revision < one.revision:
                self._stop(key)
            elif runner is not None:
                if new := runner.tell(one.head):
                    new_events = max(new_events, new)
                    grown[one.workspace_id].append(runner)
            elif key not in self._stopping and not self._is_paused(key):
                self._runners[key] = Runner(self._tools, one)
                new_events = max(new_events, 1)
                self._woken = True
        self._tell(grown)
        self._pauses = {key: paused for key, paused in self._pauses.items() if key in by_key}
        self._forget({workspace_id for workspace_id, _ in by_key})
        woken, self._woken = self._woken, False
        return _Look(new_events, woken)

    def _has_woken(self) -> None:
        self._woken = True

    def _tell(self, grown: Mapping[WorkspaceId, Sequence[Runner]]) -> None:
        """Tell the deliveries of ledgers that have grown."""
        for workspace_id, runners in grown.items():
            notifier = self._notifiers.get(workspace_id)
            if notifier is None:
                notifier = self._notifiers[workspace_id] = Notifier(workspace_id, self._tools.pages, self._has_woken)
            notifier.tell(runners)

    def _forget(self, workspaces: set[WorkspaceId]) -> None:
        """Drop what is kept for all other workspaces."""
        self._tools.pages.forget(workspaces)
        for workspace_id in self._notifiers.keys() - workspaces:
            self._notifiers.pop(workspace_id).end()

    async def end(self, grace: float) -> None:
        """Stop all deliveries, and return when they have ended."""
        self._forget(set())
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
                self._pause(key, error)
            else:
                self._pauses.pop(key, None)

    def _stop(self, key: _Key, grace: float | None = None) -> None:
        runner = self._runners.pop(key)
        stopping = asyncio.create_task(runner.stop(self._config.change_grace if grace is None else grace))
        self._stopping[key] = stopping
        stopping.add_done_callback(lambda _: self._stopping.pop(key, None))

    def _is_paused(self, key: _Key) -> bool:
        paused = self._pauses.get(key)
        return paused is not None and paused.until > self._timer()

    def _pause(self, key: _Key, error: BaseException) -> None:
        """Pause a delivery that ended with an error, because the store failed or there is a bug."""
        earlier = self._pauses.get(key)
        pause = self._back_off.after(earlier.pause if earlier else 0.0, 0.0)
        self._pauses[key] = _Pause(pause, self._timer() + pause)
        log.warning("delivery_stopped", destination=key[1], again_in=pause, **told(error))
