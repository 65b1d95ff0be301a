"""What goes wrong with a disk, as one message that names the file."""

import contextlib
import errno
import os
import resource
from typing import Iterator

from alexnet_estimator.console import STDOUT_NAME
from alexnet_estimator.errors import DataError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN = (errno.EIO, errno.EROFS)


def describe_room(folder: str) -> str:
    """Return in a few words what room there is for new files in a folder."""
    try:
        state = os.statvfs(folder)
    except OSError as error:
        return error.strerror
    free_mib = state.f_bavail * state.f_frsize >> 20
    # Some file systems do not count files and say that they have none at all.
    has_files = state.f_files == 0 or state.f_favail > 0
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return (
        f"{free_mib} MiB free"
        + ("" if has_files else ", but no inodes for new files")
        + ("" if limit < 0 else f", but `ulimit -f` allows {limit >> 10} KiB a file")
    )


@contextlib.contextmanager
def explaining_errors(folder: str) -> Iterator[None]:
    """Turn an error of the disk into one that names the file, and the room left.

    Args:
        folder: Folder that the block works in.  Errors about other files stay as they
            are, unless there is no room.

    Raises:
        DataError: In place of the OSError, or of TensorFlow's error that means one.
    """
    try:
        yield
    except OSError as error:
        path = os.fsdecode(error.filename) if error.filename else "a file"
        is_here = path.startswith(os.path.join(folder, ""))
        if path == STDOUT_NAME or not (is_here or error.errno in _NO_ROOM + _BROKEN):
            raise
        raise _error(path, error.strerror, folder) from error
    except RuntimeError as error:
        # Estimator of TF 2.15 does not end an evaluation without its events.
        path, _, reason = str(error).partition("; ")
        if not reason.startswith(tuple(map(os.strerror, _NO_ROOM))):
            raise
        raise _error(path, reason.splitlines()[0], folder) from error


def _error(path: str, reason: str, folder: str) -> DataError:
    return DataError(
        f"cannot read or write {path} ({describe_room(folder)}): {reason}; mend that "
        "and run the same command again",
        folder,
    )
