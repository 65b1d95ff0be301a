"""A cache of results about files, which are valid until one of the files changes."""

import hashlib
import os
from typing import Any, Callable, Sequence

from alexnet_estimator import files, locks


def stamp(paths: Sequence[str]) -> str:
    """Return a hash that changes if the name, size or time of a file changes.

    Raises:
        OSError: A file is missing.
    """
    states = ((path, os.stat(path)) for path in paths)
    lines = (f"{path}\0{s.st_size}\0{s.st_mtime_ns}\n" for path, s in states)
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def keep(
    cache_directory: str, name: str, paths: Sequence[str], find: Callable[[], Any]
) -> Any:
    """Return the result of ``find``, from the cache if no file has changed.

    Several processes of one machine may call this at the same time: one of them calls
    ``find``, and the others wait.

    Args:
        cache_directory: Folder in which the result is stored; empty for no cache.
        name: Beginning of the name of the file that stores the result.
        paths: Files that ``find`` examines.
        find: Function that returns a value that JSON can represent.

    Raises:
        OSError: A file is missing, or the folder cannot be written.
    """
    if not cache_directory:
        return find()
    path = os.path.join(cache_directory, f"{name}-{stamp(paths)[:16]}.json")
    os.makedirs(cache_directory, exist_ok=True)
    with locks.wait_for_folder(cache_directory):
        try:
            return files.read_json(path)
        except (OSError, ValueError):  # Missing, or incomplete after a power cut.
            files.write_bytes(path, files.encode_json(find()))
    return files.read_json(path)
