"""What to do about a call that failed: the verdict, and how long to wait."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from headgate_client.core.errors import Problem
from headgate_client.core.model import ABORTED, ACCEPTED, CONFLICT, DUPLICATE, REJECTED, Result


class Verdict(Enum):
    """What a failed call asks for."""

    AGAIN = auto()
    """Make it again later: it may succeed unchanged."""
    DIVIDE = auto()
    """Send its events in smaller batches; a single event is refused for good."""
    DENIED = auto()
    """No event of this client gets through: the key or the address is wrong."""


_AGAIN = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED"})
_DENIED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND"})
_BROKEN = frozenset({"INTERNAL", "UNKNOWN"})
"""gRPC itself says these when a connection or a proxy fails. From the service they are a bug."""
_TOO_LARGE = frozenset({"BODY_TOO_LARGE", "HEADERS_TOO_LARGE"})


def verdict(problem: Problem) -> Verdict:
    """Return what a failed call asks for."""
    if problem.code == "RESOURCE_EXHAUSTED" and _is_too_large(problem):
        return Verdict.DIVIDE
    if problem.interrupted or problem.code in _AGAIN or (problem.code in _BROKEN and not problem.reason):
        return Verdict.AGAIN
    return Verdict.DENIED if problem.code in _DENIED else Verdict.DIVIDE


def _is_too_large(problem: Problem) -> bool:
    """gRPC itself refuses a message that is larger than a limit of its own, with no reason."""
    return problem.reason in _TOO_LARGE or (not problem.reason and "larger than max" in problem.message)


def is_open(result: Result) -> bool:
    """Whether the event of this result is sent again.

    Never one that is `rejected` or in `conflict`: the service keeps it, and an operator can replay it from there.
    """
    if result.status in (ACCEPTED, DUPLICATE, CONFLICT, REJECTED):
        return False
    return result.status == ABORTED or (result.error is not None and result.error.retryable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How long a client waits between two attempts: full jitter, above what the service asks for."""

    first: float = 0.1
    """Seconds. The most before the second attempt; it doubles with each further one."""
    most: float = 30.0
    """Seconds. The doubling ends here. A server that comes back is found within half of it on average."""
    longest_floor: float = 300.0
    """Seconds. A service that asks for a longer wait is asked again after this time: its answer may have changed."""

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.most:
            raise ValueError("first is above 0 and at most `most`")
        if self.longest_floor < 0:
            raise ValueError("longest_floor is not negative")

    def delay(
        self, failures: int, floor: float | None, draw: Callable[[float, float], float] = random.uniform
    ) -> float:
        """Return the seconds to wait after so many failures in a row, 1 at least.

        The jitter comes on top of the floor, so that clients that were refused together do not come back together.
        """
        most = min(self.most, self.first * 2.0 ** min(failures - 1, 60))
        return min(floor or 0.0, self.longest_floor) + draw(0.0, most)
