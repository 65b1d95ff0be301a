"""Atomic writing: a file or folder appears whole or not at all."""

import contextlib
import ctypes
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
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Of linux/fcntl.h and linux/fs.h.


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a file that replaces ``path`` when the block ends without an error.

    Readers see either the whole old file or the whole new one, even after a power cut.
    If several processes write at the same time, the last one wins.

    Args:
        path: Path of the file.  Its folder must exist.

    Raises:
        OSError: The file cannot be written.  The error names ``path``, and an old file
            is kept.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        # With the rights of root, renaming would replace /dev/null by a file.
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
    """Create a folder that replaces ``path`` when the block ends without an error.

    Readers see either the whole old folder or the whole new one, also if this process
    is killed: the kernel exchanges the two.  On a file system that cannot do this
    (NFS), an old folder with content is moved away first.  A process that is killed at
    that moment leaves no folder, and has to be run again.  If several processes write
    at the same time, the last one wins.

    Args:
        path: Path of the folder.  Missing parent folders are created.

    Yields:
        The path of a temporary folder to write to.

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
        while True:
            try:
                os.replace(partial, path)
                break
            except OSError as error:
                # Renaming cannot replace a folder that has content.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if _exchange(partial, path):
                break
            with contextlib.suppress(FileNotFoundError):  # Another writer moved it.
                os.replace(path, os.path.join(old, uuid.uuid4().hex))
        _sync_folder(os.path.dirname(partial))


def write_bytes(path: str, content: bytes) -> None:
    """Write a whole file; see ``replacing``."""
    with replacing(path) as file:
        file.write(content)


def encode_json(value: Any, indent: Optional[int] = None) -> bytes:
    """Return a value as one line of JSON text, or as several if ``indent`` is given.

    Names of files need not be valid UTF-8.  Their other bytes are written as JSON
    escapes, from which ``read_json`` restores the same names.
    """
    text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def encode_csv(row: Sequence[Any]) -> bytes:
    """Return one line of a CSV file; bytes of file names stay unchanged.

    Text that a spreadsheet could evaluate as a formula is quoted.  Programs read the
    same text, and so do spreadsheets that import the column as text.
    """
    text = ",".join(
        _quote(cell) if isinstance(cell, str) else str(cell) for cell in row
    )
    return text.encode("utf-8", "surrogateescape") + b"\n"


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet could evaluate the text of a cell as a formula."""
    return text.startswith(("=", "+", "-", "@", "\t", "\r"))


def _quote(cell: str) -> str:
    if not is_formula(cell) and not re.search(r'[,"\r\n]', cell):
        return cell
    return '"' + cell.replace('"', '""') + '"'


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the path to an OSError; Python does so only if a file cannot be opened."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def read_at_most(path: str, max_bytes: int) -> bytes:
    """Return the content of a file that may come from an untrusted source.

    Args:
        path: Path of the file.
        max_bytes: Largest size in bytes; no more is read into memory.

    Raises:
        OSError: The file cannot be read; the error names the path.
        ValueError: The file is larger.
    """
    with naming(path), open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes >> 20} MiB")
    return content


def read_json(path: str, max_bytes: int = 64 << 20) -> Any:
    """Return the JSON value in a file that may come from an untrusted source.

    Bytes that are not valid UTF-8, as in names of files, become lone surrogates, as in
    Python's own paths.

    Args:
        path: Path of the file.
        max_bytes: Largest size in bytes.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger, or holds no JSON.
    """
    text = read_at_most(path, max_bytes).decode("utf-8", "surrogateescape")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # Recursion: "[[[[[..."
        raise ValueError(f"not JSON: {error}") from error


def sync(path: str) -> None:
    """Wait until the content of a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sha256_of(*paths: str) -> str:
    """Return the SHA-256 (hex) of the contents of files, concatenated in order."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
                digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _temporary(path: str, create: Callable[[str], None]) -> Iterator[str]:
    """Create a temporary file or folder beside ``path``, and remove it at the end.

    A lock tells other processes that its writer is alive.  Temporary files of ``path``
    whose writers were killed are removed as well.
    """
    folder, name = os.path.split(os.path.abspath(path))
    partial, lock = "", None
    try:
        _remove_leftovers(folder, name)
        while not os.path.exists(partial):
            # Another process may remove the file as a leftover before it is locked.
            partial = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
            create(partial)
            lock = _lock(partial, fcntl.LOCK_EX)
        yield partial
    except OSError as error:
        # The user knows the path, but not the temporary name.
        if error.filename is None or str(error.filename).startswith(partial):
            del error.filename2  # Setting it to None would print "-> None".
            error.filename = path
        raise
    finally:
        _remove(partial)
        if lock is not None:
            os.close(lock)


def _create_file(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _lock(path: str, operation: int) -> Optional[int]:
    """Return a descriptor that holds a lock, or None if that is not possible."""
    try:
        # NFS grants exclusive locks only on files that are open for writing.
        access = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR
        descriptor = os.open(path, access | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, operation)
    except OSError:  # Another process holds it, or the file system has no locks.
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


def _exchange(path: str, other: str) -> bool:
    """Exchange two folders in one step; return whether that was possible."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:  # A C library before glibc 2.28.
        return False
    names = os.fsencode(path), os.fsencode(other)
    return renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.remove(path)


def _sync_folder(path: str) -> None:
    """Wait until renamings in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems (FUSE, SMB) cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
