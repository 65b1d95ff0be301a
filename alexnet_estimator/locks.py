"""Locks on files and folders, and appending to a file from several processes.

The kernel releases a lock however its process ends.  Some network file systems (NFS,
Lustre, gcsfuse) do not support locks.  On these, one warning is printed, and the work
continues without a lock.
"""

import contextlib
import errno
import fcntl
import functools
import os
import socket
from typing import Iterable, Iterator

from alexnet_estimator import disk
from alexnet_estimator.console import note, warn
from alexnet_estimator.errors import ConfigError

RUN = ".lock"


@contextlib.contextmanager
def use_run(model_dir: str) -> Iterator[None]:
    """Lock a run, so that no other process writes its checkpoints and reports.

    Raises:
        UserError: Another job holds the lock, or the folder cannot be written.
    """
    with refuse_others(model_dir, RUN) as descriptor:
        os.ftruncate(descriptor, 0)
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        os.pwrite(descriptor, holder.encode(), 0)
        yield


@contextlib.contextmanager
def refuse_others(model_dir: str, name: str) -> Iterator[int]:
    """Lock a file, or fail at once if another process has locked it.

    Args:
        model_dir: Folder of a run.
        name: Name of the file in the folder; a missing file is created.

    Yields:
        The descriptor of the file.

    Raises:
        UserError: Another process holds the lock, or the file cannot be written.
    """
    path = os.path.join(model_dir, name)
    try:
        file = open(path, "ab+")
    except OSError as error:
        raise disk.error_at(path, "cannot be written", error) from error
    with file:
        try:
            _lock(file.fileno(), model_dir, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = f"see {path}"
            if name == RUN:
                holder = os.pread(file.fileno(), 1000, 0).decode("utf-8", "replace")
            raise ConfigError(
                f"{model_dir} is in use by another job ({holder}): wait until it ends, "
                "stop it, or give another --model_dir"
            ) from error
        yield file.fileno()


@contextlib.contextmanager
def wait_for_folder(directory: str) -> Iterator[None]:
    """Lock a folder, waiting until no other process holds the lock."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            _lock(descriptor, directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting: another process is writing to {directory}")
            _lock(descriptor, directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def keep_unchanged(paths: Iterable[str]) -> Iterator[None]:
    """Lock files that the block reads, so that ``refuse_if_read`` protects them.

    Several processes may hold the locks.  A file that cannot be locked stays unlocked.
    """
    with contextlib.ExitStack() as stack:
        for path in paths:
            with contextlib.suppress(OSError):
                file = stack.enter_context(open(path, "rb"))
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def refuse_if_read(path: str) -> None:
    """Check that no job reads data that are about to be replaced.

    Args:
        path: Path of a file that readers lock with ``keep_unchanged``.

    Raises:
        UserError: A job has locked the file.
    """
    folder = os.path.dirname(path)
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        try:
            _lock(file.fileno(), folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "a job reads these data: wait until it ends, stop it, or give another "
                "--output",
                folder,
            ) from error


def append_bytes(path: str, content: bytes) -> None:
    """Append all of the content to a file, or nothing.

    Several processes may append to the same file.

    Raises:
        OSError: The file cannot be written; the error names the path.
    """
    with open(path, "ab", buffering=0, opener=_open_at_once) as file:
        # Without the lock, truncating would also cut off what others have appended.
        _lock(file.fileno(), os.path.dirname(path), fcntl.LOCK_EX)
        start = file.seek(0, os.SEEK_END)
        try:
            num_written = file.write(content)
        except OSError as error:
            error.filename = path
            raise
        if num_written < len(content):
            file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a FIFO without a reader raises an error instead of blocking."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _lock(descriptor: int, folder: str, operation: int) -> None:
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        raise
    except OSError as error:
        _warn_of_no_locks(folder, error.strerror)


@functools.lru_cache(maxsize=None)
def _warn_of_no_locks(folder: str, reason: str) -> None:
    warn(
        f"files in {folder} cannot be locked ({reason}): make sure that no second job "
        "writes there"
    )
