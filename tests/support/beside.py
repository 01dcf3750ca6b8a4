"""A second process that stores events in an SQLite file, all the time that a test runs on the same file.

`python -m tests.support.beside` reads lines: a path begins, and `stop` ends. It answers each with a line: `began`, and
the number of events that it has stored.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headgate_server.core.errors import Unavailable
from headgate_server.store import Store
from headgate_server.store.sqlite.database import SqliteDatabase
from tests.support.drafts import append, draft

_PAUSE = 0.002
"""Seconds between two transactions, so that the tests themselves get on."""


class Beside:
    """The second process."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self._process = process

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Let it write to a store's file for the length of a block."""
        assert self._ask(str(path)) == "began"
        yield
        assert int(self._ask("stop")) > 0

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def running() -> Iterator[Beside]:
    """Run the second process until the block ends."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.support.beside"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2]) as process:
        try:
            yield Beside(process)
        finally:
            process.kill()


async def _main() -> None:
    while path := (await asyncio.to_thread(sys.stdin.readline)).strip():
        store = Store(await SqliteDatabase.open(Path(path), serving=True))
        workspace = (await store.directory.create_workspace("beside")).id
        print("began", flush=True)
        stop = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        count = 0
        while not stop.done() or not count:
            # A test may hold the lock for longer than the store waits; then nothing was stored.
            with suppress(Unavailable):
                outcomes = await append(store, workspace, *(draft(f"{count}-{number}") for number in range(5)))
                count += sum(outcome.status == "accepted" for outcome in outcomes)
            await asyncio.sleep(_PAUSE)
        assert (await store.ledgers.head(workspace)).sequence == count
        await store.close()
        print(count, flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
