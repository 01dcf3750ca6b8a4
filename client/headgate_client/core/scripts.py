"""Every method of a client, once for all shells: generators that say which call to make and how long to wait.

A shell makes what a script yields, and sends the answer into it: a message, or the `Problem` of a call that failed.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import NAMESPACE_URL, uuid5

from google.protobuf.message import Message

from headgate.v1 import event_service_pb2, ingest_service_pb2, ledger_service_pb2
from headgate_client.core.errors import (
    EventConflict,
    EventRejected,
    PartialFailure,
    Problem,
    call_error,
)
from headgate_client.core.events import EventLike, Prepared, new_key, prepare
from headgate_client.core.model import CONFLICT, Head, Page, Result, StoredEvent, Verification
from headgate_client.core.requests import (
    at,
    batch_request,
    head_of,
    page_of,
    results_of,
    stored_event,
    unanswered,
    verification_of,
)
from headgate_client.core.retry import Retry, Verdict, is_open, verdict

MOST_EVENTS = 1_000
"""Events of one call: the service's default limit."""
MOST_BYTES = 4 << 20
"""Bytes of one call: half of the service's default limit, so that a proxy's smaller one has room."""
_CHECKED_AT_ONCE = 10_000
"""Events that one call of a verification checks: a fraction of a second's work, so that a busy service ends it within
an attempt. A call that is too long for one attempt is too long for the next one too.
"""

BATCH_INGEST = "/headgate.v1.IngestService/BatchIngest"


class Call(NamedTuple):
    """Make this call, and send its answer."""

    method: str
    request: bytes
    answer: type[Message]
    timeout: float
    metadata: tuple[tuple[str, str], ...] = ()


class Wait(NamedTuple):
    """Wait so many seconds, and send None."""

    seconds: float


T = TypeVar("T")
Script = Generator[Call | Wait, Any, T]


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a method may take."""

    timeout: float = 30.0
    """Seconds for a method with all its retries. A caller that answers a request of its own cannot wait longer."""
    attempt_timeout: float = 10.0
    """Seconds for one attempt. A server that hangs is left after this time."""
    retry: Retry = field(default_factory=Retry)

    def __post_init__(self) -> None:
        if not (self.timeout > 0 and self.attempt_timeout > 0):
            raise ValueError("timeout and attempt_timeout are above 0")

    def within(self, timeout: float) -> "Times":
        """Return the same with another timeout."""
        return replace(self, timeout=timeout)


class Budget:
    """The time that is left for a method, and its attempts in a row that failed."""

    def __init__(self, times: Times, now: Callable[[], float]):
        self._times = times
        self._now = now
        self._end = now() + times.timeout
        self._failures = 0

    def attempt(self) -> float:
        """Return the seconds that the next attempt may take."""
        return max(0.001, min(self._times.attempt_timeout, self._end - self._now()))

    def pause(self, floor: float | None = None) -> Wait | None:
        """Return the wait before the next attempt; None if no time is left for it."""
        self._failures += 1
        delay = self._times.retry.delay(self._failures, floor)
        return Wait(delay) if self._now() + delay < self._end else None

    def start_over(self) -> None:
        """Count failures from 0 again: an attempt had an answer."""
        self._failures = 0


def asked(
    budget: Budget, method: str, request: bytes, answer: type[Message], metadata: tuple[tuple[str, str], ...] = ()
) -> Script[Any]:
    """Make a call until it has an answer, a retry cannot help, or the time is over. Return the answer or problem."""
    while True:
        said = yield Call(method, request, answer, budget.attempt(), metadata)
        if not isinstance(said, Problem) or verdict(said) is not Verdict.AGAIN:
            return said
        if said.interrupted:
            continue
        pause = budget.pause(said.retry_after)
        if pause is None:
            return said
        yield pause


def prepared(events: Iterable[EventLike], request_key: str | None = None) -> list[Prepared]:
    """Return the events of a batch as they are sent. Under a request key their keys follow from it, so that a process
    that repeats the request sends the same bytes.
    """
    made = []
    for index, event in enumerate(events):
        key = new_key if request_key is None else partial(_key_of, request_key, index)
        made.append(prepare(event, key, index))
    return made


def _key_of(request_key: str, index: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"{request_key}/{index}"))


class Outcome(NamedTuple):
    """What became of a batch: a result for each event, and why the call failed, if it did."""

    results: list[Result]
    problem: Problem | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a batch is stored."""

    atomic: bool = False
    validate_only: bool = False
    request_key: str | None = None

    @property
    def whole(self) -> bool:
        """Whether the batch is one request, which is repeated as it is or not at all."""
        return self.atomic or self.request_key is not None


def ingest(budget: Budget, batch: Sequence[Prepared], options: Options) -> Script[Outcome]:
    """Store a batch of any size. Events that were `aborted` or can be retried are sent again until the time is over."""
    found: dict[int, Result] = {}
    chunks = deque([list(range(len(batch)))] if options.whole else _chunks(batch))
    while chunks:
        chunk = chunks.popleft()
        answer = yield from _send(budget, [batch[place] for place in chunk], options)
        if isinstance(answer, Problem):
            if not options.whole and len(chunk) > 1 and answer.reason in _TOO_MUCH:
                half = len(chunk) // 2
                chunks.extendleft((chunk[half:], chunk[:half]))
                continue
            missing = [at(place, found[place]) if place in found else None for place in range(len(batch))]
            return Outcome(
                [result or unanswered(batch[place].key, place, answer) for place, result in enumerate(missing)], answer
            )
        budget.start_over()
        found.update(zip(chunk, answer, strict=True))
        again = _again(chunk, found, options)
        if again and (pause := budget.pause()) is not None:
            yield pause
            chunks.appendleft(again)
    return Outcome([at(place, found[place]) for place in range(len(batch))], None)


_TOO_MUCH = frozenset({"TOO_MANY_EVENTS", "BODY_TOO_LARGE"})


def _again(chunk: list[int], found: dict[int, Result], options: Options) -> list[int]:
    """Return the places that are sent again. An atomic batch with an event that is refused for good never succeeds."""
    if options.request_key is not None or options.validate_only:
        return []
    again = [place for place in chunk if is_open(found[place])]
    if not options.atomic:
        return again
    hopeless = any(not found[place].stored and not is_open(found[place]) for place in chunk)
    return chunk if again and not hopeless else []


def _chunks(batch: Sequence[Prepared]) -> list[list[int]]:
    chunks: list[list[int]] = []
    size = 0
    for place, event in enumerate(batch):
        size += len(event.encoded)
        if not chunks or len(chunks[-1]) >= MOST_EVENTS or size > MOST_BYTES:
            chunks.append([])
            size = len(event.encoded)
        chunks[-1].append(place)
    return chunks


def _send(budget: Budget, events: Sequence[Prepared], options: Options) -> Script[list[Result] | Problem]:
    request = batch_request(
        (event.encoded for event in events), atomic=options.atomic, validate_only=options.validate_only
    )
    metadata = () if options.request_key is None else (("idempotency-key", options.request_key),)
    answer = yield from asked(budget, BATCH_INGEST, request, ingest_service_pb2.BatchIngestResponse, metadata)
    if isinstance(answer, Problem):
        return answer
    try:
        return results_of(answer, [event.key for event in events])
    except ValueError as error:
        return Problem("INTERNAL", str(error))


def single(outcome: Outcome, batch: Sequence[Prepared]) -> Result:
    """Return the result of a batch of one event. Raises what its event asks for."""
    if outcome.problem is not None:
        raise call_error(outcome.problem, [event.event() for event in batch])
    return stored_or_raise(outcome.results[0])


def stored_or_raise(result: Result) -> Result:
    """Return the result of a stored event. Raises `EventConflict` or `EventRejected` for another one."""
    if error := error_of(result):
        raise error
    return result


def error_of(result: Result) -> EventRejected | None:
    """Return the error of an event that is not stored; None for one that is."""
    if result.stored:
        return None
    return EventConflict(result) if result.status == CONFLICT else EventRejected(result)


def many(outcome: Outcome, batch: Sequence[Prepared], *, raise_partial: bool) -> list[Result]:
    """Return the results of a batch. Raises `PartialFailure`, or the call's error if no event has an answer."""
    results, problem = outcome
    if problem is not None and all(result.status == "unanswered" for result in results):
        raise call_error(problem, [event.event() for event in batch])
    if raise_partial and not all(result.stored for result in results):
        raise PartialFailure(results) from (None if problem is None else call_error(problem))
    return results


def get(budget: Budget, id: str, view: str) -> Script[StoredEvent]:  # noqa: A002 - the field's name
    """Read one event."""
    request = event_service_pb2.GetEventRequest(id=id, view=view)
    answer = yield from _read(budget, "EventService/GetEvent", request, event_service_pb2.GetEventResponse)
    return stored_event(answer.event)


def page(budget: Budget, request: event_service_pb2.ListEventsRequest, token: str) -> Script[Page]:
    """Read the page of a list that a token names."""
    # Several threads may read pages of one list.
    this = event_service_pb2.ListEventsRequest()
    this.CopyFrom(request)
    this.page_token = token
    answer = yield from _read(budget, "EventService/ListEvents", this, event_service_pb2.ListEventsResponse)
    return page_of(answer)


def head(budget: Budget) -> Script[Head]:
    """Read the ledger's head."""
    answer = yield from _read(
        budget, "LedgerService/GetHead", ledger_service_pb2.GetHeadRequest(), ledger_service_pb2.GetHeadResponse
    )
    return head_of(answer)


def verify(make: Callable[[], Budget], request: ledger_service_pb2.VerifyLedgerRequest) -> Script[Verification]:
    """Check the ledger to the end of the range, with the whole time for each page."""
    answers: list[ledger_service_pb2.VerifyLedgerResponse] = []
    request.limit = _CHECKED_AT_ONCE
    while not answers or answers[-1].next_page_token:
        request.page_token = answers[-1].next_page_token if answers else ""
        answer = yield from _read(
            make(), "LedgerService/VerifyLedger", request, ledger_service_pb2.VerifyLedgerResponse
        )
        answers.append(answer)
    return verification_of(answers)


def _read(budget: Budget, method: str, request: Message, answer: type[Message]) -> Script[Any]:
    said = yield from asked(budget, f"/headgate.v1.{method}", request.SerializeToString(), answer)
    if isinstance(said, Problem):
        raise call_error(said)
    return said
