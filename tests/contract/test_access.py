"""Workspaces and API keys."""

import asyncio
from hashlib import sha256

from headgate_server.core.model import ApiKey, Scope, Workspace
from headgate_server.core.types import KeyDigest
from headgate_server.store import Store


def _key(workspace: Workspace, name: str, created_at: int = 1, expires_at: int | None = None) -> ApiKey:
    return ApiKey(
        id=name,
        digest=sha256(name.encode()).digest(),
        prefix=f"hg_{name}",
        workspace=workspace,
        scopes=frozenset({Scope.EVENTS_WRITE, Scope.ADMIN}),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=None,
    )


async def test_a_workspace_is_made_once(store: Store) -> None:
    made = await asyncio.gather(*(store.directory.create_workspace("acme") for _ in range(8)))
    assert len({workspace.id for workspace in made}) == 1
    assert await store.directory.workspace("acme") == made[0]
    assert await store.directory.workspace("ACME") is None
    assert (await store.ledgers.head(made[0].id)).sequence == 0


async def test_workspaces_are_listed_by_name(store: Store) -> None:
    for name in ("b", "a", "B"):
        await store.directory.create_workspace(name)
    assert [workspace.name for workspace in await store.directory.workspaces()] == ["B", "a", "b"]


async def test_a_key_is_found_by_its_digest(store: Store) -> None:
    key = _key(await store.directory.create_workspace("acme"), "one", expires_at=5)
    await store.directory.add_key(key)
    assert await store.directory.find_key(key.digest) == key
    assert await store.directory.find_key(bytes(32)) is None


async def test_several_keys_are_found_at_once(store: Store) -> None:
    acme, other = await store.directory.create_workspace("acme"), await store.directory.create_workspace("other")
    keys = [_key((acme, other)[number % 2], f"key-{number}", number) for number in range(5)]
    for key in keys:
        await store.directory.add_key(key)
    assert await store.directory.revoke_key("key-1", 10)
    keys[1] = keys[1]._replace(revoked_at=10)
    unknown = [KeyDigest(number.to_bytes(32, "big")) for number in range(1, 100)]
    for count in (0, 1, 2, 4, 5, 17, 65, 99):
        asked = [*unknown[:count], *(key.digest for key in keys), keys[0].digest]
        assert await store.directory.find_keys(asked) == {key.digest: key for key in keys}
        assert await store.directory.find_keys(unknown[:count]) == {}


async def test_keys_are_listed_oldest_first(store: Store) -> None:
    acme, other = await store.directory.create_workspace("acme"), await store.directory.create_workspace("other")
    keys = [_key(acme, "b", 1), _key(other, "c", 2), _key(acme, "a", 3)]
    for key in reversed(keys):
        await store.directory.add_key(key)
    assert await store.directory.list_keys() == keys
    assert await store.directory.list_keys(acme.id) == [keys[0], keys[2]]


async def test_a_key_stays_revoked_as_of_the_first_time(store: Store) -> None:
    key = _key(await store.directory.create_workspace("acme"), "one")
    await store.directory.add_key(key)
    assert await store.directory.revoke_key("one", 10)
    assert await store.directory.revoke_key("one", 20)
    assert await store.directory.find_key(key.digest) == key._replace(revoked_at=10)
    assert not await store.directory.revoke_key("two", 10)


async def test_ping(store: Store) -> None:
    await store.probe.ping()
