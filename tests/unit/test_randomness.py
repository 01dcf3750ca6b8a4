"""Random bytes in small pieces: never the same twice, in no thread and no forked process."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from headgate_server.core import randomness


@pytest.mark.parametrize("count", [0, 1, 8, 16, 17, 4096])
def test_a_piece_has_its_length(count: int) -> None:
    assert len(randomness.draw(count)) == count


def test_pieces_differ() -> None:
    assert len({randomness.draw(16) for _ in range(2_000)}) == 2_000
    assert len({randomness.draw(17) for _ in range(2_000)}) == 2_000


def test_threads_get_different_pieces() -> None:
    with ThreadPoolExecutor(8) as threads:
        drawn = [
            piece
            for each in threads.map(lambda _: [randomness.draw(8) for _ in range(2_000)], range(8))
            for piece in each
        ]
    assert len(set(drawn)) == 16_000


def test_the_system_is_asked_once_for_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ask = [], os.urandom

    def counted(count: int) -> bytes:
        asked.append(count)
        return ask(count)

    monkeypatch.setattr(os, "urandom", counted)
    for _ in range(1_000):
        randomness.draw(8)
    assert 3 <= len(asked) <= 5


def test_a_forked_process_draws_other_pieces() -> None:
    program = """
import os
from headgate_server.core import randomness
randomness.draw(8)
read, write = os.pipe()
if not os.fork():
    os.write(write, b"".join(randomness.draw(16) for _ in range(100)))
    os._exit(0)
os.wait()
own = {randomness.draw(16) for _ in range(100)}
child = os.read(read, 1600)
assert len(child) == 1600
print(len(own & {child[at:at + 16] for at in range(0, 1600, 16)}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"
