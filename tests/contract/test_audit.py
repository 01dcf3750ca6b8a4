"""The audit: every administrative act is an event in the reserved workspace's ledger, in the transaction of the act."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection

from headgate_server.access import admin
from headgate_server.core import destinations as core
from headgate_server.core.audit import NOBODY, RESERVED, Actor
from headgate_server.core.errors import AlreadyExists, InvalidRequest, NotFound
from headgate_server.core.event_types import Mode, Unknown
from headgate_server.core.model import EventQuery, RateLimit, Scope, StoredEvent
from headgate_server.delivery import manage
from headgate_server.reading.verify import verify
from headgate_server.store import Audit, EventTypes, Store
from headgate_server.store.managed import WorkspaceChange
from tests.support.drafts import append, draft

OPERATOR = Actor("key", "key_operator", "request-1")
SECRET_URL = "https://hooks.example.com/services/T0/B0/very-secret?token=secret"


@pytest.fixture
def store(store: Store) -> Store:
    """Return a store whose acts are those of an operator."""
    return store.by(OPERATOR)


async def acts(store: Store) -> Sequence[StoredEvent]:
    """Return the events of all acts."""
    workspace = await store.directory.workspace(RESERVED)
    if workspace is None:
        return []
    return (await store.ledgers.events(EventQuery(workspace_id=workspace.id, limit=1_000))).events


async def last(store: Store) -> tuple[str, dict[str, Any]]:
    """Return the type and the data of the newest act."""
    newest = (await acts(store))[-1]
    return newest.type, orjson.loads(newest.data or b"")


def settings(url: str = SECRET_URL) -> manage.DestinationSettings:
    """Return the settings of a webhook with a secret header."""
    return manage.DestinationSettings(
        name="crm", target=core.Webhook(url=url), headers=(("x-token", "header-secret"),), start=core.BEGINNING
    )


async def test_each_act_is_an_event(store: Store) -> None:
    """Who, what, before and after; the chain is sound, and no secret is in it."""
    workspace = await store.directory.create_workspace("acme")
    key = await admin.create_key(store.directory, "acme", frozenset({Scope.EVENTS_READ}))
    (record,) = await store.directory.list_keys()
    await store.directory.revoke_key(record.id, 5)
    await store.limits.change(workspace.id, 7, {"scrip": RateLimit(1, 60_000_000, 2), "flokit": None})
    await store.event_types.put(workspace.id, "order", b'{"type":"object"}', Mode.STRICT)
    await store.event_types.delete(workspace.id, "order")
    await store.event_types.set_unknown(workspace.id, Unknown.REJECT)
    shown = await manage.create(store.destinations, workspace.id, settings())
    one = shown.status.destination.id
    await store.destinations.update(workspace.id, one, lambda old: replace(old, name="new"))
    rotated = await manage.rotate(store.destinations, workspace.id, one)
    await manage.set_headers(store.destinations, workspace.id, one, {"x-other": "header-secret"})
    await store.destinations.set_state(workspace.id, one, core.State.PAUSED)
    await store.destinations.set_state(workspace.id, one, core.State.ACTIVE)
    await store.destinations.replay_set_aside(workspace.id, one)
    await store.destinations.delete(workspace.id, one)

    told = [(event.type, orjson.loads(event.data or b"")) for event in await acts(store)]
    assert [name for name, _ in told] == [
        *("workspace.created", "key.created", "key.revoked", "workspace.limits_changed"),
        *("event_type.put", "event_type.deleted", "workspace.settings_changed"),
        *("destination.created", "destination.updated", "destination.secret_rotated", "destination.headers_changed"),
        *("destination.paused", "destination.resumed", "destination.replayed", "destination.deleted"),
    ]
    assert all(data["actor"] == {"kind": "key", "id": "key_operator"} for _, data in told)
    assert all((data["request_id"], data["workspace"]) == ("request-1", "acme") for _, data in told)
    by_type = dict(told)
    assert by_type["key.created"]["after"]["scopes"] == ["events:read"]
    revoked = by_type["key.revoked"]
    assert (revoked["target"], revoked["before"]["revoked_at"]) == (record.id, None)
    assert revoked["after"]["revoked_at"] == "1970-01-01T00:00:00.000005Z"
    limits = by_type["workspace.limits_changed"]
    assert limits["before"] == {"quota": None, "rate_flokit": None, "rate_scrip": None}
    assert limits["after"] == {"quota": 7, "rate_flokit": "no limit", "rate_scrip": "1/minute:2"}
    assert by_type["event_type.put"]["after"]["schema"] == '{"type":"object"}'
    assert by_type["destination.created"]["after"]["webhook"]["host"] == "https://hooks.example.com"
    assert by_type["destination.headers_changed"]["after"] == {"headers": ["x-other"]}
    everything = b"".join(event.data or b"" for event in await acts(store))
    for secret in (key, shown.key, rotated.key, "very-secret", "token=secret", "header-secret"):
        assert secret.encode() not in everything

    reserved = await store.directory.workspace(RESERVED)
    assert reserved is not None
    assert (await verify(store.proof, reserved, limit=1_000)).breaks == []
    assert (await store.ledgers.head(reserved.id)).sequence == len(told)


async def test_what_changes_nothing_is_no_act(store: Store) -> None:
    workspace = await store.directory.create_workspace("acme")
    await admin.create_key(store.directory, "acme", frozenset({Scope.ADMIN}))
    (key,) = await store.directory.list_keys()
    await store.directory.revoke_key(key.id, 1)
    await store.event_types.put(workspace.id, "t", b"{}", Mode.STRICT)
    await store.limits.change(workspace.id, 5)
    before = len(await acts(store))
    await store.directory.create_workspace("acme")
    await store.directory.revoke_key(key.id, 2)
    assert not await store.directory.revoke_key("key_0", 2)
    await store.event_types.put(workspace.id, "t", b"{}", Mode.STRICT)
    await store.event_types.set_unknown(workspace.id, Unknown.ACCEPT)
    await store.limits.change(workspace.id, 5)
    for call in (store.event_types.delete(workspace.id, "u"), store.destinations.delete(workspace.id, "dst_0")):
        with pytest.raises(NotFound):
            await call
    assert len(await acts(store)) == before


async def test_a_workspace_and_its_settings_are_one_act_or_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure between the parts undoes all of them, and their events."""
    old = await store.managed.create("acme", WorkspaceChange(quota=1, rates={"scrip": RateLimit(1, 60_000_000, 2)}))
    state, before = await _state(store), len(await acts(store))
    assert [event.type for event in await acts(store)] == ["workspace.created", "workspace.limits_changed"]
    change = WorkspaceChange(quota=9, rates={"flokit": None}, only_rates=True, unknown=Unknown.REJECT)

    def broken(*_: object) -> int:
        raise NotFound("between the parts")

    with monkeypatch.context() as patched:
        patched.setattr(EventTypes, "set_unknown_in", broken)
        for call in (store.managed.create("new", change), store.managed.update("acme", change)):
            with pytest.raises(NotFound, match="between"):
                await call
    assert await _state(store) == state
    assert len(await acts(store)) == before
    assert await store.directory.workspace("new") is None

    with pytest.raises(AlreadyExists):
        await store.managed.create("acme", change)
    with pytest.raises(NotFound):
        await store.managed.update("nobody", change)
    changed = await store.managed.update("acme", change)
    assert (changed.id, changed.rates, changed.types_revision) == (old.id, {"flokit": None}, old.types_revision + 1)
    made = await store.managed.create("new", change)
    assert (await store.limits.usage(made.id)).quota == 9
    told = [(event.type, orjson.loads(event.data or b"")["workspace"]) for event in (await acts(store))[before:]]
    both = ["workspace.limits_changed", "workspace.settings_changed"]
    assert told == [(act, "acme") for act in both] + [(act, "new") for act in ("workspace.created", *both)]


async def test_of_two_who_create_a_workspace_at_once_one_does(store: Store) -> None:
    calls = (store.managed.create("acme", WorkspaceChange(quota=quota)) for quota in (1, 2, 3))
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["AlreadyExists", "AlreadyExists", "Workspace"]
    assert [event.type for event in await acts(store)] == ["workspace.created", "workspace.limits_changed"]


async def test_changes_of_two_workspaces_and_keys_do_not_wait_for_each_other(store: Store) -> None:
    """No two of these transactions lock the same rows in another order."""
    for name in ("a", "b"):
        await store.managed.create(name, WorkspaceChange())
    ids = [(await admin.find_workspace(store.directory, name)).id for name in ("a", "b")]
    async with asyncio.timeout(60):
        for turn in range(3):
            unknown = (Unknown.REJECT, Unknown.WARN)[turn % 2]
            await asyncio.gather(
                *(store.managed.update(name, WorkspaceChange(quota=turn + 1, unknown=unknown)) for name in ("a", "b")),
                *(store.limits.change(one, turn + 10) for one in ids),
                *(store.event_types.set_unknown(one, Unknown.ACCEPT) for one in ids),
            )


Change = Callable[[Store, int], Awaitable[Any]]
CHANGES: dict[str, Change] = {
    "create_workspace": lambda store, _: store.directory.create_workspace("new"),
    "create_key": lambda store, _: admin.create_key(store.directory, "acme", frozenset({Scope.ADMIN})),
    "revoke_key": lambda store, _: _revoke(store),
    "managed": lambda store, _: store.managed.update("acme", WorkspaceChange(quota=6)),
    "new managed": lambda store, _: store.managed.create("newer", WorkspaceChange()),
    "limits": lambda store, workspace: store.limits.change(workspace, 5, {"scrip": None}),
    "put": lambda store, workspace: store.event_types.put(workspace, "new", b"{}", Mode.STRICT),
    "delete type": lambda store, workspace: store.event_types.delete(workspace, "t"),
    "unknown": lambda store, workspace: store.event_types.set_unknown(workspace, Unknown.WARN),
    "destination": lambda store, workspace: manage.create(store.destinations, workspace, settings()),
    "delete destination": lambda store, workspace: _on_destination(store, workspace, "delete"),
    "pause": lambda store, workspace: _on_destination(store, workspace, "set_state", core.State.PAUSED),
    "replay": lambda store, workspace: _on_destination(store, workspace, "replay_set_aside"),
}
_STATE = {
    "workspaces": "SELECT name, rates, types_revision, unknown_types FROM workspaces ORDER BY id",
    "heads": "SELECT quota FROM heads ORDER BY workspace_id",
    "api_keys": "SELECT id, revoked_at FROM api_keys ORDER BY id",
    "event_types": "SELECT type, mode FROM event_types ORDER BY type",
    "destinations": "SELECT id, state, revision FROM destinations ORDER BY id",
}


async def _revoke(store: Store) -> None:
    await store.directory.revoke_key((await store.directory.list_keys())[0].id, 1)


async def _on_destination(store: Store, workspace: int, method: str, *arguments: Any) -> None:
    one = (await store.destinations.list(workspace, 10))[-1]
    await getattr(store.destinations, method)(workspace, one.destination.id, *arguments)


async def _state(store: Store) -> dict[str, Any]:
    def read(connection: Connection) -> dict[str, Any]:
        return {
            name: [tuple(row) for row in connection.exec_driver_sql(statement)] for name, statement in _STATE.items()
        }

    return await store.database.read(read)


async def test_no_act_is_done_without_its_event(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the event cannot be written, the act is undone with it."""
    workspace = (await store.directory.create_workspace("acme")).id
    await admin.create_key(store.directory, "acme", frozenset({Scope.ADMIN}))
    await store.event_types.put(workspace, "t", b"{}", Mode.STRICT)
    named = replace(settings(), name="old")
    await manage.create(store.destinations, workspace, named)
    state, before = await _state(store), len(await acts(store))

    class BrokenError(Exception):
        pass

    record = Audit.record

    def broken(self: Audit, *arguments: Any) -> None:
        record(self, *arguments)  # even after its event was written
        raise BrokenError

    with monkeypatch.context() as patched:
        patched.setattr(Audit, "record", broken)
        for name, change in CHANGES.items():
            with pytest.raises(BrokenError):
                await change(store, workspace)
            assert await _state(store) == state, name
    assert len(await acts(store)) == before
    for change in CHANGES.values():
        await change(store, workspace)
    assert len(await acts(store)) == before + len(CHANGES)


async def test_acts_at_the_same_time_are_one_chain(store: Store) -> None:
    """Also beside events of the same workspaces, whose appends lock heads in another order."""
    workspaces = [(await store.directory.create_workspace(f"w{n}")).id for n in range(4)]
    before = len(await acts(store))
    await asyncio.gather(
        *(store.limits.change(workspace, n) for workspace in workspaces for n in range(1, 5)),
        *(store.event_types.put(workspace, f"t{n}", b"{}", Mode.STRICT) for workspace in workspaces for n in range(4)),
        *(manage.create(store.destinations, workspace, settings()) for workspace in workspaces),
        *(append(store, workspace, draft(f"k{n}")) for workspace in workspaces for n in range(8)),
    )
    found = await acts(store)
    assert [event.sequence for event in found] == list(range(1, len(found) + 1))
    assert len(found) == before + 4 * 4 + 4 * 4 + 4
    reserved = await store.directory.workspace(RESERVED)
    assert reserved is not None
    assert (await verify(store.proof, reserved, limit=1_000)).breaks == []


async def test_the_reserved_workspace_has_no_quota(store: Store) -> None:
    """An act must not fail because of one, also if someone sets it by hand."""
    await store.directory.create_workspace("acme")
    reserved = await store.directory.workspace(RESERVED)
    assert reserved is not None
    with pytest.raises(InvalidRequest, match="no limits"):
        await admin.set_limits(store.directory, store.limits, RESERVED, 0, {})
    await store.limits.set_quota(reserved.id, 0)
    await store.directory.create_workspace("beta")
    assert (await last(store))[0] == "workspace.created"
    assert (await store.limits.usage(reserved.id)).events == len(await acts(store))


async def test_keys_of_the_reserved_workspace(store: Store) -> None:
    for scopes in ({Scope.EVENTS_WRITE}, {Scope.ADMIN, Scope.EVENTS_WRITE}, {"device:update"}):
        with pytest.raises(InvalidRequest, match="only the service"):
            await admin.create_key(store.directory, RESERVED, frozenset(scopes))
    for name in ("_other", "_HEADGATE", "_headgate2", "__headgate", " _headgate"):
        with pytest.raises(InvalidRequest, match="not a valid name"):
            await admin.create_key(store.directory, name, frozenset({Scope.ADMIN}))
    await admin.create_key(store.directory, RESERVED, frozenset({Scope.ADMIN, Scope.EVENTS_READ, Scope.LEDGER_READ}))
    assert (await last(store))[1]["workspace"] == RESERVED


async def test_who_must_be_known(store: Store) -> None:
    """A server's own topics refuse an act that names nobody. A program that opens a store for itself records none."""
    before = len(await acts(store))
    with pytest.raises(TypeError, match="has no actor"):
        await store.by(NOBODY).directory.create_workspace("acme")
    assert await store.directory.workspace("acme") is None
    await Store(store.database).directory.create_workspace("own")
    assert len(await acts(store)) == before
