"""headgate.v1.IngestService/StreamIngest: requests without waiting for answers, answers in their order."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, cast

import structlog

from headgate.v1.bridge_view_pb2 import RawStreamIngestRequest
from headgate.v1.ingest_service_pb2 import StreamIngestError, StreamIngestResponse
from headgate_server.core.errors import HeadgateError, InvalidRequest, Unavailable
from headgate_server.core.model import NATIVE, Draft, Outcome, Problem, Submission
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding
from headgate_server.ingest.ingest import Ingest
from headgate_server.rpc import decode, status, wire
from headgate_server.rpc.pipeline.call import REQUEST_KEY, Call
from headgate_server.rpc.taking import Sent, Taking, written

log = structlog.get_logger(__name__)

_IDLE_SECONDS = 240.0
"""Without a request for this time a stream ends. The bridge ends it without a word after five minutes."""
LARGEST_REQUEST = 1024 * 1024
"""Bytes. A stream gains from small requests; a large one can be a batch of its own."""
_MOST_BYTES = 1024 * 1024
_MOST_REQUESTS = 256
"""A stream with so many bytes or requests that are not answered is read no further. A request is as large as it is."""
_MOST_RESULTS = 1_000
"""Answers are joined up to so many results."""
_MOST_ID = 255

_Answer = Sequence[Outcome] | HeadgateError


class _Asked(NamedTuple):
    """A request that is not answered yet."""

    id: str
    size: int
    answer: "asyncio.Future[_Answer]"


class IngestStream:
    """Stores the events of streams."""

    def __init__(self, ingest: Ingest, max_events: int, taking: Taking):
        self._ingest = ingest
        self._max_events = max_events
        self._taking = taking

    async def __call__(
        self, call: Call, requests: AsyncIterator[RawStreamIngestRequest]
    ) -> AsyncGenerator[StreamIngestResponse, None]:
        """Yield the answers. When it must end, it answers first what it has read."""
        if call.text(REQUEST_KEY) is not None:
            raise InvalidRequest(
                "A stream has no Idempotency-Key; its events have keys of their own.",
                reason=Reason.INVALID_IDEMPOTENCY_KEY,
            )
        await call.begin()
        # A Counter adds up what each request reports to the log.
        counted = replace(call, log=cast("dict[str, object]", Counter()), reply_metadata=[])
        unanswered = _Unanswered()
        reading = asyncio.create_task(self._read(counted, requests, unanswered))
        assert call.ended is not None  # noqa: S101 - the pipeline sets it for a lasting stream
        try:
            while asked := await unanswered.next():
                for response in _responses(asked):
                    yield response
            await asyncio.wait((reading,))
            if call.ended.done():
                raise call.ended.result()
            reading.result()
        finally:
            call.log.update(counted.log)
            reading.cancel()
            unanswered.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self, call: Call, requests: AsyncIterator[RawStreamIngestRequest], unanswered: "_Unanswered"
    ) -> None:
        """Read requests, and begin to store each, until the caller has no more. Raises what reading one raises.

        The end of the stream interrupts only the wait for a request. What was read is stored.
        """
        assert call.ended is not None  # noqa: S101 - the pipeline sets it for a lasting stream
        patience = _Patience(_IDLE_SECONDS)
        call.ended.add_done_callback(patience.interrupt)
        try:
            while True:
                await unanswered.room()
                if call.ended.done():
                    return
                request = await patience.wait(requests)
                if request is None:
                    return
                unanswered.add(await self._begun(call, request))
        finally:
            patience.close()
            unanswered.close()

    async def _begun(self, call: Call, request: RawStreamIngestRequest) -> _Asked:
        """Begin to store a request's events. Decoding is part of it, so that requests are stored in their order."""
        size = request.ByteSize()
        answer: asyncio.Future[_Answer]
        try:
            slots = await self._decoded(call, request, size)
            answer = asyncio.ensure_future(self._stored(call, request, size, slots))
        except HeadgateError as error:
            answer = asyncio.get_running_loop().create_future()
            answer.set_result(error.with_traceback(None))
        return _Asked(request.id[:_MOST_ID], size, answer)

    async def _decoded(self, call: Call, request: RawStreamIngestRequest, size: int) -> Sequence[Draft | Problem]:
        if len(request.id.encode()) > _MOST_ID:
            raise InvalidRequest(f"A request's id has at most {_MOST_ID} bytes.", reason=Reason.TOO_LONG, field="id")
        decode.check_count(len(request.events), self._max_events)
        self._ingest.check_room(call.caller.workspace.id, len(request.events), size)
        await self._taking.admit(call, len(request.events))
        return await self._ingest.decoded(size, partial(decode.events, request.events, self._max_events))

    async def _stored(
        self, call: Call, request: RawStreamIngestRequest, size: int, slots: Sequence[Draft | Problem]
    ) -> _Answer:
        submission = Submission(workspace_id=call.caller.workspace.id, slots=slots, atomic=False, answer=None)
        sent = Sent(NATIVE, Encoding.PROTOBUF, lambda places: [request.events[place] for place in places], size)
        try:
            outcomes = await self._taking(call, submission, sent, validate_only=False)
        except HeadgateError as error:
            return error.with_traceback(None)
        except Exception as error:
            log.error("request_of_stream_failed", request_id=call.request_id, exc_info=error)
            return status.bug(call.request_id)
        assert isinstance(outcomes, Sequence)  # noqa: S101 - without a request key nothing is replayed
        return outcomes


class _Patience:
    """Waits for a stream's requests in its task, each for a bounded time. It has one timer for all of them: a timer for
    each would take longer than to read one.
    """

    def __init__(self, seconds: float):
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is used in coroutines
        self._task = task
        self._seconds = seconds
        self._clock = asyncio.get_running_loop()
        self._since: float | None = None
        """When the wait for a request began; None: there is none now."""
        self._interrupted = False
        self._timer = self._clock.call_later(seconds, self._check)

    async def wait(self, requests: AsyncIterator[RawStreamIngestRequest]) -> RawStreamIngestRequest | None:
        """Return the next request; None if there are no more, or if the wait was interrupted or took too long."""
        self._since = self._clock.time()
        try:
            return await anext(requests, None)
        except asyncio.CancelledError:
            # Another one may have cancelled the task too: then it is cancelled.
            if self._interrupted and self._task.uncancel() == 0:
                return None
            raise
        finally:
            self._since = None

    def interrupt(self, _: object = None) -> None:
        """End the wait for a request. Do nothing if there is none."""
        if self._since is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _check(self) -> None:
        now = self._clock.time()
        waited = 0.0 if self._since is None else now - self._since
        if waited >= self._seconds:
            self.interrupt()
        else:
            self._timer = self._clock.call_later(self._seconds - waited, self._check)


class _Unanswered:
    """The requests of a stream that are not answered yet, in their order."""

    def __init__(self) -> None:
        self._asked: deque[_Asked] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def room(self) -> None:
        """Return when another request may be read."""
        await self._has_room.wait()

    def add(self, asked: _Asked) -> None:
        """Add the newest request."""
        self._asked.append(asked)
        self._bytes += asked.size
        self._count()
        self._changed.set()

    def close(self) -> None:
        """Say that there are no more requests."""
        self._closed = True
        self._changed.set()

    async def next(self) -> Sequence[_Asked]:
        """Return the oldest requests that have an answer, at least one; none if there are no more requests."""
        while not self._asked:
            if self._closed:
                return ()
            self._changed.clear()
            await self._changed.wait()
        await asyncio.wait((self._asked[0].answer,))
        done: list[_Asked] = []
        while self._asked and self._asked[0].answer.done():
            asked = self._asked.popleft()
            self._bytes -= asked.size
            done.append(asked)
        self._count()
        return done

    def cancel(self) -> None:
        """Give up the requests that are left: the caller is gone."""
        for asked in self._asked:
            asked.answer.cancel()

    def _count(self) -> None:
        if self._bytes >= _MOST_BYTES or len(self._asked) >= _MOST_REQUESTS:
            self._has_room.clear()
        else:
            self._has_room.set()


def _responses(asked: Sequence[_Asked]) -> Iterator[StreamIngestResponse]:
    """Yield the answers to requests. Results of several are joined; an error has a response of its own."""
    response = StreamIngestResponse()
    for one in asked:
        answer = one.answer.result()
        if response.requests and (isinstance(answer, HeadgateError) or len(response.results) >= _MOST_RESULTS):
            yield response
            response = StreamIngestResponse()
        response.id = one.id
        response.requests += 1
        if isinstance(answer, HeadgateError):
            response.error.CopyFrom(_error(answer))
            yield response
            response = StreamIngestResponse()
        else:
            written(partial(wire.add_results, response), answer)
    if response.requests:
        yield response


def _error(error: HeadgateError) -> StreamIngestError:
    said = StreamIngestError(
        reason=error.reason,
        message=error.message,
        retryable=isinstance(error, Unavailable) or error.retry_after is not None,
    )
    if (seconds := status.retry_after(error)) is not None:
        said.retry_after = int(seconds)
    return said
