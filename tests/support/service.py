"""A real `headgate serve` process, and clients of it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import grpc.aio

from headgate.v1 import event_service_pb2, event_service_pb2_grpc, ingest_service_pb2_grpc, ledger_service_pb2_grpc
from headgate.v1.event_pb2 import StoredEvent
from headgate_server.access import admin
from headgate_server.core.model import Scope


async def make_key(url: str, workspace: str = "acme", scopes: Iterable[Scope] = (Scope.ADMIN,)) -> str:
    """Make an API key in a store, with or without a server."""
    async with admin.opened(url) as store:
        return await admin.create_key(store.directory, workspace, frozenset(scopes))


class ServerProcess:
    """`headgate serve` in a process of its own, on free ports. Use as `async with`: it has ended afterwards.

    `ports` are those of all its workers, `port` the first of them.
    """

    def __init__(
        self,
        url: str,
        *arguments: str,
        log: Path | None = None,
        stderr: int | None = None,
        program: Sequence[str] = ("-m", "headgate_server"),
        environment: Mapping[str, str] | None = None,
    ):
        """`log` is a file for standard error, `stderr` a descriptor; without either it is discarded. `program` are
        Python's arguments, which run the command line.
        """
        self._program = program
        self._environment = environment or {}
        self._url = url
        self._stderr = stderr
        self._arguments = arguments
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.ports: list[int] = []

    async def __aenter__(self) -> Self:
        reader, writer = os.pipe()
        log = os.open(self._log or os.devnull, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._process = subprocess.Popen(
            [
                *(sys.executable, *self._program, "serve"),
                *("--grpc-port", "0", "--ready-fd", str(writer), "--log-level", "warning", *self._arguments),
            ],
            env={**os.environ, "HEADGATE_STORE": self._url, **self._environment},
            pass_fds=(writer,),
            stderr=log if self._stderr is None else self._stderr,
        )
        os.close(writer)
        os.close(log)
        with os.fdopen(reader, "rb") as pipe:
            said = await asyncio.to_thread(pipe.read)
        if not said:
            raise RuntimeError(f"the server ended with {self._process.wait()} before it took calls")
        self.ports = [int(line) for line in said.splitlines()]
        self.port = self.ports[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The process id of `headgate serve` itself."""
        assert self._process is not None
        return self._process.pid

    async def kill(self) -> None:
        """End the process without warning, like a power cut."""
        await self.end(signal.SIGKILL)

    async def end(self, number: int) -> int:
        """Send a signal, and return the exit code once the process has ended."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return await asyncio.to_thread(self._process.wait, 60)


class Client:
    """Stubs on one channel, with a key. Use as `async with`."""

    def __init__(self, port: int, key: str):
        options = [("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.metadata = (("x-api-key", key),)
        self.ingest = ingest_service_pb2_grpc.IngestServiceStub(self._channel)
        self.events = event_service_pb2_grpc.EventServiceStub(self._channel)
        self.ledger = ledger_service_pb2_grpc.LedgerServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def all_events(self) -> Sequence[StoredEvent]:
        """Return the whole ledger, page by page."""
        events: list[StoredEvent] = []
        token = ""
        while True:
            request = event_service_pb2.ListEventsRequest(page_size=1000, page_token=token)
            page = await self.events.ListEvents(request, metadata=self.metadata)
            events += page.events
            token = page.next_page_token
            if not token:
                return events
