"""Locks on files and folders, and what several processes write into one file.

The kernel frees a lock however its process ends.  Some network file systems (NFS,
Lustre, gcsfuse) know no locks: this is said once, and the work goes on without.
"""

import contextlib
import errno
import fcntl
import functools
import os
import socket
from typing import Iterator

from alexnet_estimator.console import note, warn
from alexnet_estimator.errors import ConfigError

RUN = ".lock"


@contextlib.contextmanager
def use_run(model_dir: str) -> Iterator[None]:
    """Be the only process that writes checkpoints and reports of a run.

    Raises:
        ConfigError: Another job does so, or the folder cannot be written.
    """
    with refuse_others(model_dir, RUN) as descriptor:
        os.ftruncate(descriptor, 0)
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        os.pwrite(descriptor, holder.encode(), 0)
        yield


@contextlib.contextmanager
def refuse_others(model_dir: str, name: str) -> Iterator[int]:
    """Hold the lock of a file, and refuse to wait for who holds it.

    Args:
        model_dir: Folder of a run.
        name: Name of the file in it, which is made where it is missing.

    Yields:
        The descriptor of the file.

    Raises:
        ConfigError: Another process holds the lock, or the file cannot be written.
    """
    path = os.path.join(model_dir, name)
    try:
        file = open(path, "ab+")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path) from error
    with file:
        try:
            _lock(file.fileno(), model_dir, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = f"see {path}"
            if name == RUN:
                holder = os.pread(file.fileno(), 1000, 0).decode("utf-8", "replace")
            raise ConfigError(
                f"{model_dir} is in use by another job ({holder}): wait for it, stop "
                "it, or give another --model_dir"
            ) from error
        yield file.fileno()


@contextlib.contextmanager
def wait_for_folder(directory: str) -> Iterator[None]:
    """Hold the only lock on a folder, waiting for who holds it now."""
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


def append_bytes(path: str, content: bytes) -> None:
    """Append to a file, whole or not at all; several processes may do so.

    Raises:
        OSError: With the path.
    """
    with open(path, "ab", buffering=0, opener=_open_at_once) as file:
        # Else what others append meanwhile would be cut off as well.
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
    """Open a file; a FIFO that nobody reads is an error instead of a wait."""
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
        f"files in {folder} cannot be locked ({reason}): a second job that writes "
        "there would do harm unnoticed"
    )
