"""Refused events on their way to the store: a bounded queue in memory, so that nothing waits for it and nothing fails.

An answer goes out as soon as its events are decided. What was refused is noted here in passing; a job of the process
(`background/rejections.py`) writes it. A flood is sampled, and what is left out is counted.
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
from headgate_server.core.rejections import Encoding, Rejection, kept_of, storable
from headgate_server.core.types import RejectionId, WorkspaceId
from headgate_server.process.clock import Clock, system_clock
from headgate_server.process.metrics import Metrics
from headgate_server.process.setting import setting

KEPT = frozenset({Status.REJECTED, Status.CONFLICT})
"""What is kept. An aborted event is valid: the event that failed its batch is kept."""


def _most_of(text: str) -> int:
    """Return a number of rejections, 0 for "off". Raises `ValueError`."""
    if text == "off":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise ValueError(f"{text!r} is no number of rejections: give a whole number up to 9999999, or 'off'")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionConfig:
    """How many refused events are kept, and how many wait in memory to be written."""

    most: int = setting(
        10_000,
        "rejections",
        "Refused events that are kept for each workspace, the newest; 'off': none.",
        metavar="N|off",
        read=_most_of,
    )
    """An operator looks at tens of them and mends some thousands; at 64 KiB each they take 640 MB at worst."""
    days: int = setting(7, "rejection-days", "Days for which refused events are kept.", least=1, most=3650)
    """A fault of Friday is still there on Monday. Refused events may hold personal data, so they do not stay longer."""
    burst: int = 2_000
    """Events of one workspace and reason that are kept whole when they come at once: two batches of the largest size.
    """
    per_second: float = 200.0
    """Events of one workspace and reason that are kept of a flood: enough to see it, and a small part of what a
    database stores in a second.
    """
    waiting: int = 5_000
    """Events that may wait to be written."""
    waiting_bytes: int = 16 * 1024 * 1024
    """Bytes of requests that are held for them: two bodies of the largest default size."""


class Origin(NamedTuple):
    """Whose request it was, and how it came."""

    workspace_id: WorkspaceId
    key_id: str
    request_id: str
    receiver: str
    endpoint: str
    encoding: Encoding


class Refused(NamedTuple):
    """The refused events of one request, as they wait to be written."""

    origin: Origin
    positions: Sequence[int]
    """In the request, increasing."""
    problems: Sequence[Problem]
    received_at: int
    randomness: bytes
    """8 bytes for the id of each, so that what is written twice has the same ids."""
    texts: Callable[[Sequence[int]], Sequence[bytes]]
    """Returns the events at these positions as they were sent."""
    held: int
    """Bytes that `texts` holds."""

    def rejections(self) -> Iterator[Rejection]:
        """Yield what is stored of it. Of a large body this takes some milliseconds."""
        origin = self.origin
        sent = self.texts(self.positions)
        for offset, (problem, event) in enumerate(zip(self.problems, sent, strict=True)):
            received_at = self.received_at + offset
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
                encoding=origin.encoding,
                size=len(event),
                replayed_at=None,
                event_id=None,
                event=kept_of(event, origin.encoding),
            )


class _Allowance:
    """How many more events may be kept now: it fills evenly, up to a burst."""

    __slots__ = ("at", "left")

    def __init__(self, left: float, at: float):
        self.left = left
        self.at = at

    def fill(self, now: float, config: RejectionConfig) -> bool:
        """Add what has come since; whether it is full."""
        self.left = min(float(config.burst), self.left + (now - self.at) * config.per_second)
        self.at = now
        return self.left >= config.burst


class RejectionQueue:
    """Refused events that wait to be written. Lives on one event loop; its bounds keep memory and disk small."""

    def __init__(
        self,
        config: RejectionConfig,
        metrics: Metrics,
        clock: Clock = system_clock,
        timer: Callable[[], float] = time.monotonic,
    ):
        self.config = config
        self.ready = asyncio.Event()
        """Set while something waits."""
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
        """Note what was refused of a request, as much of it as has room. `texts` and `held` are as in `Refused`."""
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
        """Take requests with about so many events and bytes, but at least one if any waits; and the numbers of events
        that were left out, by workspace.
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
        """Undo a `take`: nothing of it was written, or it is not known. Bounds are kept by what comes next."""
        for refused in reversed(taken):
            self._add(refused, self._waiting.appendleft)
        self._omitted.update(omitted)
        if self._waiting or self._omitted:
            self.ready.set()

    def lose(self, taken: Sequence[Refused]) -> None:
        """Count as left out what cannot be written."""
        for refused in taken:
            self._omit(refused.origin.workspace_id, len(refused.positions))

    @property
    def waiting(self) -> int:
        """How many events wait to be written."""
        return self._events

    def _sample(
        self, workspace_id: WorkspaceId, refused: Sequence[tuple[int, Problem]], held: int
    ) -> Sequence[tuple[int, Problem]]:
        """Return those that have room: the first ones, as far as the allowance of each reason goes."""
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
        """Drop allowances that are full: they would begin so."""
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
