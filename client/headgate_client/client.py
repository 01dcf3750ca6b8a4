"""The client for threads."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar

from headgate_client import fork
from headgate_client.buffered import Buffered
from headgate_client.clock import Clock
from headgate_client.connection import buffer_settings, open_transport, times_of
from headgate_client.core import scripts
from headgate_client.core.address import Certificates
from headgate_client.core.errors import Closed
from headgate_client.core.events import EventLike
from headgate_client.core.filters import list_request, verify_request
from headgate_client.core.follow import Follow
from headgate_client.core.model import Head, Page, Result, StoredEvent, Verification
from headgate_client.core.queue import Limits
from headgate_client.core.retry import Retry
from headgate_client.core.scripts import Budget, Options, Script, Times, Wait
from headgate_client.feed import OnFailure
from headgate_client.subscription import Subscription
from headgate_client.transport import MakeChannel

T = TypeVar("T")


class Client:
    """Sends events and reads them back. Safe for threads, and for processes that fork. Use as `with`, or call `close`.

    `url` is `host:port`, `https://host` or `http://host`; by default `HEADGATE_URL`. `api_key` is by default
    `HEADGATE_KEY`. The connection is encrypted, except to this machine itself, to `http://`, and with `plaintext=True`.
    `ca` are certificates to trust, in PEM, in place of the system's. `client_cert` and `client_key` are shown to a
    service that asks for a certificate. It connects with the first call.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        plaintext: bool | None = None,
        ca: bytes | None = None,
        client_cert: bytes | None = None,
        client_key: bytes | None = None,
        timeout: float = Times.timeout,
        attempt_timeout: float = Times.attempt_timeout,
        retry: Retry | None = None,
        channel_options: Sequence[tuple[str, Any]] = (),
        make_channel: MakeChannel | None = None,
        clock: Clock | None = None,
    ):
        """`make_channel` opens the channel in place of the address's own; `clock` is for tests.

        Raises `ValueError` if the settings name no address or no key, or contradict each other.
        """
        self._times = times_of(timeout, attempt_timeout, retry)
        self._transport = open_transport(
            url, api_key, plaintext, Certificates(ca, client_cert, client_key), channel_options, make_channel
        )
        self._clock = clock or Clock()
        self._changed = threading.Condition()
        self._closing = False
        self._closed = False
        self._buffers: list[Buffered] = []

    def ingest(self, event: EventLike, *, request_key: str | None = None, timeout: float | None = None) -> Result:
        """Store one event, and return its result.

        Raises `EventRejected` or `EventConflict` if it is not stored, `InvalidEvent` if it cannot be sent as it is,
        `Unavailable` if there is no answer in time, and another `CallError` if the call is refused.
        """
        batch = scripts.prepared([event], request_key)
        options = Options(request_key=request_key)
        return scripts.single(self._run(scripts.ingest(self._budget(timeout), batch, options)), batch)

    def ingest_batch(
        self,
        events: Iterable[EventLike],
        *,
        atomic: bool = False,
        request_key: str | None = None,
        raise_partial: bool = True,
        timeout: float | None = None,
    ) -> list[Result]:
        """Store events, and return one result for each, in their order.

        More than 1,000 events, or more than 4 MiB, are several calls, except with `atomic` (all or none) or a
        `request_key` (the same request, sent again within 24 hours, gets the first answer).
        Raises `PartialFailure` if some are not stored, unless `raise_partial` is False; otherwise as `ingest`.
        """
        batch = scripts.prepared(events, request_key)
        options = Options(atomic=atomic, request_key=request_key)
        outcome = self._run(scripts.ingest(self._budget(timeout), batch, options))
        return scripts.many(outcome, batch, raise_partial=raise_partial)

    def validate(self, events: Iterable[EventLike], *, timeout: float | None = None) -> list[Result]:
        """Return what would become of events, and store nothing."""
        batch = scripts.prepared(events)
        outcome = self._run(scripts.ingest(self._budget(timeout), batch, Options(validate_only=True)))
        return scripts.many(outcome, batch, raise_partial=False)

    def get(self, id: str, *, view: str = "", timeout: float | None = None) -> StoredEvent:  # noqa: A002
        """Return one event. Raises `NotFound` if the workspace has none with this id."""
        return self._run(scripts.get(self._budget(timeout), id, view))

    def list(
        self,
        *,
        type: str = "",  # noqa: A002 - the field's name
        source: str = "",
        subject: str = "",
        key: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
        newest_first: bool = False,
        view: str = "",
        page_size: int = 0,
        page_token: str = "",
        timeout: float | None = None,
    ) -> "Pages":
        """Return the pages of a list, which are read one by one as they are asked for.

        `timeout` is for each page. `start` and `end` bound `created_at`; `key` is an idempotency key within `source`.
        """
        request = list_request(
            type=type,
            source=source,
            subject=subject,
            key=key,
            start=start,
            end=end,
            newest_first=newest_first,
            view=view,
            page_size=page_size,
        )

        def read(token: str) -> Page:
            return self._run(scripts.page(self._budget(timeout), request, token))

        return Pages(read, page_token)

    def subscribe(
        self,
        *,
        type: str = "",  # noqa: A002 - the field's name
        source: str = "",
        subject: str = "",
        after_sequence: int | None = None,
        after_id: str = "",
        start: datetime | None = None,
    ) -> Subscription:
        """Return events as they are stored. Without a place to begin at: only new ones.

        It continues by itself after the last event when the stream breaks. Raises `CallError` if it is refused.
        """
        follow = Follow(
            self._times.retry,
            type=type,
            source=source,
            subject=subject,
            after_sequence=after_sequence,
            after_id=after_id,
            start=start,
        )
        return Subscription(self._transport, follow)

    def head(self, *, timeout: float | None = None) -> Head:
        """Return the ledger's head. Kept elsewhere, it shows later whether the ledger was cut or rewritten."""
        return self._run(scripts.head(self._budget(timeout)))

    def verify(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        expected: Head | None = None,
        timeout: float | None = None,
    ) -> Verification:
        """Let the service check all hashes of a range, page by page. `expected` is a head that was kept elsewhere.
        `timeout` is for each page.
        """
        request = verify_request(start, end, expected)
        return self._run(scripts.verify(lambda: self._budget(timeout), request))

    def buffered(
        self,
        *,
        max_size: int = Limits.max_size,
        max_age: float = Limits.max_age,
        max_items: int = Limits.max_items,
        max_bytes: int = Limits.max_bytes,
        when_full: str = Limits.when_full,
        spool: str | os.PathLike[str] | None = None,
        spool_fsync: bool = True,
        on_failure: OnFailure | None = None,
        close_timeout: float = 10.0,
    ) -> Buffered:
        """Return a buffer, which sends batches of at most `max_size` events that wait at most `max_age` seconds.

        At most `max_items` events and `max_bytes` wait; `when_full` is `raise`, `block` or `drop_oldest`. In `spool`, a
        file, or a folder for several processes, events survive the process; with `spool_fsync` also a power cut, at the
        cost of an fsync for each event. `on_failure` is called with each event that is not stored. `close_timeout` is
        the most seconds of `close`, and of the end of the process. Raises `Closed` if the client is closed, and
        `SpoolError` if the spool cannot be opened.
        """
        settings = buffer_settings(
            self._times,
            max_size=max_size,
            max_age=max_age,
            max_items=max_items,
            max_bytes=max_bytes,
            when_full=when_full,
            spool=spool,
            spool_fsync=spool_fsync,
            on_failure=on_failure,
            close_timeout=close_timeout,
        )
        self._check_open()
        buffer = Buffered(self._transport, settings, self._clock)
        try:
            with self._changed:
                self._check_open()  # another thread may have closed it meanwhile
                self._buffers = [one for one in self._buffers if not one.closed] + [buffer]
        except Closed:
            buffer.close(0.0)
            raise
        return buffer

    def close(self) -> None:
        """Close the buffers, then the connection. Events that are left are reported to `on_failure`."""
        with self._changed:
            self._closing = True
            buffers = self._buffers
        with contextlib.ExitStack() as last:
            last.callback(self._end)
            for buffer in reversed(buffers):
                last.callback(buffer.close)

    def _end(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._transport.close()
        fork.unregister_transport(self._transport)

    def _check_open(self) -> None:
        if self._closing:
            raise Closed("The client is closed.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _budget(self, timeout: float | None) -> Budget:
        return Budget(self._times if timeout is None else self._times.within(timeout), self._clock.now)

    def _run(self, script: Script[T]) -> T:
        """Make the calls of a script."""
        answer: Any = None
        while True:
            try:
                step = script.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Wait):
                self._wait(step.seconds)
                answer = None
            else:
                answer = self._transport.call(step)

    def _wait(self, seconds: float) -> None:
        """Wait. Raises `Closed` if the client is closed meanwhile."""
        end = self._clock.now() + seconds
        with self._changed:
            while not self._closed and (left := end - self._clock.now()) > 0:
                self._clock.wait(self._changed, left)
            if self._closed:
                raise Closed("The client was closed.")


class Pages:
    """A list, page by page. `events` goes through the events of all pages."""

    def __init__(self, read: Callable[[str], Page], token: str):
        self._read = read
        self._token = token

    def __iter__(self) -> Iterator[Page]:
        token = self._token
        while True:
            page = self._read(token)
            yield page
            token = page.next_page_token
            if not token:
                return

    def events(self) -> Iterator[StoredEvent]:
        """Yield the events of all pages."""
        for page in self:
            yield from page.events
