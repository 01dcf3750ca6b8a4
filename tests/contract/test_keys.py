"""API keys: names, limits, rotation, and their last use, on every store."""

import asyncio
from typing import Any

import pytest

from headgate_server.access import keys
from headgate_server.access.auth import Authenticator, digest_of
from headgate_server.access.keys import DAY, NewKey
from headgate_server.access.limits import RateLimiter
from headgate_server.background.key_use import KeepKeyUse
from headgate_server.core.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from headgate_server.core.model import ApiKey, KeyLimits, RateLimit, Scope
from headgate_server.core.rates import rate_of, text_of
from headgate_server.process.clock import system_clock
from headgate_server.store import Store

SECOND = 1_000_000
HOUR = 3_600 * SECOND


class Clock:
    """A clock that only a test moves; `seconds` is its timer."""

    def __init__(self) -> None:
        self.now = system_clock()

    def __call__(self) -> int:
        return self.now

    def seconds(self) -> float:
        return self.now / SECOND


async def made(store: Store, clock: Clock | None = None, **fields: Any) -> tuple[str, ApiKey]:
    """Create a key of the workspace acme."""
    new = NewKey(**{"workspace": "acme", "scopes": [Scope.EVENTS_WRITE], **fields})
    return await keys.create(store.directory, new, clock or system_clock)


async def test_what_is_stored_of_a_key(store: Store) -> None:
    limits = KeyLimits(RateLimit(5, SECOND, 9), None)
    secret, record = await made(store, name="checkout, Köln", limits=limits)
    assert await store.directory.find_key(digest_of(secret)) == record
    assert await store.directory.get_key(record.id) == record
    assert (record.name, record.limits, record.last_used_at, record.successor) == ("checkout, Köln", limits, None, None)
    changed = await keys.change(store.directory, record.id, name="", limits=KeyLimits(events=limits.calls))
    assert changed == record._replace(name="", limits=KeyLimits(None, limits.calls))
    assert await store.directory.get_key(record.id) == changed
    with pytest.raises(NotFound):
        await keys.change(store.directory, "key_0", name="x")


async def test_what_is_refused(store: Store) -> None:
    for fields, words in (
        ({"workspace": "Not A Name"}, "not a valid name"),
        ({"workspace": ""}, "not a valid name"),
        ({"scopes": []}, "at least one scope"),
        ({"scopes": ["everything"]}, "no scope 'everything'"),
        ({"name": "x" * 101}, "at most 100"),
        ({"name": "a\nb"}, "printable"),
        ({"expires_at": 1}, "in the future"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"request_id": "ü"}, "request_id"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            await made(store, **fields)
    # Nothing was created before it was checked.
    assert await store.directory.workspaces() == []


async def test_a_creation_with_a_request_id_is_done_once(store: Store) -> None:
    results = await asyncio.gather(*(made(store, request_id="r1") for _ in range(6)), return_exceptions=True)
    (first,) = [each for each in results if isinstance(each, tuple)]
    refusals = [each for each in results if isinstance(each, AlreadyExists)]
    assert len(refusals) == 5
    assert {refusal.metadata["key_id"] for refusal in refusals} == {first[1].id}
    assert len(await store.directory.list_keys()) == 1
    # Another request, and the same of another workspace, are other keys.
    await made(store, request_id="r2")
    await made(store, request_id="r1", workspace="beta")


async def test_a_rotation(store: Store) -> None:
    """Both keys are valid until a time; then only the new one is."""
    clock = Clock()
    limits = KeyLimits(RateLimit(5, SECOND, 5), RateLimit(7, SECOND, 7))
    secret, old = await made(store, clock, name="shop", limits=limits)
    authenticators = [Authenticator(store.directory, clock, clock.seconds) for _ in range(2)]
    for each in authenticators:
        await each.authenticate(secret)
    new_secret, new = await keys.rotate(store.directory, old.id, HOUR, clock=clock)
    assert (new.workspace, new.scopes, new.name, new.limits) == (old.workspace, old.scopes, "shop", limits)
    assert new.expires_at is None
    stored = await keys.get(store.directory, old.id)
    assert (stored.expires_at, stored.successor, stored.state(clock.now)) == (clock.now + HOUR, new.id, "rotated")
    for each in authenticators:
        assert (await each.authenticate(secret)).key_id == old.id
        assert (await each.authenticate(new_secret)).key_id == new.id
    clock.now += HOUR
    for each in authenticators:
        with pytest.raises(Unauthenticated):
            await each.authenticate(secret)
        assert (await each.authenticate(new_secret)).key_id == new.id
    assert stored.state(clock.now) == "expired"


async def test_a_rotation_without_overlap_works_within_five_seconds(store: Store) -> None:
    clock = Clock()
    secret, old = await made(store, clock)
    authenticator = Authenticator(store.directory, clock, clock.seconds)
    await authenticator.authenticate(secret)
    await keys.rotate(store.directory, old.id, 0, clock=clock)
    clock.now += 5 * SECOND
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(secret)


async def test_the_expiry_of_a_rotated_key(store: Store) -> None:
    clock = Clock()
    _, old = await made(store, clock, expires_at=clock.now + 10 * DAY)
    clock.now += 9 * DAY
    _, new = await keys.rotate(store.directory, old.id, 7 * DAY, clock=clock)
    assert new.expires_at == clock.now + 10 * DAY
    stored = await keys.get(store.directory, old.id)
    assert stored.expires_at == old.expires_at, "an overlap never makes a key valid for longer"
    _, newer = await keys.rotate(store.directory, new.id, 0, clock.now + DAY, clock)
    assert newer.expires_at == clock.now + DAY


async def test_rotations_that_cannot_be(store: Store) -> None:
    clock = Clock()
    _, old = await made(store, clock)
    rotations = [keys.rotate(store.directory, old.id, DAY, clock=clock) for _ in range(4)]
    results = await asyncio.gather(*rotations, return_exceptions=True)
    ((_, new),) = [each for each in results if isinstance(each, tuple)]
    assert sum(isinstance(each, InvalidRequest) and new.id in each.message for each in results) == 3
    # If the new key was lost, it is revoked, and the old one is rotated again.
    await store.directory.revoke_key(new.id, clock.now)
    _, newer = await keys.rotate(store.directory, old.id, DAY, clock=clock)
    assert (await keys.get(store.directory, old.id)).successor == newer.id
    await store.directory.revoke_key(old.id, clock.now)
    _, expired = await made(store, clock, expires_at=clock.now + 1)
    clock.now += 1
    for key_id in (old.id, expired.id):
        with pytest.raises(InvalidRequest, match="not valid any more"):
            await keys.rotate(store.directory, key_id, DAY, clock=clock)
    with pytest.raises(NotFound):
        await keys.rotate(store.directory, "key_0", DAY, clock=clock)
    for overlap in (-1, 366 * DAY):
        with pytest.raises(InvalidRequest, match="overlap"):
            await keys.rotate(store.directory, newer.id, overlap, clock=clock)


async def test_keys_page_by_page(store: Store) -> None:
    records = [(await made(store, workspace=workspace))[1] for workspace in ("acme", "beta") * 3]
    records.sort(key=lambda record: (record.created_at, record.id))
    found: list[ApiKey] = []
    after: tuple[int, str] | None = None
    while page := await store.directory.page_keys(None, 2, after):
        found += page
        after = (page[-1].created_at, page[-1].id)
    assert found == records
    acme = [record for record in records if record.workspace.name == "acme"]
    assert await store.directory.page_keys(acme[0].workspace.id, 10) == acme


async def test_the_last_use_is_written_once_a_minute(store: Store) -> None:
    clock = Clock()
    clock.now -= clock.now % (60 * SECOND) - 59 * SECOND
    secret, record = await made(store, clock)
    _, unused = await made(store, clock)
    writes = 0
    write = store.directory.mark_used

    async def counted(used: dict[str, int]) -> None:
        nonlocal writes
        writes += 1
        await write(used)

    store.directory.mark_used = counted  # type: ignore[method-assign]
    authenticator = Authenticator(store.directory, clock, clock.seconds)
    job = KeepKeyUse(authenticator, store.directory)
    for _ in range(50):
        await authenticator.authenticate(secret)
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate("hg_other")
    assert writes == 0, "a call writes nothing"
    await job.flush()
    await job.flush()
    assert writes == 1
    minute = clock.now - clock.now % (60 * SECOND)
    assert (await keys.get(store.directory, record.id)).last_used_at == minute
    assert (await keys.get(store.directory, unused.id)).last_used_at is None
    # Another worker that is late does not set it back.
    await write({record.id: clock.now - HOUR, "key_gone": clock.now})
    assert (await keys.get(store.directory, record.id)).last_used_at == minute


async def test_a_use_that_cannot_be_written_is_written_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, record = await made(store)
    authenticator = Authenticator(store.directory)
    job = KeepKeyUse(authenticator, store.directory)
    await authenticator.authenticate(secret)

    async def lost(_: object) -> None:
        raise Unavailable("The store cannot be reached.")

    with monkeypatch.context() as patched:
        patched.setattr(store.directory, "mark_used", lost)
        with pytest.raises(Unavailable):
            await job.flush()
        await job.close()  # never fails, and never keeps a process from ending
    await job.close()
    assert (await keys.get(store.directory, record.id)).last_used_at is not None


async def admitted(limiter: RateLimiter, authenticator: Authenticator, secret: str, events: int) -> bool:
    """Count a request of so many events."""
    try:
        await limiter.admit_events(await authenticator.authenticate(secret), events)
    except RateLimited as error:
        return not (error.retry_after or 0) > 0
    return True


async def test_a_limit_of_events_counts_each(store: Store) -> None:
    """Exactly, and over all processes; a request above the burst is counted in full."""
    secret, record = await made(store, limits=KeyLimits(events=RateLimit(100, HOUR, 100)))
    workers = [(RateLimiter(store.limits), Authenticator(store.directory)) for _ in range(3)]
    found = await asyncio.gather(*(admitted(*workers[n % 3], secret, 7) for n in range(30)))
    assert sum(found) == 14, "14 requests of 7 fit into 100"
    assert await admitted(*workers[0], secret, 2)
    assert not await admitted(*workers[0], secret, 1)
    assert await admitted(*workers[0], secret, 0), "a request without events is none"
    # Another limit has another count. A request of 1,000 passes once, and is paid for: 10 hours' worth.
    await keys.change(store.directory, record.id, limits=KeyLimits(events=RateLimit(50, HOUR, 50)))
    limiter, fresh = RateLimiter(store.limits), Authenticator(store.directory)
    assert await admitted(limiter, fresh, secret, 1_000)
    with pytest.raises(RateLimited, match="50 events with this key per hour") as refused:
        await limiter.admit_events(await fresh.authenticate(secret), 1)
    assert 18 * 3_600 < (refused.value.retry_after or 0) <= 19.5 * 3_600


async def test_limits_of_calls_are_of_one_key(store: Store) -> None:
    limits = KeyLimits(calls=RateLimit(3, HOUR, 3))
    secrets = [(await made(store, limits=limits))[0] for _ in range(2)] + [(await made(store))[0]]
    limiter, authenticator = RateLimiter(store.limits), Authenticator(store.directory)
    for secret, expected in zip(secrets, (3, 3, 8), strict=True):
        caller = await authenticator.authenticate(secret)
        for _ in range(expected):
            await limiter.admit_call(caller)
        if expected == 3:
            with pytest.raises(RateLimited, match="More than 3 calls with this key per hour"):
                await limiter.admit_call(caller)


@pytest.mark.parametrize("text", ["1/day:999999999", "999999999/second", "1/second:999999999", "1/day"])
async def test_the_widest_limits(store: Store, text: str) -> None:
    """No number is too large for the store."""
    rate = rate_of(text)
    assert text_of(rate) == text
    secret, _ = await made(store, limits=KeyLimits(rate, rate))
    limiter, authenticator = RateLimiter(store.limits), Authenticator(store.directory)
    await limiter.admit_call(await authenticator.authenticate(secret))
    assert await admitted(limiter, authenticator, secret, 10**9)
