"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from typing import Any, BinaryIO, Callable, Iterator, Optional, Sequence

_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` when the block ends without an error.

    Readers see the old file or the new one, whole, also after a power cut.  Of several
    writers at the same time, the last one wins.

    Args:
        path: Path of the file.  Its folder exists.

    Raises:
        OSError: The file cannot be written; the error names ``path``, and an old file
            is still there.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        # Renaming would replace /dev/null by a file, where the user may do that.
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise OSError(errno.EINVAL, f"it is {kind}", path)
    with _temporary(path, _create_file) as partial:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(os.path.dirname(partial))


@contextlib.contextmanager
def replacing_folder(path: str) -> Iterator[str]:
    """Make a folder that replaces ``path`` when the block ends without an error.

    Readers see the old folder or the new one, whole; for the moment between two
    renamings, none.  Of several writers at the same time, the last one wins.

    Args:
        path: Path of the folder.  Missing parents are made.

    Yields:
        The path of a new folder to write into.

    Raises:
        OSError: The folder cannot be written; the error names ``path``.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with _temporary(path, os.mkdir) as partial, _temporary(path, os.mkdir) as old:
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                sync(os.path.join(folder, name))
            _sync_folder(folder)
        # A folder cannot be renamed to one that has content: that one moves away first.
        while True:
            try:
                os.replace(partial, path)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            with contextlib.suppress(FileNotFoundError):  # Another writer moved it.
                os.replace(path, os.path.join(old, uuid.uuid4().hex))
        _sync_folder(os.path.dirname(partial))


def write_bytes(path: str, content: bytes) -> None:
    """Write a whole file; see ``replacing``."""
    with replacing(path) as file:
        file.write(content)


def encode_json(value: Any, indent: Optional[int] = None) -> bytes:
    """Return a value as JSON text that ends with a LF.

    Names of files need not be Unicode.  A byte that is not becomes an escape that JSON
    has as well, so that reading gives the same name.
    """
    text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def encode_csv(row: Sequence[Any]) -> bytes:
    """Return a row of a CSV file, with names of files as they were; ends with a LF.

    Text that a spreadsheet might take for a formula is in quotes: programs read the
    same text, and people who import the column as text see it.
    """
    text = ",".join(
        _quote(cell) if isinstance(cell, str) else str(cell) for cell in row
    )
    return text.encode("utf-8", "surrogateescape") + b"\n"


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet might take the text of a cell for a formula."""
    return text.startswith(("=", "+", "-", "@", "\t", "\r"))


def _quote(cell: str) -> str:
    if not is_formula(cell) and not re.search(r'[,"\r\n]', cell):
        return cell
    return '"' + cell.replace('"', '""') + '"'


def read_at_most(path: str, max_bytes: int) -> bytes:
    """Return the content of a file that may be a stranger's.

    Args:
        path: Path of the file.
        max_bytes: Size from which on the file is refused, before memory is taken.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger.
    """
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes >> 20} MiB")
    return content


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


@contextlib.contextmanager
def _temporary(path: str, create: Callable[[str], None]) -> Iterator[str]:
    """Create a file or folder beside ``path``; remove it at the end if still there.

    A lock tells other processes that its writer lives.  What killed writers of the
    same ``path`` have left is removed.
    """
    folder, name = os.path.split(os.path.abspath(path))
    partial, lock = "", None
    try:
        _remove_leftovers(folder, name)
        while not os.path.exists(partial):
            # Between creation and lock, another process may take it for a leftover.
            partial = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
            create(partial)
            lock = _lock(partial, fcntl.LOCK_EX)
        yield partial
    except OSError as error:
        # The temporary name means nothing to the user.
        if error.filename is None or str(error.filename).startswith(partial):
            error.filename, error.filename2 = path, None
        raise
    finally:
        _remove(partial)
        if lock is not None:
            os.close(lock)


def _create_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _lock(path: str, operation: int) -> Optional[int]:
    """Return a descriptor that holds a lock; None where that is not possible."""
    try:
        # NFS gives exclusive locks on files that are open for writing only.
        access = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR
        descriptor = os.open(path, access | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, operation)
    except OSError:  # Another process holds it, or a file system without locks.
        os.close(descriptor)
        return None
    return descriptor


def _remove_leftovers(folder: str, name: str) -> None:
    pattern = re.compile(re.escape(f".{name}.") + r"[0-9a-f]{8}\.tmp")
    for leftover in filter(pattern.fullmatch, os.listdir(folder)):
        path = os.path.join(folder, leftover)
        lock = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if lock is not None:
            _remove(path)
            os.close(lock)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.remove(path)


def _sync_folder(path: str) -> None:
    """Return when renamings in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems (FUSE, SMB) cannot do it for a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
