"""A store is copied into another one: everything, once, checked, and from where it was after a kill."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import BigInteger, Integer, LargeBinary, Text, select

from headgate_server.access import copying
from headgate_server.access.copying import Copied, copy
from headgate_server.cli.commands import headgate
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Mismatch
from headgate_server.core.rejections import Rejection
from headgate_server.core.types import EventId
from headgate_server.store.opening import open_store
from headgate_server.store.schema import metadata
from headgate_server.store.transfer import COPYING, LEFT_OUT, ROWS, TABLES, key_of
from tests.support import database, postgres
from tests.support.drafts import append, draft

EVENTS = 1000


@pytest.fixture
async def postgres_target() -> AsyncIterator[str]:
    await asyncio.to_thread(postgres.ensure_started)
    async with postgres.fresh_database("template1") as url:
        yield url


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Return the URLs of a store, and of another one that does not exist yet."""
    if request.param == "sqlite to postgres":
        return f"sqlite:///{tmp_path}/old.db", request.getfixturevalue("postgres_target")
    return request.getfixturevalue("postgres_url"), f"sqlite:///{tmp_path}/new.db"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Return the same of two files."""
    return f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/new.db"


def _quiet(_: str) -> None:
    """Print nothing."""


async def _copy(both: tuple[str, str], **more: Any) -> Copied:
    return await copy(*both, report=_quiet, **more)


async def _run(both: tuple[str, str], *more: str) -> Result:
    command = ["copy", "--from", both[0], "--to", both[1], *more]
    return await asyncio.to_thread(CliRunner().invoke, headgate, command)


async def _send(url: str, *drafts: Any) -> Sequence[str]:
    store = await open_store(url)
    try:
        workspace = await store.directory.create_workspace("acme")
        return [outcome.status for outcome in await append(store, workspace.id, *drafts)]
    finally:
        await store.close()


def _value(column: Any, number: int) -> Any:
    """Return a value for a column of the row of this number."""
    kind = column.type
    if column.name == "workspace_id":
        return 1
    if column.nullable and number % 3 == 0:
        return None
    if isinstance(kind, LargeBinary):
        return number.to_bytes(kind.length or 16, "big")
    if isinstance(kind, Text):
        return f"{column.name} {number} é"
    assert isinstance(kind, (BigInteger, Integer)), column
    return number


_ROWS = ROWS * 2 + 7


async def _fill(url: str, rows: int = _ROWS) -> None:
    """Store events of every kind, and rows in every other table."""
    store = await open_store(url)
    try:
        acme = await store.directory.create_workspace("acme")
        beta = await store.directory.create_workspace("beta")
        await store.directory.create_workspace("empty")
        for first in range(0, EVENTS, 250):
            await append(store, acme.id, *(draft(f"k{n}", {"n": n}) for n in range(first, first + 250)))
        await append(store, beta.id, draft(), draft("a", attributes=b'{"x":"y"}'), draft("b", occurred_at=5))
        await append(store, beta.id, draft("b", {"new": True}, on_mismatch=Mismatch.REPLACE))
        await store.limits.set_quota(acme.id, 1_000_000)
        for table in TABLES:
            columns = metadata.tables[table].columns
            await store.transfer.put(table, [tuple(_value(each, n) for each in columns) for n in range(rows)])
    finally:
        await store.close()


async def _everything(url: str) -> dict[str, list[Any]]:
    """Return all rows of all tables, sorted."""
    store = await open_store(url, as_is=True, filling=True)
    try:
        return {
            table.name: sorted(
                await store.database.read(
                    lambda connection, table=table: [tuple(row) for row in connection.execute(select(table))]
                ),
                key=repr,
            )
            for table in metadata.sorted_tables
            if table.name not in LEFT_OUT
        }
    finally:
        await store.close()


async def test_everything_is_copied(both: tuple[str, str]) -> None:
    await _fill(both[0])
    before = await _everything(both[0])
    done = await _run(both)
    assert done.exit_code == 0, done.output
    rows = _ROWS * len(TABLES)
    assert done.stdout == (
        f"3 workspaces, {EVENTS + 4} events ({EVENTS + 4} of them copied now), {rows} other rows, heads equal, sound\n"
    )
    assert await _everything(both[1]) == before == await _everything(both[0])

    drafts = [draft(f"k{n}", {"n": n}) for n in range(EVENTS)]
    assert set(await _send(both[1], *drafts)) == {"duplicate"}
    assert await _send(both[1], draft("new"), draft("k1", {"n": 2})) == ["accepted", "conflict"]
    store = await open_store(both[1])
    assert (await store.directory.create_workspace("new")).id > 3
    await store.close()


def test_every_table_is_copied_or_left_out_on_purpose() -> None:
    assert {*TABLES, *LEFT_OUT, "workspaces", "heads", "events"} == set(metadata.tables)
    assert {"leases", "properties"} == LEFT_OUT


_KILLED = """
import asyncio, os, signal, sys
from headgate_server.access import copying
from headgate_server.store.transfer import Transfer
copying._EVENTS = 100
calls, method = 0, getattr(Transfer, {method!r})
async def killed(*arguments):
    global calls
    calls += 1
    if calls == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    return await method(*arguments)
setattr(Transfer, {method!r}, killed)
asyncio.run(copying.copy({source!r}, {target!r}, report=lambda _: None))
"""


async def test_a_copy_that_is_killed_again_and_again(tmp_path: Path, postgres_target: str) -> None:
    both = f"sqlite:///{tmp_path}/old.db", postgres_target
    await _fill(both[0], rows=ROWS + 1)
    copied = []
    for method, calls in (("append", 4), ("append", 6), ("put", 3)):
        program = _KILLED.format(method=method, calls=calls, source=both[0], target=both[1])
        ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
        assert ended.returncode == -signal.SIGKILL
        # Nothing opens the target, and each of its ledgers is sound.
        with pytest.raises(SetupError, match="half a copy of another one: run `headgate copy` again"):
            await open_store(both[1])
        store = await open_store(both[1], filling=True)
        copied.append((await store.transfer.ends())[1].sequence)
        reports = [report async for report in copying.admin.verify_ledgers(store.proof, None)]
        assert [report.breaks for report in reports] == [[]] * len(reports)
        await store.close()
    assert copied == [300, 800, EVENTS]
    done = await _copy(both)
    assert (done.new, done.events, done.whole) == (0, EVENTS + 4, True)
    assert await _everything(both[1]) == await _everything(both[0])


async def test_a_source_that_is_served_while_its_events_are_copied(
    both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """New events come between two pages, and take identities over from events that were copied already."""
    monkeypatch.setattr(copying, "_EVENTS", 2)
    served = await open_store(both[0], serving=True)
    workspace = (await served.directory.create_workspace("acme")).id
    await append(served, workspace, draft("a"), draft("b"), draft("c"), draft("d"))
    holders = copying._Copy._holders
    coming = [draft("a", {"second": 1}, on_mismatch=Mismatch.REPLACE), draft("e")]

    async def meanwhile(self: Any, *arguments: Any) -> list[EventId]:
        if coming:
            await append(served, workspace, coming.pop(0))
        return await holders(self, *arguments)

    monkeypatch.setattr(copying._Copy, "_holders", meanwhile)
    first = await _copy(both, live=True)
    assert (first.events, first.new, first.whole) == (4, 4, False)
    with pytest.raises(SetupError, match="half a copy"):
        await open_store(both[1])

    second = await _run(both, "--live")
    assert second.stdout == (
        "1 workspaces, 6 events (2 of them copied now), not whole: stop the servers of the source and copy again "
        "without --live\n"
    )
    key = draft("a", {"third": 1}, on_mismatch=Mismatch.REPLACE)
    await append(served, workspace, key, draft("f"))
    await served.close()
    assert (await _copy(both)).new == 2
    assert await _everything(both[1]) == await _everything(both[0])
    assert await _send(both[1], draft("a", {"third": 1})) == ["duplicate"]


async def test_a_source_that_is_still_served(both: tuple[str, str]) -> None:
    served = await open_store(both[0], serving=True)
    workspace = (await served.directory.create_workspace("acme")).id
    await append(served, workspace, draft("a"))
    lease = await served.leases.take("deliver", "host 7", 60)
    assert lease is not None
    with pytest.raises(SetupError, match=r"A process serves the store|still served: host 7 holds the lease deliver"):
        await _copy(both)
    await served.leases.release(lease)
    await served.close()
    assert (await _copy(both)).whole


async def test_a_source_that_moves_before_the_copy_is_whole(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone started a server of the source too early: nothing is lost, since the copy says so."""
    both = (postgres_url, f"sqlite:///{tmp_path}/new.db")
    await _send(both[0], draft("a"))
    tables = copying._Copy.tables

    async def then_moved(self: Any) -> tuple[int, int]:
        result = await tables(self)
        await _send(both[0], draft("late"))
        return result

    monkeypatch.setattr(copying._Copy, "tables", then_moved)
    with pytest.raises(SetupError, match="has 1 newer events in the workspace 'acme'"):
        await _copy(both)
    monkeypatch.undo()
    assert (await _copy(both)).new == 1
    assert await _send(both[1], draft("a"), draft("late")) == ["duplicate", "duplicate"]


async def test_targets_that_hold_something_else(files: tuple[str, str], tmp_path: Path) -> None:
    await _send(files[0], draft("a"), draft("b"))
    await _send(files[1], draft("a"))
    with pytest.raises(SetupError, match="is not empty: it has the workspace 'acme'"):
        await _copy(files)
    # Half a copy of another store: the workspace has the same name and number.
    store = await open_store(files[1])
    await store.properties.put(COPYING, "2026-11-30T12:00:00Z")
    await store.close()
    with pytest.raises(SetupError, match=r"holds something else: its ledger of the workspace 'acme' ends at 1"):
        await _copy(files)
    other = f"sqlite:///{tmp_path}/other.db"
    store = await open_store(other)
    await store.directory.create_workspace("beta")
    await store.close()
    with pytest.raises(SetupError, match="holds something else: it has the workspace 'acme'"):
        await _copy((other, files[1]))
    # The source did not change.
    assert await _send(files[0], draft("a"), draft("b")) == ["duplicate", "duplicate"]


async def test_a_target_that_is_written_by_something_else(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await _send(files[0], *(draft(f"{n}") for n in range(10)))
    monkeypatch.setattr(copying, "_EVENTS", 5)
    original = copying._Copy._check_follows

    def between(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        if arguments[1].sequence == 5:
            database._execute_sqlite(files[1], "UPDATE heads SET sequence = 4")

    monkeypatch.setattr(copying._Copy, "_check_follows", between)
    with pytest.raises(SetupError, match="Something else writes to the target's ledger of the workspace 'acme'"):
        await _copy(files)


async def test_of_two_copies_into_one_target_the_first_stops(
    tmp_path: Path, postgres_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL has no lock of a file. Otherwise one could say that the target is whole, just after the other had
    deleted its keys.
    """
    both = f"sqlite:///{tmp_path}/source.db", postgres_target
    await _fill(both[0], rows=5)
    monkeypatch.setattr(copying, "alone", lambda _: contextlib.nullcontext())
    original = copying._Copy.tables

    async def overtaken(self: Any) -> tuple[int, int]:
        monkeypatch.setattr(copying._Copy, "tables", original)
        assert (await _copy(both)).whole
        return await original(self)

    monkeypatch.setattr(copying._Copy, "tables", overtaken)
    with pytest.raises(SetupError, match="Another copy into the target was begun"):
        await _copy(both)
    assert await _everything(both[1]) == await _everything(both[0])


async def test_two_names_of_one_store(tmp_path: Path, postgres_url: str) -> None:
    file = tmp_path / "headgate.db"
    await (await open_store(f"sqlite:///{file}")).close()
    link = tmp_path / "link.db"
    await asyncio.to_thread(link.symlink_to, file)
    for one, other in (
        (f"sqlite:///{file}", f"sqlite:///{link}"),
        (f"sqlite:///{file}", f"sqlite:///{tmp_path}/../{tmp_path.name}/headgate.db"),
        (postgres_url, f"{postgres_url}&application_name=other"),
    ):
        for live in (False, True):
            with pytest.raises(SetupError, match="are the same store"):
                await _copy((one, other), live=live)
        # It is no half copy now.
        await (await open_store(one)).close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE events SET salt = 'text' WHERE sequence = 2",
            "cannot store the events 1 to 3 of the workspace 'acme'",
        ),
        ("DELETE FROM events WHERE sequence = 2", "has a break after 0"),
        ("UPDATE heads SET sequence = 5", "has a break after 3"),
        ("DELETE FROM heads", "rows of the workspace 'acme' that do not belong together"),
        (
            "UPDATE events SET workspace_id = 99 WHERE sequence = 3",
            "rows of the workspace 99 that do not",
        ),
    ],
)
async def test_a_source_that_cannot_be_copied(both: tuple[str, str], change: str, said: str) -> None:
    if both[0].startswith("postgresql") and "salt" in change:
        pytest.skip("PostgreSQL has no text in a column of bytes")
    await _send(both[0], draft("a"), draft("b"), draft("c"))
    await database.execute(both[0], change)
    with pytest.raises(SetupError, match=said):
        await _copy(both)


async def test_a_source_with_a_changed_event(files: tuple[str, str]) -> None:
    """It is copied, but the target is not whole: an operator must look first."""
    await _send(files[0], draft("a"), draft("b"))
    await database.execute(files[0], "UPDATE events SET type = 'other' WHERE sequence = 2")
    done = await _run(files)
    assert done.exit_code == 1
    assert "content_mismatch at sequence 2" in done.stdout
    with pytest.raises(SetupError, match="half a copy"):
        await open_store(files[1])
    await database.execute(files[0], "UPDATE events SET type = 'document.created' WHERE sequence = 2")
    await database.execute(files[1], "UPDATE events SET type = 'document.created' WHERE sequence = 2")
    assert (await _copy(files)).whole


async def test_a_rejection_that_the_target_cannot_store(tmp_path: Path, postgres_target: str) -> None:
    both = (f"sqlite:///{tmp_path}/old.db", postgres_target)
    await _send(both[0], draft("a"))
    store = await open_store(both[0])
    columns = metadata.tables["rejections"].columns
    rows = [tuple(_value(column, n) for column in columns) for n in range(10)]
    place = Rejection._fields.index("field")
    rows[3] = (*rows[3][:place], "a\0b", *rows[3][place + 1 :])
    await store.transfer.put("rejections", rows)
    await store.close()
    done = await _run(both)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("\n1 rejections were left out: the target cannot store them\n")
    assert len((await _everything(both[1]))["rejections"]) == 9


async def test_copies_that_cannot_be(files: tuple[str, str], tmp_path: Path) -> None:
    await _send(files[0], draft("a"))
    old = f"sqlite:///{tmp_path}/older.db"
    await _send(old, draft("a"))
    for change in ("DROP TABLE properties", "UPDATE alembic_version SET version_num = '0009'"):
        await database.execute(old, change)
    for source, target, said in (
        (files[0], files[0], "are the same store"),
        ("sqlite:////nowhere/headgate.db", files[1], "There is no store"),
        (old, files[1], "has an older schema .* run headgate migrate"),
        ("mysql://x/y", files[1], "unknown scheme"),
        (files[0], "postgresql://nobody:secret@127.0.0.1:1/db", "cannot be used"),
    ):
        done = await _run((source, target))
        assert (done.exit_code, done.stdout) == (2, "")
        assert re.search(said, done.stderr), done.stderr
        assert "secret" not in done.stderr


def test_the_key_of_a_row() -> None:
    columns = [column.name for column in metadata.tables["failures"].columns]
    assert key_of("failures", tuple(columns)) == ["workspace_id", "destination_id", "sequence"]
