"""The drill of point-in-time recovery in docs/operations.md: `make drill`. Its settings are those of the page.

A PostgreSQL archives its log, gets a base backup, stores more events and is killed. Others recover from the backup and
the archive: up to a moment, and everything.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from headgate_server.core.model import Outcome
from tests.contract.test_drill import LOST, OLD, program, ran, send
from tests.support import postgres
from tests.support.waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
ARCHIVING, RECOVERY = (
    dict(re.findall(r"^(\w+) = (.+)$", block, re.MULTILINE))
    for block in re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
)
LATER = [f"later-{number}" for number in range(100)]


class Lost:
    """What is left of a server that was lost: a base backup, the archive, and what was kept elsewhere."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.base, self.archive, self.heads = folder / "base", folder / "archive", folder / "heads.json"
        self.moment = ""
        """After the last event that the heads know, and before those that are lost at this moment."""
        self.stored: list[Outcome] = []

    def setting(self, text: str) -> str:
        """Return a setting of the page for this archive."""
        return text.replace("/archive", str(self.archive)).strip("'")

    def copy(self) -> Path:
        """Return a copy of the base backup, with the page's settings for a recovery of everything."""
        copy = Path(tempfile.mkdtemp(dir=self.folder)) / "data"
        shutil.copytree(self.base, copy, symlinks=True)
        copy.chmod(0o700)
        (copy / "recovery.signal").touch()
        return copy


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that PostgreSQL's user may write to."""
    path = Path(tempfile.mkdtemp(prefix="headgate-drill-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


async def lose(folder: Path) -> Lost:
    """Run a server with an archive, and lose it."""
    lost = Lost(folder)
    lost.archive.mkdir()
    lost.archive.chmod(0o777)
    settings = [f"{name}={lost.setting(text)}" for name, text in ARCHIVING.items()]
    with postgres.own_server(*settings) as url:
        lost.stored = [*await send(url, OLD)]
        backup = (f"--pgdata={lost.base}", f"--dbname={url}", "--checkpoint=fast", "--wal-method=stream")
        await program("pg_basebackup", *backup)
        lost.stored += await send(url, LATER)
        lost.heads.write_text(await ran("ledger", "heads", "--store", url))
        lost.moment = str(datetime.now(UTC))
        await send(url, LOST)
        connection = await asyncpg.connect(url)
        last = await connection.fetchval("SELECT pg_walfile_name(pg_switch_wal())")

        async def archived() -> bool:
            return (lost.archive / last).exists()

        await until(archived)
        await connection.close()
    return lost


async def recover(lost: Lost, *names: str, found: int, missing: str) -> None:
    """Recover with these settings of the page. `found` events are there, and those that were lost are `missing`."""
    known = {name: lost.setting(RECOVERY[name]) for name in names}
    settings = known | ({"recovery_target_time": lost.moment} if "recovery_target_time" in known else {})
    with postgres.own_server(*(f"{name}={value}" for name, value in settings.items()), data=lost.copy()) as url:
        verify = ("ledger", "verify", "--store", url, "--expected-head", str(lost.heads))
        assert f"acme: {found} events, sound\n" in await ran(*verify)
        again = await send(url, OLD + LATER)
        assert {outcome.status for outcome in again} == {"duplicate"}
        assert [outcome.link for outcome in again] == [outcome.link for outcome in lost.stored]
        assert {outcome.status for outcome in await send(url, LOST)} == {missing}
        assert f"acme: {len(OLD + LATER + LOST)} events, sound\n" in await ran(*verify)


async def test_recovery_to_a_moment_and_to_the_end(folder: Path) -> None:
    lost = await lose(folder)
    await recover(lost, *RECOVERY, found=len(OLD + LATER), missing="accepted")
    await recover(lost, "restore_command", found=len(OLD + LATER + LOST), missing="duplicate")
