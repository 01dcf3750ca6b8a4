"""Commands whose result cannot be written say so in one line."""

import subprocess
from pathlib import Path

import pytest

from tests.support.up import HEADGATE


@pytest.mark.parametrize("command", ["doctor --data-dir none --grpc-port 0 --http-port 0", "import a.ndjson --dry-run"])
def test_a_disk_that_is_full(tmp_path: Path, command: str) -> None:
    (tmp_path / "a.ndjson").write_bytes(b'{"type":"t"}\n')
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*HEADGATE, *command.split()], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, check=False
        )
    assert done.stderr == b"headgate: cannot write to standard output: No space left on device\n"
    assert done.returncode == 2
