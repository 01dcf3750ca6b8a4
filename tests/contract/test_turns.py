"""Processes that write to one SQLite file take turns: fairly, in order, and without a way to block each other."""

import asyncio
import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from headgate_server.core.errors import Unavailable
from headgate_server.store import Store
from headgate_server.store.sqlite import connection as sqlite_connection
from headgate_server.store.sqlite import database as sqlite_database
from headgate_server.store.sqlite import turns, writes
from headgate_server.store.sqlite.database import SqliteDatabase
from headgate_server.store.sqlite.turns import Turns
from tests.support.drafts import append, draft, submission
from tests.support.taking_turns import another
from tests.support.waiting import until, until_true

pytestmark = pytest.mark.bounds

NEVER = 3600.0
SOON = 0.2


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """Return the path of a new, migrated store, which nobody has open."""
    path = tmp_path / "headgate.db"
    await (await SqliteDatabase.open(path)).close()
    return path


@pytest.fixture
async def store(file: Path) -> AsyncIterator[Store]:
    """Return the store, open in this process."""
    opened = Store(await SqliteDatabase.open(file))
    yield opened
    await opened.close()


@pytest.fixture
async def acme(store: Store) -> int:
    """Return a workspace."""
    return (await store.directory.create_workspace("acme")).id


def test_turns_go_round(file: Path) -> None:
    """Who ends a turn and wants the next one at once waits for those who wait already."""
    held: list[int] = []
    start, enough = threading.Barrier(3), threading.Event()

    def work(number: int) -> None:
        turns = Turns(file)
        start.wait()
        while not enough.is_set():
            turns.take()
            held.append(number)
            time.sleep(0.001)  # the others reach the queue, on a busy machine too
            turns.end()
        turns.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        until_true(lambda: len(held) >= 300)
    finally:
        enough.set()
    for thread in threads:
        thread.join()
    del held[300:]  # turns may go on while this thread waits for a processor
    counts = [held.count(number) for number in range(3)]
    assert min(counts) > 60, counts
    assert sum(one == following for one, following in pairwise(held)) < 30


def test_a_turn_is_not_taken_past_those_who_wait(file: Path) -> None:
    one, two = Turns(file), Turns(file)
    assert one.try_take()
    assert not two.try_take()
    waiting = threading.Thread(target=two.take)
    waiting.start()
    until_true(lambda: not one.try_take())  # it has the turn already, and gets it again until the other waits
    one.end()
    waiting.join()
    assert not one.try_take()
    two.end()
    assert one.try_take()
    one.close()
    two.close()


async def test_a_killed_holder_frees_its_turn(
    file: Path, store: Store, acme: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "PATIENCE", NEVER)
    with another(file) as holder:
        holder.do("take", "write")
        waiting = asyncio.create_task(append(store, acme, draft("k")))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        os.kill(holder.pid, signal.SIGKILL)
        assert [outcome.status for outcome in await waiting] == ["accepted"]
    assert await store.leases.current("another") is None


async def test_a_frozen_holder_that_does_not_write_is_passed(
    file: Path, store: Store, acme: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "PATIENCE", SOON)
    with another(file) as holder:
        holder.do("take")
        os.kill(holder.pid, signal.SIGSTOP)
        for _ in range(2):
            assert [outcome.status for outcome in await append(store, acme, draft())] == ["accepted"]
        os.kill(holder.pid, signal.SIGCONT)
        holder.do("end")

        async def takes_turns() -> bool:
            return store.database._writes._left is None

        await until(takes_turns)
        holder.do("take")
        waiting = asyncio.create_task(append(store, acme, draft()))
        done, _ = await asyncio.wait([waiting], timeout=SOON / 4)
        assert not done
        holder.do("end")
        await waiting
    assert (await store.ledgers.head(acme)).sequence == 3


async def test_a_frozen_process_that_is_next_is_passed(
    file: Path, store: Store, acme: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "PATIENCE", SOON)
    mine = Turns(file)
    mine.take()
    with another(file) as following, open(f"{file}.next") as queue:  # noqa: ASYNC230 - an empty file
        following.tell("queue")

        async def waits() -> bool:
            try:
                fcntl.flock(queue, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(queue, fcntl.LOCK_UN)
            return False

        await until(waits)
        os.kill(following.pid, signal.SIGSTOP)
        mine.close()
        assert [outcome.status for outcome in await append(store, acme, draft())] == ["accepted"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all waits for a lock."""
    monkeypatch.setattr(writes, "PATIENCE", SOON)
    for module in (sqlite_connection, sqlite_database):
        monkeypatch.setattr(module, "BUSY_TIMEOUT", SOON)


async def test_a_holder_that_is_frozen_in_its_transaction_makes_others_refuse(
    file: Path, impatient: None, store: Store, acme: int
) -> None:
    """They refuse in time and say why; they can read; and when it thaws, its transaction and theirs are whole."""
    with another(file) as holder:
        holder.do("take", "write")
        os.kill(holder.pid, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(Unavailable, match="Another process holds the store's lock"):
                await append(store, acme, draft("k"))
            with pytest.raises(Unavailable, match="Another process holds the store's lock"):
                await store.probe.ping()
        assert (await store.ledgers.head(acme)).sequence == 0
        os.kill(holder.pid, signal.SIGCONT)
        holder.do("commit", "end")
        assert [outcome.status for outcome in await append(store, acme, draft("k"))] == ["accepted"]
        holder.do("take", "end")
    assert await store.database.read(lambda connection: connection.exec_driver_sql("PRAGMA integrity_check").all()) == [
        ("ok",)
    ]


async def test_a_store_is_closed_while_a_frozen_process_has_the_turn(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "PATIENCE", SOON)
    store = Store(await SqliteDatabase.open(file))
    with another(file) as holder:
        holder.do("take")
        os.kill(holder.pid, signal.SIGSTOP)
        writing = asyncio.create_task(store.directory.create_workspace("acme"))
        given_up = asyncio.create_task(store.directory.create_workspace("other"))
        await asyncio.sleep(0)
        given_up.cancel()
        await store.close()
        assert (await writing).name == "acme"


async def test_a_store_is_closed_whose_last_caller_has_given_up(file: Path, impatient: None) -> None:
    store = Store(await SqliteDatabase.open(file))
    with another(file) as holder:
        holder.do("take")
        os.kill(holder.pid, signal.SIGSTOP)
        writing = asyncio.create_task(store.directory.create_workspace("acme"))

        async def waits() -> bool:
            return store.database._writes._waiting is not None

        await until(waits)
        writing.cancel()
        async with asyncio.timeout(20):
            await store.close()


async def test_work_that_was_given_up_is_not_done(file: Path, store: Store, acme: int) -> None:
    with another(file) as holder:
        holder.do("take")
        first = asyncio.create_task(append(store, acme, draft()))
        await asyncio.sleep(0)
        given_up = asyncio.create_task(store.limits.set_quota(acme, 0))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        holder.do("end")
        await first
    assert [outcome.status for outcome in await append(store, acme, draft())] == ["accepted"]


async def test_a_group_grows_until_its_turn_comes(file: Path, store: Store, acme: int) -> None:
    begun: list[int] = []
    with another(file) as holder:
        holder.do("take")
        submissions = [submission(acme, draft())]
        waiting = asyncio.create_task(
            store.database.append(submissions, wait=False, begin=lambda: begun.append(len(submissions)))
        )
        await asyncio.wait([waiting], timeout=0.05)
        submissions.append(submission(acme, draft(), draft()))
        assert begun == []
        holder.do("end")
        assert len(await waiting) == 2
    assert begun == [2]
    assert (await store.ledgers.head(acme)).sequence == 3


async def test_without_locks_of_the_system_it_writes_without_turns(
    file: Path, store: Store, acme: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes must not end: all later writes would wait for ever."""

    def none_left(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as locks:
        locks.setattr(turns.fcntl, "flock", none_left)
        for _ in range(2):
            async with asyncio.timeout(20):
                assert [outcome.status for outcome in await append(store, acme, draft())] == ["accepted"]
    await append(store, acme, draft())  # its turn ends the one before, which the system may have refused to end
    with another(file) as holder:
        holder.do("take")
        waiting = asyncio.create_task(append(store, acme, draft()))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        holder.do("end")
        await waiting
    assert (await store.ledgers.head(acme)).sequence == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_after_a_command_of_root_the_owner_can_open_the_store(tmp_path: Path) -> None:
    path = tmp_path / "headgate.db"
    path.touch(0o600)
    os.chown(path, 12345, 12345)
    Turns(path).close()
    assert {file.stat().st_uid for file in tmp_path.iterdir()} == {12345}
