"""Files that appear whole or not at all, and folders with one writer at a time."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import os
from typing import Any, Iterator, Sequence

from absl import logging

_CHUNK_BYTES = 1 << 20


def write_text(path: str, text: str) -> None:
    """Write a UTF-8 file; see ``write_bytes``."""
    # Names of files need not be Unicode: they come back as they were.
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: str, content: bytes) -> None:
    """Write a file so that readers see the old or the new one, whole.

    Raises:
        OSError: with the path; the old file is still there.
    """
    directory, name = os.path.split(path)
    partial = os.path.join(directory, f".{name}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if os.path.isfile(partial):
            os.remove(partial)
        error.filename = path
        raise


def encode_csv(row: Sequence[Any]) -> bytes:
    """Return a row of a CSV file, with names of files as they were; ends with a LF."""
    text = io.StringIO()
    # Ends lines with CR and LF, without which it would not quote both.
    csv.writer(text).writerow(row)
    return text.getvalue()[:-2].encode("utf-8", "surrogateescape") + b"\n"


def sync(path: str) -> None:
    """Return when the content of a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sha256_of(*paths: str) -> str:
    """Return SHA-256 (hex) of the content of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                digest.update(chunk)
    return digest.hexdigest()


def append_bytes(path: str, content: bytes) -> None:
    """Append to a file, whole or not at all; several processes may do so.

    Raises:
        OSError: with the path.
    """
    with open(path, "ab", buffering=0) as file:
        # Else what others append meanwhile would be cut off as well.
        fcntl.flock(file, fcntl.LOCK_EX)
        start = file.seek(0, os.SEEK_END)
        try:
            num_written = file.write(content)
        except OSError as error:
            error.filename = path
            raise
        if num_written < len(content):
            file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Hold the only lock on a folder, waiting for who holds it now.

    The lock ends with the process, however it ends, and leaves no file behind.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("waiting: another process is writing to %s", directory)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
