"""Refuses a second job on the same folder."""

import contextlib
import fcntl
import os
import socket
from typing import Iterator

from alexnet_estimator.errors import ConfigError

FILE_NAME = ".lock"


@contextlib.contextmanager
def locked(model_dir: str) -> Iterator[None]:
    """Hold the folder's lock; the kernel frees it however this process ends.

    Raises:
        ConfigError: another process holds it.
    """
    with open(os.path.join(model_dir, FILE_NAME), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ConfigError(
                f"{model_dir} is in use by another job ({file.read().strip()}): "
                "wait for it, stop it, or give another --model_dir"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
