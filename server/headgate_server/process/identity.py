"""The name of a process. Other processes of the same machine can find out from it whether the process has ended.

    HOST/BOOT/PID_NAMESPACE/PID/START/RANDOM

Process ids are valid in one PID namespace of one boot of a kernel, and a process id that is used again has another
start time. So `has_ended` compares all four. If the process ran elsewhere, for example in another container, nothing is
known.
"""

import os
import pwd
import socket
import uuid
from functools import cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = "/proc/self/ns/pid"
_UNKNOWN = "-"
_PARTS = 6


def process_name() -> str:
    """Return a name for this process that no other has, now or ever. Each call returns another one."""
    start = _start_of(os.getpid()) or _UNKNOWN
    return "/".join((socket.gethostname(), *_place(), str(os.getpid()), start, uuid.uuid4().hex))


def user_name() -> str:
    """Return the name of the user that runs this process, by the system's table and not by the environment. A user
    without a name has its number.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def has_ended(name: str) -> bool:
    """Whether the process with this name has certainly ended. False if that is not known."""
    parts = name.split("/")
    if len(parts) != _PARTS or tuple(parts[1:3]) != _place():
        return False
    pid, start = parts[3:5]
    if not (pid.isdecimal() and start.isdecimal()):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # It runs as another user.
    return (_start_of(int(pid)) or start) != start


@cache
def _place() -> tuple[str, str]:
    """Return the running kernel and the PID namespace of this process."""
    try:
        return _BOOT.read_text().strip(), os.readlink(_NAMESPACE)
    except OSError:
        return _UNKNOWN, _UNKNOWN


def _start_of(pid: int) -> str | None:
    """Return when a process was started, in clock ticks since the boot. None if that cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses can contain anything. The start is the 22nd field, the 20th after the name.
    return stat.rpartition(")")[2].split()[19]
