"""Refuses a second job on the same folder."""

import contextlib
import fcntl
import os
import socket
from typing import Iterator, TextIO

from alexnet_estimator.console import warn
from alexnet_estimator.errors import ConfigError

FILE_NAME = ".lock"


@contextlib.contextmanager
def locked(model_dir: str) -> Iterator[None]:
    """Hold the lock of a folder's checkpoints and reports; rank 0 does.

    Raises:
        ConfigError: see ``held``.
    """
    with held(model_dir, FILE_NAME) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


@contextlib.contextmanager
def held(model_dir: str, name: str) -> Iterator[TextIO]:
    """Hold a lock on a file; the kernel frees it however this process ends.

    Args:
        model_dir: the folder of a run.
        name: of the file there, which is made where missing.

    Yields:
        The file, at whose end can be written.

    Raises:
        ConfigError: another process holds it, or it cannot be written.
    """
    path = os.path.join(model_dir, name)
    try:
        file = open(path, "a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() if name == FILE_NAME else f"see {path}"
            raise ConfigError(
                f"{model_dir} is in use by another job ({holder}): wait for it, stop "
                "it, or give another --model_dir"
            ) from error
        except OSError as error:  # Some network file systems know no locks.
            warn(
                f"{path} cannot be locked ({error.strerror}): a second job in this "
                "folder would do harm unnoticed"
            )
        yield file
