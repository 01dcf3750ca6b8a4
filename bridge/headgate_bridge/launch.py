"""Becomes another program, bound to the life of the process that asked for it. Run as `headgate_bridge.launcher` says.

    python -I -S launch.py PARENT_PID PROGRAM [ARGUMENT ...]

A small program of its own, because code between fork and exec (`preexec_fn`) is not safe in a process with threads and
an event loop. It imports nothing of Headgate's, so it starts in some ten milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        # From here on the kernel kills us when the parent ends, however it ends; execv keeps that. (Once Envoy has
        # started, it asks for SIGTERM in place of SIGKILL, at which it ends at once as well.)
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that ended before the line above will not be noticed by it.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execv(program, [program, *arguments])  # noqa: S606


main()
