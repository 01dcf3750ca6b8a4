"""Starts a scenario's parts, and the senders of its loads."""

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import parts
from bench.contender import Child, child
from bench.suite import By, Load, Scenario
from bench.tools import Ghz, Wrk
from tests.support.filling import fill


@dataclass(frozen=True, slots=True)
class Role:
    """A sender, and the other processes whose CPU time and memory its load uses."""

    sender: Child | Ghz | Wrk
    spenders: Mapping[str, Sequence[int]]
    """Process ids by part: Envoy, server, database. Their descendants count too."""
    stores: bool = True
    """Whether its events are in the product's store afterwards."""


@asynccontextmanager
async def set_up(
    scenario: Scenario, url: str, database: Sequence[int], folder: Path
) -> AsyncIterator[Mapping[Load, Role]]:
    """Start a scenario's parts on an empty store, and end them afterwards. `database` are the store's processes."""
    senders = {load.by for load in scenario.loads}
    spent = {"database": database} if database else {}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        workspace, keys = await parts.workspaces(url, max(load.workspaces for load in scenario.loads))
        if scenario.rows:
            await fill(url, workspace, scenario.rows)
        limit = await enter(child("bench.limit", await _limit_url(url, folder), str(workspace)))
        roles = {(By.LIMIT, False): Role(limit, spent, stores=bool(database))}
        for pure in {load.pure for load in scenario.loads}:
            servers, port, envoy = await enter(parts.product(url, keys, folder, scenario.workers, pure=pure))
            direct, address = {"server": servers.pids, **spent}, f"http://127.0.0.1:{port}/v1/events/batch"
            through = {"Envoy": [envoy], **direct}
            roles |= {
                (By.GRPC, pure): Role(await enter(_driver("grpc", servers.ports, keys)), direct),
                (By.HTTP, pure): Role(await enter(_driver("http", [address], keys)), through),
                (By.GHZ, pure): Role(Ghz([f"127.0.0.1:{port}" for port in servers.ports], keys[0]), direct),
                (By.REST, pure): Role(Wrk([address], keys[0]), through),
            }
        if By.EMPTY in senders:
            empty = await enter(parts.empty(scenario.workers))
            driver = await enter(_driver("empty", empty.ports, empty.keys))
            roles[By.EMPTY, False] = Role(driver, {"server": empty.pids}, stores=False)
        if By.PEER in senders:
            peer = await enter(parts.peer(url, scenario.workers))
            sender = Wrk([f"http://127.0.0.1:{port}/events/batch" for port in peer.ports], peer.keys[0])
            roles[By.PEER, False] = Role(sender, {"server": peer.pids, **spent}, stores=False)
        yield {load: roles[load.by, load.pure] for load in scenario.loads}


def _driver(way: str, targets: Sequence[int | str], keys: Sequence[str]) -> AbstractAsyncContextManager[Child]:
    # The keys are not arguments, because other users could read those.
    return child("bench.driver", way, ",".join(map(str, targets)), HEADGATE_KEYS=",".join(keys))


async def _limit_url(url: str, folder: Path) -> str:
    if url.startswith("postgresql"):
        return url
    # SQLite has one writer, so the limit gets its own file.
    await parts.execute(url, "PRAGMA wal_checkpoint(TRUNCATE)")
    return f"sqlite:///{shutil.copy(url.removeprefix('sqlite:///'), folder / 'limit.db')}"
