"""The pictures of a prediction: files, folders, zips, and lists of these."""

import os
from typing import List, NamedTuple, Sequence, Union

from alexnet_estimator.console import note
from alexnet_estimator.errors import DataError, UserError
from alexnet_estimator.paths import expand_paths
from alexnet_estimator.records.tree import PictureReader, list_reasons, open_tree

_LIST_SUFFIX = ".txt"


class Reject(NamedTuple):
    """A picture that cannot be read, and the reason."""

    path: str
    reason: str


class PictureSource(NamedTuple):
    """A picture that has not been read yet.

    Attributes:
        path: Path in the results, which starts with the path that the user gave.
        reader: Reader of the folder or zip.
        path_in_reader: Path of the picture in the folder or zip.
    """

    path: str
    reader: PictureReader
    path_in_reader: str


Found = Union[PictureSource, Reject]


def find_sources(sources: Sequence[str]) -> List[Found]:
    """Find pictures in the order of the sources.

    The pictures of a folder or zip are sorted by path.

    Args:
        sources: Paths of files, folders, zips, and of ``.txt`` files with such a path
            in each line; or a single path.

    Returns:
        All pictures.  Paths in a list that do not exist, and pictures whose format is
        not supported, are rejects.

    Raises:
        DataError: A source does not exist, or there are no pictures.
    """
    found: List[Found] = []
    lacks: List[str] = []  # Messages for the sources without pictures.
    for source in [sources] if isinstance(sources, str) else sources:
        if not source.lower().endswith(_LIST_SUFFIX) or os.path.isdir(source):
            found += _find(source, lacks)
            continue
        for line in _read_list(source):
            try:
                paths = expand_paths({"the path": line}, is_any_name_allowed=True)
                found += _find(paths["the path"], lacks)
            except UserError as error:
                found.append(Reject(line, error.problems[0]))
    if not found:
        raise DataError(lacks or "no pictures: give files, folders, zips or a list")
    return found


def _read_list(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error


def _find(source: str, lacks: List[str]) -> List[Found]:
    """Return the pictures of one source; without any, append a message to ``lacks``."""
    tree = open_tree(source)
    if not tree.pictures:
        lacks.append(f"{source}: {tree.describe_lack()}")
    for line in list_reasons([item for item in tree.left_out if not item.is_loss]):
        note(f"{source}: left out: {line}")
    reader = PictureReader(tree.root)
    pictures = [
        PictureSource(os.path.join(tree.root, path), reader, path)
        for path, _ in tree.pictures
    ]
    lost = [
        Reject(os.path.join(tree.root, item.path), item.reason)
        for item in tree.left_out
        if item.is_loss
    ]
    return [*pictures, *lost]
