"""A scenario's parts, all running, and what sends each of its loads."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench import fill, parts, sqlite_limit, tool
from bench.ghz import Ghz
from bench.http import Wrk
from bench.lockstep import Assignment, Contender, Timing
from bench.suite import By, Scenario, Store
from headgate_server.access import admin

_BATCH_PATH = "/v1/events/batch"
_PEER_PATH = "/events/batch"


class Player(Protocol):
    """What sends one load."""

    async def prepare(self) -> None:
        """Return once all is ready for `go`; nothing of this is timed."""

    async def go(self) -> Timing:
        """Send, and return what came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A player, and the processes besides its own whose CPU time and memory it is to blame for."""

    player: Callable[[Assignment, float], Player]
    """Makes the player of an assignment, or of so many seconds where a tool cannot count events."""
    counted: bool
    """Whether it is the assignment that counts."""
    spenders: Mapping[str, Sequence[int]]
    """Process ids by part; all below them count as well."""
    servers: Sequence[int] = ()
    """The processes whose memory is looked at, each alone."""
    stores: bool = True
    """Whether what it sends is in the product's store afterwards."""


@dataclass(slots=True)
class Stage:
    """Who can send, by `By`, and the store that they share."""

    url: str
    roles: dict[By, Role] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A contender with an assignment."""

    contender: Contender
    assignment: Assignment

    async def prepare(self) -> None:
        await self.contender.prepare(self.assignment)

    async def go(self) -> Timing:
        return await self.contender.go()


@dataclass(frozen=True, slots=True)
class _Timed:
    """A tool that runs for a time."""

    tool: Wrk | Ghz
    callers: int
    seconds: float

    async def prepare(self) -> None:
        """Nothing: it starts by itself."""

    async def go(self) -> Timing:
        return await self.tool.go(self.callers, max(self.tool.least_seconds, round(self.seconds)))


@asynccontextmanager
async def set_up(scenario: Scenario, database: parts.Database | None, folder: Path) -> AsyncIterator[Stage]:
    """Start what a scenario needs, on this PostgreSQL or on SQLite in `folder`; all is gone afterwards."""
    url = database.url if database else f"sqlite:///{folder / 'headgate.db'}"
    limit_file = folder / "limit.db"
    if scenario.rows:
        await _fill(scenario, url, limit_file)
    wanted = {load.by for load in scenario.loads}
    stage = Stage(url)
    databases = {"database": [database.pid]} if database else {}
    async with AsyncExitStack() as stack:
        product = await stack.enter_async_context(
            parts.product(
                url, folder, workers=scenario.workers, workspaces=max(load.workspaces for load in scenario.loads)
            )
        )
        _add_product(stage, product, databases, stack, wanted)
        if By.LIMIT in wanted:
            _add_limit(stage, database, product.workspaces[0], limit_file, stack)
        if By.EMPTY in wanted:
            servers = stack.enter_context(parts.empty(scenario.workers))
            _add_empty(stage, servers, stack)
        if By.PEER in wanted:
            servers = await stack.enter_async_context(parts.peer(url, scenario.workers))
            _add_peer(stage, servers, databases, stack)
        yield stage


def _add_product(
    stage: Stage,
    product: parts.Product,
    databases: Mapping[str, Sequence[int]],
    stack: AsyncExitStack,
    wanted: set[By],
) -> None:
    direct = {"server": product.workers, **databases}
    through = {"Envoy": [product.envoy], **direct}
    environment = parts.driver_environment(product.keys)
    port, key = int(product.rest.rpartition(":")[2]), product.keys[0]
    if By.GRPC in wanted:
        driver = Contender("bench.driver", _listed(product.ports), environment=environment)
        stage.roles[By.GRPC] = _counted(stack.enter_context(driver), direct, product.workers)
    if By.HTTP in wanted:
        driver = Contender("bench.http_driver", str(port), _BATCH_PATH, environment=environment)
        stage.roles[By.HTTP] = _counted(stack.enter_context(driver), through, product.workers)
    if By.GHZ in wanted:
        program = tool.ghz()
        stage.roles[By.GHZ] = _timed(lambda batch: Ghz(program, product.ports, key, batch), direct, product.workers)
    if By.REST in wanted:
        wrk, address = tool.wrk(), f"http://{product.rest}{_BATCH_PATH}"
        stage.roles[By.REST] = _timed(lambda batch: Wrk(wrk, address, key, batch), through, product.workers)


def _add_limit(
    stage: Stage, database: parts.Database | None, workspace: int, file: Path, stack: AsyncExitStack
) -> None:
    """The limit writes to the product's own tables and workspace; on SQLite, which has one writer, to a second file."""
    if database:
        contender = Contender("bench.limit", database.url, str(workspace), environment=os.environ)
        stage.roles[By.LIMIT] = _counted(stack.enter_context(contender), {"database": [database.pid]})
    else:
        contender = Contender("bench.sqlite_limit", str(file), environment=os.environ)
        stage.roles[By.LIMIT] = _counted(stack.enter_context(contender), {}, stores=False)


def _add_empty(stage: Stage, servers: parts.Servers, stack: AsyncExitStack) -> None:
    environment = parts.driver_environment([servers.key])
    driver = Contender("bench.driver", _listed(servers.ports), "empty", environment=environment)
    spenders = {"server": servers.pids}
    stage.roles[By.EMPTY] = _counted(stack.enter_context(driver), spenders, servers.pids, stores=False)


def _add_peer(
    stage: Stage, servers: parts.Servers, databases: Mapping[str, Sequence[int]], stack: AsyncExitStack
) -> None:
    environment = parts.driver_environment([servers.key])
    driver = Contender("bench.http_driver", str(servers.ports[0]), _PEER_PATH, environment=environment)
    spenders = {"server": servers.pids, **databases}
    stage.roles[By.PEER] = _counted(stack.enter_context(driver), spenders, stores=False)


def _counted(
    contender: Contender, spenders: Mapping[str, Sequence[int]], servers: Sequence[int] = (), stores: bool = True
) -> Role:
    return Role(
        player=lambda assignment, seconds: _Counted(contender, assignment),
        counted=True,
        spenders=spenders,
        servers=servers,
        stores=stores,
    )


def _timed(make: Callable[[int], Wrk | Ghz], spenders: Mapping[str, Sequence[int]], servers: Sequence[int]) -> Role:
    return Role(
        player=lambda assignment, seconds: _Timed(make(assignment.group), assignment.callers, seconds),
        counted=False,
        spenders=spenders,
        servers=servers,
    )


async def _fill(scenario: Scenario, url: str, limit_file: Path) -> None:
    """Put the scenario's rows where the product and the limit will write."""
    first = parts.workspace_name(0)
    if scenario.store is Store.POSTGRESQL:
        await fill.postgresql(url, await _workspace(url, first), scenario.rows)
        return
    for path, name in ((Path(url.removeprefix("sqlite:///")), first), (limit_file, sqlite_limit.WORKSPACE)):
        workspace = await _workspace(f"sqlite:///{path}", name)
        await fill.sqlite_file(path, workspace, scenario.rows)


async def _workspace(url: str, name: str) -> int:
    async with admin.opened(url) as store:
        return (await store.create_workspace(name)).id


def _listed(ports: Sequence[int]) -> str:
    return ",".join(map(str, ports))
