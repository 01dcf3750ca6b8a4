"""A store is copied into another one: everything, once, checked, and from where it was after a kill."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headgate_server.access import copying
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Mismatch
from headgate_server.core.types import EventId
from headgate_server.store import transfer
from headgate_server.store.opening import open_store
from headgate_server.store.schema import metadata
from headgate_server.store.transfer import LEFT_OUT, ROWS, TABLES, key_of
from tests.support.copies import EVENTS, FILLED, copied_now, everything, fill, run, send, value
from tests.support.drafts import append, draft


async def test_everything_is_copied(both: tuple[str, str]) -> None:
    await fill(both[0])
    before = await everything(both[0])
    done = await run(both)
    assert done.exit_code == 0, done.output
    rows = FILLED * len(TABLES)
    assert done.stdout == (
        f"3 workspaces, {EVENTS + 4} events ({EVENTS + 4} of them copied now), {rows} other rows, heads equal, sound\n"
    )
    assert await everything(both[1]) == before == await everything(both[0])

    drafts = [draft(f"k{n}", {"n": n}) for n in range(EVENTS)]
    assert set(await send(both[1], *drafts)) == {"duplicate"}
    assert await send(both[1], draft("new"), draft("k1", {"n": 2})) == ["accepted", "conflict"]
    store = await open_store(both[1])
    assert (await store.directory.create_workspace("new")).id > 3
    await store.close()


async def test_a_page_of_rows_is_bounded_by_bytes_too(both: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    await send(both[0], draft("a"))
    store = await open_store(both[0])
    try:
        columns = metadata.tables["answers"].columns
        sizes = [10, 3_000, 10, 2_000, 2_000, 9_000, 9_000, 1]
        place = columns.keys().index("answer")
        rows = [tuple(value(column, n) for column in columns) for n in range(1, len(sizes) + 1)]
        rows = [(*row[:place], b"x" * size, *row[place + 1 :]) for row, size in zip(rows, sizes, strict=True)]
        await store.transfer.put("answers", rows)
        monkeypatch.setattr(transfer, "PAGE_BYTES", 5_000)
        pages: list[list[int]] = []
        after = None
        while page := await store.transfer.page("answers", after):
            pages.append([len(row[place]) for row in page])
            after = key_of("answers", page[-1])
    finally:
        await store.close()
    assert pages == [[10, 3_000, 10], [2_000, 2_000], [9_000], [9_000], [1]]
    assert (await copied_now(both)).whole
    assert await everything(both[1]) == await everything(both[0])


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
    await fill(both[0], rows=ROWS + 1)
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
    done = await copied_now(both)
    assert (done.new, done.events, done.whole) == (0, EVENTS + 4, True)
    assert await everything(both[1]) == await everything(both[0])


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
    first = await copied_now(both, live=True)
    assert (first.events, first.new, first.whole) == (4, 4, False)
    with pytest.raises(SetupError, match="half a copy"):
        await open_store(both[1])

    second = await run(both, "--live")
    assert second.stdout == (
        "1 workspaces, 6 events (2 of them copied now), not whole: stop the servers of the source and copy again "
        "without --live\n"
    )
    key = draft("a", {"third": 1}, on_mismatch=Mismatch.REPLACE)
    await append(served, workspace, key, draft("f"))
    await served.close()
    assert (await copied_now(both)).new == 2
    assert await everything(both[1]) == await everything(both[0])
    assert await send(both[1], draft("a", {"third": 1})) == ["duplicate"]


async def test_a_source_that_is_still_served(both: tuple[str, str]) -> None:
    served = await open_store(both[0], serving=True)
    workspace = (await served.directory.create_workspace("acme")).id
    await append(served, workspace, draft("a"))
    lease = await served.leases.take("deliver", "host 7", 60)
    assert lease is not None
    with pytest.raises(SetupError, match=r"A process serves the store|still served: host 7 holds the lease deliver"):
        await copied_now(both)
    await served.leases.release(lease)
    await served.close()
    assert (await copied_now(both)).whole


async def test_a_source_that_moves_before_the_copy_is_whole(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone started a server of the source too early: nothing is lost, since the copy says so."""
    both = (postgres_url, f"sqlite:///{tmp_path}/new.db")
    await send(both[0], draft("a"))
    tables = copying._Copy.tables

    async def then_moved(self: Any) -> tuple[int, int]:
        result = await tables(self)
        await send(both[0], draft("late"))
        return result

    monkeypatch.setattr(copying._Copy, "tables", then_moved)
    with pytest.raises(SetupError, match="has 1 newer events in the workspace 'acme'"):
        await copied_now(both)
    monkeypatch.undo()
    assert (await copied_now(both)).new == 1
    assert await send(both[1], draft("a"), draft("late")) == ["duplicate", "duplicate"]


async def test_of_two_copies_into_one_target_the_first_stops(
    tmp_path: Path, postgres_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL has no lock of a file. Otherwise one could say that the target is whole, just after the other had
    deleted its keys.
    """
    both = f"sqlite:///{tmp_path}/source.db", postgres_target
    await fill(both[0], rows=5)
    monkeypatch.setattr(copying, "alone", lambda _: contextlib.nullcontext())
    original = copying._Copy.tables

    async def overtaken(self: Any) -> tuple[int, int]:
        monkeypatch.setattr(copying._Copy, "tables", original)
        assert (await copied_now(both)).whole
        return await original(self)

    monkeypatch.setattr(copying._Copy, "tables", overtaken)
    with pytest.raises(SetupError, match="Another copy into the target was begun"):
        await copied_now(both)
    assert await everything(both[1]) == await everything(both[0])


def test_the_key_of_a_row() -> None:
    columns = [column.name for column in metadata.tables["failures"].columns]
    assert key_of("failures", tuple(columns)) == ["workspace_id", "destination_id", "sequence"]
