"""The program that becomes a rank: it binds itself to cores and runs the command.

``python -I -S child.py LAUNCHER_PID CORES COMMAND...``, where CORES is ``0,1`` or
empty.  The kernel kills the rank when the launcher dies.  This is a separate program,
because Python code between fork and exec can deadlock if the launcher has threads.
"""

import ctypes
import os
import signal
import sys
from typing import Sequence

PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> None:
    """Replace this process with the command."""
    launcher_pid, cores, *command = arguments
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(launcher_pid):
        sys.exit("the launcher has died")
    if cores:
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
