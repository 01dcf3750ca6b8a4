"""The operator's use cases: keys, workspaces and the check of ledgers. `opened` opens the store; each function takes
the topics that it needs.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType, MappingProxyType
from typing import Any, NamedTuple

from headgate_server.access import auth, keys
from headgate_server.access.keys import NewKey, is_workspace_name
from headgate_server.core import shapes
from headgate_server.core.audit import RESERVED, Actor
from headgate_server.core.checked_rows import StoredLedger
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.ledger import Break, BreakType
from headgate_server.core.model import ApiKey, Head, RateLimit, Scope, Usage, Workspace
from headgate_server.core.types import EventId, WorkspaceId
from headgate_server.process.clock import Clock, system_clock
from headgate_server.process.identity import user_name
from headgate_server.reading.verify import verify
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.store import Directory, Ledgers, Limits, Proof, Store
from headgate_server.store.migrate import Step, steps
from headgate_server.store.opening import file_of, open_store

FIRST_WORKSPACE = "default"
_VERIFY_EVENTS = 100_000
"""Events of one step of a check. Between steps the check holds no resources."""


class LedgerReport(NamedTuple):
    """The result of the check of one workspace's whole ledger."""

    workspace: Workspace
    events_checked: int
    breaks: Sequence[Break]


def operator() -> Actor:
    """Return the user that runs this process at the store itself."""
    return Actor("cli", user_name())


@contextlib.asynccontextmanager
async def opened(location: str | Path, *, as_is: bool = False, filling: bool = False) -> AsyncIterator[Store]:
    """Open the store of a URL, or the embedded one in a file, and close it after the block. Its acts are those of the
    user that runs this process. With `as_is` its schema is not updated, and a missing file is not created. `filling`
    is for the command that copies into it (`open_store`). Raises `SetupError` if it cannot be opened.
    """
    store = await open_store(location, as_is=as_is, filling=filling)
    try:
        yield store.by(operator())
    finally:
        await store.close()


async def missing_migrations(location: str | Path) -> Sequence[Step]:
    """Return what an update of the store's schema would do, in order: every migration if there is no store yet.

    Raises `SetupError` if the store cannot be opened.
    """
    if (file := file_of(location)) is not None and not file.exists():
        return steps()
    async with opened(location, as_is=True) as store:
        return await store.migrations.missing()


def is_postgres(location: str | Path) -> bool:
    """Whether this names a store in PostgreSQL."""
    return isinstance(location, str) and location.partition("://")[0] in ("postgresql", "postgres")


async def distribute(location: str | Path, say: Callable[[str], None], *, dry_run: bool = False) -> bool:
    """Distribute the tables of a store in PostgreSQL over the nodes of a Citus, and say each step. Return whether there
    was anything to do. Raises `SetupError`; nothing is changed then.
    """
    from headgate_server.store.citus.distribution import distribute as work

    # This refuses a store that is half a copy, or that this program does not know.
    async with opened(location, as_is=True):
        pass
    return await work(str(location), say, dry_run=dry_run)


async def create_key(
    directory: Directory,
    workspace: str,
    scopes: frozenset[str],
    lifetime: int | None = None,
    clock: Clock = system_clock,
) -> str:
    """Create a key and return it. The key itself is not stored. The workspace is created if there is none of that name.

    `lifetime` is in microseconds. Raises `InvalidRequest` if the name is not allowed, there is no scope or one that
    keys of the reserved workspace cannot have, or the expiry is past.
    """
    expires_at = None if lifetime is None else clock() + lifetime
    key, _ = await keys.create(directory, NewKey(workspace=workspace, scopes=scopes, expires_at=expires_at), clock)
    return key


async def create_first_key(directory: Directory) -> str | None:
    """Create a key with every scope except `admin` if the store has no key. Return None if it has one."""
    if await directory.list_keys():
        return None
    return await create_key(
        directory, FIRST_WORKSPACE, frozenset({Scope.EVENTS_WRITE, Scope.EVENTS_READ, Scope.LEDGER_READ})
    )


async def list_keys(directory: Directory, workspace: str | None) -> Sequence[ApiKey]:
    """Return the keys of one workspace, or of all. Raises `NotFound` if there is no such workspace."""
    return await directory.list_keys(None if workspace is None else (await find_workspace(directory, workspace)).id)


async def revoke_key(directory: Directory, key_id: str, clock: Clock = system_clock) -> None:
    """Revoke a key by its id. Raises `NotFound` if there is no such key."""
    if not await directory.revoke_key(key_id, clock()):
        raise keys.missing(key_id)


async def withdraw_key(directory: Directory, key: str) -> None:
    """Revoke a key that was just created and not shown to anyone."""
    if (record := await directory.find_key(auth.digest_of(key))) is not None:
        await revoke_key(directory, record.id)


async def set_limits(
    directory: Directory,
    limits: Limits,
    name: str,
    quota: int | EllipsisType | None,
    rates: Mapping[str, RateLimit | EllipsisType | None],
) -> None:
    """Set a workspace's monthly quota and its own rate limits by receiver.

    A quota of None means no quota; `...` leaves it unchanged. A rate of None means no limit; `...` means the receiver's
    default. Raises `NotFound` if there is no such workspace or receiver.
    """
    workspace = await find_workspace(directory, name)
    for receiver in rates:
        if receiver not in RECEIVERS:
            raise NotFound(f"there is no receiver {receiver!r}; there are: {', '.join(sorted(RECEIVERS))}")
    if name == RESERVED:
        raise InvalidRequest(f"the workspace {RESERVED} has no limits: it has the audit's events", field="workspace")
    await limits.change(workspace.id, quota, rates)


async def list_workspaces(directory: Directory, limits: Limits) -> Sequence[tuple[Workspace, Usage]]:
    """Return all workspaces, sorted by name, each with its usage and quota."""
    return [(workspace, await limits.usage(workspace.id)) for workspace in await directory.workspaces()]


async def heads(directory: Directory, ledgers: Ledgers, workspace: str | None = None) -> Mapping[str, Head]:
    """Return the heads of all ledgers by their workspaces' names, or that of one. Raises `NotFound` if there is no such
    workspace.
    """
    if workspace is not None:
        return {workspace: await ledgers.head((await find_workspace(directory, workspace)).id)}
    names = {one.id: one.name for one in await directory.workspaces()}
    return {names[one]: head for one, head in (await ledgers.heads(names)).items()}


async def verify_ledgers(
    proof: Proof, workspace: str | None, expected: Mapping[str, Head] = MappingProxyType({})
) -> AsyncIterator[LedgerReport]:
    """Check whole ledgers: that of one workspace, or all, also those that have no workspace any more.

    `expected` are heads that were kept elsewhere, by the workspaces' names: each must be in its ledger. Raises
    `NotFound` if there is no such workspace.
    """
    found = [one for one in await proof.ledgers() if workspace is None or one.name == workspace]
    if workspace is not None and not found:
        raise NotFound(f"there is no workspace {workspace!r}")
    for one in sorted(found, key=lambda each: (str(each.name), str(each.workspace_id))):
        yield await _verify_ledger(proof, one, expected.get(str(one.name)))
    names = {one.name for one in found}
    for name, head in sorted(expected.items()):
        if name not in names and workspace in (None, name):
            gone = Break(None, head.sequence, BreakType.HEAD_MISMATCH, head.hash.hex(), "no such workspace")
            yield LedgerReport(Workspace(WorkspaceId(0), name), 0, [gone])


async def _verify_ledger(proof: Proof, one: StoredLedger, expected: Head | None) -> LedgerReport:
    named = _is_name(one.name)
    workspace = Workspace(one.workspace_id, one.name if named else f"(workspace {one.workspace_id!r} without a name)")
    checked = 0
    breaks: list[Break] = []
    if not named:
        breaks.append(Break(None, 0, BreakType.HEAD_MISMATCH, "name: text", f"name: {shapes.name_of(one.name)}"))
    resume: EventId | None = None
    while True:
        found = await verify(proof, workspace, limit=_VERIFY_EVENTS, after=resume, expected=expected)
        checked += found.events_checked
        breaks += found.breaks
        resume = found.resume
        if resume is None:
            return LedgerReport(workspace, checked, breaks)


def _is_name(name: Any) -> bool:
    """Whether a stored name is a printable text. SQLite can store other values in its place."""
    return type(name) is str and name.isprintable()


async def find_workspace(directory: Directory, name: str) -> Workspace:
    """Return the workspace of this name. Raises `NotFound` if there is none."""
    # A store may refuse to look for another text.
    workspace = await directory.workspace(name) if is_workspace_name(name) else None
    if workspace is None:
        raise NotFound(f"there is no workspace {name[:100]!r}")
    return workspace
