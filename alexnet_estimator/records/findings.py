"""What was found out about files, kept until one of them changes."""

import hashlib
import os
from typing import Any, Callable, Sequence

from alexnet_estimator import files, locks


def stamp(paths: Sequence[str]) -> str:
    """Return a text that changes with the name, size or time of a file.

    Raises:
        OSError: A file is missing.
    """
    states = ((path, os.stat(path)) for path in paths)
    lines = (f"{path}\0{s.st_size}\0{s.st_mtime_ns}\n" for path, s in states)
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def keep(
    cache_directory: str, name: str, paths: Sequence[str], find: Callable[[], Any]
) -> Any:
    """Return what ``find`` returns, from the last time if no file has changed.

    Processes of one machine may call this at the same time: one finds, the others wait.

    Args:
        cache_directory: Folder in which findings are kept; empty: they are not kept.
        name: Beginning of the name of the file there.
        paths: Files that the finding is about.
        find: Function that looks at the files and returns what JSON can hold.

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
        except (OSError, ValueError):  # Not there yet, or cut off by a power cut.
            files.write_bytes(path, files.encode_json(find()))
    return files.read_json(path)
