"""The queue of buffered events: what is sent next, when, and what becomes of each event. Times are given to it.

One batch is under way at a time, so events arrive in the order in which they were emitted.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headgate_client.core.errors import HeadgateError, InvalidEvent, Problem, QueueFull, call_error
from headgate_client.core.model import Result
from headgate_client.core.retry import Retry, Verdict, is_open, verdict

OVERHEAD = 512
"""Bytes that an event takes beside its own, in memory: the objects around it."""

WHEN_FULL = ("raise", "block", "drop_oldest")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a batch is sent, and how much may wait."""

    max_size: int = 100
    """Events of one batch. More than some hundred gain nothing and make each event wait longer."""
    max_age: float = 5.0
    """Seconds that an event waits for others at most."""
    max_items: int = 10_000
    """Events that wait at most, those under way included: ten seconds without a server at 1,000 events a second."""
    max_bytes: int = 64 << 20
    """Bytes that wait at most: what a service can spare."""
    max_batch_bytes: int = 1 << 20
    """Bytes of one batch. One event may have more."""
    when_full: str = "raise"
    """`raise`: the caller learns it at once, which is the only one that loses nothing unseen."""

    def __post_init__(self) -> None:
        if self.when_full not in WHEN_FULL:
            raise ValueError(f"when_full is one of {', '.join(WHEN_FULL)}")
        if not (1 <= self.max_size <= 1_000):
            raise ValueError("max_size is 1 to 1,000")
        if self.max_items < self.max_size:
            raise ValueError("max_items is at least max_size")
        if not self.max_age >= 0:
            raise ValueError("max_age is not negative")
        if not 1 <= self.max_batch_bytes <= self.max_bytes:
            raise ValueError("max_batch_bytes is at least 1, and at most max_bytes")


class Item:
    """An event in the queue. `token` is whatever belongs to it outside; `row` is its place in the spool, 0 without."""

    __slots__ = ("at", "encoded", "key", "number", "row", "size", "token")

    def __init__(self, encoded: bytes, key: str, at: float, token: Any = None, row: int = 0):
        self.encoded = encoded
        self.size = size_of(encoded)
        """The bytes that count."""
        self.key = key
        self.at = at
        self.token = token
        self.row = row
        self.number = 0


def size_of(encoded: bytes) -> int:
    """Return the bytes that an event counts as."""
    return len(encoded) + OVERHEAD


class Settled(NamedTuple):
    """What became of an event for good."""

    item: Item
    outcome: Result | HeadgateError


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of a queue. `emitted` plus `recovered` is the sum of all counts up to `waiting`."""

    emitted: int
    recovered: int
    """Events that an earlier process left in the spool."""
    accepted: int
    duplicate: int
    conflict: int
    rejected: int
    failed: int
    """Events whose call was refused."""
    dropped: int
    left: int
    """Events that had no answer when the queue was closed."""
    waiting: int
    """Events in the queue and under way."""
    bytes: int
    """Bytes in the queue and under way."""
    calls: int
    retries: int
    """Calls that failed and were made again."""


class Queue:
    """Events from `put` to their outcome. Not safe for threads by itself."""

    def __init__(self, limits: Limits, retry: Retry, *, keep_denied: bool = False):
        """`keep_denied`: wait for a better key, where events can wait, in place of failing them."""
        self.limits = limits
        self._retry = retry
        self._keep_denied = keep_denied
        self._waiting: deque[Item] = deque()
        self._waiting_bytes = 0
        self._parts: deque[list[Item]] = deque()
        self._under_way: list[Item] = []
        self._present = 0
        """Events in memory: those that wait, in parts or not, and those under way."""
        self._bytes = 0
        self._absent = 0
        self._absent_bytes = 0
        self._reserved = 0
        self._reserved_bytes = 0
        self._last_number = 0
        self._urgent = 0
        self._retry_at = 0.0
        self._failures = 0
        self._counts: Counter[str] = Counter()
        self.closing = False
        self.last_problem: Problem | None = None

    # What is in it.

    def __len__(self) -> int:
        return self._present + self._absent

    @property
    def absent(self) -> int:
        """The number of events that are on disk only."""
        return self._absent

    @property
    def wants_more(self) -> bool:
        """Whether events that are on disk only should be loaded now."""
        return self._absent > 0 and len(self._waiting) < self.limits.max_size

    @property
    def bytes(self) -> int:
        """The bytes of all events, those on disk only included."""
        return self._bytes + self._absent_bytes

    def stats(self) -> Stats:
        """Return the counts."""
        counts = {name: self._counts[name] for name in Stats.__slots__ if name not in ("waiting", "bytes")}
        return Stats(**counts, waiting=len(self), bytes=self.bytes)

    def earliest(self) -> int:
        """Return the number of the first event without an outcome; one more than the last number if there is none."""
        for items in (self._under_way, *self._parts, self._waiting):
            if items:
                return items[0].number
        return self._last_number + 1 - self._absent

    def missing(self, last: int) -> int:
        """Return how many events up to this number have no outcome yet."""
        if self.earliest() > last:
            return 0
        present = (self._under_way, *self._parts, self._waiting)
        absent = max(0, last - (self._last_number - self._absent)) if self._absent else 0
        return sum(1 for items in present for item in items if item.number <= last) + absent

    # Into it.

    def check_size(self, size: int) -> None:
        """Raises `InvalidEvent` if an event of this size would never have room."""
        if size > self.limits.max_bytes:
            raise InvalidEvent(f"The event has {size:,} bytes, and the whole queue has {self.limits.max_bytes:,}.")

    def has_room(self, size: int) -> bool:
        """Whether an event of this size has room now."""
        events, used = len(self) + self._reserved, self.bytes + self._reserved_bytes
        return events < self.limits.max_items and used + size <= self.limits.max_bytes

    def reserve(self, size: int) -> None:
        """Keep room for an event of this size. Raises `QueueFull` if there is none."""
        self.check_room(size)
        self._reserved += 1
        self._reserved_bytes += size

    def unreserve(self, size: int) -> None:
        """Give back room that was kept."""
        self._reserved -= 1
        self._reserved_bytes -= size

    def make_room(self, size: int) -> list[Item]:
        """Remove the oldest events until there is room, and return them. Those under way stay."""
        removed = []
        while not self.has_room(size) and (self._parts or self._waiting):
            if self._parts:
                item = self._parts[0].pop(0)
                if not self._parts[0]:
                    self._parts.popleft()
            else:
                item = self._waiting.popleft()
                self._waiting_bytes -= item.size
            self._forget(item)
            self._counts["dropped"] += 1
            removed.append(item)
        return removed

    def _can_make_room(self, size: int) -> bool:
        stay = len(self._under_way) + self._absent + self._reserved
        bytes_that_stay = sum(item.size for item in self._under_way) + self._absent_bytes + self._reserved_bytes
        return stay < self.limits.max_items and bytes_that_stay + size <= self.limits.max_bytes

    def put(self, item: Item) -> None:
        """Take an event. Raises `QueueFull` if there is no room."""
        self.check_room(item.size)
        self._counts["emitted"] += 1
        self._append(item)

    def check_room(self, size: int, *, dropping: bool = False) -> None:
        """Raises `QueueFull` if an event of this size has no room now, or with `dropping`, if `make_room` cannot make
        it.
        """
        if not self.has_room(size) and not (dropping and self._can_make_room(size)):
            raise QueueFull(
                f"The queue is full: {len(self):,} events, {self.bytes:,} bytes. "
                f"It takes {self.limits.max_items:,} events and {self.limits.max_bytes:,} bytes."
            )

    def _append(self, item: Item) -> None:
        self._last_number += 1
        item.number = self._last_number
        self._add(item)

    def _add(self, item: Item) -> None:
        size = item.size
        self._present += 1
        self._bytes += size
        self._waiting_bytes += size
        self._waiting.append(item)

    def _forget(self, item: Item) -> None:
        self._present -= 1
        self._bytes -= item.size

    def put_absent(self, size: int) -> None:
        """Count an event that is on disk only, behind all others. Raises `QueueFull` if there is no room."""
        self.check_room(size)
        self._counts["emitted"] += 1
        self._last_number += 1
        self._absent += 1
        self._absent_bytes += size

    def recover(self, events: int, size: int) -> None:
        """Count events that an earlier process left on disk, before all others, even if there are too many."""
        self._counts["recovered"] += events
        self._last_number += events
        self._absent += events
        self._absent_bytes += size

    def load(self, items: Sequence[Item]) -> None:
        """Take events that were on disk only, in their order."""
        for item in items:
            item.number = self._last_number - self._absent + 1
            self._absent -= 1
            self._absent_bytes -= item.size
            self._add(item)

    # Out of it.

    def hurry(self) -> int:
        """Make every event of now due. Return the number of the last one."""
        self._urgent = self._last_number
        return self._urgent

    def close(self) -> None:
        """Make every event due, and end a wait for a retry."""
        self.closing = True
        self._retry_at = 0.0
        self._failures = 0

    def next(self, now: float) -> "list[Item] | float | None":
        """Return the batch to send now, which is then under way; or the seconds to wait; None: until a change."""
        if self._under_way:
            return None
        if not self._parts and not self._waiting:
            return None
        due = 0.0 if self._parts else self._due(now)
        wait = max(due, self._retry_at - now)
        if wait > 0:
            return wait
        self._under_way = self._parts.popleft() if self._parts else self._cut()
        self._counts["calls"] += 1
        return self._under_way

    def has_news(self) -> bool:
        """Whether a sender that waits must look: for the first event of a batch, and when the batch is full."""
        few = len(self._waiting) <= 1 or self.closing or self._absent > 0
        return few or len(self._waiting) == self.limits.max_size or self._waiting_bytes >= self.limits.max_batch_bytes

    def _due(self, now: float) -> float:
        """Return the seconds until the next batch is due."""
        first = self._waiting[0]
        full = len(self._waiting) >= self.limits.max_size or self._waiting_bytes >= self.limits.max_batch_bytes
        if full or self.closing or first.number <= self._urgent:
            return 0.0
        return max(0.0, first.at + self.limits.max_age - now)

    def _cut(self) -> list[Item]:
        batch: list[Item] = []
        size = 0
        while self._waiting and len(batch) < self.limits.max_size:
            size += self._waiting[0].size
            if batch and size > self.limits.max_batch_bytes:
                break
            item = self._waiting.popleft()
            self._waiting_bytes -= item.size
            batch.append(item)
        return batch

    def answered(self, results: Sequence[Result], now: float) -> list[Settled]:
        """Take the answer to the batch under way. Events that can be retried are sent again, before all others."""
        batch, self._under_way = self._under_way, []
        self._failures = 0
        self.last_problem = None
        settled = []
        again = []
        for item, result in zip(batch, results, strict=True):
            if is_open(result):
                again.append(item)
            else:
                self._counts[_count_of(result)] += 1
                settled.append(self._settle(item, result))
        if again:
            self._again(again, None, now)
        return settled

    def failed(self, problem: Problem, now: float) -> list[Settled]:
        """Take the failure of the batch under way: it is sent again, or divided, or refused."""
        batch, self._under_way = self._under_way, []
        if problem.interrupted:
            self._parts.appendleft(batch)
            return []
        self.last_problem = problem
        asks = verdict(problem)
        if asks is Verdict.AGAIN or (asks is Verdict.DENIED and self._keep_denied):
            self._again(batch, problem.retry_after, now)
            return []
        if asks is Verdict.DIVIDE and len(batch) > 1:
            half = len(batch) // 2
            self._parts.extendleft((batch[half:], batch[:half]))
            return []
        self._counts["failed"] += len(batch)
        return [self._settle(item, call_error(problem)) for item in batch]

    def interrupt(self) -> None:
        """Take back the batch under way, if there is one, to send it again: nobody waits for its answer any more."""
        if self._under_way:
            self._parts.appendleft(self._under_way)
            self._under_way = []

    def _again(self, batch: list[Item], floor: float | None, now: float) -> None:
        self._failures += 1
        self._counts["retries"] += 1
        self._retry_at = now + self._retry.delay(self._failures, floor)
        self._parts.appendleft(batch)

    def _settle(self, item: Item, outcome: Result | HeadgateError) -> Settled:
        self._forget(item)
        return Settled(item, outcome)

    def retry_in(self, now: float) -> float:
        """Return the seconds until a retry may be made. 0: there is nothing to wait for."""
        return max(0.0, self._retry_at - now)

    def take_left(self) -> list[Item]:
        """Remove all events, those under way first, and return them: nobody sends them any more."""
        left = [*self._under_way, *(item for part in self._parts for item in part), *self._waiting]
        self._counts["left"] += len(left) + self._absent
        self._under_way = []
        self._parts.clear()
        self._waiting.clear()
        self._present = self._bytes = self._waiting_bytes = self._absent = self._absent_bytes = 0
        return left


def _count_of(result: Result) -> str:
    known = ("accepted", "duplicate", "conflict", "rejected")
    return result.status if result.status in known else "failed"
