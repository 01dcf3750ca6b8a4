"""Becomes another program. The kernel kills it when the process that started it ends. `launcher.py` says how to run
it.

    python -I -S launch.py PARENT_PID PROGRAM [ARGUMENT ...]

It is a separate small program, because code between fork and exec (`preexec_fn`) is not safe in a process with threads
and an event loop. It imports no module of Headgate, so it starts in some ten milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process to its parent and become the program. Exits with 1 if the parent has already ended."""
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        # From here on the kernel kills this process when the parent ends, in any way; execv keeps that. (Envoy asks for
        # SIGTERM in place of SIGKILL once it has started. It ends at once at SIGTERM, too.)
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The kernel does not report a parent that ended before the line above.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execv(program, [program, *arguments])  # noqa: S606


main()
