"""Another process at an SQLite file, which takes turns to write and does what a test says.

`python taking_turns.py FILE` reads one word a line and answers each with the same word:

    take    take the turn      write   begin a transaction and add a row    commit   commit it
    end     end the turn       queue   wait for the turn as the next one, without an answer
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pysqlite3 import dbapi2

from headgate_server.store.sqlite.turns import Turns


class Another:
    """The other process, as the test sees it."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self.process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def do(self, *words: str) -> None:
        """Let it do this, and return when it is done."""
        assert self.process.stdout is not None
        for word in words:
            self.tell(word)
            answer = self.process.stdout.readline()
            assert answer == f"{word}\n", answer

    def tell(self, word: str) -> None:
        """Let it do this, and go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


@contextmanager
def another(file: Path) -> Iterator[Another]:
    """Run another process at a database that exists; it is killed at the end."""
    command = [sys.executable, "-m", "tests.support.taking_turns", str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2]) as process:
        try:
            yield Another(process)
        finally:
            process.kill()


def main(file: Path) -> None:
    """Be the other process."""
    turns, connection = Turns(file), dbapi2.connect(file, isolation_level=None)
    add = "INSERT INTO leases (name, holder, epoch, ends_at) VALUES ('another', '', 1, 0)"
    actions = {
        "take": turns.take,
        "queue": turns.take,
        "write": lambda: connection.execute("BEGIN IMMEDIATE").execute(add),
        "commit": lambda: connection.execute("COMMIT"),
        "end": turns.end,
    }
    for line in sys.stdin:
        word = line.strip()
        actions[word]()
        if word != "queue":
            print(word, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
