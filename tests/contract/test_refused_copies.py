"""Copies that are refused, since the source or the target is not what it has to be, and what a target cannot store."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from headgate_server.access import copying
from headgate_server.core.errors import SetupError
from headgate_server.core.rejections import Rejection
from headgate_server.store.opening import open_store
from headgate_server.store.schema import metadata
from headgate_server.store.transfer import COPYING
from tests.support import database
from tests.support.copies import copied_now, everything, run, send, value
from tests.support.drafts import draft


async def test_targets_that_hold_something_else(files: tuple[str, str], tmp_path: Path) -> None:
    await send(files[0], draft("a"), draft("b"))
    await send(files[1], draft("a"))
    with pytest.raises(SetupError, match="is not empty: it has the workspace 'acme'"):
        await copied_now(files)
    # Half a copy of another store: the workspace has the same name and number.
    store = await open_store(files[1])
    await store.properties.put(COPYING, "2026-11-30T12:00:00Z")
    await store.close()
    with pytest.raises(SetupError, match=r"holds something else: its ledger of the workspace 'acme' ends at 1"):
        await copied_now(files)
    other = f"sqlite:///{tmp_path}/other.db"
    store = await open_store(other)
    await store.directory.create_workspace("beta")
    await store.close()
    with pytest.raises(SetupError, match="holds something else: it has the workspace 'acme'"):
        await copied_now((other, files[1]))
    # The source did not change.
    assert await send(files[0], draft("a"), draft("b")) == ["duplicate", "duplicate"]


async def test_a_target_that_is_written_by_something_else(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(files[0], *(draft(f"{n}") for n in range(10)))
    monkeypatch.setattr(copying, "_EVENTS", 5)
    original = copying._Copy._check_follows

    def between(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        if arguments[1].sequence == 5:
            database._execute_sqlite(files[1], "UPDATE heads SET sequence = 4")

    monkeypatch.setattr(copying._Copy, "_check_follows", between)
    with pytest.raises(SetupError, match="Something else writes to the target's ledger of the workspace 'acme'"):
        await copied_now(files)


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
                await copied_now((one, other), live=live)
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
    await send(both[0], draft("a"), draft("b"), draft("c"))
    await database.execute(both[0], change)
    with pytest.raises(SetupError, match=said):
        await copied_now(both)


async def test_a_source_with_a_changed_event(files: tuple[str, str]) -> None:
    """It is copied, but the target is not whole: an operator must look first."""
    await send(files[0], draft("a"), draft("b"))
    await database.execute(files[0], "UPDATE events SET type = 'other' WHERE sequence = 2")
    done = await run(files)
    assert done.exit_code == 1
    assert "content_mismatch at sequence 2" in done.stdout
    with pytest.raises(SetupError, match="half a copy"):
        await open_store(files[1])
    await database.execute(files[0], "UPDATE events SET type = 'document.created' WHERE sequence = 2")
    await database.execute(files[1], "UPDATE events SET type = 'document.created' WHERE sequence = 2")
    assert (await copied_now(files)).whole


async def test_a_rejection_that_the_target_cannot_store(tmp_path: Path, postgres_target: str) -> None:
    both = (f"sqlite:///{tmp_path}/old.db", postgres_target)
    await send(both[0], draft("a"))
    store = await open_store(both[0])
    columns = metadata.tables["rejections"].columns
    rows = [tuple(value(column, n) for column in columns) for n in range(10)]
    place = Rejection._fields.index("field")
    rows[3] = (*rows[3][:place], "a\0b", *rows[3][place + 1 :])
    await store.transfer.put("rejections", rows)
    await store.close()
    done = await run(both)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("\n1 rejections were left out: the target cannot store them\n")
    assert len((await everything(both[1]))["rejections"]) == 9


async def test_copies_that_cannot_be(files: tuple[str, str], tmp_path: Path) -> None:
    await send(files[0], draft("a"))
    old = f"sqlite:///{tmp_path}/older.db"
    await send(old, draft("a"))
    for change in ("DROP TABLE properties", "UPDATE alembic_version SET version_num = '0009'"):
        await database.execute(old, change)
    for source, target, said in (
        (files[0], files[0], "are the same store"),
        ("sqlite:////nowhere/headgate.db", files[1], "There is no store"),
        (old, files[1], "has an older schema .* run headgate migrate"),
        ("mysql://x/y", files[1], "unknown scheme"),
        (files[0], "postgresql://nobody:secret@127.0.0.1:1/db", "cannot be used"),
    ):
        done = await run((source, target))
        assert (done.exit_code, done.stdout) == (2, "")
        assert re.search(said, done.stderr), done.stderr
        assert "secret" not in done.stderr
