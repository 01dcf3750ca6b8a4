"""Memory of processes, from outside. Linux alone."""

from pathlib import Path


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had resident (VmHWM), in MiB.

    Raises `FileNotFoundError` if there is no such process.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the process {pid} has no memory: it has ended")


def reset_peak(pid: int) -> None:
    """Let the peak begin anew at what is resident now. Raises `PermissionError` for another user's process."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
