"""A real `headgate up`: the server and Envoy, in processes of their own."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from headgate_server.core.compiled import PURE
from tests.support import commands
from tests.support.processes import children, is_gone
from tests.support.waiting import until_true

HEADGATE = (sys.executable, "-m", "headgate_server")

_GREETING = re.compile(r"REST  https?://(\S+:[0-9]+)   gRPC  (\S+:[0-9]+)((?:, :[0-9]+)*)")
_METRICS = re.compile(r'"port":([0-9]+),"event":"metrics_served"')
_KEY = re.compile(r"\bhg_[0-9A-Za-z]{43}\b")
_REQUEST = re.compile(r"^curl (?:.*\n)+?.*}'\n", re.MULTILINE)


def headgate(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end. Python reads its own variables at the start, so a fork would not obey them."""
    if not any(name.startswith("PYTHON") or name == PURE for name in environment):
        return commands.run(arguments, _environment(environment))
    return subprocess.run(
        [*HEADGATE, *arguments], env=_environment(environment), capture_output=True, text=True, timeout=60, check=False
    )


class Up:
    """`headgate up` on free ports. Use as `with`: both parts are ready when the block begins, and have ended after it.

    `rest` and `grpc` are host and port of the two; `ports` are those of all workers, the first one's first.
    """

    def __init__(self, *arguments: str, folder: Path, stderr: int | None = None, **environment: str):
        """`stderr` is a descriptor for standard error, in place of the file `log`. There is one worker, unless the
        arguments or the environment say otherwise: most tests are about one, and a second takes a second to start.
        """
        self._stderr = stderr
        self._command = [*HEADGATE, "up", "--grpc-port", "0", "--http-port", "0", *arguments]
        self._environment = _environment({"HEADGATE_WORKERS": "1"} | environment)
        self.log = folder / "up.log"
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._said: list[str] = []
        self.rest = self.grpc = ""
        self.ports: list[int] = []

    def __enter__(self) -> Self:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdout=subprocess.PIPE,
                stderr=log if self._stderr is None else self._stderr,
                text=True,
            )
        greeted = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=(greeted,), daemon=True)
        self._listener.start()
        if not greeted.wait(60) or not self.rest:
            self.end(signal.SIGKILL)
            raise RuntimeError(f"headgate up did not come up: {self.log.read_text()}")
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The process id of `headgate up` itself."""
        assert self._process is not None
        return self._process.pid

    def workers(self) -> set[int]:
        """Return the process ids of the server processes that run now."""
        return {pid for pid, name in children(self.pid).items() if "envoy" not in name and not is_gone(pid)}

    def last_lines(self) -> str:
        """Return the end of the log, for whoever looks for the cause of a failure."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 20_000))
            return log.read().decode(errors="replace")

    @property
    def metrics_port(self) -> int:
        """The port for metrics, which the log says."""
        return int(until_true(lambda: _METRICS.search(self.log.read_text()))[1])

    @property
    def said(self) -> str:
        """What was printed on standard output so far; all of it once `wait` has returned."""
        return "".join(self._said)

    @property
    def key(self) -> str:
        """The key that is printed at the first start; waits for it."""
        return until_true(lambda: _KEY.search(self.said))[0]

    @property
    def request(self) -> str:
        """The command that is printed at the first start; waits for it."""
        return until_true(lambda: _REQUEST.search(self.said))[0]

    def signal(self, number: int) -> None:
        """Send a signal and go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int) -> int:
        """Send a signal if it still runs, and return the exit code once it has ended."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code once it has ended."""
        assert self._process is not None
        try:
            code = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        if self._listener is not None:
            self._listener.join()
        return code

    def _listen(self, greeted: threading.Event) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                self._said.append(line)
                if found := _GREETING.search(line):
                    self.rest, self.grpc = found[1], found[2]
                    self.ports = [int(port) for port in re.findall(r":([0-9]+)(?=,|$)", found[2] + found[3])]
                    greeted.set()
        greeted.set()


def _environment(changes: dict[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of Headgate's, and with `changes`. Whether the compiled core
    is used is no setting of the service: a run without it is without it in all its processes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADGATE_") or name == PURE}
    return kept | changes
