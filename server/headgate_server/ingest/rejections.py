"""The queue of refused events that wait to be written to the store. It is bounded and in memory, so that no call waits
for it or fails because of it.

An answer is sent as soon as its events are decided. Refused events are added to this queue, and a job of the process
(`background/rejections.py`) writes them. Of a flood only a sample is kept, and the rest is counted.
"""

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headgate_server.core import ledger
from headgate_server.core.model import Outcome, Problem, Status
from headgate_server.core.rejections import Encoding, Rejection, encoding_of, kept_of, storable
from headgate_server.core.types import RejectionId, WorkspaceId
from headgate_server.process.clock import Clock, system_clock
from headgate_server.process.metrics import Metrics
from headgate_server.process.setting import setting

KEPT = frozenset({Status.REJECTED, Status.CONFLICT})
"""The kept statuses. An aborted event is valid, so it is not kept; the event that failed its batch is."""


def _most_of(text: str) -> int:
    """Return a number of rejections, 0 for "off". Raises `ValueError`."""
    if text == "off":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise ValueError(f"{text!r} is not a number of rejections: give a whole number up to 9999999, or 'off'")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionConfig:
    """The bounds of refused events that are kept, and of those that wait in memory to be written."""

    most: int = setting(
        10_000,
        "rejections",
        "The newest refused events of each workspace that are kept. 'off' keeps none.",
        metavar="N|off",
        read=_most_of,
    )
    """An operator looks at tens of them and repairs some thousands. At 64 KiB each they need at most 640 MB."""
    days: int = setting(7, "rejection-days", "Days for which refused events are kept.", least=1, most=3650)
    """Refused events of a Friday are still kept on Monday. They may contain personal data, so they are not kept longer.
    """
    burst: int = 2_000
    """The most events of one workspace and reason that are kept at once: two batches of the largest size."""
    per_second: float = 200.0
    """The most events of one workspace and reason that are kept in each second of a flood: enough to see it, and a
    small part of what a database stores in a second.
    """
    waiting: int = 5_000
    """The most events that wait to be written."""
    waiting_bytes: int = 16 * 1024 * 1024
    """The most bytes of requests that are held for them: two bodies of the largest default size."""


class Origin(NamedTuple):
    """The sender of a request, and the API and encoding that it used."""

    workspace_id: WorkspaceId
    key_id: str
    request_id: str
    receiver: str
    endpoint: str
    encoding: Encoding


class Refused(NamedTuple):
    """The refused events of one request that wait to be written."""

    origin: Origin
    positions: Sequence[int]
    """Their positions in the request, increasing."""
    problems: Sequence[Problem]
    received_at: int
    randomness: bytes
    """8 bytes for the id of each event, so that a repeated write has the same ids."""
    texts: Callable[[Sequence[int]], Sequence[bytes]]
    """Returns the events at these positions as they were sent."""
    held: int
    """The bytes that `texts` keeps in memory."""

    def rejections(self) -> Iterator[Rejection]:
        """Yield the rejections to store. For a large body this takes some milliseconds."""
        origin = self.origin
        sent = self.texts(self.positions)
        for offset, (problem, event) in enumerate(zip(self.problems, sent, strict=True)):
            received_at = self.received_at + offset
            encoding = encoding_of(event, origin.encoding)
            yield Rejection(
                workspace_id=origin.workspace_id,
                id=RejectionId(ledger.event_id(received_at, self.randomness[8 * offset : 8 * offset + 8])),
                received_at=received_at,
                reason=problem.reason,
                field=storable(problem.field),
                message=storable(problem.message),
                receiver=origin.receiver,
                endpoint=origin.endpoint,
                key_id=origin.key_id,
                request_id=origin.request_id,
                encoding=encoding,
                size=len(event),
                replayed_at=None,
                event_id=None,
                event=kept_of(event, encoding),
            )


class _Allowance:
    """A token bucket: the number of events that may be kept now. It fills evenly, up to a burst."""

    __slots__ = ("at", "left")

    def __init__(self, left: float, at: float):
        self.left = left
        self.at = at

    def fill(self, now: float, config: RejectionConfig) -> bool:
        """Add the tokens since the last call. Return whether the bucket is full."""
        self.left = min(float(config.burst), self.left + (now - self.at) * config.per_second)
        self.at = now
        return self.left >= config.burst


class RejectionQueue:
    """Refused events that wait to be written, bounded to save memory and disk. Used on one event loop only."""

    def __init__(
        self,
        config: RejectionConfig,
        metrics: Metrics,
        clock: Clock = system_clock,
        timer: Callable[[], float] = time.monotonic,
    ):
        self.config = config
        self.ready = asyncio.Event()
        """Set while refused events or counts wait."""
        self._metrics = metrics
        self._clock = clock
        self._timer = timer
        self._waiting: deque[Refused] = deque()
        self._events = 0
        self._bytes = 0
        self._omitted: Counter[WorkspaceId] = Counter()
        self._allowances: dict[tuple[WorkspaceId, str], _Allowance] = {}

    def note(
        self, origin: Origin, outcomes: Sequence[Outcome], texts: Callable[[Sequence[int]], Sequence[bytes]], held: int
    ) -> None:
        """Add the refused events of a request that the bounds allow. `texts` and `held` are as in `Refused`."""
        if not self.config.most:
            return
        refused = [
            (position, outcome.problem)
            for position, outcome in enumerate(outcomes)
            if outcome.status in KEPT and outcome.problem is not None
        ]
        kept = self._sample(origin.workspace_id, refused, held)
        self._omit(origin.workspace_id, len(refused) - len(kept))
        if kept:
            positions, problems = zip(*kept, strict=True)
            randomness = os.urandom(8 * len(kept))
            self._add(
                Refused(origin, positions, problems, self._clock(), randomness, texts, held), self._waiting.append
            )
        if refused:
            self.ready.set()

    def take(self, events: int, size: int) -> tuple[list[Refused], Mapping[WorkspaceId, int]]:
        """Remove requests with about so many events and bytes, at least one if any waits. Return them, and for each
        workspace the number of events that were left out.
        """
        taken: list[Refused] = []
        while self._waiting and events > 0 and size > 0:
            refused = self._waiting.popleft()
            self._events -= len(refused.positions)
            self._bytes -= refused.held
            events -= len(refused.positions)
            size -= refused.held
            taken.append(refused)
        omitted, self._omitted = self._omitted, Counter()
        if not self._waiting:
            self.ready.clear()
            self._forget_full()
        return taken, omitted

    def put_back(self, taken: Sequence[Refused], omitted: Mapping[WorkspaceId, int]) -> None:
        """Undo a `take`, because the write failed or its outcome is unknown. The bounds apply to later events only."""
        for refused in reversed(taken):
            self._add(refused, self._waiting.appendleft)
        self._omitted.update(omitted)
        if self._waiting or self._omitted:
            self.ready.set()

    def lose(self, workspace_id: WorkspaceId, number: int) -> None:
        """Count events that cannot be written as left out."""
        self._omit(workspace_id, number)
        self.ready.set()

    @property
    def waiting(self) -> int:
        """The number of events that wait to be written."""
        return self._events

    def _sample(
        self, workspace_id: WorkspaceId, refused: Sequence[tuple[int, Problem]], held: int
    ) -> Sequence[tuple[int, Problem]]:
        """Return the events that the bounds allow: the first ones, up to the allowance of each reason."""
        if self._bytes and self._bytes + held > self.config.waiting_bytes:
            return ()
        room = self.config.waiting - self._events
        now = self._timer()
        allowances: dict[str, _Allowance] = {}
        kept: list[tuple[int, Problem]] = []
        for position, problem in refused:
            if len(kept) >= room:
                break
            allowance = allowances.get(problem.reason)
            if allowance is None:
                allowance = allowances[problem.reason] = self._allowance(workspace_id, problem.reason, now)
            if allowance.left >= 1:
                allowance.left -= 1
                kept.append((position, problem))
        return kept

    def _allowance(self, workspace_id: WorkspaceId, reason: str, now: float) -> _Allowance:
        allowance = self._allowances.get((workspace_id, reason))
        if allowance is None:
            allowance = self._allowances[workspace_id, reason] = _Allowance(self.config.burst, now)
        allowance.fill(now, self.config)
        return allowance

    def _forget_full(self) -> None:
        """Drop full allowances, because a new one is full as well."""
        now = self._timer()
        full = [key for key, allowance in self._allowances.items() if allowance.fill(now, self.config)]
        for key in full:
            del self._allowances[key]

    def _add(self, refused: Refused, put: Callable[[Refused], None]) -> None:
        put(refused)
        self._events += len(refused.positions)
        self._bytes += refused.held

    def _omit(self, workspace_id: WorkspaceId, number: int) -> None:
        if number:
            self._omitted[workspace_id] += number
            self._metrics.rejections_omitted(number)
