"""Errors of the disk as one message that names the file and the free space."""

import contextlib
import errno
import os
import resource
from typing import Iterator

from alexnet_estimator.console import STDOUT_NAME
from alexnet_estimator.errors import ConfigError, DataError, UserError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN = (errno.EIO, errno.EROFS)


def describe_space(folder: str) -> str:
    """Return the free space for new files in a folder, in words."""
    try:
        state = os.statvfs(folder)
    except OSError as error:
        return error.strerror
    free_mib = state.f_bavail * state.f_frsize >> 20
    # Some file systems do not count inodes and report 0 of them.
    has_files = state.f_files == 0 or state.f_favail > 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return (
        f"{free_mib} MiB free"
        + ("" if has_files else ", but no inodes for new files")
        + ("" if limit < 0 else f", but `ulimit -f` allows {limit >> 10} KiB a file")
    )


@contextlib.contextmanager
def explaining_errors(folder: str = "") -> Iterator[None]:
    """Replace an error of the disk by one that names the file and the free space.

    Args:
        folder: Folder in which the block works; empty for none.  Errors about files
            elsewhere are replaced only if the disk is full or broken.

    Raises:
        DataError: The disk is full or broken, or a file in the folder cannot be used;
            raised in place of the OSError or of TensorFlow's error.
    """
    try:
        yield
    except OSError as error:
        path = os.fsdecode(error.filename) if error.filename else "a file"
        is_here = folder != "" and path.startswith(os.path.join(folder, ""))
        if path == STDOUT_NAME or not (is_here or error.errno in _NO_SPACE + _BROKEN):
            raise
        raise _error(path, error.strerror, folder) from error
    except RuntimeError as error:
        # The Estimator of TF 2.15 raises this when it cannot write its events.
        path, _, reason = str(error).partition("; ")
        if not reason.startswith(tuple(map(os.strerror, _NO_SPACE))):
            raise
        raise _error(path, reason.splitlines()[0], folder) from error


def error_at(path: str, what: str, error: OSError) -> UserError:
    """Return the error for a path that the command names.

    Args:
        path: Path of a file or folder.
        what: Problem of the path, e.g. ``cannot be written``.
        error: Error of the operating system.

    Returns:
        DataError if the disk is full or broken; otherwise ConfigError, because the user
        has to give another path: this one is not a folder, or its access is denied.
    """
    is_disk = error.errno in (*_NO_SPACE, errno.EIO)
    return (DataError if is_disk else ConfigError)(f"{what}: {error.strerror}", path)


def _error(path: str, reason: str, folder: str) -> DataError:
    folder = folder or os.path.dirname(os.path.abspath(path))
    return DataError(
        f"cannot read or write {path} ({describe_space(folder)}): {reason}; solve this "
        "problem and run the same command again",
        folder,
    )
