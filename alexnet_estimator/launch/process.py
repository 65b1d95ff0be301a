"""The process of one rank, with its log."""

import fcntl
import os
import pathlib
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from typing import Callable, List, Optional, Sequence, Tuple

from alexnet_estimator.launch.group import Rank
from alexnet_estimator.rank_environment import HEARTBEAT

CHILD = pathlib.Path(__file__).with_name("child.py")
TAIL_BYTES = 64 * 1024
DRAIN_SECS = 2
STDOUT_FD = 1


class Process:
    """The process of a rank, which is started by the constructor.

    It leads a new session, so that all of its descendants can be ended with it.

    Args:
        rank: Rank to start.
        command: Program and its arguments.
        log_path: File to which the output of the rank is appended.
        is_shown: Whether the output is also shown on the terminal.
        heartbeat: Descriptor for the heartbeats of the rank; () for no heartbeats.
    """

    def __init__(
        self,
        rank: Rank,
        command: Sequence[str],
        log_path: str,
        is_shown: bool,
        heartbeat: Tuple[int, ...] = (),
    ) -> None:
        self.rank = rank.rank
        self.log_path = log_path
        self.is_shown = is_shown
        self._mirror: Optional[threading.Thread] = None
        # With -I and -S, the user's environment affects the command only, not child.py.
        cores = ",".join(map(str, rank.cores))
        prefix = [sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), cores]
        environment = {**rank.environment, **{HEARTBEAT: str(fd) for fd in heartbeat}}
        with open(log_path, "ab", buffering=0) as log:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- rank {rank.rank} starts, {now} ---\n".encode())
            self._log_start = log.tell()
            source, sink = _open_channel() if is_shown else (-1, os.dup(log.fileno()))
            try:
                self._popen = subprocess.Popen(
                    [*prefix, *command],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    pass_fds=heartbeat,
                    start_new_session=True,
                )
            except OSError:
                if is_shown:
                    os.close(source)
                raise
            finally:
                os.close(sink)
            if is_shown:
                arguments = (source, os.dup(log.fileno()))
                self._mirror = threading.Thread(target=_copy, args=arguments)
                self._mirror.daemon = True
                self._mirror.start()

    def call_at_end(self, callback: Callable[["Process"], None]) -> None:
        """Call a function in another thread as soon as the process has ended."""

        def wait() -> None:
            # WNOWAIT does not reap the process, so that its ID is not reused yet.
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
            callback(self)

        threading.Thread(target=wait, daemon=True).start()

    def ask(self, signal_number: int) -> None:
        """Send a signal to the process only; must not be called after ``reap``."""
        os.kill(self._popen.pid, signal_number)

    def send(self, signal_number: int) -> None:
        """Send a signal to the process group; must not be called after ``reap``."""
        os.killpg(self._popen.pid, signal_number)

    def is_paused(self) -> bool:
        """Return whether SIGSTOP or a debugger pauses the process."""
        status = pathlib.Path(f"/proc/{self._popen.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] in ("T", "t")

    def reap(self) -> int:
        """End the descendants of an ended process and return its exit code.

        Returns:
            The exit code, or minus the number of the signal that killed it.
        """
        self.send(signal.SIGKILL)
        code = self._popen.wait()
        if self._mirror:
            self._mirror.join(DRAIN_SECS)
        return code

    def tail(self, num_lines: int) -> List[str]:
        """Return the last lines that this process has written to its log."""
        with open(self.log_path, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
        # Only the last state of a progress bar is kept.
        lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
        return [line for line in lines if line.strip()][-num_lines:]


def _open_channel() -> Tuple[int, int]:
    """Return descriptors to read and to write the output of a rank.

    On a terminal they are a pseudo-terminal: with a pipe, the progress bar would not
    know the width of the terminal.
    """
    if not os.isatty(STDOUT_FD):
        return os.pipe()
    source, sink = pty.openpty()
    tty.setraw(sink)  # The real terminal already translates line ends.
    size = fcntl.ioctl(STDOUT_FD, termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(sink, termios.TIOCSWINSZ, size)
    return source, sink


def _copy(source: int, log: int) -> None:
    """Copy the output of a rank to its log and to the terminal until the rank ends."""
    is_terminal_open, end = True, b"\n"
    while True:
        try:
            chunk = os.read(source, 65536)
        except OSError:  # A pseudo-terminal reports its end in this way.
            chunk = b""
        if not chunk:
            break
        end = chunk[-1:]
        _write(log, chunk)
        # A closed terminal or pipe must not end the training.
        is_terminal_open = is_terminal_open and _write(STDOUT_FD, chunk)
    if end != b"\n" and is_terminal_open and os.isatty(STDOUT_FD):
        _write(STDOUT_FD, b"\n")  # The next message must not continue a progress bar.
    os.close(source)
    os.close(log)


def _write(descriptor: int, data: bytes) -> bool:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        return False
    return True
