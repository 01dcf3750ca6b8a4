"""A real NATS server with JetStream, from its wheel."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import until_true

_PROGRAM = os.environ.get("HEADGATE_NATS_SERVER", Path(sys.executable).parent / "nats-server")
"""The program of the wheel, or another version that the environment names."""


class NatsServer:
    """One server. It keeps its port and its files over restarts."""

    def __init__(self, folder: Path, settings: str = "", *, jetstream: bool = True):
        self._folder = folder
        folder.mkdir()
        self._settings = settings
        self._jetstream = f'jetstream {{ store_dir: "{folder}/store" }}' if jetstream else ""
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        config, log = self._folder / "nats.conf", self._folder / "log"
        config.write_text(
            f'host: 127.0.0.1, port: {self.port}, ports_file_dir: "{self._folder}", log_file: "{log}"\n'
            f"{self._jetstream}\n{self._settings}\n"
        )
        log.unlink(missing_ok=True)
        self._process = subprocess.Popen([_PROGRAM, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until_true(lambda: (log.exists() and "Server is ready" in log.read_text()) or self._ended(log))
        ports = self._folder / f"nats-server_{self._process.pid}.ports"
        # The file exists before it has its content.
        until_true(lambda: ports.exists() and ports.read_text().endswith("}"))
        self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it with a signal, and return when it has ended."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(number)
            self._process.wait(30)
        self._process = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _ended(self, log: Path) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, log.read_text() if log.exists() else "nats-server did not start"
        return False


@contextmanager
def nats_server(folder: Path, settings: str = "", *, jetstream: bool = True) -> Iterator[NatsServer]:
    """Run a server during a block."""
    server = NatsServer(folder, settings, jetstream=jetstream)
    try:
        server.start()
        yield server
    finally:
        server.stop()
