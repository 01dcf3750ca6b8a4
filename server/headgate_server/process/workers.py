"""Server processes that are kept alive: started, watched, replaced when they die, stopped together."""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog

from headgate_server.core.errors import SetupError
from headgate_server.process.child import ServerProcess

log = structlog.get_logger(__name__)

_KILL_SECONDS = 5.0
"""From the end of a worker's own grace to SIGKILL: the last group may still be at its commit then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How soon a worker that died is started again, and when that is given up. Times in seconds."""

    first_pause: float = 0.25
    """One death is an accident: the others carry its calls meanwhile, and where there are none, callers wait."""
    growth: float = 3.0
    longest_pause: float = 30.0
    calm: float = 60.0
    """Who has lived so long has not died of its start: earlier deaths are forgotten."""
    failures: int = 5
    """Starts in a row that may fail. With the pauses above they take half a minute, in which a database can restart."""


class Workers:
    """Server processes, one for each command line. Lives on one event loop, in the main thread.

    `start`, then `keep` until the end is wanted, then `stop`, whatever became of the others.
    """

    def __init__(
        self,
        launcher: Sequence[str],
        arguments: Sequence[Sequence[str]],
        store_url: str,
        *,
        grace: float,
        policy: RestartPolicy | None = None,
    ):
        """`arguments` are the command lines after `headgate serve`, each with a port of its own; `grace` is the time,
        in seconds, that they give their calls when they are asked to end.
        """
        self._children = [ServerProcess(launcher, each, store_url) for each in arguments]
        self._patience = grace + _KILL_SECONDS
        self._policy = policy or RestartPolicy()

    async def start(self) -> None:
        """Return once all of them take calls. Raises `SetupError` if one of them cannot; it has said why itself."""
        first, *others = self._children
        # Alone: it brings the database's schema up to date, and what is wrong with the settings is said once.
        await first.start()
        await _all(each.start() for each in others)

    async def keep(self) -> None:
        """Replace those that die, each on its port, until cancelled.

        Raises `SetupError` if one of them cannot be started again.
        """
        await _all(self._keep(child) for child in self._children)

    async def stop(self) -> None:
        """Ask all of them at once to end, and return once they have."""
        await asyncio.gather(*(child.stop(self._patience) for child in self._children))

    async def _keep(self, child: ServerProcess) -> NoReturn:
        policy = self._policy
        clock = asyncio.get_running_loop().time
        pause = policy.first_pause
        failures = 0
        while True:
            started = clock()
            code = await child.wait()
            if clock() - started >= policy.calm:
                pause = policy.first_pause
            log.warning("worker_died", port=child.port, exit_code=code, restart_in=pause)
            while not await self._started_after(pause, child):
                failures += 1
                pause = min(pause * policy.growth, policy.longest_pause)
                if failures == policy.failures:
                    raise SetupError(
                        f"the gRPC server on port {child.port} died and could not be started again, "
                        f"{failures} times in a row; its log says why"
                    )
                log.warning("worker_not_started", port=child.port, restart_in=pause)
            log.info("worker_replaced", port=child.port)
            failures = 0
            pause = min(pause * policy.growth, policy.longest_pause)

    async def _started_after(self, pause: float, child: ServerProcess) -> bool:
        """Start a child again after so many seconds; False if it ended before it took calls."""
        await asyncio.sleep(pause)
        try:
            await child.start()
        except SetupError:
            return False
        return True


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Return when all have ended; with the first error, at which the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def reserved(host: str, port: int, count: int) -> Iterator[Sequence[int]]:
    """Keep `count` ports in a row for servers that listen on `host`, from `port` on; with 0 any that are free.

    They are bound and do not listen, with SO_REUSEADDR, so that a server (whose socket has it too) can listen there and
    nobody's outgoing connection gets the port while a server is being replaced. Raises `SetupError` if one is taken.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for index in range(count):
            number = port + index if port else 0
            try:
                # Of a name with several addresses the first: the others fail where the server listens.
                family, kind, _, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
                bound = stack.enter_context(socket.socket(family, kind))
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.bind(address)
            except OSError as error:
                raise SetupError(f"cannot listen on {host}:{number} for gRPC: {error.strerror}") from None
            found.append(bound.getsockname()[1])
        yield found
